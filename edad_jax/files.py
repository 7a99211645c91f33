# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there: written beside their place and renamed; JSON; checksums.

Whatever stops a write, a kill, a full disk or a power cut, what was there before stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def path_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a new file, of the same ending, that becomes `path` when the block ends.

    Raises:
      OSError: it cannot be written; says that what was there is unchanged.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _flush(beside)
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_of(error, beside, path.parent):
            raise _not_written(path, error) from error
        raise


@contextlib.contextmanager
def open_beside(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO]:
    """Yields an open file that becomes `path` when the block ends; text is UTF-8, as it is given.

    Raises:
      OSError: as `path_beside`.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with path_beside(path) as beside, open(beside, mode, **text) as file:
        yield file


def write_file(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Writes a whole file.

    Raises:
      OSError: as `path_beside`.
    """
    with open_beside(path, "wb") as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file that people can read too.

    Raises:
      ValueError: a number is not finite, which JSON cannot say.
      OSError: as `path_beside`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, text.encode() + b"\n")


def read_json(path: str | os.PathLike[str], *, expected: str) -> Any:
    """Returns what a JSON file holds.

    Args:
      path: of the file.
      expected: what should be there and what to do, for the error.

    Raises:
      ValueError: it cannot be read or is not JSON; says the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; expected {expected}") from error
    except json.JSONDecodeError as error:
        where, why = f"{path}:{error.lineno}", error.msg
        raise ValueError(f"{where}: got damaged JSON ({why}); expected {expected}") from error
    except ValueError as error:  # not UTF-8
        raise ValueError(f"{path}: got no text ({error}); expected {expected}") from error


def read_json_or_none(path: str | os.PathLike[str]) -> Any:
    """Returns what a JSON file holds; None where it is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None


def file_checksum(path: str | os.PathLike[str], *, flush: bool = False) -> str:
    """Returns the sha256 of a file, in hexadecimal; with `flush` it is on the disk by then."""
    with open(path, "rb+" if flush else "rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_folder(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside `directory`, which takes its place when the block ends.

    Raises:
      OSError: the files cannot be written; says that what was there is unchanged.
    """
    directory = Path(directory).resolve()
    beside = directory.with_name(f".{directory.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        for path in beside.iterdir():
            _flush(path)
        _put_in_place(beside, directory)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(directory, error) from error
        raise


def recover_folder(directory: Path) -> None:
    """Brings back the old folder, where a process died in the moment of replacing it."""
    aside = directory.with_name(f".{directory.name}.old")
    if aside.exists():
        if directory.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, directory)


def _flush(path):
    """Waits until a file is on the disk, so that a power cut cannot empty it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _is_of(error, *paths):
    """Returns whether an error of the system is about one of the paths, or does not say."""
    return error.filename is None or Path(os.fsdecode(error.filename)) in paths


def _not_written(path, error):
    return OSError(
        error.errno,
        f"cannot write {path} ({error.strerror or error}); what was there before is unchanged. "
        "Make room, or choose another folder, and run the same command again",
    )


def _put_in_place(beside, directory):
    """Renames `beside` to `directory`, whose old content stays whole until then.

    A directory cannot be renamed over a full one, so the old one steps aside for a moment;
    should the process die in that moment, `recover_folder` brings it back.
    """
    aside = directory.with_name(f".{directory.name}.old")
    recover_folder(directory)
    if directory.exists():
        os.rename(directory, aside)
    try:
        os.rename(beside, directory)
    except BaseException:
        recover_folder(directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)
