# SPDX-License-Identifier: Apache-2.0
"""Files of a token a line: what is a token, which column has the words, and which the tags.

The words mostly come first and the tags last, but there may be numbers before the words (CoNLL-U,
GermEval), other columns after the tags, and comments before a sentence. What a column holds
decides; where it cannot, the columns are named and an option chooses.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edad_jax.tasks.data.tag_schemes import ANY_TAG

_COMMENT = re.compile(r"##|#\s*[\w.]+\s*[=:]|#\s*(id|text|sent\w*|doc\w*)\b")
_NUMBER = re.compile(r"[\d.,:;/()\[\]#_+-]*\d[\d.,:;/()\[\]#_+-]*")  # also 1-2, 8.1 and 0:12
_HEADERS = frozenset(  # names of columns, as tables of words and tags have them in a first line
    "word words token tokens form text tag tags label labels ner ner_tag ner_tags iob pos upos "
    "chunk lemma id sentence sentence_id sentence_idx doc".split()
)
_DIFFERENT = 30  # lines, from which on text says some word again
_MOST = 0.9  # of the lines: what a column is like; some may be damaged
_FEWEST_NUMBERS = 10  # lines of nothing but numbers, to say that there are no words


class Line(NamedTuple):
    """A token's line."""

    number: int  # in the file, from 1
    columns: list[str]
    indented: bool  # whether a blank may be its word


class Layout(NamedTuple):
    """How the lines of a file are to be read."""

    width: int  # columns of most lines
    word: int
    tag: int
    has_tags: bool = True  # False: no column looks like tags, `tag` is only the likeliest


def split_sentences(lines: Sequence[str]) -> tuple[list[list[Line]], int, int]:
    """Returns the lines of each sentence, how many columns most have, and the count of comments.

    A comment stands before the first token of a sentence, begins with # and is no token's line:
    "## klue-ner-v1_dev_00000", "# id ab0 domain=en", "# text = ...". "#" may well be a word.

    Args:
      lines: of the file; those between sentences are empty.
    """
    parsed = [_split(line) for line in lines]
    openings = set(_openings(lines))
    rest = [number for number, line in enumerate(lines) if line and number not in openings]
    counted = rest or sorted(openings)
    widths = Counter(len(parsed[number]) for number in counted if len(parsed[number]) > 1)
    width = widths.most_common(1)[0][0] if widths else 0
    tabbed = sum("\t" in lines[number] for number in counted) * 2 > len(counted)
    sentences: list[list[Line]] = [[]]
    comments = 0
    for number, (line, columns) in enumerate(zip(lines, parsed, strict=True)):
        if not line:
            sentences.append([])
        elif not sentences[-1] and _is_comment(line, columns, width, tabbed):
            comments += 1
        else:
            indented = line.startswith("  ") and "\t" not in line
            sentences[-1].append(Line(number + 1, columns, indented))
    return [sentence for sentence in sentences if sentence], width, comments


def split_by_names(sentence: Sequence[Line]) -> list[list[Line]]:
    """Returns the sentences of a file without blank lines whose first column begins each.

    "Sentence: 1" stands on the first line of a sentence, and nothing on the others.
    """
    starts = [place for place, line in enumerate(sentence) if line.columns[0].strip()]
    if not starts or starts[0] or len(starts) * 2 > len(sentence):
        return [list(sentence)]
    ends = [*starts[1:], len(sentence)]
    return [list(sentence[start:end]) for start, end in zip(starts, ends, strict=True)]


def is_header(line: str) -> bool:
    r"""Returns whether the first line of a file names its columns: "Sentence #\tWord\tPOS\tTag"."""
    columns = line.split("\t") if "\t" in line else line.split()
    names = [re.sub(r"[\s#:.]+", "", column).lower() for column in columns]
    return len(names) > 1 and all(name in _HEADERS for name in names)


def choose_layout(
    sentences: Sequence[Sequence[Line]], width: int, *, name: str, word_key: str, tag_key: str
) -> tuple[Layout, list[str]]:
    """Returns the columns of words and tags, and what is to be said of the choice.

    Args:
      sentences: of `split_sentences`.
      width: likewise.
      name: of the file, for messages.
      word_key: number of the column of the words, from 0; "": chosen by what the columns hold.
      tag_key: of the tags, likewise.

    Raises:
      ValueError: a key that is no column, or no column that holds words.
    """
    even = [[each.columns for each in one if len(each.columns) == width] for one in sentences]
    rows = [columns for sentence in even for columns in sentence]
    shown = _describe(rows, width)
    given = [
        None if key == "" else _number_of(key, option, width, f"{name}: got {shown}")
        for key, option in ((word_key, "text_key"), (tag_key, "label_key"))
    ]
    notes = []
    tags = [column for column in range(width) if _share(rows, column, ANY_TAG) >= 0.5]
    # A column of words that was asked for is not one of tags, whatever it holds.
    tags = [column for column in tags if column != given[0]]
    tag = given[1] if given[1] is not None else (tags or [width - 1])[-1]
    if len(tags) > 1 and given[1] is None:
        others = ", ".join(str(column) for column in tags[:-1])
        notes.append(
            f"{name}: tags from column {tag}, the last of several; another is read by "
            f"--config.label_key=... ({others})"
        )
    word, others = given[0], [column for column in range(width) if column not in (tag, *tags)]
    if word is None:
        word = others[0] if others else next((one for one in range(width) if one != tag), 0)
        if others and _is_no_words(even, word):
            better = next((one for one in others[1:] if not _is_no_words(even, one)), None)
            if better is not None:
                word = better
            elif len(rows) >= _FEWEST_NUMBERS and _share(rows, word, _NUMBER) >= _MOST:
                raise ValueError(
                    f"{name}: got {shown}, and none that holds words; expected one with the "
                    "words: give its number (from 0) as --config.text_key=..."
                )
    if (word, tag) != (0, width - 1) and rows:
        notes.append(f"{name}: words from column {word}, tags from column {tag} of {shown}")
    return Layout(width, word, tag, bool(tags) or given[1] is not None), notes


def less_ranges(sentence: Sequence[Line], layout: Layout) -> list[Line]:
    """Returns a sentence without the lines that CoNLL-U has beside its tokens.

    "1-2 vámonos" is followed by its words, 1 and 2; "8.1" after 8 is a word that was left out.
    """
    if layout.word == 0 or len(sentence) < 2:
        return list(sentence)
    numbers = [line.columns[0] for line in sentence]
    kept = []
    for place, line in enumerate(sentence):
        before = numbers[place - 1] if place else "0"
        after = numbers[place + 1] if place + 1 < len(numbers) else ""
        is_range = re.fullmatch(rf"{re.escape(after)}-\d+", line.columns[0]) and after.isdecimal()
        is_gap = re.fullmatch(r"(\d+)\.\d+", line.columns[0]) and before.split(".")[0].isdecimal()
        is_gap = is_gap and line.columns[0].split(".")[0] == before.split(".")[0]
        if not is_range and not is_gap:
            kept.append(line)
    return kept


def _openings(lines: Sequence[str]) -> Iterator[int]:
    """Yields the places of lines that begin with #, with nothing else before in their sentence."""
    is_open = True
    for number, line in enumerate(lines):
        is_open = not line or (is_open and line.lstrip(" ").startswith("#"))
        if line and is_open:
            yield number


def _split(line: str) -> list[str]:
    """Returns the columns of a line; none of a blank one. A word may hold other white space."""
    if not line:
        return []
    if "\t" in line:
        # A word may be a blank, which is no reason to have none.
        return [column.strip(" ") or column for column in line.split("\t")]
    return re.split(" +", line.strip(" "))


def _is_comment(line: str, columns: Sequence[str], width: int, tabbed: bool) -> bool:
    """Returns whether a line before the first token of a sentence is a comment."""
    line = line.lstrip(" ")
    if not line.startswith("#"):
        return False
    has_tag = any(ANY_TAG.fullmatch(column) for column in columns[1:])
    if len(columns) == width and has_tag:
        is_foreign = tabbed and width > 2 and "\t" not in line
        return bool(is_foreign or "=" in columns[1:3] or re.match(r"#+\s+\S", columns[0]))
    return bool(_COMMENT.match(line)) or (len(columns) > 1 and not has_tag)


def _number_of(key: str, option: str, width: int, got: str) -> int:
    """Returns the column that an option names."""
    if not key.isdecimal() or int(key) >= width:
        raise ValueError(
            f"{got} and --config.{option}={key}, expected the number of a column, 0 to {width - 1}"
        )
    return int(key)


def _describe(rows: Sequence[Sequence[str]], width: int) -> str:
    """Returns the columns with the first values of each, as messages name them."""
    parts = []
    for column in range(width):
        values = list(dict.fromkeys(row[column][:20] for row in rows[:50]))[:3]
        parts.append(f"column {column} ({', '.join(values)})")
    return ", ".join(parts)


def _share(rows: Sequence[Sequence[str]], column: int, pattern: re.Pattern) -> float:
    """Returns for how much of the rows a column is of a pattern."""
    return sum(bool(pattern.fullmatch(row[column])) for row in rows) / max(1, len(rows))


def _is_no_words(sentences: Sequence[Sequence[Sequence[str]]], column: int) -> bool:
    """Returns whether a column holds numbers, names of whatever kind, or next to nothing.

    Args:
      sentences: the columns of each of their lines.
      column: which.
    """
    rows = [columns for sentence in sentences for columns in sentence]
    if sum(bool(row[column]) for row in rows) * 2 < len(rows):
        return True  # "Sentence: 1", and nothing on the lines after it
    if _share(rows, column, _NUMBER) >= _MOST:
        return True
    long = [{columns[column] for columns in each} for each in sentences if len(each) > 2]
    if long and sum(len(values) == 1 for values in long) >= _MOST * len(long):
        return True  # the name of the sentence or document, or "_"
    values = {row[column] for row in rows}
    if len(values) == len(rows) >= _DIFFERENT:
        with_digit = sum(any(map(str.isdigit, value)) for value in values)
        if with_digit >= _MOST * len(values):
            return True  # a name of its own for each line
    # Names that count: "t1", "t2", "t3".
    counts = [[re.findall(r"\d+", columns[column]) for columns in one] for one in sentences]
    steps = [
        len(now) == len(then) and bool(now) and int(then[-1]) == int(now[-1]) + 1
        for one in counts
        for now, then in itertools.pairwise(one)
    ]
    return len(steps) >= _FEWEST_NUMBERS and sum(steps) >= _MOST * len(steps)
