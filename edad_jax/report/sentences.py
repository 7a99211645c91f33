# SPDX-License-Identifier: Apache-2.0
"""Sentences of a page: with entities that a model found or not, and with gaps that it filled."""

from collections.abc import Mapping, Sequence
from typing import Any

from edad_jax.report.markup import paragraph, safe

_KINDS = {  # what a mark says, and its classes in the style sheet
    "found": ("found", "found green"),
    "missed": ("missed", "missed vermilion"),
    "wrong": ("not there", "wrong purple"),
}


def entity_sentences(sentences: Sequence[Mapping[str, Any]]) -> str:
    """Returns a list of sentences, as `chain.examples.show_entities` has them."""
    if not sentences:
        return paragraph("There is no such sentence.")
    return _list(" ".join(map(_part, sentence["parts"])) for sentence in sentences)


def gap_sentences(gaps: Sequence[Mapping[str, str]]) -> str:
    """Returns a list of {"text": with a gap, "word": that stood there, net: what it put in}."""
    return _list(map(_gap, gaps))


def _list(items):
    return f'<ol class="sentences">{"".join(f"<li>{item}</li>" for item in items)}</ol>'


def _part(part):
    if not part["kind"]:
        return safe(part["text"])
    word, classes = _KINDS[part["kind"]]
    said = f"; said: {part['said']}" if part["said"] else ""
    return (
        f'<mark class="{classes}">{safe(part["text"])}<small>'
        f"[{safe(word)}: {safe(part['type'])}{safe(said)}]</small></mark>"
    )


def _gap(gap):
    nets = {net: word for net, word in gap.items() if net not in ("text", "word")}
    verdict = {True: "right", False: "wrong"}
    said = [
        f"{safe(net)}: <strong>{safe(word)}</strong> ({verdict[word == gap['word']]})"
        for net, word in nets.items()
    ]
    there = f"hidden word: <strong>{safe(gap['word'])}</strong>"
    return f'{safe(gap["text"])}<br><span class="soft">{"; ".join([there, *said])}</span>'
