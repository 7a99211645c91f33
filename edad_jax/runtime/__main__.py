# SPDX-License-Identifier: Apache-2.0
r"""The edge command: texts in, one on each line; what the model finds out, as JSON lines.

python -m edad_jax.runtime runs/ner/model-onnx-int8 < text.txt > spans.jsonl
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from edad_jax.runtime.models import QuestionAnswerer, Scorer, as_json, open_model


class Progress:
    """One line on a terminal: texts, megabytes, texts a second, time left."""

    def __init__(self, total_bytes: int):
        self.start = self.shown = time.monotonic()
        self.total, self.texts, self.bytes = total_bytes, 0, 0
        self.is_on = sys.stderr.isatty()

    def add(self, size: int, *, last: bool = False) -> None:
        """Counts a text; shows where things stand, every half second."""
        self.texts, self.bytes = self.texts + (not last), self.bytes + size
        now = time.monotonic()
        if not self.is_on or (now - self.shown < 0.5 and not last):
            return
        self.shown = now
        seconds = max(now - self.start, 1e-9)
        left = ""
        if self.total and self.bytes:
            rest = int(seconds * (self.total - self.bytes) / self.bytes)
            left = f", {self.bytes / self.total:.0%}, {rest // 60}:{rest % 60:02} left"
        print(
            f"\r{self.texts:,} texts, {self.bytes / 1e6:,.1f} MB, {self.texts / seconds:,.0f} "
            f"texts/s{left}   ",
            end="\n" if last else "",
            file=sys.stderr,
            flush=True,
        )


def size_of(stream: BinaryIO) -> int:
    """Returns the bytes of a stream that is a file; 0 where that is not known."""
    try:
        return os.fstat(stream.fileno()).st_size
    except OSError:
        return 0


def read_lines(stream: Iterable[bytes], sizes: deque[int]) -> Iterator[str]:
    """Yields the lines of a stream; notes how long each was. Bad UTF-8 becomes U+FFFD."""
    for line in stream:
        sizes.append(len(line))
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _question(line):
    pair = json.loads(line)
    return str(pair["question"]), str(pair["context"])


def _pair(line):
    pair = json.loads(line)
    if not isinstance(pair, list) or list(map(type, pair)) != [str, str]:
        raise TypeError("no list of two texts")
    return tuple(pair)


def _read_pairs(lines, problems, parse, expected):
    """Yields parse(line) of JSON lines; ends at one that is wrong, and adds what it is.

    It does not end the program itself: pairs read before it may still wait for their answers.
    """
    for number, line in enumerate(lines, 1):
        try:
            pair = parse(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(
                f"line {number:,}: got {line[:80]!r} ({type(error).__name__}: {error}), expected "
                f"{expected}; mend it, or take it out"
            )
            return
        yield pair


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads texts from standard input, one on each line, and writes a JSON line for each.

    Lines for a model that answers questions are JSON: {"question": ..., "context": ...}; with
    --pairs, for a model that scores them, ["text", "text"]. Lines are read in chunks; at a
    terminal, or with --each-line, one by one. What is written is UTF-8, whatever the locale.
    Whoever reads it may stop at any time, as `head` does.

    Raises:
      SystemExit: the model cannot be opened, a line is not as above, or what is written is no
        longer read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m edad_jax.runtime",
        description="Reads texts, one on each line, and writes what the model finds as JSON lines.",
    )
    parser.add_argument("directory", help="what launch/export.py --format onnx[-int8] wrote")
    parser.add_argument("--batch-size", type=int, default=32, help="windows read at once")
    parser.add_argument(
        "--max-length", type=int, default=0, help="pieces of a window; 0: 128, or as the model says"
    )
    parser.add_argument("--overlap", type=int, help="pieces that windows share; a quarter of them")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument(
        "--each-line",
        action="store_true",
        help="answer a line before the next is read, as for `tail -f`; always so at a terminal",
    )
    parser.add_argument(
        "--pairs", action="store_true", help='each line is JSON, ["text", "text"], to be scored'
    )
    options = parser.parse_args(arguments)
    try:
        model = open_model(
            options.directory,
            batch_size=options.batch_size,
            max_length=options.max_length,
            overlap=options.overlap,
            threads=options.threads,
        )
    except ValueError as error:
        sys.exit(str(error))
    if options.pairs and not isinstance(model, Scorer):
        sys.exit(f"--pairs: {options.directory} is no model that scores pairs; leave it out")
    progress, sizes = Progress(size_of(sys.stdin.buffer)), deque()
    texts, problems = read_lines(sys.stdin.buffer, sizes), []
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    items = texts
    if isinstance(model, QuestionAnswerer):
        items = _read_pairs(texts, problems, _question, '{"question": ..., "context": ...}')
    elif options.pairs:
        items = _read_pairs(texts, problems, _pair, '["text", "text"]')
    if options.each_line or sys.stdin.isatty():
        results = itertools.chain.from_iterable(model([item]) for item in items)
    else:
        results = model(items)
    try:
        for result in results:
            sys.stdout.write(json.dumps(as_json(result), ensure_ascii=False) + "\n")
            progress.add(sizes.popleft())
            if len(sizes) < 2:  # a chunk is done: of the next one, its first line alone is read
                sys.stdout.flush()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left would be written as Python ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if problems:
        sys.exit(problems[0])
    progress.add(0, last=True)


if __name__ == "__main__":
    main()
