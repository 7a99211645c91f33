# SPDX-License-Identifier: Apache-2.0
"""Processes that turn documents into rows: a bounded queue in front, results in order behind.

Each worker is `python -m edad_jax.data.workers`, fed through its standard input with plain JSON
and bytes. Unlike multiprocessing's spawn it never imports the program that started it (jax and
all the rest), nothing is pickled, and when the program is killed the workers see the end of
their input and leave.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import numpy as np

from edad_jax.data import segments
from edad_jax.data.pieces import PieceTable
from edad_jax.data.rows import RowSettings, row_type


class Recipe(NamedTuple):
    """All that decides how documents become rows; the same recipe gives the same rows."""

    tokenizer: str  # a `tokenizers.Tokenizer` as JSON
    vocabulary_size: int
    specials: segments.Specials
    settings: RowSettings

    @property
    def row_type(self) -> np.dtype:
        """Returns the type of the rows."""
        return row_type(self.vocabulary_size, self.settings.max_length)


class Chunk(NamedTuple):
    """Documents that are made into rows together, and that borrow each other's sentences."""

    name: str  # the set and the number; seeds the chunk's random choices
    texts: list[str]  # none: the rows are at hand already


class ChunkRows(NamedTuple):
    """What became of a chunk."""

    rows: np.ndarray  # of `row_type`
    without_pieces: int  # documents in which the tokenizer found nothing
    one_sentence: int  # documents of one sentence: used, always with a random next sentence


def make_chunk_rows(chunk: Chunk, recipe: Recipe, table: PieceTable) -> ChunkRows:
    """Returns the rows of a chunk: a pure function of chunk and recipe, not of the table."""
    settings = recipe.settings
    documents = segments.encode_documents(chunk.texts, table, settings.max_length)
    if settings.mode == "single":
        ranges = segments.single_segments(documents, max_length=settings.max_length)
        rows = segments.single_rows(documents, ranges, recipe.specials, recipe.row_type)
    else:
        parts = []
        for duplicate in range(settings.duplicates):
            pairs = segments.next_sentence_pairs(
                documents,
                max_length=settings.max_length,
                short_seq_prob=settings.short_seq_prob,
                generator=random.Random(f"{settings.seed} {chunk.name} {duplicate}"),
            )
            parts.append(segments.pair_rows(documents, pairs, recipe.specials, recipe.row_type))
        rows = np.concatenate(parts)
    return ChunkRows(
        rows=rows,
        without_pieces=len(chunk.texts) - len(documents.starts),
        one_sentence=sum(len(starts) == 2 for starts in documents.starts),
    )


def map_chunks(chunks: Iterable[Chunk], recipe: Recipe, workers: int) -> Iterator[ChunkRows | None]:
    """Yields the rows of the chunks, in order, made by `workers` processes (0: by this one).

    None for a chunk without texts.

    At most two chunks a worker are under way, so memory does not grow with the corpus.

    Raises:
      OSError: a worker failed or was killed.
    """
    if workers == 0:
        table = _load_table(recipe)
        for chunk in chunks:
            yield make_chunk_rows(chunk, recipe, table) if chunk.texts else None
        return
    processes: list[subprocess.Popen] = []
    mine = threading.local()

    def hand_over(chunk: Chunk) -> ChunkRows | None:
        if not chunk.texts:
            return None
        if not hasattr(mine, "process"):
            mine.process = _start_worker(recipe)
            processes.append(mine.process)
        return _ask(mine.process, chunk, recipe)

    executor = ThreadPoolExecutor(workers)
    try:
        under_way: deque = deque()
        for chunk in chunks:
            under_way.append(executor.submit(hand_over, chunk))
            while under_way and (len(under_way) >= 2 * workers or under_way[0].done()):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):  # what it has not read yet goes nowhere
                process.stdin.close()
        executor.shutdown(wait=True)


def _load_table(recipe: Recipe) -> PieceTable:
    from tokenizers import Tokenizer

    return PieceTable(Tokenizer.from_str(recipe.tokenizer))


def _start_worker(recipe: Recipe) -> subprocess.Popen:
    # The package may be imported from a folder that only this process knows of.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "edad_jax.data.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
    )
    *described, settings = recipe
    described = [*described, dataclasses.asdict(settings)]
    _send(process.stdin, {}, json.dumps(described).encode())
    return process


def _ask(process: subprocess.Popen, chunk: Chunk, recipe: Recipe) -> ChunkRows:
    encoded = [text.encode("utf-8", "replace") for text in chunk.texts]
    try:
        _send(
            process.stdin,
            {"name": chunk.name, "lengths": [len(text) for text in encoded]},
            b"".join(encoded),
        )
        answer, content = _receive(process.stdout)
    except (OSError, EOFError) as error:
        raise OSError(
            f"a worker that prepares rows ended (exit code {process.wait()}) before it answered; "
            "-9 means that the system stopped it, most often for want of memory: use fewer workers"
        ) from error
    if "error" in answer:
        raise OSError(f"a worker that prepares rows failed:\n{answer['error']}")
    rows = np.frombuffer(content, recipe.row_type)
    return ChunkRows(rows, answer["without_pieces"], answer["one_sentence"])


def _send(pipe: BinaryIO, header: dict, content: bytes) -> None:
    head = json.dumps(header).encode()
    pipe.write(struct.pack("<II", len(head), len(content)))
    pipe.write(head)
    pipe.write(content)
    pipe.flush()


def _receive(pipe: BinaryIO) -> tuple[dict, bytes]:
    sizes = pipe.read(8)
    if len(sizes) < 8:
        raise EOFError
    head_size, content_size = struct.unpack("<II", sizes)
    head, content = pipe.read(head_size), pipe.read(content_size)
    if len(content) < content_size:
        raise EOFError
    return json.loads(head), content


def main() -> None:
    """Runs a worker: chunks in on standard input, rows out on standard output, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it decides
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the rows
    _, content = _receive(stdin)
    tokenizer, vocabulary_size, specials, settings = json.loads(content)
    recipe = Recipe(
        tokenizer, vocabulary_size, segments.Specials(*specials), RowSettings(**settings)
    )
    table = _load_table(recipe)
    gc.disable()  # hundreds of thousands of words, no cycles: collecting would double the time
    while True:
        try:
            header, content = _receive(stdin)
        except EOFError:
            return
        stops = np.cumsum([0, *header["lengths"]]).tolist()
        texts = [content[a:b].decode() for a, b in zip(stops[:-1], stops[1:], strict=True)]
        try:
            made = make_chunk_rows(Chunk(header["name"], texts), recipe, table)
        except Exception as error:
            _send(stdout, {"error": f"{type(error).__name__}: {error}"}, b"")
            continue
        _send(
            stdout,
            {"without_pieces": made.without_pieces, "one_sentence": made.one_sentence},
            made.rows.tobytes(),
        )


if __name__ == "__main__":
    main()
