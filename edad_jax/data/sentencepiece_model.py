# SPDX-License-Identifier: Apache-2.0
"""A SentencePiece .model (Kudo and Richardson 2018) as a `tokenizers.Tokenizer`.

The file is one protobuf message, read here without the sentencepiece package: pieces with their
scores, how it was trained, and how it normalises (sentencepiece_model.proto of that project).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

_UNIGRAM = 1  # trainer_spec.model_type
_UNKNOWN, _CONTROL = 2, 3  # types of pieces that no text gives
_BLANK = "\u2581"
_DIGITS_COMMA = 100.0  # so much ALBERT's and XLNet's code has against "1," as one piece


class _Spec(NamedTuple):
    """What a .model says."""

    pieces: list[tuple[str, float, int]]  # piece, score, type
    byte_fallback: bool
    charsmap: bytes
    adds_blank: bool
    removes_blanks: bool


class Preprocessing(NamedTuple):
    """What ALBERT's, XLNet's and KoBERT's code does to a text before SentencePiece reads it."""

    lower: bool
    keeps_accents: bool


def read_sentencepiece(
    path: Path, order: list[str] | None, before: Preprocessing | None, *, is_xlm_roberta: bool
) -> Tokenizer:
    """Returns the tokenizer that a .model describes.

    Args:
      path: the file.
      order: pieces by id, where a vocab.txt gives other ids than the .model has (KoBERT).
      before: what is done to texts first; None for nothing.
      is_xlm_roberta: whether ids are XLM-R's: its special pieces, the model's without its first
        three, and <mask>.

    Raises:
      ValueError: no such file, another algorithm than unigram, or an order of other pieces.
    """
    try:
        spec = _read_spec(path.read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(
            f"{path} cannot be read as a SentencePiece model: {error}; fetch it again"
        ) from error
    pieces = [(piece, score) for piece, score, _ in spec.pieces]
    special = [piece for piece, _, kind in spec.pieces if kind in (_UNKNOWN, _CONTROL)]
    unknown = next((piece for piece, _, kind in spec.pieces if kind == _UNKNOWN), "<unk>")
    if is_xlm_roberta:
        first = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
        pieces = [*first, *pieces[3:], ("<mask>", 0.0)]
        special = [piece for piece, _ in first] + ["<mask>"]
    if before:
        pieces = [
            (piece, score - _DIGITS_COMMA if _is_number_with_comma(piece) else score)
            for piece, score in pieces
        ]
    if order is not None:
        scores = dict(pieces)
        if sorted(scores) != sorted(order):
            odd = sorted(set(scores) ^ set(order))
            raise ValueError(
                f"{path} has {len(scores):,} pieces and the vocab.txt beside it {len(order):,}, "
                f"expected the same ones ({', '.join(odd[:5])} are in one only); put the files of "
                "one model together"
            )
        pieces = [(piece, scores[piece]) for piece in order]
    names = [piece for piece, _ in pieces]
    if unknown not in names:
        raise ValueError(f"{path} has no piece for what is unknown, expected one")
    tokenizer = Tokenizer(
        models.Unigram(pieces, unk_id=names.index(unknown), byte_fallback=spec.byte_fallback)
    )
    steps = _normalizers(spec, before)
    tokenizer.normalizer = normalizers.Sequence(steps) if steps else None
    scheme = "always" if spec.adds_blank else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_BLANK, scheme)
    tokenizer.decoder = decoders.Metaspace(_BLANK, scheme)
    tokenizer.add_special_tokens([AddedToken(p, special=True, normalized=False) for p in special])
    return tokenizer


def _is_number_with_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _normalizers(spec, before):
    steps = []
    if before:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not before.keeps_accents:
            # NFC, for the code below takes syllables in parts for what they are, one by one.
            steps += [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFC()]
        if before.lower:
            steps.append(normalizers.Lowercase())
    if spec.charsmap:
        steps.append(normalizers.Precompiled(spec.charsmap))
    if spec.removes_blanks:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    return steps


def _read_spec(data: bytes) -> _Spec:
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))
            pieces.append((piece[1].decode("utf-8"), score, piece.get(3, 1)))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("it has no pieces")
    algorithm = trainer.get(3, _UNIGRAM)
    if algorithm != _UNIGRAM:
        kind = {2: "BPE", 3: "word", 4: "char"}.get(algorithm, str(algorithm))
        raise ValueError(
            f"got the algorithm {kind}, expected unigram (a tokenizer.json would be read instead)"
        )
    return _Spec(
        pieces,
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normalizer.get(2, b""),
        adds_blank=bool(normalizer.get(3, 1)),
        removes_blanks=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (number, value) of the fields of a protobuf message: whole numbers, or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"got a field of wire type {kind}")
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if at + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, data[at : at + size]
        at += size
