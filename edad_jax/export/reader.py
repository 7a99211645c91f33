# SPDX-License-Identifier: Apache-2.0
"""Answers to questions from contexts, as SQuAD asks for them. numpy and onnxruntime alone."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from edad_jax.export import windows
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
      options: as for the other models.
    """

    architecture = "ForQuestionAnswering"
    outputs = ("start_logits", "end_logits")
    _considered = 20  # starts, ends and answers of a window

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        best: int = 1,
        longest_answer: int = 30,
        **options: Any,
    ):
        super().__init__(directory, **options)
        if best < 1 or longest_answer < 1:
            raise ValueError(
                f"got best={best}, longest_answer={longest_answer}, expected 1 or more"
            )
        self.best, self.longest_answer = best, longest_answer

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Answers]:
        """Yields the best answers to each (question, context)."""
        for question, context in pairs:
            pieces = self.cut(context)
            found = sorted(self._candidates(self.cut(question).ids, pieces), reverse=True)
            found = found[: max(self._considered, self.best)]
            shares = softmax(np.array([score for score, _, _ in found])) if found else ()
            yield Answers(
                Answer(context[start:end], start, end, round(float(share), 4))
                for (_, start, end), share in list(zip(found, shares, strict=True))[: self.best]
            )

    def _candidates(self, question, context):
        """Yields (score, first character, one past the last) of every answer considered.

        Where windows overlap, a part of the context counts once, by its better score.
        """
        if not len(context.ids):
            return
        question = question[: (self.max_length - 3) // 2]
        room = self.max_length - 3 - len(question)
        cut = list(windows.cut(0, len(context.ids), room, min(self.overlap, room // 2)))
        before = [self._cls, *question, self._sep]
        scores = {}
        for begin in range(0, len(cut), self.batch_size):
            batch = cut[begin : begin + self.batch_size]
            rows = [[*before, *context.ids[w.start : w.end], self._sep] for w in batch]
            outputs = self.session.run(list(self.outputs), windows.feed(rows, second=len(before)))
            for window, starts, ends in zip(batch, *outputs, strict=True):
                inside = slice(len(before), len(before) + window.end - window.start)
                for score, first, last in self._best_of(starts[inside], ends[inside]):
                    place = (
                        int(context.starts[window.start + first]),
                        int(context.ends[window.start + last]),
                    )
                    scores[place] = max(score, scores.get(place, score))
        yield from ((score, *place) for place, score in scores.items())

    def _best_of(self, starts, ends):
        """Yields (score, first, last) of the likeliest starts with the likeliest ends."""
        for first in np.argsort(-starts)[: self._considered]:
            for last in np.argsort(-ends)[: self._considered]:
                if first <= last < first + self.longest_answer:
                    yield float(starts[first] + ends[last]), int(first), int(last)
