# SPDX-License-Identifier: Apache-2.0
"""Whether a folder can be written and has room, asked before hours of work.

Estimates are lower bounds, and a file system that tells nothing sensible is not asked: what is
refused here could not have ended well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from edad_jax.data.stages import is_done
from edad_jax.data.text.files import TEXT, file_format
from edad_jax.data.text.source import describe_source
from edad_jax.files import RemotePath, as_path

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.ENAMETOOLONG),
)
_PROBE = ".edad-jax-write-check"  # the object that is written and removed again
_BYTES_PER_PIECE = 12  # of text, at most: English has some 5, Korean some 6, UTF-16 twice as many
_BYTES_OF_PIECE = 2  # in a row, at least
_TEXT_SHARE = 0.1  # bytes of text in a byte of records or markup, at least
_UNPACKED = 2.0  # bytes in a byte of a compressed file, at least


def check_writable(folder: str | Path | RemotePath, *, option: str) -> None:
    """Raises ValueError where nothing can be written to a folder, which need not be there yet.

    Leaves nothing behind. In object storage a small object is written and removed.

    Args:
      folder: to write to.
      option: that names it, for the error.

    Raises:
      ValueError: the disk is full or read-only, the folder is closed to this user, or is a file.
      RemoteError: object storage that cannot be reached, or not without credentials.
    """
    folder = as_path(folder)
    if isinstance(folder, RemotePath):
        (folder / _PROBE).write_bytes(b"")
        with contextlib.suppress(OSError):  # who may write need not be allowed to remove
            (folder / _PROBE).unlink(missing_ok=True)
        return
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(b"\n" * 4096)
            file.flush()
    except OSError as error:
        if error.errno not in _REFUSALS:
            return  # an odd file system: it may still take ordinary files
        raise ValueError(
            f"{option}={folder}: got {error.strerror}, expected a folder that can be written; "
            f"choose another {option}, make room there, or make it writable"
        ) from error


def check_free(
    folder: str | Path | RemotePath, needed: Mapping[str, float], *, option: str
) -> None:
    """Raises ValueError where the disk of a folder has clearly too little room.

    Args:
      folder: to write to; it need not be there yet. Object storage has room.
      needed: what will be written -> bytes, at least.
      option: that names the folder, for the error.
    """
    folder = as_path(folder)
    if isinstance(folder, RemotePath):
        return
    try:
        disk = shutil.disk_usage(_nearest(folder))
    except OSError:
        return
    if not 0 <= disk.free <= disk.total or disk.total <= 0:
        return  # some network and FUSE file systems tell such sizes
    total = sum(needed.values())
    told = ", ".join(f"{_shown(size)} of {what}" for what, size in needed.items() if size)
    if total > disk.free:
        raise ValueError(
            f"{option}={folder}: got {_shown(disk.free)} free on its disk, expected at least "
            f"{_shown(total)} ({told}); make room there, or choose {option} on another disk"
        )


def check_rows_folder(
    config: ConfigDict,
    folder: Path | RemotePath,
    more: Mapping[str, float] | None = None,
    *,
    option: str,
) -> None:
    """Looks whether rows can be written to a folder, before any text is read.

    Args:
      config: names the text.
      folder: of vocabulary and rows.
      more: what else will be written there -> bytes, at least.
      option: that names the folder.

    Raises:
      ValueError: it cannot be written, or its disk has clearly too little room.
      RemoteError: object storage that cannot be reached, or not without credentials.
    """
    needed = {}
    if not is_done(folder / "rows"):
        check_writable(folder, option=option)
        rows = rows_bytes(describe_source(config.corpus), config.rows.duplicates)
        needed["rows"] = max(0.0, rows - written_bytes(folder / "rows"))
    check_free(folder, needed | dict(more or {}), option=option)


def rows_bytes(source: Mapping, duplicates: int) -> float:
    """Returns how many bytes the rows of a corpus have at least; 0 where nothing tells.

    Args:
      source: of it, as `source.describe_source` returns it: of files, [name, bytes, ...] each.
      duplicates: config.rows.duplicates.
    """
    text = 0.0
    for name, size, *_ in source.get("files", ()):
        kind, compression = file_format(PurePath(name).name)
        unpacked = _UNPACKED if compression or kind == ".zip" else 1.0
        text += size * unpacked * (1.0 if kind in TEXT else _TEXT_SHARE if kind else 0.0)
    return text / _BYTES_PER_PIECE * _BYTES_OF_PIECE * duplicates


def written_bytes(folder: Path | RemotePath) -> int:
    """Returns the bytes of all files below a folder; 0 where it is not there, or not here."""
    if isinstance(folder, RemotePath):
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _nearest(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that is there.

    Raises:
      OSError: what is there is a file.
    """
    folder = folder.expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return folder


def _shown(size: float) -> str:
    """Returns bytes as people read them: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
