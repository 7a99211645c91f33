# SPDX-License-Identifier: Apache-2.0
"""Sentences with the entities that a model found, missed and made up, to be read by people."""

from collections.abc import Sequence
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities

from chain.scores import Tagged

MOST_WORDS = 45  # of a sentence that is shown


def show_entities(tagged: Tagged, count: int) -> dict[str, list[dict[str, Any]]]:
    """Returns {"right": sentences, "wrong": sentences}: the first that come, chosen by nobody.

    Right are those where all entities were found and no other; wrong are all others. A sentence
    is {"parts": [{"text", "kind", "type", "said"}]}; kind is "" (no entity), "found", "missed"
    (it stands there, and was not said so) or "wrong" (it was said, and does not stand there). Of
    a missed one, "said" is what was said in its place.

    Args:
      tagged: sentences, their true tags, and those of a model.
      count: sentences of each kind at most; each has an entity, and at most MOST_WORDS words.
    """
    found: dict[str, list] = {"right": [], "wrong": []}
    for words, gold, predicted in zip(*tagged, strict=True):
        wanted, said = set(get_entities(gold)), set(get_entities(predicted))
        if not wanted | said or len(words) > MOST_WORDS:
            continue
        kind = found["right" if wanted == said else "wrong"]
        if len(kind) < count:
            kind.append({"parts": _parts(words, wanted, said)})
    return found


def _parts(words: Sequence[str], wanted: set, said: set) -> list[dict[str, Any]]:
    """Returns the sentence in parts, of which no two overlap."""
    spans = [
        (start, end, "found" if (kind, start, end) in said else "missed", kind)
        for kind, start, end in wanted
    ]
    instead: dict[tuple, list[str]] = {}
    for kind, start, end in sorted(said - wanted, key=lambda each: each[1]):
        over = [span for span in spans if span[0] <= end and start <= span[1]]
        if over:
            text = f"{' '.join(words[start : end + 1])} ({kind})"
            instead.setdefault(min(over), []).append(text)
        else:
            spans.append((start, end, "wrong", kind))
    parts, place = [], 0
    for start, end, how, kind in sorted(spans):
        if place < start:
            parts.append(_part(words[place:start]))
        instead_of = "; ".join(instead.get((start, end, how, kind), []))
        parts.append(_part(words[start : end + 1], how, kind, instead_of))
        place = end + 1
    if place < len(words):
        parts.append(_part(words[place:]))
    return parts


def _part(words, kind="", entity="", said=""):
    return {"text": " ".join(words), "kind": kind, "type": entity, "said": said}
