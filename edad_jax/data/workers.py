# SPDX-License-Identifier: Apache-2.0
"""Processes that turn documents into rows: a bounded queue in front, results in order behind.

Each worker is `python -m edad_jax.data.workers`, fed through its standard input with lines of JSON.
Unlike the processes of multiprocessing (spawn or forkserver) it never imports the program that
started it: no jax in each of them, and that program needs no `if __name__ == "__main__"`. When the
program is killed, the workers see the end of their input and leave.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import numpy as np

from edad_jax.data import packing, segments
from edad_jax.data.pieces import PieceTable, SentenceTable, table_for
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
        settings = self.settings
        return row_type(self.vocabulary_size, settings.max_length, packed=settings.packed)


class Chunk(NamedTuple):
    """Documents that are made into rows together, and that borrow each other's sentences."""

    name: str  # the set and the number; seeds the chunk's random choices
    texts: list[str]  # none: the rows are at hand already


class ChunkRows(NamedTuple):
    """What became of a chunk."""

    rows: np.ndarray  # of `row_type`
    without_pieces: int  # documents in which the tokenizer found nothing
    one_sentence: int  # documents of one sentence: used, always with a random next sentence


def make_chunk_rows(chunk: Chunk, recipe: Recipe, table: PieceTable | SentenceTable) -> ChunkRows:
    """Returns the rows of a chunk: a pure function of chunk and recipe, not of the table."""
    settings = recipe.settings
    documents = segments.encode_documents(chunk.texts, table, settings.max_length)
    if settings.packed:
        packed = packing.pack(documents, max_length=settings.max_length)
        rows = packing.packed_rows(documents, packed, recipe.specials, recipe.row_type)
    elif settings.mode == "single":
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


def _load_table(recipe: Recipe) -> PieceTable | SentenceTable:
    from tokenizers import Tokenizer

    return table_for(Tokenizer.from_str(recipe.tokenizer))


def _start_worker(recipe: Recipe) -> subprocess.Popen:
    # The package may be imported from a folder that only this process knows of.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "edad_jax.data.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for the program, which decides what becomes of its workers
        env=os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
    )
    with contextlib.suppress(BrokenPipeError):  # `_ask` tells what became of it
        _write_line(process.stdin, recipe._replace(settings=dataclasses.asdict(recipe.settings)))
    return process


def _ask(process: subprocess.Popen, chunk: Chunk, recipe: Recipe) -> ChunkRows:
    try:
        _write_line(process.stdin, chunk)
        answer = json.loads(process.stdout.readline())
        content = process.stdout.read(answer["rows"] * recipe.row_type.itemsize)
        rows = np.frombuffer(content, recipe.row_type, answer["rows"])
    except (OSError, ValueError) as error:  # broken pipe; half an answer, or none
        raise OSError(
            f"a worker that prepares rows ended (exit code {process.wait()}) before it answered; "
            "-9 means that the system stopped it, most often for want of memory: use fewer workers"
        ) from error
    if "error" in answer:
        raise OSError(f"a worker that prepares rows failed:\n{answer['error']}")
    return ChunkRows(rows, answer["without_pieces"], answer["one_sentence"])


def _write_line(pipe: BinaryIO, value: object, content: bytes = b"") -> None:
    pipe.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n" + content)
    pipe.flush()


def main() -> None:
    """Runs a worker: a recipe, then chunks in on standard input, rows out, until the end."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the rows
    tokenizer, vocabulary_size, specials, settings = json.loads(stdin.readline())
    specials, settings = segments.Specials(*specials), RowSettings(**settings)
    recipe = Recipe(tokenizer, vocabulary_size, specials, settings)
    table = _load_table(recipe)
    gc.disable()  # hundreds of thousands of words, no cycles: collecting would double the time
    while (line := stdin.readline()).endswith(b"\n"):
        try:
            made = make_chunk_rows(Chunk(*json.loads(line)), recipe, table)
        except Exception as error:
            _write_line(stdout, {"rows": 0, "error": f"{type(error).__name__}: {error}"})
            continue
        answer = {
            "rows": len(made.rows),
            "without_pieces": made.without_pieces,
            "one_sentence": made.one_sentence,
        }
        _write_line(stdout, answer, made.rows.tobytes())


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # who asked is gone, and nobody waits for the answer
        os._exit(1)
