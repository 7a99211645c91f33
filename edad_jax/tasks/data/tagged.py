# SPDX-License-Identifier: Apache-2.0
"""Tagged sentences: two-column files or a data set in, IOB2 tags out, and what was wrong.

Selegiline  B-Disease
-           O
induced     O
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edad_jax.data.text.reading import ReadReport
from edad_jax.files import open_beside
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.column_files import (
    Layout,
    Line,
    choose_layout,
    is_header,
    less_ranges,
    split_by_names,
    split_sentences,
)
from edad_jax.tasks.data.label_spelling import class_names, spelling
from edad_jax.tasks.data.reader import SplitReader
from edad_jax.tasks.data.records import Skipped, skip
from edad_jax.tasks.data.tag_schemes import (
    ONE_TYPE,
    are_bare,
    are_lower,
    iob2_tags,
    is_iob1,
    scheme_with_ends,
    with_type,
    with_upper,
)
from edad_jax.tasks.data.tagged_sentence import (
    NO_TAG,
    TaggedSentence,
    sentence_of_lines,
    sentence_of_row,
)

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".tsv", ".conll", ".txt", ".iob", ".iob2")
_LONGEST = 1_000  # words of a sentence; more are several


def read_tagged(data: str, **settings: Any) -> tuple[dict[str, list[TaggedSentence]], ReadReport]:
    """Returns {"train", "validation", maybe "test"}, and a report whose documents are sentences.

    IOBES, BILOU, BMES and IOB1 become IOB2; tags without a type are of one. Where there is no
    validation split, a tenth of the training sentences is set aside for it. The report's first
    messages give the counts of each split.

    Args:
      data: a folder with train, validation (valid, devel, dev) and test files, each a token and
        a tag a line (`column_files` chooses between more columns) and a blank line between
        sentences; or a `datasets` data set: hub id or local folder.
      settings: encoding, seed, dataset_config and allow_skipped_test of `SplitReader`; word_key
        and tag_key: of a data set the names of the columns of words and of tags (names, or numbers
        of a ClassLabel), of files the columns' numbers, from "0"; "": the obvious ones.

    Raises:
      ValueError: no training split, a file without tags, a split without sentences, no entity
        to learn, a column that is not there or that has no words, a sentence of the test split
        that cannot be read, or a data set that cannot be loaded.
    """
    return _TaggedReader(**settings).read(data)


@dataclasses.dataclass(kw_only=True)
class _TaggedReader(SplitReader[TaggedSentence]):
    word_key: str = ""
    tag_key: str = ""
    shares: Sequence[int] = (9, 1, 0)
    layouts: dict[int, Layout] = dataclasses.field(default_factory=dict)  # of the files, by width
    bare: bool | None = None  # whether tags have no type, as the training split says
    lower: bool = False  # whether they are in lower case, likewise

    formats = FORMATS
    examples = records = "sentences"
    secret = "tags"
    unlabelled = (NO_TAG,)

    def find(self, path: Path) -> dict[str, Path]:
        return task_splits.find_files(path, FORMATS) if path.is_dir() else {}

    def read_file(self, path: Path, split: str) -> Iterator[TaggedSentence | Skipped]:
        lines = [
            "" if line.startswith("-DOCSTART-") or line.isspace() else line
            for line in task_splits.read_text(path, self.encoding, self.report)
        ]
        if lines and is_header(lines[0]):
            self.notes.append(f"{path.name}:1: names of columns, no words: {lines[0][:80]!r}")
            lines[0] = ""
        sentences, width, comments = split_sentences(lines)
        if len(sentences) == 1 and width > 2:
            sentences = split_by_names(sentences[0])
        if comments:
            self.notes.append(f"{path.name}: {comments:,} comment lines before sentences not used")
        if not width and sentences and split != "test":
            number = sentences[0][0].number
            raise ValueError(
                f"{path}:{number}: got {lines[number - 1][:80]!r}, and no line with a second "
                "column; expected a token and its tag a line, with a tab or a blank between"
            )
        layout = self._choose_layout(path.name, sentences, width)
        self._learn_bareness(
            line.columns[layout.tag]
            for sentence in sentences
            for line in sentence
            if len(line.columns) == width
        )
        self._note_lengths(path.name, sentences)
        beside = 0
        for sentence in sentences:
            kept = less_ranges(sentence, layout)
            beside += len(sentence) - len(kept)
            yield sentence_of_lines(kept, path.name, layout, self._read_tag)
        if beside:
            self.notes.append(
                f"{path.name}: {beside:,} lines such as 1-2 or 8.1 not used: their words have "
                "lines of their own"
            )

    def _note_lengths(self, name: str, sentences: Sequence[Sequence[Line]]) -> None:
        """Notes sentences that nobody wrote: what is between them is no blank line."""
        longest = max(sentences, key=len, default=())
        if len(longest) > _LONGEST:
            self.notes.append(
                f"{name}:{longest[0].number}: a sentence of {len(longest):,} words, of "
                f"{len(sentences):,} in all: expected a blank line between sentences; without them "
                "they are cut wherever a row is full"
            )

    def _choose_layout(self, name: str, sentences: Sequence[Sequence[Line]], width: int) -> Layout:
        """Returns the layout of a file: that of the one before it, if it has as many columns."""
        if not width:
            return Layout(0, 0, 0, has_tags=False)
        chosen, notes = choose_layout(
            sentences, width, name=name, word_key=self.word_key, tag_key=self.tag_key
        )
        if width not in self.layouts:
            self.layouts[width] = chosen
            self.notes += notes
        return self.layouts[width]._replace(has_tags=chosen.has_tags)

    def _learn_bareness(self, tags: Iterable[str]) -> None:
        """Notes how tags are written; the first split, to train on, decides."""
        if self.bare is None:
            tags = set(tags)
            self.bare, self.lower = are_bare(tags), are_lower(tags)
            if self.lower:
                self.notes.append("the tags are in lower case: read as O, B-, I-")
            if self.bare:
                self.notes.append(f"the tags have no type: all are of one, {ONE_TYPE}")

    def _read_tag(self, tag: str) -> str:
        """Returns a tag as it would be with a type and in upper case."""
        tag = with_upper(tag) if self.lower else tag
        return with_type(tag) if self.bare else tag

    def read_rows(self, rows: Dataset, split: str) -> Iterator[TaggedSentence | Skipped]:
        word_key, tag_key = self.word_key or "tokens", self.tag_key or "ner_tags"
        for key, option in ((word_key, "text_key"), (tag_key, "label_key")):
            if key not in rows.column_names:
                if split == "test" and key == tag_key:
                    yield from (skip(NO_TAG, f"{split}:{row}") for row in range(len(rows)))
                    return
                raise ValueError(
                    f"{split}: got the columns {', '.join(rows.column_names)}, expected {key!r}; "
                    f"give --config.{option}=..."
                )
        feature = rows.features[tag_key]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        given = rows[tag_key] if names is None else [names]
        self._learn_bareness(
            tag for tags in given if isinstance(tags, list) for tag in tags if isinstance(tag, str)
        )
        for number, row in enumerate(rows.select_columns([word_key, tag_key])):
            words, tags, here = row[word_key], row[tag_key], f"{split}:{number}"
            if not isinstance(words, list) or not isinstance(tags, list):
                raise ValueError(
                    f"{here}: got {type(words).__name__} and {type(tags).__name__} in "
                    f"{word_key!r} and {tag_key!r}, expected a list of words and one of "
                    "tags; give other columns: --config.text_key=... --config.label_key=..."
                )
            if tags and isinstance(tags[0], int) and not names:
                raise ValueError(
                    f"{here}: got the tag {tags[0]} in {tag_key!r}, a number without a name; "
                    "expected a ClassLabel or tags such as B-Disease; give a data set that names "
                    "its tags"
                )
            if words or tags:  # empty rows are no problem
                yield sentence_of_row(words, tags, names, here, self._read_tag)

    def harmonise(self, splits: dict[str, list[TaggedSentence]]) -> dict[str, list[TaggedSentence]]:
        """Returns the splits in IOB2; counts each tag that continues nothing."""
        splits = self._spell_types_alike(splits)
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

    def _spell_types_alike(
        self, splits: dict[str, list[TaggedSentence]]
    ) -> dict[str, list[TaggedSentence]]:
        """Returns the splits with one name for types that differ by what is not seen."""
        every = [each for sentences in splits.values() for each in sentences]
        types = {tag[2:] for each in every for tag in each.tags}
        names = class_names(each for each in sorted(types) if spelling(each))
        others = {one: name for one, name in names.items() if one != name}
        if not others:
            return splits
        for one, name in others.items():
            places = [each.source for each in every if any(tag[2:] == one for tag in each.tags)]
            self.notes.append(
                f"{places[0]}: type {ascii(one)} is read as {name!r}, here and in "
                f"{len(places) - 1:,} other sentences"
            )

        def spell(tag):
            return tag[:2] + others.get(tag[2:], tag[2:])

        return {
            split: [each._replace(tags=tuple(map(spell, each.tags))) for each in sentences]
            for split, sentences in splits.items()
        }

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


def _where(sentence: TaggedSentence, index: int) -> str:
    """Returns the place of a word: in a file each word of a sentence mostly has the next line."""
    name, _, number = sentence.source.rpartition(":")
    is_row = name in task_splits.SPLITS  # a file's name has an ending
    line = sentence.lines[index] if sentence.lines else int(number) + index
    return sentence.source if is_row else f"{name}:{line}"


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
