# SPDX-License-Identifier: Apache-2.0
"""Tagged sentences: two-column files or a data set in, IOB2 tags out, and what was wrong.

    Selegiline  B-Disease
    -           O
    induced     O

A sentence with a hole is another sentence, so one line that cannot be read costs its sentence.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edad_jax.data.text.reading import ReadReport
from edad_jax.files import open_beside
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.reader import SplitReader
from edad_jax.tasks.data.records import Skipped, skip
from edad_jax.tasks.data.tag_schemes import TAG, iob2_tags, is_iob1, scheme_with_ends

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".tsv", ".conll", ".txt", ".iob", ".iob2")
_NO_TAG = "sentence skipped: a token without a tag"
_NO_TOKEN = "sentence skipped: a tag without a token"
_BAD_TAG = "sentence skipped: a tag that is neither O nor B-, I-, E-, S-, L- or U- with a type"


class TaggedSentence(NamedTuple):
    """Words with a tag each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]  # IOB2
    source: str  # "train.tsv:12": where the sentence begins; of a data set "train:11", the row


def read_tagged(data: str, **settings: Any) -> tuple[dict[str, list[TaggedSentence]], ReadReport]:
    """Returns {"train", "validation", maybe "test"}, and a report whose documents are sentences.

    IOBES, BILOU and IOB1 become IOB2. Where there is no validation split, a tenth of the training
    sentences is set aside for it. The report's first messages give the counts of each split.

    Args:
      data: a folder with train, validation (valid, devel, dev) and test files, each a token and
        a tag a line (of more columns the first and the last) and a blank line between
        sentences; or a `datasets` data set: hub id or local folder.
      settings: encoding, seed and dataset_config of `SplitReader`; word_key and tag_key, the
        columns of a data set with words and tags (names, or numbers of a ClassLabel).

    Raises:
      ValueError: no training split, a file without tags, a split without sentences, no entity
        to learn, or a data set that cannot be loaded or lacks a column.
    """
    return _TaggedReader(**settings).read(data)


@dataclasses.dataclass(kw_only=True)
class _TaggedReader(SplitReader[TaggedSentence]):
    word_key: str = "tokens"
    tag_key: str = "ner_tags"
    shares: Sequence[int] = (9, 1, 0)

    formats = FORMATS
    examples = records = "sentences"
    secret = "tags"

    def find(self, path: Path) -> dict[str, Path]:
        return task_splits.find_files(path, FORMATS) if path.is_dir() else {}

    def read_file(self, path: Path, split: str) -> Iterator[TaggedSentence | Skipped]:
        lines = [
            "" if line.startswith("-DOCSTART-") or line.isspace() else line
            for line in task_splits.read_text(path, self.encoding, self.report)
        ]
        columns = [_columns(line) for line in lines]
        widths = Counter(len(each) for each in columns if len(each) > 1)
        if not widths and any(lines):
            number = next(number for number, line in enumerate(lines, start=1) if line)
            raise ValueError(
                f"{path}:{number}: got {lines[number - 1][:80]!r}, and no line with a second "
                "column; expected a token and its tag a line, with a tab or a blank between"
            )
        width = widths.most_common(1)[0][0] if widths else 0
        start = 0
        for end in range(len(lines) + 1):
            if end < len(lines) and lines[end]:
                continue
            if end > start:
                here = [f"{path.name}:{number + 1}" for number in range(start, end)]
                yield _parse_sentence(columns[start:end], here, width)
            start = end + 1

    def read_rows(self, rows: Dataset, split: str) -> Iterator[TaggedSentence | Skipped]:
        for key, option in ((self.word_key, "text_key"), (self.tag_key, "label_key")):
            if key not in rows.column_names:
                raise ValueError(
                    f"{split}: got the columns {', '.join(rows.column_names)}, expected {key!r}; "
                    f"give --config.{option}=..."
                )
        feature = rows.features[self.tag_key]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        for number, row in enumerate(rows.select_columns([self.word_key, self.tag_key])):
            words, tags, here = row[self.word_key], row[self.tag_key], f"{split}:{number}"
            if not isinstance(words, list) or not isinstance(tags, list):
                raise ValueError(
                    f"{here}: got {type(words).__name__} and {type(tags).__name__} in "
                    f"{self.word_key!r} and {self.tag_key!r}, expected a list of words and one of "
                    "tags; give other columns: --config.text_key=... --config.label_key=..."
                )
            if tags and isinstance(tags[0], int) and not names:
                raise ValueError(
                    f"{here}: got the tag {tags[0]} in {self.tag_key!r}, a number without a name; "
                    "expected a ClassLabel or tags such as B-Disease; give a data set that names "
                    "its tags"
                )
            if words or tags:  # empty rows are no problem
                yield _parse_row(words, tags, names, here)

    def harmonise(self, splits: dict[str, list[TaggedSentence]]) -> dict[str, list[TaggedSentence]]:
        """Returns the splits in IOB2; counts each tag that continues nothing."""
        tags = [sentence.tags for sentences in splits.values() for sentence in sentences]
        begins_with_i = is_iob1(tags)
        if scheme := scheme_with_ends(tags):
            self.notes.append(f"the tags are {scheme}: turned into IOB2")
        elif begins_with_i:
            self.notes.append("the tags are IOB1, where I- begins an entity: turned into IOB2")
        fixed: dict[str, list[TaggedSentence]] = {split: [] for split in splits}
        for split, sentences in splits.items():
            for sentence in sentences:
                iob2, orphans = iob2_tags(sentence.tags)
                for index in () if begins_with_i else orphans:
                    self.report.add_problem(
                        "tag that continues no entity: B- instead",
                        _where(sentence, index),
                        sentence.tags[index],
                    )
                fixed[split].append(sentence._replace(tags=iob2))
        return fixed

    def count(self, examples: Sequence[TaggedSentence], skipped: int) -> str:
        return (
            f"{len(examples):,} sentences, {sum(len(each.words) for each in examples):,} words, "
            f"{sum(tag[0] == 'B' for each in examples for tag in each.tags):,} entities; "
            f"{skipped:,} sentences skipped"
        )

    def documents(self, examples: Sequence[TaggedSentence]) -> Iterator[str]:
        return (" ".join(each.words) for each in examples)

    def divide(
        self, data: str, examples: Sequence[TaggedSentence], shares: Mapping[str, int]
    ) -> tuple[Sequence[Sequence[int]], str]:
        count = len(examples)
        if count < 2:
            raise ValueError(
                f"{data}: got 1 sentence to train on and no validation split, expected one; give a "
                "validation file or more sentences"
            )
        aside = max(1, count // 10)
        how = f"{aside:,} of the {count:,} training sentences set aside as one, seed {self.seed}"
        sizes = (count - aside, aside)
        return task_splits.split_by_class(["any"] * count, sizes, seed=self.seed), how

    def check(self, data: str, splits: dict[str, list[TaggedSentence]]) -> None:
        known = {tag[2:] for sentence in splits["train"] for tag in sentence.tags}  # O has ""
        if known == {""}:
            raise ValueError(
                f"{data}: got the tag O for every word to train on, expected at least one entity; "
                f"give data with entities\n{self.report.summary()}"
            )
        known.add("")
        for split in ("validation", "test"):
            for sentence in splits.get(split, ()):
                for index, tag in enumerate(sentence.tags):
                    if tag[2:] not in known:
                        known.add(tag[2:])
                        self.report.add_problem(
                            "label unseen in training", _where(sentence, index), tag[2:]
                        )


def _columns(line: str) -> list[str]:
    """Returns the columns of a line; none of a blank one. A word may hold other white space."""
    if not line:
        return []
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")]
    return re.split(" +", line.strip(" "))


def _parse_sentence(
    lines: Sequence[list[str]], here: Sequence[str], width: int
) -> TaggedSentence | Skipped:
    """Returns the sentence of some lines, given as columns with the place of each."""
    problems = [
        (problem[0], place, problem[1])
        for columns, place in zip(lines, here, strict=True)
        if (problem := _find_problem(columns, width))
    ]
    if problems:
        return Skipped(problems)
    words, tags = zip(*((columns[0], columns[-1]) for columns in lines), strict=True)
    return TaggedSentence(words, tags, here[0])


def _find_problem(columns: list[str], width: int) -> tuple[str, str] | None:
    """Returns what is wrong with a line, and a detail; None if it is good."""
    if not columns[0] or columns[0].isspace():
        return _NO_TOKEN, ""
    if len(columns) == 1 or not columns[-1]:
        return _NO_TAG, repr(columns[0][:80])
    if len(columns) != width:
        return (
            "sentence skipped: a line with another number of columns than most",
            f"{len(columns)}, not {width}",
        )
    if "\r" in "".join(columns):
        return "sentence skipped: a carriage return within a line", ""
    if not TAG.fullmatch(columns[-1]):
        return _BAD_TAG, repr(columns[-1][:80])
    return None


def _parse_row(
    words: list, tags: list, names: Sequence[str] | None, here: str
) -> TaggedSentence | Skipped:
    """Returns the sentence of a data set's row."""
    if names:
        is_named = [isinstance(tag, int) and 0 <= tag < len(names) for tag in tags]
        tags = [names[t] if n else f"{t}" for t, n in zip(tags, is_named, strict=True)]
    if len(words) != len(tags):
        return skip(_NO_TAG, here, f"{len(words)} words, {len(tags)} tags")
    if not all(isinstance(word, str) and word.strip() for word in words):
        return skip(_NO_TOKEN, here)
    if bad := [tag for tag in tags if not TAG.fullmatch(str(tag))]:
        return skip(_BAD_TAG, here, repr(bad[0]))
    return TaggedSentence(tuple(words), tuple(tags), here)


def _where(sentence: TaggedSentence, index: int) -> str:
    """Returns the place of a word: in a file each word of a sentence has the next line."""
    name, _, number = sentence.source.rpartition(":")
    is_row = name in task_splits.SPLITS  # a file's name has an ending
    return sentence.source if is_row else f"{name}:{int(number) + index}"


def write_predictions(
    path: str | Path, sentences: Sequence[TaggedSentence], predicted_tags: Sequence[Sequence[str]]
) -> None:
    """Writes 'word<TAB>true tag<TAB>predicted tag' lines, a blank line after each sentence.

    Raises:
      ValueError: not one tag for each word; nothing is written.
    """
    if len(sentences) != len(predicted_tags):
        raise ValueError(
            f"{path}: got tags of {len(predicted_tags)} sentences, expected {len(sentences)}"
        )
    for sentence, tags in zip(sentences, predicted_tags, strict=True):
        if len(tags) != len(sentence.words):
            raise ValueError(
                f"{path}: got {len(tags)} tags for {sentence.source}, expected one for each of "
                f"its {len(sentence.words)} words"
            )
    with open_beside(path) as file:
        for sentence, tags in zip(sentences, predicted_tags, strict=True):
            for word, gold, tag in zip(sentence.words, sentence.tags, tags, strict=True):
                # A word of a data set may hold what ends a column or a line here.
                written = re.sub("[\t\r\n]+", " ", word)
                file.write(f"{written}\t{gold}\t{tag}\n")
            file.write("\n")
