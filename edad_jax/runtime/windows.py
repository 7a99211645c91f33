# SPDX-License-Identifier: Apache-2.0
"""Texts as windows of pieces, and windows as what a session reads. numpy alone."""

import functools
import re
import string
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tokenizers

SEGMENT = 20_000  # characters that are tokenised at once
CHUNK = 200_000  # characters of texts that are worked on at once, unless one text is longer
_SURROGATES = re.compile("[\ud800-\udfff]")


class Pieces(NamedTuple):
    """A text as the net reads it."""

    ids: np.ndarray  # int64 [pieces]
    starts: np.ndarray  # int64 [pieces]; first character
    ends: np.ndarray  # int64 [pieces]; one past the last
    is_first: np.ndarray  # bool [pieces]; of its word


class Window(NamedTuple):
    """Pieces start to end of a text, of which those from keep_start to keep_end are judged."""

    text_index: int
    start: int
    end: int
    keep_start: int
    keep_end: int


def chunks(texts: Iterable[Any]) -> Iterator[list[Any]]:
    """Yields lists of texts that have CHUNK characters together, or one that has more.

    Pairs of texts are taken too.
    """
    chunk, size = [], 0
    for text in texts:
        length = len(text) if isinstance(text, str) else sum(map(len, text))
        if chunk and size + length > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += length + 100
    if chunk:
        yield chunk


def segments(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of parts of a text, which end where a word does if one ends there.

    The blank goes to the part behind it: to some tokenizers it belongs to the next word.
    """
    start = 0
    while len(text) - start > SEGMENT:
        end = start + SEGMENT
        gap = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
        end = gap if gap > start else end
        yield start, end
        start = end
    yield start, len(text)


def read_all(tokenizer: "tokenizers.Tokenizer") -> "tokenizers.Tokenizer":
    """Returns the tokenizer after setting it to read all of a text, and every word as plain text.

    "[SEP]" and "[MASK]" in a text are words like any other, as in pretraining (`data.pieces`): a
    text must not be able to end a segment or to mask a word.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenize(tokenizer: "tokenizers.Tokenizer", text: str) -> Pieces:
    """Returns the pieces of a text; offsets are those of the text as it was given.

    Surrogates, which no encoding knows, count as unknown.

    Args:
      tokenizer: one that `read_all` has set, and that composes (NFC): vocabularies have composed
        characters, text from a Mac's files has Hangul in parts.
      text: of any length.
    """
    text = without_surrogates(text)
    parts = []
    for start, end in segments(text):
        encoding = tokenizer.encode(text[start:end], add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + start
        if _splits_as_bert(tokenizer):
            words = [-1 if word is None else word for word in encoding.word_ids]
        else:
            offsets = _without_blanks(text, offsets)
            words = _words_at(text, offsets[:, 0])
        is_first = np.diff(np.array(words, np.int64), prepend=-2) != 0
        parts.append((np.array(encoding.ids, np.int64), offsets, is_first))
    ids, offsets, is_first = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not unicodedata.is_normalized("NFC", text):
        # The tokenizer gives a composed character the place of its first part alone.
        offsets[:, 1] = [_whole_end(text, start, end) for start, end in offsets.tolist()]
    return Pieces(ids, offsets[:, 0], offsets[:, 1], is_first)


def _splits_as_bert(tokenizer):
    """Returns whether what the tokenizer takes for a word is one: not so beyond BERT's kind."""
    return type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"


def _without_blanks(text, offsets):
    """Returns the places of pieces without the white space in front; of a blank, what follows."""
    trimmed = []
    for start, end in offsets.tolist():
        while start < len(text) and text[start].isspace():
            start += 1
        trimmed.append((start, max(start, end)))
    return np.array(trimmed, np.int64).reshape(-1, 2)


def _words_at(text, starts):
    """Returns the number of the word that each character is of, one more from word to word.

    Words are split as BERT splits them, at white space and around punctuation, so that a tagger
    finds the same entities whatever its pieces are.
    """
    if not len(starts):
        return starts
    found = _word_pattern().finditer(text, int(starts.min()))
    return np.searchsorted(np.array([word.end() for word in found], np.int64), starts, side="right")


@functools.cache
def _word_pattern():
    """Returns what finds words and signs; signs are ASCII's and what Unicode calls punctuation."""
    unicodes = (
        c for c in map(chr, range(128, sys.maxunicode)) if unicodedata.category(c)[0] == "P"
    )
    signs = re.escape(string.punctuation + "".join(unicodes))
    return re.compile(f"[^\\s{signs}]+|[{signs}]")


def _whole_end(text, start, end):
    """Returns where text[start:end] ends with all parts of its last character."""

    def length(stop):
        return len(unicodedata.normalize("NFC", text[start:stop]))

    while start < end < len(text) and length(end + 1) == length(end):
        end += 1
    return end


def without_surrogates(text: str) -> str:
    """Returns a text that every encoding knows: half characters become U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def split_windows(text_index: int, length: int, room: int, overlap: int) -> Iterator[Window]:
    """Yields the windows of a text; half of what two share is judged by each.

    Args:
      text_index: its place among the texts.
      length: how many pieces it has.
      room: pieces of a window at most.
      overlap: pieces that neighbours share, fewer than room.
    """
    start = keep_start = 0
    while True:
        end = min(start + room, length)
        keep_end = end if end == length else end - overlap // 2
        yield Window(text_index, start, end, keep_start, keep_end)
        if end == length:
            return
        start, keep_start = end - overlap, keep_end


def feed(
    rows: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Returns the inputs of a session; pieces of a row from its `seconds` on are of segment two."""
    shape = len(rows), max(map(len, rows))
    ids, mask, segments = (np.zeros(shape, np.int64) for _ in range(3))
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
        if seconds is not None:
            segments[number, seconds[number] : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
