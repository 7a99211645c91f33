# SPDX-License-Identifier: Apache-2.0
"""What every kind of vocabulary learns new pieces with: words, their counts, and use as measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, trainers

LEARN_FROM_WORDS = 20_000_000  # running words given to a learner; counts are scaled down to it
LEARN_TIMES = 4  # as many pieces are learned as are asked for
FEWEST_USES = 2  # of a new piece in the text
_WORDS_AT_ONCE = 500


def keep_most_used(
    new: list[str], size: int, count_uses: Callable[[list[str]], Mapping[str, int]]
) -> list[str]:
    """Returns `size` of the new pieces, or as many as are used twice, in order of use.

    The least used ones leave, a quarter at a time, since the words that they made up are split
    anew without them.

    Args:
      new: more pieces than are asked for.
      size: how many are.
      count_uses: says how often each of some new pieces is produced where there are no others.
    """
    left: list[str] = []  # pieces that made room; the last one to leave is the first to return
    while True:
        uses = count_uses(new)
        new = sorted(new, key=lambda piece: (-uses[piece], piece))
        used = [piece for piece in new if uses[piece] >= FEWEST_USES]
        if len(used) == len(new) == size or len(used) < size and not left:
            return used
        if len(used) < size:  # others left, and with them the words that needed these
            new = used + [left.pop() for _ in range(min(len(left), size - len(used)))]
        else:
            new = used[: max(size, len(used) * 3 // 4)]
            left.extend(reversed(used[len(new) :]))


def repeat_words(counts: Mapping[str, int], letters: Iterable[str]) -> Iterator[str]:
    """Yields texts with the words as often as they occur, in proportion where there are many.

    Words with other letters than these are left out.
    """
    known = set(letters)
    scale = min(1.0, LEARN_FROM_WORDS / max(1, sum(counts.values())))
    for word, count in sorted(counts.items()):
        times = max(1, round(count * scale)) if known.issuperset(word) else 0
        while times > 0:
            yield f"{word} " * min(times, 10_000)
            times -= 10_000


def learn_merges(runs: Mapping[str, int], most: int) -> list[tuple[str, str]]:
    """Returns the pairs that BPE's learner joins in these runs, the same in every run."""
    alphabet = sorted(set().union(*runs)) if runs else []
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The learner breaks ties by piece number, and numbers letters in the order of a hash table,
    # which differs from run to run. Given as "special" pieces they come first.
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + most,
        min_frequency=FEWEST_USES,
        special_tokens=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(repeat_words(runs, alphabet), trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def build_bare_model(backend: Tokenizer) -> Tokenizer:
    """Returns a tokenizer of words that are normalised already: it only splits them into pieces."""
    return Tokenizer(backend.model)


def tokenize_words(bare: Tokenizer, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (id, number of the word) of every piece of the words, in order."""
    ids, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first, encoding in encode_words(bare, words):
        ids.append(np.array(encoding.ids, np.int64))
        numbers.append(np.array(encoding.word_ids, np.int64) + first)
    return np.concatenate(ids), np.concatenate(numbers)


def count_pieces(bare: Tokenizer, counts: Mapping[str, int]) -> np.ndarray:
    """Returns how often each piece is produced from these words, by its id."""
    ids, numbers = tokenize_words(bare, list(counts))
    weights = np.fromiter(counts.values(), np.int64, len(counts))[numbers]
    return np.bincount(ids, weights, minlength=bare.get_vocab_size()).astype(np.int64)


def encode_words(bare: Tokenizer, words: Sequence[str]) -> Iterator[tuple[int, Encoding]]:
    """Yields (number of its first word, encoding) of some words at a time."""
    step = _WORDS_AT_ONCE * 200
    for start in range(0, len(words), step):
        some = words[start : start + step]
        texts = [some[i : i + _WORDS_AT_ONCE] for i in range(0, len(some), _WORDS_AT_ONCE)]
        for number, encoding in enumerate(bare.encode_batch(texts, is_pretokenized=True)):
            yield start + number * _WORDS_AT_ONCE, encoding
