# SPDX-License-Identifier: Apache-2.0
"""A folder, replaced as a whole: whatever stops the writing, the old one stays."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_folder(directory: str | Path) -> Iterator[Path]:
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
        _flush(beside)
        _put_in_place(beside, directory)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(
            error.errno,
            f"cannot write {directory} ({error.strerror or error}); "
            "make room or choose another directory. What was there before is unchanged",
        ) from error
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def recover_folder(directory: Path) -> None:
    """Brings back the old folder, where a process died in the moment of replacing it."""
    aside = directory.with_name(f".{directory.name}.old")
    if aside.exists():
        if directory.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, directory)


def _flush(directory):
    """Waits until the files are on the disk, so that a power cut cannot empty them."""
    for path in directory.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


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
