# SPDX-License-Identifier: Apache-2.0
"""Tagged sentences: two-column files or a data set in, IOB2 tags out, and what was wrong.

    Selegiline  B-Disease
    -           O
    induced     O

A sentence with a hole is another sentence, so one line that cannot be read costs its sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edad_jax.data.text.reading import ReadReport
from edad_jax.files import open_beside
from edad_jax.tasks.data import splits as task_splits

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


def read_tagged(
    data: str,
    *,
    encoding: str = "utf-8",
    word_key: str = "tokens",
    tag_key: str = "ner_tags",
    seed: int = 0,
    dataset_config: str = "",
) -> tuple[dict[str, list[TaggedSentence]], ReadReport]:
    """Returns {"train", "devel", maybe "test"}, and a report whose documents are sentences.

    IOBES, BILOU and IOB1 become IOB2. Where there is no devel split, a tenth of the training
    sentences is set aside for it. The report's first messages give the counts of each split.

    Args:
      data: a folder with train, devel (dev, valid, validation) and test files, each a token and
        a tag a line (of more columns the first and the last) and a blank line between
        sentences; or a `datasets` data set: hub id or local folder.
      encoding: of the files; a byte order mark decides over it.
      word_key: column of a data set with the words.
      tag_key: column of a data set with the tags: names, or numbers of a ClassLabel.
      seed: chooses the sentences that are set aside.
      dataset_config: of data sets that have several configurations.

    Raises:
      ValueError: no training split, a file without tags, a split without sentences, no entity
        to learn, or a data set that cannot be loaded or lacks a column.
    """
    report = ReadReport()
    path = Path(data).expanduser()
    files = task_splits.find_files(path, FORMATS) if data.strip() and path.is_dir() else {}
    notes: list[str] = []
    if files:
        read = {
            split: list(_read_file(file, split, encoding, report)) for split, file in files.items()
        }
        got = [file.name for file in files.values()]
    elif task_splits.is_dataset(data):
        loaded, unused = task_splits.load_dataset(data, dataset_config)
        read = {
            split: list(_read_rows(rows, split, word_key, tag_key, report))
            for split, rows in loaded.items()
        }
        got = [*loaded, *unused]
        notes += [f"{name}: split not used" for name in unused]
    else:
        got = sorted(each.name for each in path.iterdir()) if path.is_dir() else [path.name]
        read = {}
    if "train" not in read:
        raise task_splits.no_train_error(data, got, FORMATS)
    if not files and not read.get("test", True):  # labels kept secret, as in many competitions
        del read["test"]
        notes.append("test: split not used, since it has no tags")
    splits = _to_iob2(read, report, notes)
    _finish(data, splits, seed, report, notes)
    _count_unseen_labels(splits, report)
    report.messages[:0] = notes
    return splits, report


def _read_file(
    path: Path, split: str, encoding: str, report: ReadReport
) -> Iterator[TaggedSentence]:
    """Yields the sentences of a file, tags as they are; counts those that are skipped."""
    lines = [
        "" if line.startswith("-DOCSTART-") or line.isspace() else line
        for line in task_splits.read_text(path, encoding, report)
    ]
    columns = [_columns(line) for line in lines]
    widths = Counter(len(each) for each in columns if len(each) > 1)
    if not widths and any(lines):
        number = next(number for number, line in enumerate(lines, start=1) if line)
        raise ValueError(
            f"{path}:{number}: got {lines[number - 1][:80]!r}, and no line with a second column; "
            "expected a token and its tag a line, with a tab or a blank between"
        )
    width = widths.most_common(1)[0][0] if widths else 0
    start = 0
    for end in range(len(lines) + 1):
        if end < len(lines) and lines[end]:
            continue
        if end > start:
            here = [f"{path.name}:{number + 1}" for number in range(start, end)]
            is_good = [
                _is_line_good(each, place, width, report)
                for each, place in zip(columns[start:end], here, strict=True)
            ]
            if all(is_good):
                words, tags = zip(
                    *((each[0], each[-1]) for each in columns[start:end]), strict=True
                )
                yield TaggedSentence(words, tags, here[0])
            else:
                _count_skipped(split, report)
        start = end + 1


def _columns(line: str) -> list[str]:
    """Returns the columns of a line; none of a blank one. A word may hold other white space."""
    if not line:
        return []
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")]
    return re.split(" +", line.strip(" "))


def _is_line_good(columns: list[str], here: str, width: int, report: ReadReport) -> bool:
    if not columns[0] or columns[0].isspace():
        report.add_problem(_NO_TOKEN, here)
    elif len(columns) == 1 or not columns[-1]:
        report.add_problem(_NO_TAG, here, repr(columns[0][:80]))
    elif len(columns) != width:
        report.add_problem(
            "sentence skipped: a line with another number of columns than most",
            here,
            f"{len(columns)}, not {width}",
        )
    elif "\r" in "".join(columns):
        report.add_problem("sentence skipped: a carriage return within a line", here)
    elif not TAG.fullmatch(columns[-1]):
        report.add_problem(_BAD_TAG, here, repr(columns[-1][:80]))
    else:
        return True
    return False


def _count_skipped(split: str, report: ReadReport) -> None:
    # Without a message: the lines that are to blame have theirs.
    reason = f"{split}: sentences skipped"
    report.problems[reason] = report.problems.get(reason, 0) + 1


def _read_rows(
    rows: Dataset, split: str, word_key: str, tag_key: str, report: ReadReport
) -> Iterator[TaggedSentence]:
    """Yields the sentences of a data set's split, tags as they are; empty rows are no problem."""
    for key, option in ((word_key, "text_key"), (tag_key, "label_key")):
        if key not in rows.column_names:
            raise ValueError(
                f"{split}: got the columns {', '.join(rows.column_names)}, expected {key!r}; give "
                f"--config.{option}=..."
            )
    feature = rows.features[tag_key]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    for number, row in enumerate(rows.select_columns([word_key, tag_key])):
        words, tags, here = row[word_key], row[tag_key], f"{split}:{number}"
        if not isinstance(words, list) or not isinstance(tags, list):
            raise ValueError(
                f"{here}: got {type(words).__name__} and {type(tags).__name__} in {word_key!r} and "
                f"{tag_key!r}, expected a list of words and one of tags; give other columns: "
                "--config.text_key=... --config.label_key=..."
            )
        if names:
            is_named = [isinstance(tag, int) and 0 <= tag < len(names) for tag in tags]
            tags = [names[t] if n else f"{t}" for t, n in zip(tags, is_named, strict=True)]
        elif tags and isinstance(tags[0], int):
            raise ValueError(
                f"{here}: got the tag {tags[0]} in {tag_key!r}, a number without a name; expected "
                "a ClassLabel or tags such as B-Disease; give a data set that names its tags"
            )
        if not words and not tags:
            continue
        if len(words) != len(tags):
            report.add_problem(_NO_TAG, here, f"{len(words)} words, {len(tags)} tags")
        elif not all(isinstance(word, str) and word.strip() for word in words):
            report.add_problem(_NO_TOKEN, here)
        elif bad := [tag for tag in tags if not TAG.fullmatch(str(tag))]:
            report.add_problem(_BAD_TAG, here, repr(bad[0]))
        else:
            yield TaggedSentence(tuple(words), tuple(tags), here)
            continue
        _count_skipped(split, report)


def _to_iob2(
    read: dict[str, list[TaggedSentence]], report: ReadReport, notes: list[str]
) -> dict[str, list[TaggedSentence]]:
    """Returns the splits in IOB2; counts each tag that continues nothing."""
    tags = [sentence.tags for sentences in read.values() for sentence in sentences]
    begins_with_i = is_iob1(tags)
    if scheme := scheme_with_ends(tags):
        notes.append(f"the tags are {scheme}: turned into IOB2")
    elif begins_with_i:
        notes.append("the tags are IOB1, where I- begins an entity: turned into IOB2")
    splits: dict[str, list[TaggedSentence]] = {split: [] for split in read}
    for split, sentences in read.items():
        for sentence in sentences:
            fixed, orphans = iob2_tags(sentence.tags)
            for index in () if begins_with_i else orphans:
                report.add_problem(
                    "tag that continues no entity: B- instead",
                    _where(sentence, index),
                    sentence.tags[index],
                )
            splits[split].append(sentence._replace(tags=fixed))
    return splits


def _where(sentence: TaggedSentence, index: int) -> str:
    """Returns the place of a word: in a file each word of a sentence has the next line."""
    name, _, number = sentence.source.rpartition(":")
    is_row = name in task_splits.SPLITS  # a file's name has an ending
    return sentence.source if is_row else f"{name}:{int(number) + index}"


def _finish(
    data: str,
    splits: dict[str, list[TaggedSentence]],
    seed: int,
    report: ReadReport,
    notes: list[str],
) -> None:
    """Counts the sentences, and sets some aside for devel where there is no such split."""
    for split, sentences in splits.items():
        if not sentences:
            raise ValueError(
                f"{data}: got 0 sentences to use for {split}, expected at least one; mend or "
                f"remove that split\n{report.summary()}"
            )
        skipped = report.problems.get(f"{split}: sentences skipped", 0)
        notes.append(
            f"{split}: {len(sentences):,} sentences, "
            f"{sum(len(sentence.words) for sentence in sentences):,} words, "
            f"{sum(t[0] == 'B' for sentence in sentences for t in sentence.tags):,} entities; "
            f"{skipped:,} sentences skipped"
        )
        for sentence in sentences:
            report.add_document(" ".join(sentence.words))
    train = splits["train"]
    if "devel" not in splits:
        if len(train) < 2:
            raise ValueError(
                f"{data}: got 1 sentence to train on and no devel split, expected one; give a "
                "devel file or more sentences"
            )
        aside = max(1, len(train) // 10)
        kept, chosen = task_splits.split_by_class(
            ["any"] * len(train), (len(train) - aside, aside), seed=seed
        )
        splits["train"] = [train[index] for index in kept]
        splits["devel"] = [train[index] for index in chosen]
        notes.append(
            f"no devel split: {aside:,} of the {len(train):,} training sentences set aside as one, "
            f"seed {seed}"
        )
    if "test" not in splits:
        notes.append("no test split: there will be no test score")
    if all(tag == "O" for sentence in splits["train"] for tag in sentence.tags):
        raise ValueError(
            f"{data}: got the tag O for every word to train on, expected at least one entity; "
            f"give data with entities\n{report.summary()}"
        )


def _count_unseen_labels(splits: dict[str, list[TaggedSentence]], report: ReadReport) -> None:
    known = {tag[2:] for sentence in splits["train"] for tag in sentence.tags}  # O has ""
    for split in ("devel", "test"):
        for sentence in splits.get(split, ()):
            for index, tag in enumerate(sentence.tags):
                if tag != "O" and tag[2:] not in known:
                    known.add(tag[2:])
                    report.add_problem("label unseen in training", _where(sentence, index), tag[2:])


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


TAG = re.compile(r"O|[BIESLU]-\S+")  # of any scheme


_ENDS = {"E": "IOBES", "S": "IOBES", "L": "BILOU", "U": "BILOU"}


def scheme_with_ends(sentences: Sequence[Sequence[str]]) -> str:
    """Returns the name of the scheme that marks where entities end, "" if none does."""
    found = {_ENDS[tag[0]] for tags in sentences for tag in tags if tag[0] in _ENDS}
    return " and ".join(sorted(found))


def iob2_tags(tags: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Returns the tags in IOB2, and the positions of those that continue nothing.

    B-X I-X I-Y O E-X S-X   becomes   B-X I-X B-Y O B-X B-X,   with [2, 4].
    """
    fixed, orphans = [], []
    open_type = None  # of the entity that the next tag may continue
    for index, tag in enumerate(tags):
        prefix, _, entity_type = tag.partition("-")
        if prefix == "O":
            fixed.append("O")
        elif prefix in "BSU" or open_type != entity_type:
            fixed.append(f"B-{entity_type}")
            if prefix in "IEL":
                orphans.append(index)
        else:
            fixed.append(f"I-{entity_type}")
        open_type = entity_type if prefix in ("B", "I") else None
    return tuple(fixed), orphans


def is_iob1(sentences: Sequence[Sequence[str]]) -> bool:
    """Returns whether I- begins entities, and B- only those that touch another of their type."""
    begins = False
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag[0] in _ENDS or (tag[0] == "B" and before[2:] != tag[2:]):
                return False
            begins = begins or (tag[0] == "I" and before[2:] != tag[2:])
            before = tag
    return begins
