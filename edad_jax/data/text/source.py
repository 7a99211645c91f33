# SPDX-License-Identifier: Apache-2.0
"""The text that a configuration names: its documents, and what tells it from another."""

import functools
import importlib.metadata
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from edad_jax.data.text.corpus import read_dataset, read_documents
from edad_jax.data.text.docstrings import read_docstrings
from edad_jax.data.text.encodings import check_encoding
from edad_jax.data.text.files import list_files
from edad_jax.data.text.reading import ReadReport, shown
from edad_jax.files import RemotePath


def read_text(corpus: ConfigDict, report: ReadReport) -> Iterator[str]:
    """Returns the documents that config.corpus names, in a fixed order, one at a time.

    They are composed (NFC), as vocabularies are: a Mac's text has each Hangul syllable in parts.
    """
    return (unicodedata.normalize("NFC", text) for text in _read_source(corpus, report))


def cut_text(corpus: ConfigDict, parts: int) -> list[Callable[[ReadReport], Iterator[str]]]:
    """Returns the text in pieces: some four for each part, of whole files; any other text whole."""
    if not corpus.files:
        return [functools.partial(read_text, corpus)]
    left_out = ReadReport()
    listed = list_files(_patterns(corpus.files), left_out)
    ends = np.cumsum([_describe_file(file)[1] for file in listed], dtype=np.float64)
    places = np.minimum(ends / max(1.0, ends[-1]) * 4 * parts, 4 * parts - 1).astype(int).tolist()
    grouped = itertools.groupby(zip(places, listed, strict=True), key=lambda each: each[0])
    groups = [[file for _, file in group] for _, group in grouped]

    def read(group, report):
        if group is groups[0]:
            report.add_left_out(left_out.left_out)
        texts = _read_files(corpus, group, report, may_be_empty=True)
        return (unicodedata.normalize("NFC", text) for text in texts)

    return [functools.partial(read, group) for group in groups]


def _read_files(corpus, listed, report, **options):
    return read_documents(
        listed,
        report=report,
        text_key=corpus.text_key,
        encoding=corpus.encoding,
        lines=corpus.lines,
        **options,
    )


def _read_source(corpus, report):
    if corpus.files:
        return _read_files(corpus, list_files(_patterns(corpus.files), report), report)
    if corpus.dataset:
        return read_dataset(
            corpus.dataset,
            config_name=corpus.dataset_config or None,
            split=corpus.dataset_split,
            text_key=corpus.text_key,
            report=report,
        )
    return read_docstrings(corpus.packages, report=report)


def describe_source(corpus: ConfigDict) -> dict:
    """Returns what tells one corpus from another: names, sizes and times, or versions.

    Raises:
      ValueError: config.corpus names no text, more than one kind, or an unknown encoding.
    """
    given = [kind for kind in ("files", "dataset", "packages") if corpus[kind]]
    if len(given) != 1:
        raise ValueError(
            f"config.corpus names {' and '.join(given) or 'no text'}; expected one of "
            "--config.corpus.files='/data/*.jsonl', --config.corpus.dataset=NAME_OR_FOLDER, or "
            "config.corpus.packages (docstrings of installed packages)"
        )
    if corpus.files:
        check_encoding(corpus.encoding)
        return {
            "files": [_describe_file(file) for file in list_files(_patterns(corpus.files))],
            "text_key": corpus.text_key,
            "encoding": corpus.encoding,
            "lines": corpus.lines,
        }
    if corpus.dataset:
        names = ("dataset", "dataset_config", "dataset_split", "text_key")
        return {name: corpus[name] for name in names}
    return {"packages": {name: _version(name) for name in corpus.packages}}


def _describe_file(file: Path | RemotePath) -> list:
    if isinstance(file, RemotePath):
        return [str(file), *file.size_and_version()]
    stat = os.stat(file)
    return [shown(file), stat.st_size, stat.st_mtime_ns]


def _patterns(names: str) -> list[str]:
    return [pattern.strip() for pattern in names.split(",") if pattern.strip()]


def _version(package: str) -> str:
    try:
        distributions = importlib.metadata.packages_distributions().get(package, [package])
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"config.corpus.packages: {package!r} is not installed; install it or leave it out"
        ) from error
