# SPDX-License-Identifier: Apache-2.0
"""Questions as rows of pieces, and logits as answers: parts of the text as it was given."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from edad_jax.data.tokenizer import composing
from edad_jax.runtime import answers
from edad_jax.runtime.windows import Pieces, Window, read_all, tokenize
from edad_jax.tasks.data.questions import Question
from edad_jax.tasks.rows import IMPOSSIBLE, NO_LABEL, TaskRows

_NOTES = (
    "questions longer than the window allows: cut",
    "questions whose context is cut into several windows",
    "rows without the answer: [CLS] instead",
    "answers that begin or end within a piece",
    "answers without pieces: not learnt",
    "contexts without pieces: no answer",
)


@dataclasses.dataclass(frozen=True)
class QuestionRows(TaskRows):
    """Rows of [CLS] question [SEP] window of the context [SEP], two labels each: start and end."""

    windows: list[Window] = dataclasses.field(default_factory=list)  # of each row
    contexts: list[Pieces] = dataclasses.field(default_factory=list)  # of each example

    def soft_batch(self, batch_size: int, positions: int, length: int) -> np.ndarray:
        """Returns room for a teacher's logits over positions; none of padding is possible."""
        return np.full((batch_size, positions, length), IMPOSSIBLE, np.float32)


def question_rows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    max_query_length: int,
    overlap: int,
) -> QuestionRows:
    """Returns a row for each window of each question's context.

    The label is the first gold answer that lies in the context: the positions of its first and
    last piece. A window that does not have all of it points at [CLS] (Devlin et al. 2019, code).

    Args:
      questions: a split.
      tokenizer: cuts both texts into pieces.
      max_length: pieces of a row at most.
      max_query_length: pieces of a question at most; see `answers.lay_out`.
      overlap: pieces that neighbouring windows share.
    """
    backend = read_all(composing(tokenizer.backend_tokenizer))
    known: dict[str, Pieces] = {}  # several questions share a context
    rows = {"ids": [], "labels": [], "example": [], "starts": [], "windows": []}
    notes = dict.fromkeys(_NOTES, 0)
    contexts = []
    for number, question in enumerate(questions):
        if question.context not in known:
            known[question.context] = tokenize(backend, question.context)
        context = known[question.context]
        contexts.append(context)
        pieces = tokenize(backend, question.question).ids
        kept, cut = answers.lay_out(
            pieces,
            len(context.ids),
            max_length=max_length,
            max_query_length=max_query_length,
            overlap=overlap,
        )
        notes["questions longer than the window allows: cut"] += len(kept) < len(pieces)
        notes["questions whose context is cut into several windows"] += len(cut) > 1
        notes["contexts without pieces: no answer"] += not len(context.ids)
        answer = _pieces_of_answer(question, context, notes)
        before = [tokenizer.cls_token_id, *kept, tokenizer.sep_token_id]
        for window in cut:
            inside = context.ids[window.start : window.end]
            labels = np.full(2, NO_LABEL, np.int32)
            if answer is not None:
                first, last = answer
                if window.start <= first and last < window.end:
                    labels[:] = first, last
                    labels += len(before) - window.start
                else:
                    labels[:] = 0
                    notes["rows without the answer: [CLS] instead"] += 1
            rows["ids"].append(np.array([*before, *inside, tokenizer.sep_token_id], np.int32))
            rows["labels"].append(labels)
            rows["example"].append(number)
            rows["starts"].append(len(before))
            rows["windows"].append(window)
    return QuestionRows(
        ids=rows["ids"],
        labels=rows["labels"],
        words=[np.arange(2, dtype=np.int32)] * len(rows["ids"]),
        example=np.array(rows["example"], np.int32),
        pieces_per_word=[],
        notes={note: count for note, count in notes.items() if count},
        segment_b_start=np.array(rows["starts"], np.int32),
        windows=rows["windows"],
        contexts=contexts,
    )


def _pieces_of_answer(
    question: Question, context: Pieces, notes: dict[str, int]
) -> tuple[int, int] | None:
    """Returns (first, last) piece of the answer to learn; None where there is none."""
    gold = next((gold for gold in question.answers if gold.start is not None), None)
    if gold is None:
        return None
    text = gold.text.rstrip()
    end = gold.start + len(text)
    start = end - len(text.lstrip())
    touched = np.flatnonzero((context.ends > start) & (context.starts < end))
    if not len(touched):
        notes["answers without pieces: not learnt"] += 1
        return None
    first, last = int(touched[0]), int(touched[-1])
    notes["answers that begin or end within a piece"] += int(
        context.starts[first] < start or context.ends[last] > end
    )
    return first, last


def best_answers(
    questions: Sequence[Question],
    rows: QuestionRows,
    logits: Sequence[np.ndarray],
    *,
    n_best: int,
    max_answer_length: int,
) -> list[str]:
    """Returns the likeliest part of each question's context; "" where that has no pieces.

    Args:
      questions: those that the rows are of.
      rows: from `question_rows`.
      logits: of each row, [2, pieces or more].
      n_best: as for `answers.find_answers`.
      max_answer_length: likewise.
    """
    found = [""] * len(questions)
    for number, group in itertools.groupby(range(len(rows)), key=lambda row: rows.example[row]):
        judged = [
            (rows.windows[row], *logits[row][:, rows.segment_b_start[row] : len(rows.ids[row]) - 1])
            for row in group
        ]
        best = answers.find_answers(
            judged,
            rows.contexts[number],
            n_best=n_best,
            max_answer_length=max_answer_length,
            most=1,
        )
        if best:
            found[number] = questions[number].context[best[0].start : best[0].end]
    return found


def teach_positions(
    rows: QuestionRows,
    teacher_rows: QuestionRows,
    logits: Sequence[np.ndarray],
    order: Sequence[int],
) -> QuestionRows:
    """Returns the rows with a teacher's logits of starts and ends; arguments as `teach_words`.

    Raises:
      ValueError: the teacher cuts texts into other pieces.
    """
    same = len(rows) == len(teacher_rows) and all(map(np.array_equal, rows.ids, teacher_rows.ids))
    if not same:
        raise ValueError(
            "config.teacher cuts questions and contexts into other pieces than config.model; "
            "expected a teacher with the same tokenizer, since it is asked about pieces"
        )
    soft = [
        each[list(order), : len(ids)].astype(np.float32)
        for each, ids in zip(logits, rows.ids, strict=True)
    ]
    return dataclasses.replace(rows, soft=soft)
