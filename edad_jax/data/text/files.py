# SPDX-License-Identifier: Apache-2.0
"""Which files hold text, by their names."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edad_jax.data.text.reading import COMPRESSIONS

TEXT = (".txt", ".text")
JSON_LINES = (".jsonl", ".ndjson", ".json")
XML = (".nxml", ".xml")
FORMATS = (*TEXT, *JSON_LINES, *XML, ".parquet", ".tar")
OPTION = "--config.corpus.files='/data/*.jsonl'"


def list_files(patterns: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """Returns the files that the patterns name, sorted within each pattern, each file once.

    Args:
      patterns: files, globs (`**` enters folders) or folders, of which all files of a known
        format are taken, at any depth.

    Raises:
      ValueError: a pattern that names no file.
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    files: dict[Path, None] = {}
    for pattern in patterns:
        expanded = os.path.expanduser(str(pattern))
        if os.path.isdir(expanded):
            found = [path for path in Path(expanded).rglob("*") if file_format(path.name)[0]]
        elif os.path.exists(expanded):
            found = [Path(expanded)]
        else:
            found = [Path(path) for path in glob.glob(expanded, recursive=True)]
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
