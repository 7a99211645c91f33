# SPDX-License-Identifier: Apache-2.0
"""Small files that unfold to gigabytes: where to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

MOST_UNPACKED = 500  # times its size that what is compressed may unfold to; text has some 3 to 30
UNPACKED_UNASKED = 1 << 28  # bytes that anything may unfold to


def is_bomb(packed: int, unpacked: int, name: str, tell: Callable[..., None]) -> bool:
    """Returns whether something unfolds to so much more than its size that it is no text.

    Args:
      packed: bytes of it that were read.
      unpacked: bytes that they gave.
      name: how messages call it.
      tell: `ReadReport.add_problem`; called where it is one.
    """
    if unpacked <= max(UNPACKED_UNASKED, MOST_UNPACKED * packed):
        return False
    tell(
        f"unfolds to over {MOST_UNPACKED} times its size: the rest skipped",
        name,
        f"{unpacked:,} bytes of {packed:,}",
    )
    return True


class CountedFile:
    """A file that is read from, and the bytes that were; pyarrow does not close it when done."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.size += len(content)
        return content

    def close(self) -> None:
        pass
