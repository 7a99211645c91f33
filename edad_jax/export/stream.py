# SPDX-License-Identifier: Apache-2.0
"""Lines from a stream, with a line on the terminal that says how far one is."""

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO


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
