# SPDX-License-Identifier: Apache-2.0
"""Where answers are looked for: windows of a context, and the likeliest parts of it.

Fine-tuning and the edge runtime both answer by this file. numpy alone.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from edad_jax.runtime import windows

N_BEST = 20  # starts, ends and answers of a window, as in BERT's code


class Candidate(NamedTuple):
    """A part of a context that may be the answer: context[start:end]."""

    score: float  # logit of its start plus logit of its end
    start: int
    end: int


def lay_out(
    question: Sequence[int],
    context_pieces: int,
    *,
    max_length: int,
    max_query_length: int,
    overlap: int,
) -> tuple[Sequence[int], list[windows.Window]]:
    """Returns the question's pieces that are read, and the windows of the context.

    A window is read as [CLS] question [SEP] window [SEP], of max_length pieces at most.

    Args:
      question: its pieces.
      context_pieces: how many the context has.
      max_length: pieces that the net reads at once.
      max_query_length: pieces of a question at most; in short windows it gets half of them.
      overlap: pieces that neighbours share; half a window at most.
    """
    question = question[: min(max_query_length, (max_length - 3) // 2)]
    room = max_length - 3 - len(question)
    return question, list(windows.split_windows(0, context_pieces, room, min(overlap, room // 2)))


def find_answers(
    judged: Iterable[tuple[windows.Window, np.ndarray, np.ndarray]],
    context: windows.Pieces,
    *,
    n_best: int,
    max_answer_length: int,
    most: int,
) -> list[Candidate]:
    """Returns what may be the answer, likeliest first; nothing only where there are no pieces.

    Where windows overlap, a part of the context counts once, by its better score. Where no pair of
    the likeliest starts and ends is an answer, all are tried (BERT's code says "empty" then).

    Args:
      judged: windows, each with the logits of starts and of ends [pieces] within it.
      context: the pieces of the context.
      n_best: likeliest starts, and ends, of a window that are tried with each other.
      max_answer_length: pieces of an answer at most.
      most: how many to return at most.
    """
    judged = list(judged)
    found = []  # of each window: scores, first characters, characters after the last
    for window, starts, ends in judged:
        firsts, lasts = (np.argsort(-each)[:n_best] for each in (starts, ends))
        length = lasts[None, :] - firsts[:, None]
        rows, columns = np.nonzero((length >= 0) & (length < max_answer_length))
        firsts, lasts = firsts[rows], lasts[columns]
        found.append(
            (
                starts[firsts] + ends[lasts],
                context.starts[window.start + firsts],
                context.ends[window.start + lasts],
            )
        )
    if not found:
        return []
    scores, starts, ends = (np.concatenate(column) for column in zip(*found, strict=True))
    longest = max(len(logits) for _, logits, _ in judged)
    if not len(scores) and n_best < longest:
        return find_answers(
            judged, context, n_best=longest, max_answer_length=max_answer_length, most=most
        )
    best: dict[tuple[int, int], float] = {}
    for index in np.lexsort((ends, starts, scores))[::-1]:
        best.setdefault((int(starts[index]), int(ends[index])), float(scores[index]))
        if len(best) == most:
            break
    return [Candidate(score, *place) for place, score in best.items()]
