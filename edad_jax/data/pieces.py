# SPDX-License-Identifier: Apache-2.0
"""Text to word-piece ids, exactly as the tokenizer gives them; with BERT's only faster.

BERT's tokenisation never looks across white space, so the ids of a text are those of its words
one after another, and natural text repeats its words: each worker keeps the ids of the words it
has met and asks the tokenizer for new ones only. `split_words` splits where BERT does.

Special words in a text ("[SEP]", "[MASK]") are plain text, as in Devlin's own code: a text must
not be able to end a segment or to mask a word.

Tokenizers of other kinds may look at the blank before a word, and split by other rules: they read
whole sentences (`SentenceTable`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import AddedToken, Tokenizer

# BERT removes control characters before it looks for white space; str.split() would split at
# these. (Devlin's tokenization.py: _clean_text; the fast tokenizer does the same.)
_SPLIT_BUT_REMOVED = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
# Between new words when many go to the tokenizer as one text, which is faster than one by one.
# Two characters for private use: BERT removes such characters, so taking them out of a word first
# changes nothing, and no word can be mistaken for the mark.
_MARK = "\ue000\ue001"
_MARKS = re.compile("[\ue000\ue001]")
WORDS_AT_ONCE = 500
CACHED_CHARACTERS = 20_000_000  # of words kept by one `PieceTable`: about 200 MB at most


def remove_separators(text: str) -> str:
    """Returns the text without the characters at which str.split() splits and BERT does not."""
    return _SPLIT_BUT_REMOVED.sub("", text)


def split_words(text: str) -> list[str]:
    """Returns the words of a text, split at what is white space to BERT."""
    return remove_separators(text).split()


def part_types(tokenizer: Tokenizer) -> dict[str, str | None]:
    """Returns what a tokenizer's normaliser, pre-tokeniser and model are."""
    parts = {part: getattr(tokenizer, part) for part in ("normalizer", "pre_tokenizer", "model")}
    return {name: type(part).__name__ if part else None for name, part in parts.items()}


BERT_TYPES = {
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
    "model": "WordPiece",
}


def table_for(tokenizer: Tokenizer) -> PieceTable | SentenceTable:
    """Returns what turns sentences into ids: `PieceTable` for BERT's kind of tokenizer."""
    is_bert = part_types(tokenizer) == BERT_TYPES
    return PieceTable(tokenizer) if is_bert else SentenceTable(tokenizer)


class WordPieces(NamedTuple):
    """Ids of all words of some sentences, flat, and where words and sentences stop."""

    ids: np.ndarray  # int32; ids of all the pieces
    sentence_starts: np.ndarray  # int64, one longer than the sentences; positions in ids


class PieceTable:
    """The ids of every word met so far; grows as it meets new ones, and starts afresh when full.

    Args:
      tokenizer: a `tokenizers.Tokenizer` of the BERT kind, used for new words only. It is copied,
        and not changed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_tokens([AddedToken(_MARK, normalized=False, special=False)])
        tokenizer.encode_special_tokens = True  # as the plain text that they are
        self._tokenizer = tokenizer
        self._mark = tokenizer.token_to_id(_MARK)
        self._clear()

    def _clear(self) -> None:
        self._numbers = _Numbers()
        self._characters = 0
        self._ids = np.zeros(0, np.int32)
        self._starts = np.zeros(1, np.int64)

    @staticmethod
    def split(sentence: str, *, is_first: bool) -> list[str]:
        """Returns the words of a sentence; see `split_words`."""
        del is_first
        return split_words(sentence)

    def encode(self, sentences: Sequence[Sequence[str]]) -> WordPieces:
        """Returns the ids of sentences, each given as the list of its words (`split_words`)."""
        if self._characters > CACHED_CHARACTERS:
            self._clear()
        word_counts = np.fromiter(map(len, sentences), np.int64, len(sentences))
        number_of = self._numbers.__getitem__
        words = np.fromiter(
            map(number_of, itertools.chain.from_iterable(sentences)),
            np.int64,
            int(word_counts.sum()),
        )
        self._learn_new_words()
        lengths = np.diff(self._starts)[words]
        stops = np.cumsum(lengths)
        total = int(stops[-1]) if len(stops) else 0
        positions = np.repeat(self._starts[words] - (stops - lengths), lengths) + np.arange(total)
        starts_of_words = np.concatenate([[0], stops])
        sentence_starts = starts_of_words[np.concatenate([[0], np.cumsum(word_counts)])]
        return WordPieces(self._ids[positions], sentence_starts)

    def _learn_new_words(self) -> None:
        new = self._numbers.new
        if not new:
            return
        words = [_MARKS.sub("", word) for word in new] if _MARKS.search("".join(new)) else new
        texts = [
            f" {_MARK} ".join([*words[i : i + WORDS_AT_ONCE], ""])  # a mark after each word
            for i in range(0, len(words), WORDS_AT_ONCE)
        ]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        marked = np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings])
        is_mark = marked == self._mark
        stops = np.flatnonzero(is_mark) - np.arange(len(new))
        self._starts = np.concatenate([self._starts, self._starts[-1] + stops])
        self._ids = np.concatenate([self._ids, marked[~is_mark]])
        self._characters += sum(map(len, new))
        new.clear()


class _Numbers(dict):
    """Word -> its number; a word that is not in it gets the next one and is noted in `new`."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        number = self[word] = len(self)
        return number


class SentenceTable:
    """The ids of sentences, which the tokenizer reads one by one; of any kind of tokenizer.

    Args:
      tokenizer: a `tokenizers.Tokenizer`. It is copied, and not changed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as the plain text that they are
        self._tokenizer = tokenizer

    @staticmethod
    def split(sentence: str, *, is_first: bool) -> list[str]:
        """Returns the words of a sentence, each with the blank before it.

        Args:
          sentence: any text; other white space is one blank too.
          is_first: whether it begins its text, so that no blank is before it.
        """
        words = [f" {word}" for word in sentence.split()]
        if is_first and words:
            words[0] = words[0][1:]
        return words

    def encode(self, sentences: Sequence[Sequence[str]]) -> WordPieces:
        """Returns the ids of sentences, each given as the list of its words (`split`)."""
        texts = ["".join(words) for words in sentences]
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int32) for encoding in found]
        starts = np.cumsum([0, *map(len, ids)])
        return WordPieces(np.concatenate([np.zeros(0, np.int32), *ids]), starts.astype(np.int64))
