# SPDX-License-Identifier: Apache-2.0
"""Which files hold text, by their names."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edad_jax.data.text.reading import COMPRESSIONS, ReadReport, shown
from edad_jax.files import RemotePath, as_path

TEXT = (".txt", ".text")
JSON_LINES = (".jsonl", ".ndjson", ".json")
XML = (".nxml", ".xml")
FORMATS = (*TEXT, *JSON_LINES, *XML, ".parquet", ".tar", ".zip")
UNNAMED = "no ending"  # a format that only the content tells: WikiExtractor's wiki_00
OPTION = "--config.corpus.files='/data/*.jsonl'"
HIDDEN = "hidden file"
_NO_TEXT = frozenset(  # names without an ending of what lies beside text
    "_success license licence copying notice authors makefile dockerfile checksums md5sums "
    "sha1sums sha256sums manifest lock".split()
)
_SHOWN = 8  # kinds of what is left out, in an error


def list_files(
    patterns: str | Path | Sequence[str | Path], report: ReadReport | None = None
) -> tuple[Path | RemotePath, ...]:
    """Returns the files that the patterns name, sorted within each pattern, each file once.

    Args:
      patterns: files, globs (`**` enters folders) or folders, of which all files of a known
        format, or without an ending, are taken, at any depth, but hidden ones; each here or in
        object storage (s3://bucket/folder/*.txt).
      report: counts the files of folders that are left out, by their endings.

    Raises:
      ValueError: a pattern that names no file, or a storage whose package is not installed.
      RemoteError: object storage that cannot be reached, or not without credentials.
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    files: dict[Path | RemotePath, None] = {}
    for pattern in patterns:
        expanded = os.path.expanduser(str(pattern))
        left_out = ReadReport()
        if isinstance(there := as_path(expanded), RemotePath):
            found = there.list_files()
            if not glob.has_magic(expanded) and found != [there]:
                start = len(expanded.rstrip("/")) + 1
                found = _take_text([(file.url[start:], file) for file in found], left_out)
        elif os.path.isdir(expanded):
            inside = sorted(path for path in Path(expanded).rglob("*") if path.is_file())
            named = [(path.relative_to(expanded).as_posix(), path) for path in inside]
            found = _take_text(named, left_out)
        elif os.path.exists(expanded):
            found = [Path(expanded)] * os.path.isfile(expanded)
        else:
            found = [Path(path) for path in glob.glob(expanded, recursive=True)]
            found = sorted(path for path in found if path.is_file())
        if not found:
            kinds = sorted(left_out.left_out.items(), key=lambda item: -item[1][0])[:_SHOWN]
            seen = ", ".join(f"{count:,} x {why} ({first})" for why, (count, first) in kinds)
            raise ValueError(
                f"got no file for {shown(pattern)!r}, expected text; give files, a glob or a "
                f"folder: {OPTION}" + (f"; left out: {seen}" if seen else "")
            )
        if report is not None:
            report.add_left_out(left_out.left_out)
        files.update(dict.fromkeys(found))
    if not files:
        raise ValueError(f"got no files, expected text; give {OPTION}")
    return tuple(files)


def _take_text(files, left_out: ReadReport) -> list:
    taken = []
    for name, path in files:
        if why := why_left_out(name):
            left_out.leave_out(why, path)
        else:
            taken.append(path)
    return taken


def why_left_out(name: str) -> str:
    """Returns why a file of a folder or an archive is no text: its ending, or `HIDDEN`; else ''.

    Args:
      name: below the folder, or in the archive. What stands in a hidden folder is hidden
        (.git, .ipynb_checkpoints), as is what systems and editors leave (__MACOSX, ~$a.txt).
    """
    parts = PurePosixPath(name).parts
    if not parts:
        return "file without a name"  # of a damaged archive
    if any(part.startswith((".", "~$")) or part == "__MACOSX" for part in parts if part != ".."):
        return HIDDEN
    kind, _ = file_format(name)
    if kind == UNNAMED and parts[-1].lower() in _NO_TEXT:
        return parts[-1]
    return "" if kind else PurePosixPath(name.lower()).suffix


def file_format(name: str) -> tuple[str, str]:
    """Returns (format, compression) by the endings of a file name.

    The format is one of `FORMATS`, `UNNAMED`, or '' of an ending that is not known.
    """
    path = PurePosixPath(name.lower())
    if path.suffix in (".tgz", ".tbz2", ".txz"):
        return ".tar", {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}[path.suffix]
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    suffix = PurePosixPath(path.stem).suffix if compression else path.suffix
    if compression and suffix == ".zip":
        return "", compression  # its table of contents is at its end
    return (suffix if suffix in FORMATS else "" if suffix else UNNAMED), compression
