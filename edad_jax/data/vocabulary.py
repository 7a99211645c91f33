# SPDX-License-Identifier: Apache-2.0
"""A domain's own word pieces, added to a BERT tokenizer.

exBERT (Tai et al. 2020) keeps BERT's vocabulary and appends what a WordPiece vocabulary learned
on domain text has beyond it. Here the text is normalised and split into words as the base
tokenizer does before anything is learned, and a piece enters only if the finished tokenizer
really produces it from that text; the vocabulary that exBERT's authors published has 2,758 pieces
such as "##)." that no BERT tokenizer can produce.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from edad_jax.data.pieces import split_words
from edad_jax.data.tokenizer import (
    is_bert_kind,
    load_tokenizer,
    pieces_in_order,
    save_tokenizer,
)

LEARN_FROM_WORDS = 20_000_000  # running words given to the learner; counts are scaled down to it
MOST_DISTINCT_WORDS = 4_000_000  # rarer ones are forgotten when there are more, to bound memory
LEARN_TIMES = 4  # as many pieces are learned as are asked for, beyond the size of the base
MOST_LETTERS = 10_000  # words with rarer letters teach nothing
FEWEST_USES = 2  # of a new piece in the text
HELDOUT_EVERY = 50  # lines: one of so many measures the pieces per word, and teaches nothing
HELDOUT_WORDS = 200_000


@dataclass(frozen=True)
class VocabularyReport:
    """What was learned from how much, and what it is worth on lines that were held out."""

    base_size: int
    added: int
    size: int
    text_bytes: int
    distinct_words: int
    heldout_words: int
    pieces_per_word_before: float | None  # None where no held-out line has a word
    pieces_per_word_after: float | None
    unknown_before: float | None  # share of words with an unknown piece
    unknown_after: float | None
    seconds: float

    def summary(self) -> str:
        """Returns two lines of text."""
        learned = (
            f"vocabulary: {self.base_size:,} + {self.added:,} = {self.size:,} pieces, from "
            f"{self.text_bytes / 1e6:,.1f} MB of text in {self.seconds:.0f} s\n"
        )
        if self.pieces_per_word_before is None:
            why = f"no held-out line (one of {HELDOUT_EVERY}) has a word"
            if not self.text_bytes:
                why = "no text was read, since no words were asked for (config.vocabulary.size=0)"
            return f"{learned}pieces per word: not measured, {why}"
        return (
            f"{learned}pieces per word: {self.pieces_per_word_before:.3f} -> "
            f"{self.pieces_per_word_after:.3f}; unknown words: {self.unknown_before:.2%} -> "
            f"{self.unknown_after:.2%} (on {self.heldout_words:,} held-out words)"
        )


def extend_vocabulary(
    base: str | Path,
    texts: Iterable[str],
    *,
    size: int,
    out: str | Path,
    keep_base: bool = True,
    progress: bool = True,
) -> VocabularyReport:
    """Returns a report on the tokenizer it writes: the base's pieces, then `size` new ones.

    Args:
      base: tokenizer to extend, as `load_tokenizer` takes it. Its ids do not change.
      texts: domain documents; read once, one line in fifty held out to measure the gain.
      size: how many pieces to append; 0 writes the base tokenizer itself.
      out: folder of the new tokenizer, in Hugging Face layout with vocab.txt. It is written beside
        and renamed; what was there before is replaced.
      keep_base: False for a vocabulary of the domain's own (SciBERT's way): of the base's pieces
        only those up to the last special one stay, so that the special ids do not change.
      progress: whether to show a bar on standard error.

    Raises:
      ValueError: the text has fewer than `size` new pieces of two uses or more; the base cannot
        be loaded, or is no WordPiece tokenizer and so cannot grow.
    """
    start = time.monotonic()
    tokenizer = load_tokenizer(base)
    backend = tokenizer.backend_tokenizer
    base_pieces = pieces_in_order(backend)
    vocabulary = base_pieces if keep_base else base_pieces[: max(tokenizer.all_special_ids) + 1]
    can_grow = is_bert_kind(tokenizer)
    if not can_grow and (size or not keep_base):
        raise ValueError(
            f"{base}: got a {type(backend.model).__name__} tokenizer, of which a vocabulary "
            "cannot grow, expected BERT's kind (WordPiece) for that; keep its pieces as they are: "
            "--config.vocabulary.size=0 --config.vocabulary.from_scratch=False"
        )
    counts, heldout, text_bytes = Counter(), Counter(), 0
    if size:
        chunks, heldout_chunks, text_bytes = _count_chunks(texts, progress)
        counts, heldout = _count_words(backend, chunks), _count_words(backend, heldout_chunks)
    new = _choose_pieces(backend, vocabulary, counts, size, text_bytes) if size else []
    save_tokenizer(tokenizer, vocabulary + new, Path(out))
    before = unknown_before = after = unknown_after = None
    if size:
        bare = (_build_bare_model(backend, pieces) for pieces in (base_pieces, vocabulary + new))
        (before, unknown_before), (after, unknown_after) = (
            _measure_pieces(model, heldout) for model in bare
        )
    return VocabularyReport(
        base_size=len(vocabulary),
        added=len(new),
        size=len(vocabulary) + len(new),
        text_bytes=text_bytes,
        distinct_words=len(counts),
        heldout_words=heldout.total(),
        pieces_per_word_before=before,
        pieces_per_word_after=after,
        unknown_before=unknown_before,
        unknown_after=unknown_after,
        seconds=time.monotonic() - start,
    )


def split_added_words(vocabulary: list[str], base_size: int) -> list[tuple[int, ...]]:
    """Returns, for each added piece, the ids of the base pieces that it was before.

    Greedy longest match, as WordPiece does it; () where the base has no pieces for it.

    Args:
      vocabulary: all pieces by id, the base's first.
      base_size: how many are the base's.
    """
    base = {piece: number for number, piece in enumerate(vocabulary[:base_size])}

    def split(piece):
        is_first, text, found = not piece.startswith("##"), piece.removeprefix("##"), []
        while text:
            prefix = "" if is_first else "##"
            end = next((n for n in range(len(text), 0, -1) if prefix + text[:n] in base), 0)
            if not end:
                return ()
            found.append(base[prefix + text[:end]])
            text, is_first = text[end:], False
        return tuple(found)

    return [split(piece) for piece in vocabulary[base_size:]]


def _count_chunks(texts: Iterable[str], progress: bool) -> tuple[Counter, Counter, int]:
    """Returns how often each white-space-delimited chunk occurs: to learn from, and held out."""
    from tqdm import tqdm

    counts, heldout = Counter(), Counter()
    lines, text_bytes, heldout_words = 0, 0, 0
    with tqdm(desc="vocabulary", unit="B", unit_scale=True, disable=not progress) as bar:
        for text in texts:
            for line in text.split("\n"):
                words = split_words(line)
                lines += 1
                if lines % HELDOUT_EVERY == 0 and heldout_words < HELDOUT_WORDS:
                    heldout.update(words)
                    heldout_words += len(words)
                else:
                    counts.update(words)
            if len(counts) > MOST_DISTINCT_WORDS:
                counts = Counter(dict(counts.most_common(MOST_DISTINCT_WORDS // 2)))
            size = len(text.encode("utf-8", "replace"))
            text_bytes += size
            bar.update(size)
    return counts, heldout, text_bytes


def _count_words(backend: Tokenizer, chunks: Counter) -> Counter:
    """Returns how often each word occurs, normalised and split as the base tokenizer does it."""
    words = Counter()
    normalize = backend.normalizer.normalize_str
    split = backend.pre_tokenizer.pre_tokenize_str
    for chunk, count in chunks.items():
        normal = normalize(chunk)
        if normal.isalpha() and normal.isascii():
            words[normal] += count  # nothing to split: the common case
        else:
            for word, _ in split(normal):
                words[word] += count
    return words


def _choose_pieces(
    backend: Tokenizer, vocabulary: list[str], counts: Counter, size: int, text_bytes: int
) -> list[str]:
    """Returns `size` pieces that the base lacks, each produced at least twice from these words.

    The learner merges pairs of pieces by frequency, but the tokenizer takes the longest piece
    first, so pieces that were only steps on the way to longer ones are hardly ever produced. More
    are learned than asked for, and the least used ones leave, a quarter at a time, since the words
    they made up are split anew; the rest is in order of use.
    """
    known = set(vocabulary)
    longest = json.loads(backend.to_str())["model"]["max_input_chars_per_word"]
    usable = Counter({word: count for word, count in counts.items() if len(word) <= longest})
    learned = _train_wordpiece(usable, len(vocabulary) + LEARN_TIMES * size)
    new = [piece for piece in learned if piece not in known]
    left: list[str] = []  # pieces that made room; the last one to leave is the first to return
    while True:
        found = _count_uses(_build_bare_model(backend, vocabulary + new), usable)
        uses = dict(zip(new, found[len(vocabulary) :].tolist(), strict=True))
        new.sort(key=lambda piece: (-uses[piece], piece))
        used = [piece for piece in new if uses[piece] >= FEWEST_USES]
        if len(used) == len(new) == size or len(used) < size and not left:
            new = used
            break
        if len(used) < size:  # others left, and with them the words that needed these
            new = used + [left.pop() for _ in range(min(len(left), size - len(used)))]
        else:
            new = used[: max(size, len(used) * 3 // 4)]
            left.extend(reversed(used[len(new) :]))
    if len(new) < size:
        raise ValueError(
            f"got {len(new):,} new pieces from {text_bytes / 1e6:,.1f} MB of text, expected "
            f"{size:,}; give more text, or ask for at most {len(new):,} pieces "
            f"(--config.vocabulary.size={len(new)})"
        )
    return new


def _train_wordpiece(counts: Counter, size: int) -> list[str]:
    """Returns the pieces that tokenizers' WordPiece learner finds; the same in every run."""
    letters = Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    common = sorted(letters, key=lambda letter: (-letters[letter], letter))[:MOST_LETTERS]
    alphabet = sorted(common)
    # The learner breaks ties by piece number, and numbers the letters within words in the order
    # of a hash table, which differs from run to run. Given as "special" pieces they come first.
    pieces = [form for letter in alphabet for form in (letter, f"##{letter}")]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(pieces)),
        min_frequency=FEWEST_USES,
        special_tokens=pieces,
        show_progress=False,
    )
    scale = min(1.0, LEARN_FROM_WORDS / max(1, counts.total()))
    alphabet_set = set(alphabet)

    def repeat_words() -> Iterator[str]:
        for word, count in sorted(counts.items()):
            times = max(1, round(count * scale)) if alphabet_set.issuperset(word) else 0
            while times > 0:
                yield f"{word} " * min(times, 10_000)
                times -= 10_000

    learner.train_from_iterator(repeat_words(), trainer)
    return pieces_in_order(learner)


def _build_bare_model(backend: Tokenizer, vocabulary: list[str]) -> Tokenizer:
    """Returns a tokenizer of words that are normalised already: it only splits them into pieces."""
    settings = json.loads(backend.to_str())["model"]
    model = models.WordPiece(
        {piece: number for number, piece in enumerate(vocabulary)},
        unk_token=settings["unk_token"],
        max_input_chars_per_word=settings["max_input_chars_per_word"],
        continuing_subword_prefix=settings["continuing_subword_prefix"],
    )
    bare = Tokenizer(model)
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return bare


def _tokenize_words(bare: Tokenizer, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (id, number of the word) of every piece of the words, in order."""
    step = 500  # words that go to the tokenizer as one text
    texts = [" ".join(words[i : i + step]) for i in range(0, len(words), step)]
    ids, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for i, encoding in enumerate(bare.encode_batch(texts)):
        ids.append(np.array(encoding.ids, np.int64))
        numbers.append(np.array(encoding.word_ids, np.int64) + i * step)
    return np.concatenate(ids), np.concatenate(numbers)


def _count_uses(bare: Tokenizer, counts: Counter) -> np.ndarray:
    """Returns how often each piece is produced, by its id."""
    ids, numbers = _tokenize_words(bare, list(counts))
    weights = np.fromiter(counts.values(), np.int64, len(counts))[numbers]
    uses = np.bincount(ids, weights, minlength=bare.get_vocab_size())
    return uses.astype(np.int64)


def _measure_pieces(bare: Tokenizer, counts: Counter) -> tuple[float | None, float | None]:
    """Returns pieces per word, and the share of words with an unknown piece."""
    if not counts:
        return None, None
    ids, numbers = _tokenize_words(bare, list(counts))
    weights = np.fromiter(counts.values(), np.int64, len(counts))
    unknown = np.unique(numbers[ids == bare.token_to_id(bare.model.unk_token)])
    total = counts.total()
    return float(weights[numbers].sum() / total), float(weights[unknown].sum() / total)
