# SPDX-License-Identifier: Apache-2.0
"""Documents to rows on disk: streaming, in parallel, and resumed after a kill without a trace.

The corpus is read once, in order, in chunks of a few megabytes; workers turn chunks into rows;
rows are written in shards of a fixed number of chunks. What a row is depends on the documents,
the settings and the seed, and on neither the number of workers nor interruptions.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from edad_jax import files
from edad_jax.data import rows as rows_on_disk
from edad_jax.data.rows import RowSettings
from edad_jax.data.segments import SHORTEST_SINGLE, Specials
from edad_jax.data.shards import Shard, finish_set
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.data.workers import Chunk, Recipe, map_chunks

if TYPE_CHECKING:
    from tqdm import tqdm

SETS = ("train", "heldout")
T = TypeVar("T")


def make_rows(
    documents: Iterable[str],
    tokenizer_dir: str | Path,
    out: str | Path | files.RemotePath,
    settings: RowSettings,
    *,
    workers: int,
    progress: bool = True,
    report: ReadReport | None = None,
) -> dict:
    """Returns the manifest of the rows made of documents, in `out/train` and `out/heldout`.

    Run again after a kill with the same arguments, it reads the documents again, keeps every
    finished shard whose text is unchanged, and makes the rest: the result is the same bytes.

    Args:
      documents: texts in a fixed order; a line's end ends a sentence.
      tokenizer_dir: a BERT tokenizer, as `load_tokenizer` takes it.
      out: folder for the rows; made if missing.
      settings: what the rows are to be.
      workers: processes; 0 does the work in this one.
      progress: whether to show a bar on standard error, with the time left where `report` counts
        the bytes of the files.
      report: of the reader that gives the documents; its counts enter the manifest.

    Raises:
      ValueError: no documents, no held-out document though a fraction was asked for, or `out`
        holds rows made with other settings.
      OSError: the disk is full or may not be written; finished shards are kept.
    """
    from tqdm import tqdm

    out = files.as_path(out)
    recipe, recorded = make_recipe(tokenizer_dir, settings, workers)
    claim_folder(out, recorded)
    report = report if report is not None else ReadReport()
    with tqdm(desc="rows", unit="B", unit_scale=True, disable=not progress) as bar:
        counted = _Counted(documents, report, bar)
        chunks = split_chunks(((n, len(text), text) for n, text in enumerate(counted)), settings)
        shards = list(make_shards(chunks, out, recipe, workers))
    return finish_rows(out, recorded, shards, report, counted.documents)


def make_recipe(
    tokenizer_dir: str | Path, settings: RowSettings, workers: int
) -> tuple[Recipe, dict]:
    """Returns what decides how documents become rows, and what a manifest says of it.

    Raises:
      ValueError: the tokenizer cannot be read, or a negative number of workers.
    """
    if workers < 0:
        raise ValueError(f"got config.rows.workers={workers}, expected 0 or more")
    tokenizer = load_tokenizer(tokenizer_dir)
    recipe = Recipe(
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        vocabulary_size=len(tokenizer),
        specials=Specials(tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id),
        settings=settings,
    )
    recorded = {
        "tokenizer_sha256": hashlib.sha256(recipe.tokenizer.encode()).hexdigest(),
        "vocabulary_size": recipe.vocabulary_size,
    } | settings.recorded()
    return recipe, recorded


def finish_rows(
    out: Path | files.RemotePath,
    recorded: dict,
    shards: Iterable[tuple[str, dict]],
    report: ReadReport,
    documents: int,
) -> dict:
    """Returns the manifest of rows whose shards are all there, and writes it, the last file.

    Args:
      out: folder of the rows.
      recorded: as `make_recipe` returns it.
      shards: (set, counts) of each, in order.
      report: counts of the reader.
      documents: how many were read.

    Raises:
      ValueError: as `make_rows`.
    """
    if not documents:
        raise ValueError(
            "got 0 documents, expected text; check the files that were given "
            f"(--config.corpus.files=...)\n{report.summary()}"
        )
    manifest = recorded | {"reading": report.as_dict(), "documents": documents}
    for name in SETS:
        manifest[name] = finish_set(out / name, recorded, [s for kind, s in shards if kind == name])
    _check_sets(manifest, documents)
    files.write_json(out / rows_on_disk.MANIFEST, manifest)
    return manifest


def _check_sets(manifest: dict, documents: int) -> None:
    """Raises ValueError where a set that was asked for has no row; says what would give it some."""
    fraction, length = manifest["heldout_fraction"], manifest["max_length"]
    train, heldout = (manifest[name]["rows"] for name in SETS)
    if train and (heldout or not fraction):
        return
    if not train and not heldout:
        why = (
            f"no document has more than {SHORTEST_SINGLE} pieces, the fewest of a row of "
            "config.rows.mode='single'; give longer documents (a blank line ends one)"
        )
        if manifest["mode"] == "pairs":
            why = (
                "a pair takes two sentences of a document that fit into a row "
                f"(config.rows.max_length={length} pieces), or one of another document, and there "
                "are none; give more documents (a blank line ends one) or longer ones, or rows of "
                "single segments: --config.rows.mode=single"
            )
        raise ValueError(f"got no rows to train on from {documents:,} documents: {why}")
    if documents == 1:
        raise ValueError(
            f"got no {'held-out rows' if train else 'rows to train on'} from 1 documents, expected "
            "two or more: each is trained on or held out as a whole (config.heldout.fraction="
            f"{fraction}); end documents with a blank line or, where each line is one, give "
            "--config.corpus.lines=True"
        )
    if not train:
        raise ValueError(
            f"got no rows to train on from {documents:,} documents: with config.heldout.fraction="
            f"{fraction} all of them are held out; give more documents (a blank line ends one) or "
            "a smaller fraction"
        )
    raise ValueError(
        f"got no held-out rows from {documents:,} documents with config.heldout.fraction="
        f"{fraction}; give more documents or a larger fraction, or, where each line of the text "
        "is a document, --config.corpus.lines=True"
    )


def claim_folder(out: Path | files.RemotePath, settings: dict, *, shared: bool = False) -> None:
    """Writes the settings into the folder, or compares them with those that are there.

    Raises:
      ValueError: those that are there are others.
    """
    path = out / "settings.json"
    there = files.read_json_or_none(path)
    if there is None:
        files.write_json(path, settings, shared=shared)
    elif there != settings:
        wrong = [key for key in sorted({*there, *settings}) if there.get(key) != settings.get(key)]
        found = ", ".join(f"{key}: got {settings.get(key)}, has {there.get(key)}" for key in wrong)
        raise ValueError(
            f"{out} holds rows made with other settings ({found}); delete it or give another folder"
        )


class _Counted:
    """Passes documents on, counts them, and shows how far the corpus is read, in bytes of text."""

    def __init__(self, source: Iterable[str], report: ReadReport, bar: tqdm) -> None:
        self.documents = 0
        self._source, self._report, self._bar = source, report, bar

    def __iter__(self) -> Iterator[str]:
        text_bytes = 0
        for document in self._source:
            self.documents += 1
            yield document
            size = len(document.encode("utf-8", "replace"))
            text_bytes += size
            if self._report.total_file_bytes and self._report.file_bytes:
                share = self._report.file_bytes / self._report.total_file_bytes
                self._bar.total = max(text_bytes, int(text_bytes / min(1.0, share)))
            self._bar.update(size)


def _is_heldout(number: int, fraction: float, seed: int) -> bool:
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


class Span(NamedTuple):
    """Chunks of one set that follow each other, and the documents that they are made of."""

    first_chunk: int
    first_document: int
    last_document: int  # inclusive; below first_document: no chunk at all


def split_chunks(
    documents: Iterable[tuple[int, int, T]],
    settings: RowSettings,
    spans: Mapping[str, Span] | None = None,
) -> Iterator[tuple[str, list[T]]]:
    """Yields (set, documents): chunks of either set as they fill up, then what is left.

    Where a chunk ends depends on the documents before it: on all of the corpus's, or on those from
    the beginning of another chunk, which `spans` names. A chunk has two documents or more wherever
    the set has: random next sentences come from another document of the chunk.

    Args:
      documents: number, characters and content of each, in order.
      settings: say which are held out, and how long a chunk is.
      spans: by set; other documents are passed over. All by default.
    """
    waiting: dict[str, list[T]] = {name: [] for name in SETS}
    full: dict[str, list[T]] = {name: [] for name in SETS}  # kept until more than one is left over
    sizes = dict.fromkeys(SETS, 0)
    for number, size, document in documents:
        name = SETS[_is_heldout(number, settings.heldout_fraction, settings.seed)]
        if spans and not spans[name].first_document <= number <= spans[name].last_document:
            continue
        waiting[name].append(document)
        sizes[name] += size
        if sizes[name] >= settings.chunk_characters and len(waiting[name]) > 1:
            if full[name]:
                yield name, full[name]
            full[name], waiting[name], sizes[name] = waiting[name], [], 0
    for name in SETS:
        if full[name] and len(waiting[name]) == 1:
            full[name], waiting[name] = full[name] + waiting[name], []
        for chunk in (full[name], waiting[name]):
            if chunk:
                yield name, chunk


def make_shards(
    chunks: Iterable[tuple[str, list[str]]],
    out: Path | files.RemotePath,
    recipe: Recipe,
    workers: int,
    spans: Mapping[str, Span] | None = None,
) -> Iterator[tuple[str, dict]]:
    """Yields (set, counts) of each shard once it is on disk.

    Rows of chunks that a shard on disk holds already are taken from there.

    Args:
      chunks: as `split_chunks` yields them.
      out: folder of the sets.
      recipe: how documents become rows.
      workers: processes.
      spans: which chunks these are, by set; from the first one by default. Shards of spans are
        numbered from 0 in each `out`, and may be made by several processes at the same time.
    """
    under_way: deque[tuple[str, Shard, str]] = deque()
    chunks_in_shard = recipe.settings.chunks_in_shard

    def chunks_to_make() -> Iterator[Chunk]:
        numbers = dict.fromkeys(SETS, 0)
        open_shards: dict[str, Shard] = {}
        for name, texts in chunks:
            number, place = divmod(numbers[name], chunks_in_shard)
            if place == 0:
                open_shards[name] = Shard(out / name, number, shared=spans is not None)
            first = spans[name].first_chunk if spans else 0
            chunk = Chunk(f"{name} {first + numbers[name]}", texts)
            digest = _digest(chunk)
            numbers[name] += 1
            under_way.append((name, open_shards[name], digest))
            is_there = digest in open_shards[name].there
            yield chunk._replace(texts=[]) if is_there else chunk

    growing: dict[str, Shard] = {}
    for made in map_chunks(chunks_to_make(), recipe, workers):
        name, shard, digest = under_way.popleft()
        growing[name] = shard
        if shard.add(digest, made) == chunks_in_shard:
            yield name, growing.pop(name).finish()
    for name, shard in growing.items():
        yield name, shard.finish()


def _digest(chunk: Chunk) -> str:
    """Returns a fingerprint of a chunk's name and documents."""
    digest = hashlib.blake2b(chunk.name.encode(), digest_size=16)
    for text in chunk.texts:
        encoded = text.encode("utf-8", "replace")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
