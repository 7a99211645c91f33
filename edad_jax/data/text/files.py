# SPDX-License-Identifier: Apache-2.0
"""Which files hold text, by their names."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edad_jax.data.text.reading import COMPRESSIONS
from edad_jax.files import RemotePath, as_path

TEXT = (".txt", ".text")
JSON_LINES = (".jsonl", ".ndjson", ".json")
XML = (".nxml", ".xml")
FORMATS = (*TEXT, *JSON_LINES, *XML, ".parquet", ".tar")
OPTION = "--config.corpus.files='/data/*.jsonl'"


def list_files(
    patterns: str | Path | Sequence[str | Path],
) -> tuple[Path | RemotePath, ...]:
    """Returns the files that the patterns name, sorted within each pattern, each file once.

    Args:
      patterns: files, globs (`**` enters folders) or folders, of which all files of a known
        format are taken, at any depth; each here or in object storage (s3://bucket/folder/*.txt).

    Raises:
      ValueError: a pattern that names no file, or a storage whose package is not installed.
      RemoteError: object storage that cannot be reached, or not without credentials.
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    files: dict[Path | RemotePath, None] = {}
    for pattern in patterns:
        expanded = os.path.expanduser(str(pattern))
        if isinstance(there := as_path(expanded), RemotePath):
            found = there.list_files()
            is_folder = not glob.has_magic(expanded) and found != [there]
            found = [file for file in found if not is_folder or file_format(file.name)[0]]
        elif os.path.isdir(expanded):
            found = [path for path in Path(expanded).rglob("*") if file_format(path.name)[0]]
        elif os.path.exists(expanded):
            found = [Path(expanded)]
        else:
            found = [Path(path) for path in glob.glob(expanded, recursive=True)]
        if not isinstance(there, RemotePath):
            found = sorted(path for path in found if path.is_file())
        if not found:
            raise ValueError(
                f"got no file for {str(pattern)!r}, expected text; give files, a glob or a folder: "
                f"{OPTION}"
            )
        files.update(dict.fromkeys(found))
    if not files:
        raise ValueError(f"got no files, expected text; give {OPTION}")
    return tuple(files)


def file_format(name: str) -> tuple[str, str]:
    """Returns (format, compression) by the endings of a file name; '' where there is none."""
    path = PurePosixPath(name.lower())
    if path.suffix == ".tgz":
        return ".tar", ".gz"
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    suffix = PurePosixPath(path.stem).suffix if compression else path.suffix
    return (suffix if suffix in FORMATS else ""), compression
