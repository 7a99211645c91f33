# SPDX-License-Identifier: Apache-2.0
"""Scores of answers, as the scripts of SQuAD 1.1 and of KorQuAD 1.0 count them, in [0, 1].

An answer that is none of the gold ones may still share words with them (in KorQuAD: letters): exact
match asks whether both are the same once normalised, F1 how much they share. Both count the best of
the gold answers, and are means over questions. The scripts themselves print 100 times as much.
"""

from __future__ import annotations

import re
import statistics
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SCORINGS = ("squad", "korquad")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KOREAN_SIGNS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


class AnswerScore(NamedTuple):
    """How well an answer agrees with the gold ones."""

    exact_match: float  # 0 or 1
    f1: float


def answer_score(predicted: str, gold: Sequence[str], scoring: str) -> AnswerScore:
    """Returns the best score against any gold answer; each figure is of its own best one.

    Raises:
      ValueError: no gold answer, or an unknown scoring.
    """
    if scoring not in SCORINGS:
        raise ValueError(f"config.scoring={scoring!r} is not one of {', '.join(SCORINGS)}")
    if not gold:
        raise ValueError("got no gold answer, expected at least one for each question")
    mine = normalize(predicted, scoring)
    each = [_compare(mine, normalize(text, scoring), scoring) for text in gold]
    return AnswerScore(*map(max, zip(*each, strict=True)))


def answer_scores(predicted: Sequence[str], gold: Sequence[Sequence[str]], scoring: str) -> dict:
    """Returns {"exact_match", "f1", "questions"}: means over the questions, and their number.

    Args:
      predicted: an answer for each question; "" for none.
      gold: the answers that count as right for each.
      scoring: one of SCORINGS.

    Raises:
      ValueError: no question, or not one answer for each; see also `answer_score`.
    """
    if not gold or len(predicted) != len(gold):
        raise ValueError(
            f"got {len(predicted)} answers to {len(gold)} questions, expected as many of both, and "
            "one at least"
        )
    scores = [answer_score(*pair, scoring) for pair in zip(predicted, gold, strict=True)]
    return {
        "exact_match": statistics.fmean(score.exact_match for score in scores),
        "f1": statistics.fmean(score.f1 for score in scores),
        "questions": len(scores),
    }


def normalize(text: str, scoring: str) -> str:
    """Returns an answer as it is compared: lower case, no punctuation, single spaces.

    SQuAD also drops articles. KorQuAD puts a space for quotes and brackets, Korean ones too; all
    other signs of ASCII vanish without one, as in SQuAD.
    """
    text = text.translate(_KOREAN_SIGNS) if scoring == "korquad" else text
    text = text.lower().translate(_NO_PUNCTUATION)
    text = _ARTICLE.sub(" ", text) if scoring == "squad" else text
    return " ".join(text.split())


def _compare(predicted: str, gold: str, scoring: str) -> AnswerScore:
    """Returns the score of two normalised answers; what shares nothing has F1 0, even if equal."""
    mine, theirs = (
        Counter(text.replace(" ", "") if scoring == "korquad" else text.split())
        for text in (predicted, gold)
    )
    shared = (mine & theirs).total()
    f1 = 2 * shared / (mine.total() + theirs.total()) if shared else 0.0
    return AnswerScore(float(predicted == gold), f1)
