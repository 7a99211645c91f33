# SPDX-License-Identifier: Apache-2.0
"""Questions on contexts: SQuAD 1.1's JSON or a data set in, splits out, and what was wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks.data import splits as task_splits

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".json",)
SHARES = (8, 1, 1)  # of train, devel and test, where a split is missing
_COLUMNS = ("question", "context", "answers")
_EXPECTED = 'SQuAD\'s form, {"data": [{"paragraphs": [{"context", "qas": [...]}]}]}'


class GoldAnswer(NamedTuple):
    """An answer that counts as right."""

    text: str
    start: int | None  # its first character in the context; None where the context lacks it


@dataclasses.dataclass(frozen=True)
class Question:
    """A question, its context, and at least one gold answer."""

    id: str  # each once in a split
    question: str
    context: str
    answers: tuple[GoldAnswer, ...]
    document: str  # what it is from: the title, else the place in the file
    source: str  # "train.json:12", the 12th question of the file

    @property
    def gold_texts(self) -> tuple[str, ...]:
        """Returns the texts of the answers."""
        return tuple(answer.text for answer in self.answers)


def read_questions(
    data: str, *, encoding: str = "utf-8", seed: int = 0, dataset_config: str = ""
) -> tuple[dict[str, list[Question]], ReadReport]:
    """Returns {"train", "devel", "test"}, and a report whose documents are contexts.

    Training data and one more split, as SQuAD and KorQuAD publish them: what is given as the
    development set is the test set here, scored once, and the split to select by is taken from the
    training data, whole documents at a time. With training data alone both are taken from it. The
    report's first messages say so.

    Args:
      data: a .json file in SQuAD's form (compressed or not), a folder of such files whose names
        say train and dev, devel, valid or test, or a `datasets` data set.
      encoding: of the files; a byte order mark decides over it.
      seed: of the split.
      dataset_config: of data sets that have several configurations.

    Raises:
      ValueError: no training data, a file that is not in SQuAD's form, a split without questions,
        or a data set that cannot be loaded.
    """
    report, notes = ReadReport(), []
    files, got = _find_files(data)
    if files:
        splits = {
            split: list(_read_file(file, split, encoding, report)) for split, file in files.items()
        }
    elif task_splits.is_dataset(data):
        loaded, unused = task_splits.load_dataset(data, dataset_config)
        splits = {split: list(_read_rows(rows, split, report)) for split, rows in loaded.items()}
        got = [*loaded, *unused]
        notes += [f"{name}: split not used" for name in unused]
    else:
        splits = {}
    if "train" not in splits:
        raise task_splits.no_train_error(data, got, FORMATS)
    for split, questions in splits.items():
        if not questions:
            raise ValueError(
                f"{data}: got 0 questions to use for {split}, expected at least one; mend or "
                f"remove that split\n{report.summary()}"
            )
        skipped = report.problems.get(f"{split}: questions skipped", 0)
        notes.append(f"{split}: {len(questions):,} questions; {skipped:,} skipped")
        for context in {question.context: None for question in questions}:
            report.add_document(context)
    splits = _add_missing(data, splits, seed, notes)
    splits["train"] = list(_with_place(splits["train"], report))
    if not splits["train"]:
        raise ValueError(
            f"{data}: got no answer that lies in its context, expected at least one to train on\n"
            + report.summary()
        )
    report.messages[:0] = notes
    return splits, report


def _find_files(data: str) -> tuple[dict[str, Path], list[str]]:
    """Returns {split: file}, and the names of what lies there."""
    path = Path(data).expanduser()
    if not data.strip() or not path.exists():
        return {}, []
    if path.is_file():
        return {"train": path} if task_splits.file_format(path) in FORMATS else {}, [path.name]
    here = sorted(path.iterdir())
    names = [each.name for each in here]
    if task_splits.is_saved_dataset(path):
        return {}, names
    readable = [
        each for each in here if each.is_file() and task_splits.file_format(each) in FORMATS
    ]
    found: dict[str, Path] = {}
    for each in readable:
        # Their names say more than the split: train-v1.1.json, KorQuAD_v1.0_dev.json.
        words = re.split("[^a-z]+", each.name.lower())
        split = next((split for word in words if (split := task_splits.split_named(word))), None)
        if split in found:
            raise ValueError(
                f"{path}: got {found[split].name} and {each.name}, expected one file for {split}; "
                "move the other"
            )
        if split:
            found[split] = each
    if not found and len(readable) == 1 and len(here) == 1:
        found["train"] = readable[0]
    return found, names


def _read_file(path: Path, split: str, encoding: str, report: ReadReport) -> Iterator[Question]:
    """Yields the questions of a file in SQuAD's form; counts those that are skipped."""
    articles = _load_json(path, encoding)
    articles = articles.get("data") if isinstance(articles, dict) else articles
    if not isinstance(articles, list) or not articles:
        got = "no articles" if articles == [] else type(articles).__name__
        raise ValueError(f"{path}: got {got}, expected {_EXPECTED}")
    ids: set[str] = set()
    count = 0
    for place, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise ValueError(
                f'{path}: got article {place} without "paragraphs", expected {_EXPECTED}'
            )
        document = str(article.get("title") or f"{path.name}, article {place}")
        for paragraph in paragraphs:
            entries = paragraph.get("qas") if isinstance(paragraph, dict) else None
            if not isinstance(entries, list):
                raise ValueError(f'{path}: {document}: got no "qas", expected {_EXPECTED}')
            for entry in entries:
                entry = entry if isinstance(entry, dict) else {}
                count += 1
                yield from _finish(
                    entry,
                    paragraph.get("context"),
                    _answers_of(entry.get("answers")),
                    document,
                    f"{path.name}:{count}",
                    split,
                    ids,
                    report,
                )


def _load_json(path: Path, encoding: str) -> Any:
    damage = ReadReport()
    content = task_splits.read_whole(path, encoding, damage)
    if damage.problems:
        raise ValueError(f"{damage.messages[0]}; give a whole file, in its --config.encoding")
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: got text that is no UTF-8 ({error}), expected the encoding that "
            "config.encoding names; give --config.encoding=cp949 for Korean in its old encoding, "
            "or convert the file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON, or was cut short ({error}); expected {_EXPECTED}"
        ) from error


def _answers_of(given: Any) -> list[tuple[Any, Any]]:
    """Returns (text, start) of answers as the files and as the data sets have them."""
    if isinstance(given, dict):  # a data set's: {"text": [...], "answer_start": [...]}
        texts, starts = given.get("text"), given.get("answer_start")
        if isinstance(texts, str) or texts is None:  # or one answer that is not in a list
            texts = [texts]
        starts = list(starts) if isinstance(starts, list | tuple) else [starts]
        return list(itertools.zip_longest(texts, starts[: len(texts)]))
    given = given if isinstance(given, list) else []
    return [(one.get("text"), one.get("answer_start")) for one in given if isinstance(one, dict)]


def _read_rows(rows: Dataset, split: str, report: ReadReport) -> Iterator[Question]:
    """Yields the questions of a data set's split; counts those that are skipped."""
    missing = [name for name in _COLUMNS if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"{split}: got the columns {', '.join(rows.column_names)}, expected SQuAD's: "
            f"{', '.join(_COLUMNS)}; give another data set"
        )
    ids: set[str] = set()
    for number, row in enumerate(rows):
        yield from _finish(
            row,
            row["context"],
            _answers_of(row["answers"]),
            str(row.get("title") or row["context"]),
            f"{split}:{number}",
            split,
            ids,
            report,
        )


def _finish(
    entry: dict,
    context: Any,
    answers: Sequence[tuple[Any, Any]],
    document: str,
    here: str,
    split: str,
    ids: set[str],
    report: ReadReport,
) -> Iterator[Question]:
    """Yields the question if it can be used; counts it as skipped otherwise."""
    question = entry.get("question")
    gold = []
    if not isinstance(context, str) or not context.strip():
        _skip("question skipped: no context", here, split, report)
    elif not isinstance(question, str) or not question.strip():
        _skip("question skipped: no text", here, split, report)
    elif not answers:
        _skip("question skipped: no answers", here, split, report)
    else:
        context = _whole_unicode(context, here, report)
        for text, start in answers:
            if not isinstance(text, str) or not text.strip():
                report.add_problem("answer skipped: no text", here)
                continue
            gold.append(_locate(_whole_unicode(text, here, report), start, context, here, report))
        if not gold:
            _skip("question skipped: no answer with a text", here, split, report)
            return
        name = str(here if entry.get("id") is None else entry["id"])
        if name in ids:
            report.add_problem("id given twice: place added", here, name)
            name = f"{name} {here}"
        ids.add(name)
        text = _whole_unicode(question, here, report)
        yield Question(name, text, context, tuple(gold), document, here)


def _locate(text: str, start: Any, context: str, here: str, report: ReadReport) -> GoldAnswer:
    """Returns the answer at its offset, else at its occurrence nearest to that."""
    start = _offset(start)
    if start is not None and start >= 0 and context.startswith(text, start):
        return GoldAnswer(text, start)
    # Hangul may be written in whole syllables or in parts: the context's way is taken.
    for form in ("NFC", "NFD"):
        if text not in context and unicodedata.normalize(form, text) in context:
            text = unicodedata.normalize(form, text)
    places = [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
    if not places:
        report.add_problem("answer is not in the context", here, text[:40])
        return GoldAnswer(text, None)
    if start is None:
        report.add_problem("answer has no offset: first occurrence taken", here, text[:40])
        return GoldAnswer(text, places[0])
    if start not in places:
        report.add_problem("answer is not at its offset: nearest occurrence taken", here, text[:40])
    return GoldAnswer(text, min(places, key=lambda place: abs(place - start)))


def _offset(given: Any) -> int | None:
    """Returns an offset that may be given as 46, 46.0 or "46"; None for anything else."""
    if isinstance(given, str) and given.strip().isdecimal():
        return int(given)
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return int(given) if is_number and given == given // 1 else None


def _whole_unicode(text: str, here: str, report: ReadReport) -> str:
    """Returns a text without half surrogate pairs, which JSON can spell; offsets stay."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        report.add_problem("invalid Unicode replaced", here)
        return text.encode("utf-8", "replace").decode()
    return text


def _skip(reason: str, here: str, split: str, report: ReadReport) -> None:
    report.add_problem(reason, here)
    total = f"{split}: questions skipped"
    report.problems[total] = report.problems.get(total, 0) + 1


def _add_missing(
    data: str, splits: dict[str, list[Question]], seed: int, notes: list[str]
) -> dict[str, list[Question]]:
    """Returns all three splits; those that are missing are documents of the training data."""
    if "test" not in splits and "devel" in splits:
        splits = splits | {"test": splits.pop("devel")}
        notes.append("train and dev are given, no test: dev is the test set, scored once")
    missing = {
        split: share
        for split, share in zip(task_splits.SPLITS, SHARES, strict=True)
        if split == "train" or split not in splits
    }
    if len(missing) > 1:
        whole = splits["train"]
        by, groups = "document", [question.document for question in whole]
        if len(set(groups)) < len(missing):
            by, groups = "context", [question.context for question in whole]
        if len(set(groups)) < len(missing):
            raise ValueError(
                f"{data}: got {len(set(groups))} contexts, too few to split into "
                f"{', '.join(missing)}; give more, or a file for each split"
            )
        parts = task_splits.split_by_group(groups, list(missing.values()), seed=seed)
        taken = {
            split: [whole[place] for place in part]
            for split, part in zip(missing, parts, strict=True)
        }
        sizes = ", ".join(
            f"{split} {len(part):,} of {len({groups[place] for place in part}):,}"
            for split, part in zip(missing, parts, strict=True)
        )
        lacking = " and no ".join(split for split in missing if split != "train")
        notes.append(
            f"no {lacking} split: train split by {by}, seed {seed}: questions {sizes} {by}s"
        )
        splits = splits | taken
    return {split: splits[split] for split in task_splits.SPLITS}


def _with_place(questions: Sequence[Question], report: ReadReport) -> Iterator[Question]:
    """Yields the questions that can be learnt from; the others are good for scores only."""
    for question in questions:
        if all(answer.start is None for answer in question.answers):
            _skip(
                "question skipped: its answers are not in the context",
                question.source,
                "train",
                report,
            )
        else:
            yield question
