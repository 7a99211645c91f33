# SPDX-License-Identifier: Apache-2.0
"""Labelled texts: csv, tsv, jsonl or a data set in, three splits out, and what was wrong."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edad_jax.data.text.reading import KEPT_MESSAGES, ReadReport
from edad_jax.files import open_beside
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.records import json_records, skip_record, table_records

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


class _Columns(NamedTuple):
    text: str
    label: str


def read_labelled(
    data: str,
    *,
    text_key: str = "",
    label_key: str = "",
    encoding: str = "utf-8",
    seed: int = 0,
    shares: Sequence[int] = (8, 1, 1),
    dataset_config: str = "",
) -> tuple[dict[str, list[LabelledText]], ReadReport]:
    """Returns {"train", "devel", maybe "test"}, and a report whose documents are texts.

    A split that is missing is taken from the training data by `shares`, class by class. The
    report's first messages give the counts of each split and of each label, and what was split.

    Args:
      data: a file (.csv, .tsv, .jsonl; compressed or not), a folder with train, devel (dev,
        valid, validation) and test files or with one file, or a `datasets` data set.
      text_key: column of the text; "": the obvious one. Numbers for both columns, such as "1",
        mean a csv or tsv without a header; the first is "0".
      label_key: column of the label, likewise.
      encoding: of the files; a byte order mark decides over it.
      seed: of the split.
      shares: relative sizes of train, devel and test; 0 for no test split.
      dataset_config: of data sets that have several configurations.

    Raises:
      ValueError: no training data, no such column, a split without texts, only one class, or a
        data set that cannot be loaded.
    """
    if len(shares) != 3 or min(shares) < 0 or not shares[0] or not shares[1]:
        raise ValueError(
            f"got shares {tuple(shares)}, expected three whole numbers for train, devel and test, "
            "of which only the last may be 0"
        )
    report, notes = ReadReport(), []
    files, got = _find_files(data)
    if files:
        splits = {
            split: list(_read_file(file, split, text_key, label_key, encoding, report, notes))
            for split, file in files.items()
        }
    elif task_splits.is_dataset(data):
        loaded, unused = task_splits.load_dataset(data, dataset_config)
        splits = {
            split: list(_read_rows(rows, split, text_key, label_key, report, notes))
            for split, rows in loaded.items()
        }
        got = [*loaded, *unused]
        notes += [f"{name}: split not used" for name in unused]
        if not splits.get("test", True):  # labels kept secret, as in many competitions
            del splits["test"]
            notes.append("test: split not used, since it has no labels")
    else:
        splits = {}
    if "train" not in splits:
        raise task_splits.no_train_error(data, got, FORMATS)
    for split, texts in splits.items():
        if not texts:
            raise ValueError(
                f"{data}: got 0 texts to use for {split}, expected at least one; mend or remove "
                f"that split\n{report.summary()}"
            )
        skipped = report.problems.get(f"{split}: rows skipped", 0)
        notes.append(f"{split}: {len(texts):,} texts; {skipped:,} rows skipped")
        for each in texts:
            report.add_document(each.text)
    splits = _add_missing(data, splits, shares, seed, notes)
    _check_labels(data, splits, report)
    _count_labels(splits["train"], notes)
    report.messages[:0] = notes
    return splits, report


def _find_files(data: str) -> tuple[dict[str, Path], list[str]]:
    """Returns {split: file}, and the names of what lies there."""
    path = Path(data).expanduser()
    if not data.strip() or not path.exists():
        return {}, []
    if path.is_file():
        return {"train": path} if task_splits.file_format(path) in FORMATS else {}, [path.name]
    found = task_splits.find_files(path, FORMATS)
    here = sorted(path.iterdir())
    if not found:
        readable = [each for each in here if task_splits.file_format(each) in FORMATS]
        found = {"train": readable[0]} if len(readable) == 1 and readable[0].is_file() else {}
    return found, [each.name for each in here]


def _read_file(
    path: Path,
    split: str,
    text_key: str,
    label_key: str,
    encoding: str,
    report: ReadReport,
    notes: list[str],
) -> Iterator[LabelledText]:
    """Yields the rows of a file; counts those that are skipped."""
    lines = task_splits.read_text(path, encoding, report)
    if task_splits.file_format(path) == ".jsonl":
        rows = json_records(lines, path.name, split, report)
        names = list(dict.fromkeys(name for _, row in rows for name in row))
    else:
        delimiter = "\t" if task_splits.file_format(path) == ".tsv" else ","
        has_header = not (text_key.isdecimal() and label_key.isdecimal())
        rows, names = table_records(lines, path.name, split, delimiter, has_header, report)
    if not rows:
        return
    columns = _choose_columns(path.name, names, text_key, label_key)
    notes.append(f"{path.name}: text from {columns.text!r}, label from {columns.label!r}")
    for number, row in rows:
        text, label = row.get(columns.text), row.get(columns.label)
        yield from _finish_row(text, label, f"{path.name}:{number}", split, report)


def _read_rows(
    rows: Dataset, split: str, text_key: str, label_key: str, report: ReadReport, notes: list[str]
) -> Iterator[LabelledText]:
    """Yields the rows of a data set's split; counts those that are skipped."""
    columns = _choose_columns(split, rows.column_names, text_key, label_key)
    notes.append(f"{split}: text from {columns.text!r}, label from {columns.label!r}")
    names = getattr(rows.features[columns.label], "names", None)
    for number, row in enumerate(rows.select_columns(list(columns))):
        label = row[columns.label]
        if names and isinstance(label, int):
            label = names[label] if 0 <= label < len(names) else None
        yield from _finish_row(row[columns.text], label, f"{split}:{number}", split, report)


def _choose_columns(where: str, names: Sequence[str], text_key: str, label_key: str) -> _Columns:
    """Returns the columns that the keys name; for an empty key, the obvious one."""
    found = []
    lower = {name.lower(): name for name in reversed(names)}
    for key, obvious, option in (
        (text_key, _TEXT_COLUMNS, "text_key"),
        (label_key, _LABEL_COLUMNS, "label_key"),
    ):
        column = next((lower[name] for name in obvious if name in lower), None) if not key else key
        if column not in names:
            raise ValueError(
                f"{where}: got the columns {', '.join(names)}, "
                f"expected {key or ' or '.join(obvious)}; give --config.{option}=... (a number for "
                "each of the two, such as 0, if a table has no header)"
            )
        found.append(column)
    return _Columns(*found)


def _finish_row(
    text: object, label: object, here: str, split: str, report: ReadReport
) -> Iterator[LabelledText]:
    """Yields the example if it has a text and a label; counts it as skipped otherwise."""
    if isinstance(label, float) and not math.isfinite(label):
        label = None  # how tables of numbers say that there is none
    if isinstance(label, str | int | float):
        # Hangul in parts (NFD) looks like the same in whole syllables, and would be another class.
        label = unicodedata.normalize("NFC", str(label)).strip()
    if text is None or (isinstance(text, str) and not text.strip()):
        skip_record("row skipped: no text", here, "", split, report)
    elif not isinstance(text, str):
        skip_record(
            "row skipped: its text is not a string", here, type(text).__name__, split, report
        )
    elif label is None or label == "":
        skip_record("row skipped: no label", here, "", split, report)
    elif not isinstance(label, str):
        kind = type(label).__name__
        skip_record("row skipped: its label is not a string or number", here, kind, split, report)
    else:
        if any("\ud800" <= letter <= "\udfff" for letter in text + label):
            # Half a surrogate pair, which JSON can spell and no tokenizer can read.
            report.add_problem("invalid Unicode replaced", here)
            text, label = (each.encode("utf-8", "replace").decode() for each in (text, label))
        yield LabelledText(text, label, here)


def _add_missing(
    data: str,
    splits: dict[str, list[LabelledText]],
    shares: Sequence[int],
    seed: int,
    notes: list[str],
) -> dict[str, list[LabelledText]]:
    """Returns the splits, with the missing ones taken from the training data."""
    missing = {
        split: share
        for split, share in zip(task_splits.SPLITS, shares, strict=True)
        if share and (split == "train" or split not in splits)
    }
    if len(missing) > 1:
        whole = splits["train"]
        parts = task_splits.split_by_class(
            [each.label for each in whole], list(missing.values()), seed=seed
        )
        if not all(parts):
            raise ValueError(
                f"{data}: got {len(whole)} texts, too few to split into {', '.join(missing)}; give "
                "more, or a file for each split"
            )
        taken = {
            split: [whole[place] for place in part]
            for split, part in zip(missing, parts, strict=True)
        }
        splits = splits | taken
        sizes = ", ".join(f"{split} {len(part):,}" for split, part in taken.items())
        lacking = " and no ".join(split for split in missing if split != "train")
        notes.append(f"no {lacking} split: train split by class, seed {seed}: {sizes}")
    if "test" not in splits:
        notes.append("no test split: there will be no test score")
    return {split: splits[split] for split in task_splits.SPLITS if split in splits}


def _check_labels(data: str, splits: dict[str, list[LabelledText]], report: ReadReport) -> None:
    known = {each.label for each in splits["train"]}
    if len(known) == 1:
        raise ValueError(
            f"{data}: got only the label {known.pop()!r} to train on, expected at least two; give "
            f"another --config.label_key, or other data\n{report.summary()}"
        )
    for split in ("devel", "test"):
        for each in splits.get(split, ()):
            if each.label not in known:
                known.add(each.label)
                report.add_problem("label unseen in training", each.source, each.label)


def _count_labels(texts: Sequence[LabelledText], notes: list[str]) -> None:
    """Notes how many training texts each label has, and where a label stands that is rare.

    Nothing else tells a mistyped label from a class.
    """
    counts = Counter(each.label for each in texts)
    shown = [f"{label} {count:,}" for label, count in counts.most_common(_SHOWN_LABELS)]
    more = len(counts) - len(shown)
    notes.append(f"train: labels {', '.join(shown)}" + (f" and {more:,} others" if more else ""))
    first: dict[str, LabelledText] = {}
    for each in texts:
        if counts[each.label] in _RARE:
            first.setdefault(each.label, each)
    for each in list(first.values())[:KEPT_MESSAGES]:
        seen = _RARE[counts[each.label]]
        notes.append(
            f"{each.source}: label seen only {seen} in training, a typing error? ({each.label})"
        )


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
