# SPDX-License-Identifier: Apache-2.0
"""Answers to questions from contexts, as SQuAD asks for them. numpy and onnxruntime alone."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from edad_jax.export import answers, windows
from edad_jax.export.session import ExportedModel, softmax


class Answers(list):
    """The best Answer first."""


class Answer(NamedTuple):
    """An answer to a question: context[start:end]."""

    text: str
    start: int
    end: int
    score: float  # its share among the answers that were considered


class Reader(ExportedModel):
    """Answers questions from contexts: yields the list of the best Answer of each pair.

    Answers are as in SQuAD 1.1, parts of the context; an empty context has none.

    Args:
      directory: what launch/export.py wrote.
      best: how many answers to give.
      longest_answer: pieces of an answer at most.
      longest_question: pieces of a question that are read; half a window at most.
      options: as for the other models.
    """

    architecture = "ForQuestionAnswering"
    outputs = ("start_logits", "end_logits")

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        best: int = 1,
        longest_answer: int = 30,
        longest_question: int = 64,
        **options: Any,
    ):
        super().__init__(directory, **options)
        if min(best, longest_answer, longest_question) < 1:
            raise ValueError(
                f"got best={best}, longest_answer={longest_answer}, "
                f"longest_question={longest_question}, expected 1 or more"
            )
        self.best, self.longest_answer = best, longest_answer
        self.longest_question = longest_question

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Answers]:
        """Yields the best answers to each (question, context).

        Memory does not grow with their number; windows of several pairs are read together.
        """
        for chunk in windows.chunks(pairs):
            contexts = [self.cut(context) for _, context in chunk]
            judged = self._judge([self.cut(question).ids for question, _ in chunk], contexts)
            for (_, context), pieces, seen in zip(chunk, contexts, judged, strict=True):
                found = answers.find_answers(
                    seen, pieces,
                    considered=answers.CONSIDERED, longest_answer=self.longest_answer,
                    most=max(answers.CONSIDERED, self.best),
                )  # fmt: skip
                shares = softmax(np.array([one.score for one in found])) if found else ()
                yield Answers(
                    Answer(context[one.start : one.end], one.start, one.end, round(float(share), 4))
                    for one, share in list(zip(found, shares, strict=True))[: self.best]
                )

    def _judge(self, questions, contexts):
        """Returns for each pair its (window, logits of starts, logits of ends), in any order."""
        cut = []  # of all pairs: number, [CLS] question [SEP], window
        for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
            if not len(context.ids):
                continue
            question, of_context = answers.lay_out(
                question, len(context.ids), max_length=self.max_length,
                max_query=self.longest_question, overlap=self.overlap,
            )  # fmt: skip
            before = [self._cls, *question, self._sep]
            cut += [(number, before, window) for window in of_context]
        cut.sort(key=lambda row: len(row[1]) + row[2].end - row[2].start)  # little padding
        judged = [[] for _ in contexts]
        for begin in range(0, len(cut), self.batch_size):
            batch = cut[begin : begin + self.batch_size]
            rows = [
                [*before, *contexts[n].ids[w.start : w.end], self._sep] for n, before, w in batch
            ]
            inputs = windows.feed(rows, [len(before) for _, before, _ in batch])
            outputs = self.session.run(list(self.outputs), inputs)
            for (number, before, window), starts, ends in zip(batch, *outputs, strict=True):
                inside = slice(len(before), len(before) + window.end - window.start)
                judged[number].append((window, starts[inside], ends[inside]))
        return judged
