# SPDX-License-Identifier: Apache-2.0
"""Held-out sentences with a gap, and what each net puts in: to see what the figures mean."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from edad_jax.data.batches import padded_batches
from edad_jax.data.prepare import Prepared
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.models.exbert import ExBert
from edad_jax.types import Batch

_ROWS = 64  # held-out rows that gaps are looked for in
_AROUND = 8  # pieces that are shown on either side of a gap
_WORD = re.compile(r"[^\W\d_]{4,}")  # letters alone
_CONTINUES = "##"  # how a WordPiece piece within a word begins
_BLANKS = "\u2581\u0120"  # how others begin a piece after a blank: SentencePiece, byte-level BPE


def fill_gaps(
    nets: Mapping[str, tuple[ExBert, dict]], prepared: Prepared, count: int
) -> list[dict[str, Any]]:
    """Returns {"text", "word", net: its word} of the first words that can be asked for.

    Nobody chooses them: of each held-out row, in order, the word nearest to its middle that is one
    piece of four letters or more and was not asked for before.

    Args:
      nets: name -> (net, all its parameters).
      prepared: its held-out rows and its tokenizer.
      count: how many; fewer where there are not so many.
    """
    if not count:
        return []
    tokenizer = load_tokenizer(prepared.tokenizer_dir, option="--config.prepared=FOLDER")
    # The same number of rows for the program, however many gaps there are.
    batch = next(padded_batches(prepared.heldout, batch_size=_ROWS, max_rows=_ROWS))
    if batch.documents_bt is not None:  # of packed rows, the first document stands for the row
        first_b = (batch.documents_bt == 1).sum(axis=1)
        batch = batch._replace(length_b=np.minimum(batch.length_b, first_b), documents_bt=None)
    gaps: list[tuple[int, int]] = []  # row, position
    asked: set[str] = set()
    for row, (ids, length) in enumerate(zip(batch.ids_bt, batch.length_b, strict=True)):
        pieces = tokenizer.convert_ids_to_tokens(ids[:length].tolist())
        position = _find_gap(pieces, asked)
        if position is not None and len(gaps) < count:
            asked.add(pieces[position])
            gaps.append((row, position))
    if not gaps:
        return []
    batch = jax.tree.map(lambda leaf: leaf[[row for row, _ in gaps]], batch)
    positions = [position for _, position in gaps]
    words = {net: _guess(*nets[net], batch, positions, prepared.vocabulary.mask_id) for net in nets}
    return [
        {"text": _show(tokenizer, batch.ids_bt[at], int(batch.length_b[at]), position)}
        | {"word": _word(tokenizer, batch.ids_bt[at, position])}
        | {net: _word(tokenizer, ids[at]) for net, ids in words.items()}
        for at, position in enumerate(positions)
    ]


def _find_gap(pieces, asked):
    """Returns the position of a whole word near the middle; None where there is none."""
    has_blanks = any(piece[:1] in _BLANKS for piece in pieces if piece)
    for position in sorted(range(len(pieces)), key=lambda each: abs(each - len(pieces) // 2)):
        piece, after = pieces[position], [*pieces, ""][position + 1]
        begins = not has_blanks or piece[:1] in _BLANKS
        ends = after[:1] in _BLANKS if has_blanks else not after.startswith(_CONTINUES)
        if begins and ends and _WORD.fullmatch(piece.lstrip(_BLANKS)) and piece not in asked:
            return position
    return None


def _word(tokenizer, piece_id):
    return tokenizer.convert_ids_to_tokens(int(piece_id)).lstrip(_BLANKS)


def _guess(model: ExBert, params: dict, batch: Batch, positions: list[int], mask_id: int):
    """Returns the likeliest piece at the one gap of each row."""
    at = np.arange(len(positions)), np.array(positions)
    ids_bt = np.array(batch.ids_bt)
    ids_bt[at] = mask_id
    positions_1t = np.arange(ids_bt.shape[1])[None]
    mask_bt = positions_1t < batch.length_b[:, None]
    segments_bt = (positions_1t >= batch.segment_b_start_b[:, None]) & mask_bt

    @jax.jit
    def guess(params):
        output = model.apply(
            {"params": params}, ids_bt, segments_bt.astype(np.int32), mask_bt, method="encode"
        )
        logits_b1v = model.apply(
            {"params": params},
            output.last_hidden_btd,
            at[1][:, None].astype(np.int32),
            method="mlm_logits",
        )
        return logits_b1v[:, 0].argmax(axis=-1)

    return np.asarray(guess(params))


def _show(tokenizer, ids, length, position):
    """Returns the text around a gap, which is shown as ___."""
    start, end = max(1, position - _AROUND), min(length - 1, position + _AROUND + 1)
    before, after = (
        tokenizer.decode(ids[some].tolist(), skip_special_tokens=True)
        for some in (slice(start, position), slice(position + 1, end))
    )
    return f"{before} ___ {after}".strip()
