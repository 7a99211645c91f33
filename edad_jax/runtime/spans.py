# SPDX-License-Identifier: Apache-2.0
"""Labels of words as entities of a text."""

from collections.abc import Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """An entity: text[start:end]."""

    label: str
    start: int
    end: int
    text: str
    score: float  # mean probability of its words' labels


def join_words(
    text: str,
    labels: Sequence[str],
    starts: Sequence[int],
    ends: Sequence[int],
    scores: Sequence[float],
) -> list[Span]:
    """Returns the entities that the labels of consecutive words name, IOB2 or IOBES.

    An I- without its B- begins an entity, as seqeval counts it.
    """
    spans: list[Span] = []
    open_label, first, last, gathered = "", 0, 0, []

    def close():
        if open_label:
            start, end = starts[first], ends[last]
            score = sum(gathered) / len(gathered)
            spans.append(Span(open_label, start, end, text[start:end], round(score, 4)))

    for word, label in enumerate(labels):
        position, _, name = label.partition("-")
        if position in ("I", "E") and name == open_label:
            last = word
            gathered.append(scores[word])
        else:
            close()
            open_label = name if position != "O" else ""
            first = last = word
            gathered = [scores[word]]
        if position in ("E", "S"):
            close()
            open_label = ""
    close()
    return spans
