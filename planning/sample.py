# SPDX-License-Identifier: Apache-2.0
"""A sample of a run's text: some of every file, and how much text there is in all."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from edad_jax.data.text.reading import ReadReport
from edad_jax.data.text.source import cut_text, read_text

_PARTS = 4  # of the text; `cut_text` makes some four groups of files of each
_FEWEST_BLOCKS = 5  # of a file, to see how much text a byte of it holds
# Times a group's part of the sample. The beginning of a compressed file holds less text in a byte
# than what follows, which repeats it; so reading goes on, and its last half counts.
_READ_ON = 4
_TEXT = "text.jsonl"


class Sample(NamedTuple):
    """Documents in the order of the text, and what they are a part of."""

    documents: list[str]
    share: float  # of the text's characters that they are; 1 where they are all of it

    @property
    def characters(self) -> int:
        return sum(map(len, self.documents))


def take_sample(corpus: ConfigDict, characters: float) -> Sample:
    """Returns all of a text that is no longer than the sample is to be, or some of every part.

    Args:
      corpus: config.corpus.
      characters: that are enough, about.

    Raises:
      ValueError: no text; or a data set of `datasets` that is longer, since it does not tell how
        much there is.
    """
    documents, is_whole = _take(read_text(corpus, ReadReport()), characters)
    if is_whole:
        return Sample(documents, 1.0)
    if corpus.dataset:
        raise ValueError(
            f"config.corpus.dataset={corpus.dataset!r}: got more than {characters / 1e6:,.0f} "
            "million characters from a data set that does not tell how many it has; expected "
            "config.corpus.files or .packages for --plan: plan on files with a part of it"
        )
    read_on = _READ_ON if corpus.files else 1  # docstrings are slow to read, and not compressed
    groups = [_Group(read, read_on=read_on) for read in _cut(corpus)]
    size = sum(group.file_bytes for group in groups)
    documents = []
    for group in groups:
        documents += group.take(characters * group.file_bytes / size)
    return Sample(documents, sum(map(len, documents)) / sum(group.characters for group in groups))


def write_sample(sample: Sample, config: ConfigDict, folder: Path) -> ConfigDict:
    """Returns a copy of a configuration whose text is a sample, which is written to `folder`."""
    lines = (json.dumps({"text": text}) + "\n" for text in sample.documents)
    (folder / _TEXT).write_text("".join(lines), encoding="utf-8")
    config = config.copy_and_resolve_references()
    config.corpus.update(
        files=str(folder / _TEXT), dataset="", packages=(), text_key="text", encoding="utf-8"
    )
    config.progress = False
    return config


def _cut(corpus: ConfigDict) -> list[Callable[[ReadReport], Iterator[str]]]:
    """Returns readers of a text's parts: groups of files, or packages."""
    if corpus.files:
        return cut_text(corpus, _PARTS)
    readers = []
    for package in corpus.packages:
        one = corpus.copy_and_resolve_references()
        one.packages = (package,)
        readers.append(functools.partial(read_text, one))
    return readers


class _Group:
    """Files that are read from their beginning, and how much text they hold.

    Attributes:
      file_bytes: of the files, compressed where they are.
      characters: of text in them, as far as reading tells; known after `take`.
    """

    def __init__(self, read: Callable[[ReadReport], Iterator[str]], *, read_on: float):
        self._report, self._read_on = ReadReport(), read_on
        documents = read(self._report)
        first = list(itertools.islice(documents, 1))  # the reader has looked at the files by then
        self._documents = itertools.chain(first, documents)
        self.file_bytes = self._report.total_file_bytes
        self.characters = 0.0

    def take(self, characters: float) -> list[str]:
        """Returns documents from the beginning, one at least."""
        taken, read, is_full = [], 0, False
        # Files are read a block at a time: where another block is fetched, the one before is used.
        marks = [(0, 0)]
        for document in self._documents:
            if is_full and read > self._read_on * characters and len(marks) > _FEWEST_BLOCKS:
                break
            read += len(document)
            if not is_full:
                taken.append(document)
                is_full = read >= characters
            if self._report.file_bytes != marks[-1][1]:
                marks.append((read, self._report.file_bytes))
        else:
            self.characters = float(read)
            return taken
        (first, from_byte), (last, to_byte) = marks[len(marks) // 2], marks[-1]
        if to_byte <= from_byte:  # Parquet is not read from one end to the other
            first, from_byte = 0, 0
        a_byte = (last - first) / max(1, to_byte - from_byte)
        self.characters = last + max(0, self.file_bytes - to_byte) * a_byte
        return taken


def _take(documents: Iterator[str], characters: float) -> tuple[list[str], bool]:
    """Returns documents until they have so many characters, and whether there are no more."""
    taken, count = [], 0
    for document in documents:
        taken.append(document)
        count += len(document)
        if count >= characters:
            return taken, False
    return taken, True
