# SPDX-License-Identifier: Apache-2.0
"""Rows made by many machines that share a folder or a bucket: the same bytes as made by one.

What a row is depends on its chunk: its documents, which lend each other their random next
sentences, and its number in the corpus, which seeds the choices. Where a chunk begins, and which
documents are held out, depends on all documents before it. So a part first learns how long all
documents are, then makes a run of the chunks of each set:

    parts/
      settings.json           what the parts are made of, and how many there are
      text/00012.npy .json    lengths of the documents of one piece of the corpus; its reading
      00003/train/ heldout/   part 3: shards of its own, as `shards` has them
      00003/manifest.json     written last: the part is whole

A part measures its own pieces of the corpus, then those that no other has measured yet. So parts
that run at the same time share that work, and none ever waits: they may run in any order, alone or
together, and twice. Each file is written whole under its name, and is the same whoever writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edad_jax import files
from edad_jax.data.pairs import (
    SETS,
    Span,
    claim_folder,
    finish_rows,
    make_recipe,
    make_shards,
    split_chunks,
)
from edad_jax.data.rows import MANIFEST, RowSettings, npy_bytes, shard_path
from edad_jax.data.shards import Shard, cut, read_shard
from edad_jax.data.stages import differences
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.workers import ChunkRows

LOG = logging.getLogger(__name__)

# A piece of the corpus: gives its documents, and counts in the report what it met.
Piece = Callable[[ReadReport], Iterator[str]]
Folder = Path | files.RemotePath


def make_part(
    text: Sequence[Piece],
    tokenizer_dir: str | Path,
    folder: Folder,
    settings: RowSettings,
    *,
    part: int,
    parts: int,
    made_of: Mapping[str, Any],
    workers: int,
    progress: bool = True,
) -> dict[str, int]:
    """Returns how many rows of each set this part has, once they are in `folder`.

    Run again, it goes on with what is there.

    Args:
      text: the corpus in pieces, in order; the same for every part.
      tokenizer_dir: a BERT tokenizer, as `load_tokenizer` takes it.
      folder: where all parts are; made if missing.
      settings: what the rows are to be.
      part: which one, from 0.
      parts: how many there are.
      made_of: all that the rows depend on, as JSON values.
      workers: processes; 0 does the work in this one.
      progress: whether to show bars on standard error.

    Raises:
      ValueError: no such part, `folder` has parts of something else (says what differs), or text
        that changed meanwhile.
      OSError: the folder cannot be written.
    """
    from tqdm import tqdm

    if not 0 <= part < parts:
        raise ValueError(
            f"got --part={part} --parts={parts}, expected a part from 0 to {parts - 1}"
        )
    recipe, recorded = make_recipe(tokenizer_dir, settings, workers)
    mark = _claim(folder, made_of, parts)
    lengths = _measure_all(text, folder / "text", mark, part / parts, progress)
    own, path = folder / f"{part:05d}", folder / f"{part:05d}" / MANIFEST
    there = files.read_json_or_none(path)
    if there and there["mark"] == mark and not _find_damaged(own, there):
        LOG.info("Part %d of %d is there already.", part, parts)
        return _count_rows(there)
    spans = _find_spans(lengths, settings, part, parts)
    claim_folder(own, recorded, shared=True)
    with tqdm(
        desc=f"part {part} of {parts}", unit="char", unit_scale=True, disable=not progress
    ) as bar:
        documents = _read_range(text, lengths, spans, bar)
        chunks = split_chunks(documents, settings, spans)
        manifest = {"mark": mark, "part": part} | {name: [] for name in SETS}
        for name, shard in make_shards(chunks, own, recipe, workers, spans):
            manifest[name].append(shard)
    files.write_json(path, manifest, shared=True)
    return _count_rows(manifest)


def join_parts(
    text: Sequence[Piece],
    tokenizer_dir: str | Path,
    folder: Folder,
    out: Folder,
    settings: RowSettings,
    *,
    made_of: Mapping[str, Any],
) -> dict:
    """Returns the manifest of the rows put together in `out`, the same files as of `make_rows`.

    Reads and writes all rows once. Run again after a kill, it goes on with its shards.

    Args:
      text: as for `make_part`; it is not read again.
      tokenizer_dir: likewise.
      folder: where the parts are; they stay.
      out: folder for the rows.
      settings: as for `make_part`.
      made_of: likewise.

    Raises:
      ValueError: parts are missing, half-written, damaged or made of something else; says which,
        and what to run.
    """
    parts = count_parts(folder)
    mark = _claim(folder, made_of, parts)
    manifests = [
        files.read_json_or_none(folder / f"{part:05d}" / MANIFEST) for part in range(parts)
    ]
    missing = [n for n, each in enumerate(manifests) if not each or each["mark"] != mark]
    pieces = [_read_lengths(folder / "text", number, mark) for number in range(len(text))]
    if missing or None in pieces:
        shown = ",".join(map(str, missing[:20] or [0])) + ", ..." * (len(missing) > 20)
        lost = "" if missing else f" with the lengths of the text in {folder / 'text'}"
        raise ValueError(
            f"{folder}: got {parts - len(missing)} of {parts} parts, expected all{lost}; run those "
            f"that are missing, or were stopped before their end: --parts={parts} with --part="
            f"{shown}"
        )
    _, recorded = make_recipe(tokenizer_dir, settings, workers=0)
    claim_folder(out, recorded)
    report = ReadReport()
    for _, reading in pieces:
        report.add_report(reading)
    shards = [
        (name, shard)
        for name in SETS
        for shard in _join_set(folder, manifests, out, name, settings.chunks_in_shard, parts)
    ]
    return finish_rows(out, recorded, shards, report, sum(len(each) for each, _ in pieces))


def _join_set(folder, manifests, out, name, chunks_in_shard, parts):
    """Yields the counts of the shards of one set, as they are put together."""
    number, growing = 0, None
    for part, manifest in enumerate(manifests):
        for counts in manifest[name]:
            path = shard_path(folder / f"{part:05d}" / name, counts["number"])
            rows = read_shard(path, counts["sha256"])
            if rows is None:
                raise ValueError(
                    f"{path} is missing or damaged: got another sha256 than its part's manifest "
                    f"has; run --part={part} --parts={parts} again (it keeps what is whole)"
                )
            for chunk, chunk_rows in cut(counts, rows):
                growing = growing or Shard(out / name, number)
                made = ChunkRows(
                    np.array(chunk_rows),
                    chunk["documents_without_pieces"],
                    chunk["documents_of_one_sentence"],
                )
                if growing.add(chunk["digest"], made) == chunks_in_shard:
                    yield growing.finish()
                    number, growing = number + 1, None
    if growing:
        yield growing.finish()


def count_parts(folder: Folder) -> int:
    """Returns how many parts there are to be; ValueError where none was begun."""
    there = files.read_json_or_none(folder / "settings.json")
    if there is None:
        raise ValueError(
            f"{folder}: got no parts there, expected some to join; run --part=0 --parts=N and all "
            "others up to N-1 first"
        )
    return there["parts"]


def _claim(folder: Folder, made_of: Mapping[str, Any], parts: int) -> str:
    """Returns the mark of what these parts are made of, which stands in each of their files."""
    wanted = json.loads(json.dumps({"parts": parts, "made_of": made_of}))
    path = folder / "settings.json"
    there = files.read_json_or_none(path)
    if there is None:
        files.write_json(path, wanted, shared=True)
    elif there != wanted:
        raise ValueError(
            f"{folder} has parts of something else; give back these values, or delete the folder "
            "to begin again. What differs:\n  "
            + "\n  ".join(
                f"{key.removeprefix('made_of.')}: got {new!r}, the parts have {old!r}"
                for key, old, new in differences(there, wanted)
            )
        )
    # Two that begin at the same time may both have found nothing: their files tell them apart.
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:32]


def _find_damaged(folder: Folder, manifest: dict) -> bool:
    return any(
        read_shard(shard_path(folder / name, shard["number"]), shard["sha256"]) is None
        for name in SETS
        for shard in manifest[name]
    )


def _count_rows(manifest: dict) -> dict[str, int]:
    return {name: sum(shard["rows"] for shard in manifest[name]) for name in SETS}


def _measure_all(
    text: Sequence[Piece], folder: Folder, mark: str, begin: float, progress: bool
) -> list[np.ndarray]:
    """Returns uint32 lengths of the documents of each piece, measuring what nobody has yet."""
    from tqdm import tqdm

    found: dict[int, np.ndarray] = {}
    first = int(begin * len(text))
    order = [(first + i) % len(text) for i in range(len(text))]
    for number in tqdm(order, desc="lengths", disable=not progress):
        there = _read_lengths(folder, number, mark)
        if there is None:
            there = _measure(text[number], folder, number, mark)
        found[number] = there[0]
    return [found[number] for number in range(len(text))]


def _measure(piece: Piece, folder: Folder, number: int, mark: str) -> tuple[np.ndarray, dict]:
    report = ReadReport()
    lengths = np.fromiter(map(len, piece(report)), np.uint32)
    content = npy_bytes(lengths)
    reading = report.as_dict()
    facts = {"mark": mark, "sha256": hashlib.sha256(content).hexdigest(), "reading": reading}
    files.write_file(folder / f"{number:05d}.npy", content, shared=True)
    files.write_json(folder / f"{number:05d}.json", facts, shared=True)
    return lengths, reading


def _read_lengths(folder: Folder, number: int, mark: str) -> tuple[np.ndarray, dict] | None:
    """Returns the lengths and the reading of a piece of the corpus; None if they are not whole."""
    facts = files.read_json_or_none(folder / f"{number:05d}.json")
    if facts is None or facts["mark"] != mark:
        return None
    try:
        content = (folder / f"{number:05d}.npy").read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False), facts["reading"]


def _find_spans(
    lengths: list[np.ndarray], settings: RowSettings, part: int, parts: int
) -> dict[str, Span]:
    """Returns the chunks that a part makes: of each set as many as any other, in order."""
    ends: dict[str, list[tuple[int, int]]] = {name: [] for name in SETS}
    sizes = (size for each in lengths for size in each.tolist())
    for name, numbers in split_chunks(((n, size, n) for n, size in enumerate(sizes)), settings):
        ends[name].append((numbers[0], numbers[-1]))
    spans = {}
    for name, bounds in ends.items():
        start, stop = (len(bounds) * each // parts for each in (part, part + 1))
        is_any = start < stop
        documents = (bounds[start][0], bounds[stop - 1][1]) if is_any else (0, -1)
        spans[name] = Span(start, *documents)
    return spans


def _read_range(text, lengths, spans, bar) -> Iterator[tuple[int, int, str]]:
    """Yields (number, characters, text) of the documents of a part, and some between them."""
    used = [span for span in spans.values() if span.last_document >= span.first_document]
    begin = 0
    for piece, sizes in zip(text, lengths, strict=True):
        end = begin + len(sizes)
        last = max(
            (min(end - 1, span.last_document) for span in used if span.first_document < end),
            default=-1,
        )  # in this piece; there may be nothing for us in it
        if begin <= last:
            number = begin
            for document in piece(ReadReport()):
                if number > last and last < end - 1:
                    break
                if number >= end or len(document) != sizes[number - begin]:
                    _raise_changed()
                yield number, len(document), document
                bar.update(len(document))
                number += 1
            if number <= last:
                _raise_changed()
        begin = end


def _raise_changed():
    raise ValueError(
        "the text has other documents than when its lengths were measured; delete the folder "
        "parts/ of --out, and run all parts again"
    )
