# SPDX-License-Identifier: Apache-2.0
"""Files in archives, one after another: .tar as a stream, .zip by its table of contents."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from edad_jax.data.text.bombs import is_bomb
from edad_jax.data.text.files import file_format, why_left_out
from edad_jax.data.text.reading import ReadReport, open_blocks, shown

# Gets an open member, its name, and how messages call it; yields its documents.
ReadMember = Callable[[BinaryIO, str, str], Iterator[str]]
_DAMAGED = "archive is damaged or cut short: kept what could be read"
_NEED_A_FILE = (".parquet", ".tar", ".zip")  # to be read at any place, which a member cannot be


def read_tar(
    blocks: Iterable[bytes], where: str, report: ReadReport, read_member: ReadMember
) -> Iterator[str]:
    """Yields the documents of the members of a tar archive.

    Args:
      blocks: its content, decompressed.
      where: how messages call it.
      report: told of damage, and of members that are left out.
      read_member: reads one of them.
    """
    try:
        # Names in another encoding (CP949) become surrogates, which `shown` spells.
        with tarfile.open(fileobj=open_blocks(blocks), mode="r|", encoding="utf-8") as archive:
            for member in archive:
                if member.issparse():  # of holes, which unfold from nothing
                    here = f"{where}:{member.name}"
                    report.add_problem("member of the archive skipped", here, "it is sparse")
                elif member.isfile() and _is_taken(member.name, where, report):
                    file = archive.extractfile(member)
                    yield from read_member(file, member.name, shown(f"{where}:{member.name}"))
    except (tarfile.TarError, EOFError) as error:
        report.add_problem(_DAMAGED, where, error)


def read_zip(
    file: BinaryIO, where: str, report: ReadReport, read_member: ReadMember
) -> Iterator[str]:
    """Yields the documents of the members of a zip archive; arguments as of `read_tar`.

    Args:
      file: open for reading at any place.
      where: how messages call it.
      report: told of damage, of members that are left out, and of those behind a password.
      read_member: reads one of them.
    """
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    # NotImplementedError: it says that it needs another version of zip.
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError) as error:
        report.add_problem(_DAMAGED, where, error)
        return
    for member in members:
        # Of no name: `is_dir` looks at its last letter.
        if member.filename and member.is_dir():
            continue
        if not _is_taken(member.filename, where, report):
            continue
        here = shown(f"{where}:{member.filename}")
        try:
            with archive.open(member) as opened:
                bounded = _Bounded(opened, member.compress_size, here, report)
                yield from read_member(bounded, member.filename, here)
        except RuntimeError as error:  # a password, or a compression that Python has not
            report.add_problem("member of the archive skipped", here, error)
        except (
            *(zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
            UnicodeDecodeError,  # of the name in front of the member, its second one
        ) as error:
            report.add_problem(_DAMAGED, here, error)


def _is_taken(name: str, where: str, report: ReadReport) -> bool:
    why = why_left_out(name)
    if not why and (kind := file_format(name)[0]) in _NEED_A_FILE:
        why = f"{kind} in an archive"
    if why:
        report.leave_out(why, f"{where}:{name}")
    return not why


class _Bounded:
    """A member of a zip archive that ends where it unfolds to too much."""

    def __init__(self, file: BinaryIO, packed: int, here: str, report: ReadReport) -> None:
        self._file, self._packed, self._here, self._report = file, packed, here, report
        self._unpacked, self._is_bomb = 0, False

    def read(self, size: int = -1) -> bytes:
        content = b"" if self._is_bomb else self._file.read(size)
        self._unpacked += len(content)
        if content and is_bomb(self._packed, self._unpacked, self._here, self._report.add_problem):
            self._is_bomb, content = True, b""
        return content
