# SPDX-License-Identifier: Apache-2.0
"""Labelled texts: csv, tsv, jsonl or a data set in, three splits out, and what was wrong."""

from __future__ import annotations

import csv
import dataclasses
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edad_jax.data.text.reading import KEPT_MESSAGES, ReadReport
from edad_jax.files import open_beside
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.label_spelling import class_names, look_alike, spelling
from edad_jax.tasks.data.reader import SplitReader
from edad_jax.tasks.data.records import (
    Skipped,
    choose_delimiter,
    json_records,
    skip,
    table_records,
)

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".csv", ".tsv", ".jsonl")
_TEXT_COLUMNS = ("text", "sentence", "review", "document", "content")  # the first that there is
_LABEL_COLUMNS = ("label", "labels", "class", "sentiment", "category")
_RARE = {1: "once", 2: "twice"}  # so seldom a label of the training data may be a typing error
_SHOWN_LABELS = 100  # of the counts; more labels are hardly classes


class LabelledText(NamedTuple):
    """A text and its class."""

    text: str
    label: str
    source: str  # "train.csv:12": where the row begins; of a data set "train:11", the row


def read_labelled(data: str, **settings: Any) -> tuple[dict[str, list[LabelledText]], ReadReport]:
    """Returns {"train", "validation", maybe "test"}, and a report whose documents are texts.

    A split that is missing is taken from the training data by `shares`, class by class. The
    report's first messages give the counts of each split and of each label, and what was split.

    Args:
      data: a file (.csv, .tsv, .jsonl; compressed or not), a folder with train, validation (valid,
        devel, dev) and test files or with one file, or a `datasets` data set.
      settings: encoding, seed, shares, dataset_config and allow_skipped_test of `SplitReader`;
        text_key and label_key name columns, "": the obvious one. Numbers for both, such as "1",
        mean a csv or tsv without a header; the first is "0".

    Raises:
      ValueError: no training data, no such column, a split without texts, only one class, a row of
        the test split that cannot be used, or a data set that cannot be loaded.
    """
    return _LabelledReader(**settings).read(data)


@dataclasses.dataclass(kw_only=True)
class _LabelledReader(SplitReader[LabelledText]):
    text_key: str = ""
    label_key: str = ""

    def __post_init__(self):
        shares = self.shares
        if len(shares) != 3 or min(shares) < 0 or not shares[0] or not shares[1]:
            raise ValueError(
                f"got shares {tuple(shares)}, expected three whole numbers for train, validation "
                "and test, of which only the last may be 0"
            )

    formats = FORMATS
    examples = "texts"
    records = "rows"
    secret = "labels"
    unlabelled = ("row skipped: no label",)

    def find(self, path: Path) -> dict[str, Path]:
        if path.is_file():
            return {"train": path} if task_splits.file_format(path) in FORMATS else {}
        if found := task_splits.find_files(path, FORMATS):
            return found
        readable = [each for each in path.iterdir() if task_splits.file_format(each) in FORMATS]
        return {"train": readable[0]} if len(readable) == 1 and readable[0].is_file() else {}

    def read_file(self, path: Path, split: str) -> Iterator[LabelledText | Skipped]:
        lines = task_splits.read_text(path, self.encoding, self.report)
        form = task_splits.file_format(path)
        if form == ".jsonl":
            records = json_records(lines, path.name)
        else:
            has_header = not (self.text_key.isdecimal() and self.label_key.isdecimal())
            delimiter = "\t" if form == ".tsv" else choose_delimiter(lines)
            if delimiter not in ",\t" or (delimiter == "\t" and form == ".csv"):
                self.notes.append(f"{path.name}: columns between {delimiter!r}, not commas")
            records = table_records(lines, path.name, delimiter, has_header=has_header)
        yield from records.skipped
        if records.headers:
            self.notes.append(
                f"{path.name}: {records.headers:,} rows name the columns again: no rows"
            )
        if records.rows:
            text_key, label_key = self._choose_columns(path.name, records.columns, split)
            for key in (text_key, label_key):
                if records.columns.count(key) > 1:
                    raise ValueError(
                        f"{path.name}: got {records.columns.count(key)} columns {key!r}, expected "
                        "one; give the other another name, or take it out"
                    )
            for number, row in records.rows:
                yield self._parse(row.get(text_key), row.get(label_key), f"{path.name}:{number}")

    def read_rows(self, rows: Dataset, split: str) -> Iterator[LabelledText | Skipped]:
        text_key, label_key = self._choose_columns(split, rows.column_names, split)
        names = getattr(rows.features.get(label_key), "names", None)
        chosen = [key for key in (text_key, label_key) if key in rows.column_names]
        for number, row in enumerate(rows.select_columns(chosen)):
            label = row.get(label_key)
            if names and isinstance(label, int):
                label = names[label] if 0 <= label < len(names) else None
            yield self._parse(row[text_key], label, f"{split}:{number}")

    def _choose_columns(self, where: str, names: Sequence[str], split: str) -> list[str]:
        """Returns the columns of text and label: those that the keys name, or the obvious ones.

        The test split may have no column of labels ("" here), as those of competitions.
        """
        found = []
        lower = {name.lower(): name for name in reversed(names)}
        for key, obvious, option in (
            (self.text_key, _TEXT_COLUMNS, "text_key"),
            (self.label_key, _LABEL_COLUMNS, "label_key"),
        ):
            column = key or next((lower[name] for name in obvious if name in lower), None)
            if column not in names and split == "test" and option == "label_key":
                self.notes.append(
                    f"{where}: got the columns {', '.join(names)}, and no label in "
                    f"{key or ' or '.join(obvious)}"
                )
                return [*found, ""]
            if column not in names:
                raise ValueError(
                    f"{where}: got the columns {', '.join(names)}, "
                    f"expected {key or ' or '.join(obvious)}; give --config.{option}=... (a number "
                    "for each of the two, such as 0, if a table has no header)"
                )
            found.append(column)
        self.notes.append(f"{where}: text from {found[0]!r}, label from {found[1]!r}")
        return found

    def _parse(self, text: object, label: object, here: str) -> LabelledText | Skipped:
        if isinstance(label, float) and not math.isfinite(label):
            label = None  # how tables of numbers say that there is none
        if isinstance(label, str | int | float):
            # Hangul in parts (NFD) looks like the same in whole syllables, and would be another
            # class.
            label = unicodedata.normalize("NFC", str(label)).strip() if spelling(str(label)) else ""
        if text is None or (isinstance(text, str) and not text.strip()):
            return skip("row skipped: no text", here)
        if not isinstance(text, str):
            return skip("row skipped: its text is not a string", here, type(text).__name__)
        if label is None or label == "":
            return skip("row skipped: no label", here)
        if not isinstance(label, str):
            kind = type(label).__name__
            return skip("row skipped: its label is not a string or number", here, kind)
        if any("\ud800" <= letter <= "\udfff" for letter in text + label):
            # Half a surrogate pair, which JSON can spell and no tokenizer can read.
            self.report.add_problem("invalid Unicode replaced", here)
            text, label = (each.encode("utf-8", "replace").decode() for each in (text, label))
        return LabelledText(text, label, here)

    def harmonise(self, splits: dict[str, list[LabelledText]]) -> dict[str, list[LabelledText]]:
        """Returns the splits with one name for each class; counts the labels that had another."""
        if {each.label for each in splits.get("test", ())} == {"-1"} and not any(
            each.label == "-1" for each in splits.get("train", ())
        ):
            splits = {split: texts for split, texts in splits.items() if split != "test"}
            self.notes.append("test: split not used, since it has no labels, only -1")
        names = class_names(each.label for texts in splits.values() for each in texts)
        others: dict[str, list[str]] = {}  # where each other way to write a label stands
        named: dict[str, list[LabelledText]] = {split: [] for split in splits}
        for split, texts in splits.items():
            for each in texts:
                if (name := names[each.label]) != each.label:
                    others.setdefault(each.label, []).append(each.source)
                named[split].append(each._replace(label=name))
        # Counted without a message each, for whole splits may be written so.
        if others:
            self.report.problems["label written in another way: read as its class"] = sum(
                map(len, others.values())
            )
        for label, places in list(others.items())[:KEPT_MESSAGES]:
            self.notes.append(
                f"{places[0]}: label {ascii(label)} is read as {names[label]!r}, here and in "
                f"{len(places) - 1:,} other places"
            )
        return named

    def count(self, examples: Sequence[LabelledText], skipped: int) -> str:
        return f"{len(examples):,} texts; {skipped:,} rows skipped"

    def documents(self, examples: Sequence[LabelledText]) -> Iterator[str]:
        return (each.text for each in examples)

    def divide(
        self, data: str, examples: Sequence[LabelledText], shares: Mapping[str, int]
    ) -> tuple[Sequence[Sequence[int]], str]:
        labels = [each.label for each in examples]
        parts = task_splits.split_by_class(labels, list(shares.values()), seed=self.seed)
        if not all(parts) and len(examples) >= sum(shares.values()) * 2:
            raise ValueError(
                f"{data}: got {len(set(labels)):,} labels for {len(examples):,} texts, too many to "
                f"split by class into {', '.join(shares)}; give the column of the classes "
                "(--config.label_key=...), or a file for each split"
            )
        if not all(parts):
            raise ValueError(
                f"{data}: got {len(examples)} texts, too few to split into {', '.join(shares)}; "
                "give more, or a file for each split"
            )
        sizes = ", ".join(
            f"{split} {len(part):,}" for split, part in zip(shares, parts, strict=True)
        )
        return parts, f"train split by class, seed {self.seed}: {sizes}"

    def check(self, data: str, splits: dict[str, list[LabelledText]]) -> None:
        known = {each.label for each in splits["train"]}
        if len(known) == 1:
            raise ValueError(
                f"{data}: got only the label {known.pop()!r} to train on, expected at least two; "
                f"give another --config.label_key, or other data\n{self.report.summary()}"
            )
        for split in ("validation", "test"):
            for each in splits.get(split, ()):
                if each.label not in known:
                    known.add(each.label)
                    self.report.add_problem("label unseen in training", each.source, each.label)
        self.notes += _count_labels(splits["train"])


def _count_labels(texts: Sequence[LabelledText]) -> Iterator[str]:
    """Yields how many training texts each label has, and where a label stands that is rare.

    Nothing else tells a mistyped label from a class.
    """
    counts = Counter(each.label for each in texts)
    shown = [f"{label} {count:,}" for label, count in counts.most_common(_SHOWN_LABELS)]
    more = len(counts) - len(shown)
    yield f"train: labels {', '.join(shown)}" + (f" and {more:,} others" if more else "")
    first: dict[str, LabelledText] = {}
    for each in texts:
        if counts[each.label] in _RARE:
            first.setdefault(each.label, each)
    for group in look_alike(counts)[:KEPT_MESSAGES]:
        yield f"train: labels that differ hardly, and are classes of their own: {', '.join(group)}"
    for each in list(first.values())[:KEPT_MESSAGES]:
        seen = _RARE[counts[each.label]]
        yield f"{each.source}: label seen only {seen} in training, a typing error? ({each.label})"


def write_predictions(
    path: str | Path, texts: Sequence[LabelledText], predicted: Sequence[str]
) -> None:
    """Writes a tsv with the columns text, gold and predicted, quoted as the csv module does.

    Raises:
      ValueError: not one label for each text; nothing is written.
    """
    if len(texts) != len(predicted):
        raise ValueError(f"{path}: got {len(predicted)} labels, expected {len(texts)}")
    with open_beside(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("text", "gold", "predicted"))
        writer.writerows(
            (each.text, each.label, label) for each, label in zip(texts, predicted, strict=True)
        )
