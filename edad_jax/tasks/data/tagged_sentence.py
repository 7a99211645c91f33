# SPDX-License-Identifier: Apache-2.0
"""A tagged sentence: what the lines of a file, or a data set's row, make one, and what does not.

A sentence with a hole is another sentence, so one line that cannot be read costs its sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edad_jax.tasks.data.column_files import Layout, Line
from edad_jax.tasks.data.records import Skipped, skip
from edad_jax.tasks.data.tag_schemes import TAG

NO_TAG = "sentence skipped: a token without a tag"
_LIKE_A_TAG = re.compile("[A-Za-z]+[-_]")  # of a scheme that is not read: no word without a tag
_NO_TOKEN = "sentence skipped: a tag without a token"
_BAD_TAG = (
    "sentence skipped: a tag that is neither O nor B-, I-, E-, S-, L-, U-, M- or W- with a type"
)


class TaggedSentence(NamedTuple):
    """Words with a tag each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]  # IOB2
    source: str  # "train.tsv:12": where the sentence begins; of a data set "train:11", the row
    lines: tuple[int, ...] = ()  # of the words, where they are not one after the other


def sentence_of_lines(
    sentence: Sequence[Line], name: str, layout: Layout, read_tag: Callable[[str], str]
) -> TaggedSentence | Skipped:
    """Returns the sentence of some lines of a file of that name."""
    words, tags, problems = [], [], []
    for line in sentence:
        columns = line.columns
        if line.indented and len(columns) == layout.width - 1 and layout.word == 0:
            columns = [" ", *columns]  # a blank is the word
        if problem := _find_problem(columns, layout, read_tag):
            problems.append((problem[0], f"{name}:{line.number}", problem[1]))
        else:
            words.append(columns[layout.word])
            tags.append(read_tag(columns[layout.tag]))
    if problems:
        return Skipped(problems)
    numbers = tuple(line.number for line in sentence)
    is_even = numbers[-1] - numbers[0] == len(numbers) - 1
    source = f"{name}:{numbers[0]}"
    return TaggedSentence(tuple(words), tuple(tags), source, () if is_even else numbers)


def _find_problem(
    columns: list[str], layout: Layout, read_tag: Callable[[str], str]
) -> tuple[str, str] | None:
    """Returns what is wrong with a line, and a detail; None if it is good."""
    last = read_tag(columns[-1])
    is_no_tag = not TAG.fullmatch(last) and not _LIKE_A_TAG.match(last)
    if len(columns) == 1 or (not layout.has_tags and is_no_tag):
        return NO_TAG, repr(" ".join(columns)[:80])
    if len(columns) != layout.width:
        return (
            "sentence skipped: a line with another number of columns than most",
            f"{len(columns)}, not {layout.width}",
        )
    word, tag = columns[layout.word], columns[layout.tag]
    if not word:
        return _NO_TOKEN, ""
    if not tag.strip():
        return NO_TAG, repr(word[:80])
    if any("\r" in column for column in columns if not column.isspace()):
        return "sentence skipped: a carriage return within a line", ""
    if not TAG.fullmatch(read_tag(tag)):
        return _BAD_TAG, repr(tag[:80])
    return None


def sentence_of_row(
    words: list,
    tags: list,
    names: Sequence[str] | None,
    here: str,
    read_tag: Callable[[str], str],
) -> TaggedSentence | Skipped:
    """Returns the sentence of a data set's row."""
    if names:
        is_named = [isinstance(tag, int) and 0 <= tag < len(names) for tag in tags]
        tags = [names[t] if n else f"{t}" for t, n in zip(tags, is_named, strict=True)]
    tags = [read_tag(tag) if isinstance(tag, str) else tag for tag in tags]
    if len(words) != len(tags):
        return skip(NO_TAG, here, f"{len(words)} words, {len(tags)} tags")
    if not all(isinstance(word, str) and word for word in words):
        return skip(_NO_TOKEN, here)
    if bad := [tag for tag in tags if not TAG.fullmatch(str(tag))]:
        return skip(_BAD_TAG, here, repr(bad[0]))
    return TaggedSentence(tuple(words), tuple(tags), here)
