# SPDX-License-Identifier: Apache-2.0
"""Documents from files and data sets: plain text, JSON lines, parquet, PubMed Central, `datasets`.

Everything streams. A file that is damaged, or gone since it was listed, costs its own unreadable
part and nothing else; what was skipped or repaired is counted in the `ReadReport`, with file and
line. A document is a string whose lines are paragraphs, or sentences, or groups of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from edad_jax.data.text.archives import read_tar, read_zip
from edad_jax.data.text.articles import read_articles
from edad_jax.data.text.bombs import is_bomb
from edad_jax.data.text.encodings import check_encoding, recode_blocks
from edad_jax.data.text.files import FORMATS, JSON_LINES, OPTION, UNNAMED, XML, file_format
from edad_jax.data.text.hub import is_hub_reachable
from edad_jax.data.text.json_values import finish_value, read_json
from edad_jax.data.text.plain import guess_format, read_text
from edad_jax.data.text.reading import (
    BLOCK_BYTES,
    ReadReport,
    open_blocks,
    read_blocks,
    shown,
)
from edad_jax.files import RemoteError, RemotePath, as_path

if TYPE_CHECKING:
    import pyarrow


def read_documents(
    files: Iterable[str | Path | RemotePath],
    *,
    report: ReadReport,
    text_key: str = "text",
    encoding: str = "utf-8",
    lines: bool = False,
    may_be_empty: bool = False,
) -> Iterator[str]:
    """Yields the documents of files, in order. The ending of a file's name says its format.

    - .txt: a blank line between documents; with `lines`, a document a line. Where it begins with
      <doc ...>, as WikiExtractor's files do, each <doc> is a document.
    - .jsonl, .json: an object a line, its text under `text_key` (a string or a list of strings); or
      one value: an array of such objects or of strings, {"data": [...]}.
    - .parquet: a row a document, its text in the column `text_key`.
    - .nxml, .xml: articles in JATS, as PubMed Central gives them, or PubMed's own files.
    - .tar, .tar.gz, .tgz, .zip: any of the above but parquet, inside.
    - no ending: text, JSON or XML, by what it begins with.

    All but parquet and .zip may be compressed: .gz, .bz2, .xz, .zst.

    Args:
      files: as `list_files` returns them.
      report: counts what was read and what was wrong.
      text_key: where jsonl and parquet have the text.
      encoding: of .txt and .jsonl; a byte order mark decides over it.
      lines: whether every line of .txt is a document of its own.
      may_be_empty: whether to say nothing where there is no document.

    Raises:
      ValueError: at once, if there is no such encoding; at the end, if there was no document.
      RemoteError: object storage stopped answering, even in the middle of a file: unlike a
        damaged file, which is the same for whoever reads it, that must not decide the text.
    """
    check_encoding(encoding)
    files = [as_path(file) for file in files]
    options = _Options(text_key, encoding, lines)
    for path in files:
        try:
            report.total_file_bytes += _file_size(path)
        except RemoteError:
            raise
        except OSError:
            pass  # it is reported when its turn comes
    before = report.documents
    for path in files:
        yield from _read_file(path, report, options)
    if not may_be_empty and report.documents == before:
        raise ValueError(
            f"got 0 documents from {len(files):,} files, expected text; give other files: "
            f"{OPTION}\n{report.summary()}"
        )


class _Options(NamedTuple):
    """How text lies in files, as `read_documents` is told."""

    text_key: str
    encoding: str
    lines: bool


def _file_size(path: Path | RemotePath) -> int:
    return path.size_and_version()[0] if isinstance(path, RemotePath) else path.stat().st_size


class _Watched:
    """A file in object storage; keeps the first error, which readers take for a damaged file."""

    def __init__(self, path: RemotePath) -> None:
        self._file = path.open()
        self.error: Exception | None = None

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *exception_info) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = self.error or error
            raise OSError(str(error)) from error


def _read_file(path: Path | RemotePath, report: ReadReport, options: _Options) -> Iterator[str]:
    kind, _ = file_format(path.name)
    if not kind:
        report.add_problem(f"file skipped: not one of {', '.join(FORMATS)}", shown(path))
        return
    start = report.file_bytes
    before = report.documents
    try:
        is_remote = isinstance(path, RemotePath)
        with _Watched(path) if is_remote else open(path, "rb") as file:
            size = _file_size(path)
            if not size:
                report.add_problem("empty file", shown(path))
                return
            for document in _read_stream(file, path.name, shown(path), report, options):
                report.file_bytes = start + file.tell()
                yield document
            if is_remote and file.error:
                raise RemoteError(
                    f"{path}: got {type(file.error).__name__}: {file.error} in the middle of the "
                    "file; run the same command again, what is finished is kept"
                )
    except RemoteError:
        raise
    except OSError as error:
        # Gone or closed to us since it was listed, or unreadable in its middle.
        report.add_problem("file cannot be read", shown(path), error.strerror or error)
        return
    report.file_bytes = start + size
    if report.documents == before and path.suffix != ".parquet":
        report.add_problem("no document in the file", shown(path))


def _read_stream(
    file: BinaryIO, name: str, where: str, report: ReadReport, options: _Options
) -> Iterator[str]:
    """Yields the documents of an open file; `name` says its format, `where` is for messages."""
    kind, compression = file_format(name)
    if kind == ".parquet":
        yield from _read_parquet(file, where, report, options.text_key)
        return

    def read_member(member, member_name, here):
        return _read_stream(member, member_name, here, report, options)

    if kind == ".zip":
        yield from read_zip(file, where, report, read_member)
        return
    blocks = read_blocks(file, compression, where, report)
    if kind == ".tar":
        yield from read_tar(blocks, where, report, read_member)
    elif kind == UNNAMED:
        yield from _read_unnamed(blocks, where, report, options)
    else:
        yield from _read_blocks(kind, blocks, where, report, options)


def _read_blocks(
    kind: str, blocks: Iterable[bytes], where: str, report: ReadReport, options: _Options
) -> Iterator[str]:
    if kind in XML:
        yield from read_articles(blocks, where, report)
        return
    blocks = recode_blocks(blocks, options.encoding, where, report)
    if kind in JSON_LINES:
        yield from read_json(blocks, where, report, options.text_key)
    else:
        yield from read_text(blocks, where, report, lines=options.lines)


def _read_parquet(file: BinaryIO, where: str, report: ReadReport, text_key: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        if text_key not in table.schema_arrow.names:
            report.add_problem(
                f"file skipped: no column {text_key!r} (--config.corpus.text_key=...)",
                where,
                ", ".join(table.schema_arrow.names[:8]),
            )
            return
        packed = unpacked = 0
        for group in range(table.num_row_groups):
            sizes = _sizes_of(table.metadata.row_group(group), text_key)
            packed, unpacked = packed + sizes[0], unpacked + sizes[1]
            if is_bomb(packed, unpacked, f"{where}:{row}", report.add_problem):
                return
            # Of what is compressed so well, many rows may be the same long string.
            rows = 256 if sizes[1] < 50 * max(1, sizes[0]) else 1
            for batch in table.iter_batches(rows, row_groups=[group], columns=[text_key]):
                for value in _values_of(batch.column(0), where, row, report):
                    row += 1
                    yield from finish_value(value, f"{where}:{row}", report)
    except (pyarrow.ArrowException, OSError) as error:
        report.add_problem("file is damaged: kept what could be read", f"{where}:{row}", error)


def _values_of(column: pyarrow.Array, where: str, row: int, report: ReadReport) -> list:
    """Returns the values of a column behind a row; what says that it is text may not be."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        values = []
    for number, scalar in enumerate(column, start=row + 1):
        try:
            values.append(scalar.as_py())
        except UnicodeDecodeError as error:
            parts = [scalar] if hasattr(scalar, "as_buffer") else scalar.values  # of a list
            texts = [part.as_buffer().to_pybytes().decode("utf-8", "replace") for part in parts]
            report.add_problem("invalid UTF-8 replaced", f"{where}:{number}", error)
            values.append("\n".join(texts))
    return values


def _sizes_of(group, column: str) -> tuple[int, int]:
    """Returns the compressed and the uncompressed bytes of a column in a row group of parquet."""
    parts = [group.column(number) for number in range(group.num_columns)]
    parts = [part for part in parts if part.path_in_schema.partition(".")[0] == column]
    return (
        sum(part.total_compressed_size for part in parts),
        sum(part.total_uncompressed_size for part in parts),
    )


def _read_unnamed(
    blocks: Iterable[bytes], where: str, report: ReadReport, options: _Options
) -> Iterator[str]:
    """Yields the documents of a file without an ending: its first letters say what it is."""
    stream = open_blocks(blocks)
    begin = stream.read(BLOCK_BYTES)
    kind = guess_format(begin)
    if not kind:
        report.add_problem("file skipped: no ending, and not text", where)
        return
    rest = itertools.chain([begin], iter(lambda: stream.read(BLOCK_BYTES), b""))
    yield from _read_blocks(kind, rest, where, report, options)


def read_dataset(
    path_or_id: str,
    *,
    config_name: str | None = None,
    split: str = "train",
    text_key: str = "text",
    report: ReadReport,
) -> Iterator[str]:
    """Yields the documents of a `datasets` data set, streamed: a hub id, or a local folder.

    Args:
      path_or_id: a hub id, a folder of data files, or what `Dataset.save_to_disk` wrote.
      config_name: of data sets that have several configurations.
      split: which part.
      text_key: the column with the text.
      report: counts what was read and what was wrong.

    Raises:
      ValueError: it cannot be loaded, or gave no document; says what to give instead.
    """
    import datasets

    is_folder = os.path.exists(path_or_id)
    if not is_folder and not is_hub_reachable():
        raise ValueError(
            f"the data set {path_or_id} is not on this machine and the Hugging Face hub cannot be "
            f"reached; give a local folder, or files: {OPTION}"
        )
    try:
        if any(
            os.path.exists(os.path.join(path_or_id, name))
            for name in ("state.json", "dataset_dict.json")
        ):
            data = datasets.load_from_disk(path_or_id)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = datasets.load_dataset(path_or_id, config_name, split=split, streaming=True)
    except Exception as error:
        raise ValueError(
            f"the data set {path_or_id} cannot be loaded ({type(error).__name__}: {error}); give "
            f"another one, or files: {OPTION}"
        ) from error
    before = report.documents
    for number, record in enumerate(_named_errors(data, path_or_id)):
        if text_key not in record:
            raise ValueError(
                f"{path_or_id}: got the columns {', '.join(record)}, expected {text_key!r}; give "
                "--config.corpus.text_key=..."
            )
        yield from finish_value(record[text_key], f"{path_or_id}:{number}", report)
    if report.documents == before:
        raise ValueError(
            f"got 0 documents from the data set {path_or_id} ({split}), expected text; give "
            f"another one, or files: {OPTION}\n{report.summary()}"
        )


def _named_errors(data: Iterable[dict], path_or_id: str) -> Iterator[dict]:
    """Yields the records; what ends them early is one line: a reader in it cannot go on."""
    number = 0
    records = iter(data)
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            raise ValueError(
                f"the data set {path_or_id} cannot be read after {number:,} records ({told}); mend "
                "it, or read its files, where a bad line costs only itself: "
                "--config.corpus.files=FOLDER_OR_FILES"
            ) from error
        yield record
        number += 1
