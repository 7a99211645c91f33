# SPDX-License-Identifier: Apache-2.0
"""Questions on contexts: SQuAD 1.1's JSON or a data set in, splits out, and what was wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.reader import SplitReader
from edad_jax.tasks.data.records import Skipped, skip
from edad_jax.tasks.data.splits import SPLIT_OF

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".json",)
_COLUMNS = ("question", "context", "answers")
# Names under which files say that a question has no answer in its context, or whether it has one.
_IMPOSSIBLE = ("is_impossible", "isImpossible", "impossible", "unanswerable", "is_unanswerable")
_ANSWERABLE = ("answerable", "is_answerable", "has_answer")
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


def read_questions(data: str, **settings: Any) -> tuple[dict[str, list[Question]], ReadReport]:
    """Returns {"train", "validation", "test"}, and a report whose documents are contexts.

    Training data and one more split, as SQuAD and KorQuAD publish them: what is given as the
    development set is the test set here, scored once, and the split to select by is taken from the
    training data, whole documents at a time. With training data alone both are taken from it. The
    report's first messages say so.

    Args:
      data: a .json file in SQuAD's form (compressed or not), a folder of such files whose names
        say train and dev, devel, valid or test, or a `datasets` data set.
      settings: encoding, seed, shares, dataset_config and allow_skipped_test of `SplitReader`.

    Raises:
      ValueError: no training data, a file that is not in SQuAD's form, a split without questions,
        a question of the test split that cannot be used, or a data set that cannot be loaded.
    """
    return _QuestionReader(**settings).read(data)


class _QuestionReader(SplitReader[Question]):
    formats = FORMATS
    examples = records = "questions"
    secret = "answers"
    unlabelled = ("question skipped: no answers",)

    def find(self, path: Path) -> dict[str, Path]:
        if path.is_file():
            return {"train": path} if task_splits.file_format(path) in FORMATS else {}
        if task_splits.is_saved_dataset(path):
            return {}
        here = sorted(path.iterdir())
        readable = [
            each for each in here if each.is_file() and task_splits.file_format(each) in FORMATS
        ]
        found: dict[str, Path] = {}
        for each in readable:
            # Their names say more than the split: train-v1.1.json, KorQuAD_v1.0_dev.json.
            words = re.split("[^a-z]+", each.name.lower())
            split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), None)
            if split in found:
                raise ValueError(
                    f"{path}: got {found[split].name} and {each.name}, expected one file for "
                    f"{split}; move the other"
                )
            if split:
                found[split] = each
        if not found and len(readable) == 1 and len(here) == 1:
            found["train"] = readable[0]
        return found

    def read_file(self, path: Path, split: str) -> Iterator[Question | Skipped]:
        articles = _load_json(path, self.encoding)
        articles = articles.get("data") if isinstance(articles, dict) else articles
        if not isinstance(articles, list) or not articles:
            got = "no articles" if articles == [] else type(articles).__name__
            raise ValueError(f"{path}: got {got}, expected {_EXPECTED}")
        numbers = itertools.count(1)
        ids: set[str] = set()
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
                    marks = {key: paragraph[key] for key in _IMPOSSIBLE if key in paragraph}
                    row = marks | entry | {"context": paragraph.get("context")}
                    yield self._parse(row, document, f"{path.name}:{next(numbers)}", ids)

    def read_rows(self, rows: Dataset, split: str) -> Iterator[Question | Skipped]:
        missing = [name for name in _COLUMNS if name not in rows.column_names]
        if missing and not (split == "test" and missing == ["answers"]):
            raise ValueError(
                f"{split}: got the columns {', '.join(rows.column_names)}, expected SQuAD's: "
                f"{', '.join(_COLUMNS)}; give another data set"
            )
        ids: set[str] = set()
        for number, row in enumerate(rows):
            document = str(row.get("title") or row["context"])
            yield self._parse(row, document, f"{split}:{number}", ids)

    def _parse(self, row: dict, document: str, here: str, ids: set[str]) -> Question | Skipped:
        """Returns the question of a row of _COLUMNS; `ids` are those of its split so far."""
        question, context = row.get("question"), row["context"]
        answers = _answers_of(row.get("answers"))
        if not isinstance(context, str) or not context.strip():
            return skip("question skipped: no context", here)
        if not isinstance(question, str) or not question.strip():
            return skip("question skipped: no text", here)
        if not answers:
            return skip("question skipped: no answers", here)
        marks = [key for key in _IMPOSSIBLE if _truth(row.get(key)) is True]
        if marks := marks + [key for key in _ANSWERABLE if _truth(row.get(key)) is False]:
            # As in SQuAD 2, where what is plausible may stand among the answers; right is none.
            return skip(f"question skipped: {marks[0]}, and yet it has answers", here)
        context = self._whole_unicode(context, here)
        gold = []
        for text, start in answers:
            if isinstance(text, str) and text.strip():
                gold.append(self._locate(self._whole_unicode(text, here), start, context, here))
            else:
                self.report.add_problem("answer skipped: no text", here)
        if not gold:
            return skip("question skipped: no answer with a text", here)
        name = str(here if row.get("id") is None else row["id"])
        if name in ids:
            self.report.add_problem("id given twice: place added", here, name)
            name = f"{name} {here}"
        ids.add(name)
        text = self._whole_unicode(question, here)
        return Question(name, text, context, tuple(gold), document, here)

    def _locate(self, text: str, start: Any, context: str, here: str) -> GoldAnswer:
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
            problem, place = "answer is not in the context", None
        elif start is None:
            problem, place = "answer has no offset: first occurrence taken", places[0]
        else:
            problem = "answer is not at its offset: nearest occurrence taken"
            place = min(places, key=lambda place: abs(place - start))
        if place is None or place != start:
            self.report.add_problem(problem, here, text[:40])
        return GoldAnswer(text, place)

    def _whole_unicode(self, text: str, here: str) -> str:
        """Returns a text without half surrogate pairs, which JSON can spell; offsets stay."""
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            self.report.add_problem("invalid Unicode replaced", here)
            return text.encode("utf-8", "replace").decode()
        return text

    def count(self, examples: Sequence[Question], skipped: int) -> str:
        return f"{len(examples):,} questions; {skipped:,} skipped"

    def documents(self, examples: Sequence[Question]) -> Iterator[str]:
        return iter({question.context: None for question in examples})

    def scored(self, splits: Mapping[str, Sequence[Question]]) -> str:
        """Returns which split will be the test split: the development set, if it is alone."""
        return "test" if "test" in splits else "validation"

    def add_missing(
        self, data: str, splits: dict[str, list[Question]]
    ) -> dict[str, list[Question]]:
        """Returns all three splits; those that are missing are documents of the training data."""
        if "test" not in splits and "validation" in splits:
            splits = splits | {"test": splits["validation"]}
            del splits["validation"]
            problems = self.report.problems
            if skipped := problems.pop("validation: questions skipped", 0):
                problems["test: questions skipped"] = skipped
            self.notes.append("train and dev are given, no test: dev is the test set, scored once")
        return super().add_missing(data, splits)

    def divide(
        self, data: str, examples: Sequence[Question], shares: Mapping[str, int]
    ) -> tuple[Sequence[Sequence[int]], str]:
        by, groups = "document", [question.document for question in examples]
        if len(set(groups)) < len(shares):
            by, groups = "context", [question.context for question in examples]
        if len(set(groups)) < len(shares):
            raise ValueError(
                f"{data}: got {len(set(groups))} contexts, too few to split into "
                f"{', '.join(shares)}; give more, or a file for each split"
            )
        parts = task_splits.split_by_group(groups, list(shares.values()), seed=self.seed)
        sizes = ", ".join(
            f"{split} {len(part):,} of {len({groups[place] for place in part}):,}"
            for split, part in zip(shares, parts, strict=True)
        )
        return parts, f"train split by {by}, seed {self.seed}: questions {sizes} {by}s"

    def check(self, data: str, splits: dict[str, list[Question]]) -> None:
        """Leaves out what cannot be learnt from; it is good for scores only."""
        reason = "question skipped: its answers are not in the context"
        splits["train"] = self.keep(
            (
                question
                if any(answer.start is not None for answer in question.answers)
                else skip(reason, question.source)
                for question in splits["train"]
            ),
            "train",
        )
        if not splits["train"]:
            raise ValueError(
                f"{data}: got no answer that lies in its context, expected at least one to train "
                f"on\n{self.report.summary()}"
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


def _truth(given: Any) -> bool | None:
    """Returns whether a mark is set: true, 1, or such a word, as exports of tables have it.

    None where it says nothing.
    """
    said = str(given).strip().lower()
    if said in ("true", "t", "1", "1.0", "yes", "y", "on"):
        return True
    return False if said in ("false", "f", "0", "0.0", "no", "n", "off") else None


def _offset(given: Any) -> int | None:
    """Returns an offset that may be given as 46, 46.0 or "46"; None for anything else."""
    if isinstance(given, str) and given.strip().isdecimal():
        return int(given)
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return int(given) if is_number and given == given // 1 else None
