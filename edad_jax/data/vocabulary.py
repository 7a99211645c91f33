# SPDX-License-Identifier: Apache-2.0
"""A domain's own word pieces, added to a tokenizer.

exBERT (Tai et al. 2020) keeps BERT's vocabulary and appends what a WordPiece vocabulary learned
on domain text has beyond it. Here the text is normalised and split into words as the base
tokenizer does before anything is learned, and a piece enters only if the finished tokenizer
really produces it from that text; the vocabulary that exBERT's authors published has 2,758 pieces
such as "##)." that no BERT tokenizer can produce. Unigram and BPE tokenizers grow in `growth`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from edad_jax.data import growth, learner
from edad_jax.data.letters import reader_of
from edad_jax.data.pieces import split_words
from edad_jax.data.tokenizer import (
    is_bert_kind,
    load_tokenizer,
    pieces_in_order,
    save_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_DISTINCT_WORDS = 4_000_000  # rarer ones are forgotten when there are more, to bound memory
MOST_LETTERS = 10_000  # words with rarer letters teach nothing
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
    steps: int = 0  # of the added ones: used within others only, which BPE merges from them

    def summary(self) -> str:
        """Returns two lines of text."""
        steps = f" ({self.steps:,} of the new ones only within others)" if self.steps else ""
        learned = (
            f"vocabulary: {self.base_size:,} + {self.added:,} = {self.size:,} pieces{steps}, from "
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
      keep_base: False for a vocabulary of the domain's own (SciBERT's way): see `own_pieces`.
      progress: whether to show a bar on standard error.

    Raises:
      ValueError: the text has fewer than `size` new pieces of two uses or more; the base cannot
        be loaded, or is of a kind that cannot grow; a size below 0.
    """
    if size < 0:
        raise ValueError(f"got config.vocabulary.size={size}, expected 0 (none) or more")
    start = time.monotonic()
    tokenizer = load_tokenizer(base)
    backend = tokenizer.backend_tokenizer
    base_pieces = pieces_in_order(backend)
    vocabulary = base_pieces if keep_base else own_pieces(tokenizer, base)
    is_bert = is_bert_kind(tokenizer)
    if not is_bert:
        _check_growth(base, backend, size)
    counts, heldout, text_bytes = Counter(), Counter(), 0
    new, steps, grown = [], 0, None
    if size:
        chunks, heldout_chunks, text_bytes = _count_chunks(texts, progress)
        count_words = _count_words if is_bert else growth.count_words
        counts, heldout = count_words(backend, chunks), count_words(backend, heldout_chunks)
        if is_bert:
            new = _choose_pieces(backend, vocabulary, counts, size)
        else:
            grown, new, steps = growth.grow(backend, counts, size)
    if len(new) < size:
        raise ValueError(
            f"got {len(new):,} new pieces from {text_bytes / 1e6:,.1f} MB of text, expected "
            f"{size:,}; give more text, or ask for at most {len(new):,} pieces "
            f"(--config.vocabulary.size={len(new)})"
        )
    save_tokenizer(tokenizer, vocabulary + new, Path(out), backend=grown)
    before = unknown_before = after = unknown_after = None
    if size:
        if is_bert:
            bare = [_build_bare_model(backend, each) for each in (base_pieces, vocabulary + new)]
        else:
            bare = [learner.build_bare_model(each) for each in (backend, grown)]
        unknown = [each.index(tokenizer.unk_token) for each in (base_pieces, vocabulary)]
        (before, unknown_before), (after, unknown_after) = (
            _measure_pieces(model, heldout, number)
            for model, number in zip(bare, unknown, strict=True)
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
        steps=steps,
    )


def own_pieces(tokenizer: PreTrainedTokenizerFast, source: str | Path) -> list[str]:
    """Returns the pieces of a tokenizer with which a vocabulary of the domain's own begins.

    Those up to the last special one, whose ids so stay: of BERT's 104, most of them names for later
    use. But words do not: special pieces behind them (MPNet's <mask> is the last of 30,527) move.

    Raises:
      ValueError: the tokenizer, which the error calls `source`, is not of BERT's kind.
    """
    backend = tokenizer.backend_tokenizer
    if not is_bert_kind(tokenizer):
        kind = type(backend.model).__name__
        raise ValueError(
            f"{source}: got a {kind} tokenizer, expected BERT's kind (WordPiece) for a vocabulary "
            "of the domain's own; keep its pieces: --config.vocabulary.from_scratch=False"
        )
    pieces, specials = pieces_in_order(backend), set(tokenizer.all_special_tokens)
    split = backend.pre_tokenizer.pre_tokenize_str

    def is_word(piece):  # or part of one; BERT splits a name in brackets
        return piece not in specials and (piece.startswith("##") or len(split(piece)) == 1)

    words = next((number for number, piece in enumerate(pieces) if is_word(piece)), len(pieces))
    ends = [number + 1 for number, piece in enumerate(pieces[:words]) if piece in specials]
    front = pieces[: max(ends, default=0)]
    return [*front, *(piece for piece in pieces[words:] if piece in specials)]


def _check_growth(base, backend, size):
    """Raises ValueError where a tokenizer that is not BERT's is asked for what it cannot do."""
    why = growth.why_it_cannot_grow(backend) if size else None
    if why:
        raise ValueError(
            f"{base}: got {why}, of which a vocabulary cannot grow, expected BERT's WordPiece, a "
            "unigram or a BPE; keep its pieces as they are: --config.vocabulary.size=0"
        )


def split_added_words(backend: Tokenizer, base_size: int) -> list[tuple[int, ...]]:
    """Returns, for each added piece, the ids of the base pieces that it was before.

    Of WordPiece the greedy longest match; () where the base has no pieces for it.

    Args:
      backend: a tokenizer that has grown.
      base_size: how many of its pieces, in the order of their ids, are the base's.
    """
    vocabulary = pieces_in_order(backend)
    if base_size == len(vocabulary):
        return []
    if not isinstance(backend.model, models.WordPiece):
        return growth.split_into_base(backend, base_size)
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


def added_words(backend: Tokenizer, base_size: int) -> list[tuple[str, list[str]]]:
    """Returns (word, the base pieces that it was) of the added pieces that begin a word.

    As one reads them: without the marks of blanks, and bytes as the letters that they make up.

    Args:
      backend: a tokenizer that has grown.
      base_size: how many of its pieces are the base's.
    """
    pieces = pieces_in_order(backend)
    added = zip(pieces[base_size:], split_added_words(backend, base_size), strict=True)
    if isinstance(backend.model, models.WordPiece):
        words = [each for each in added if not each[0].startswith("##")]
        return [(word, [pieces[number] for number in ids]) for word, ids in words]
    show = reader_of(backend)
    return [
        (show(piece).lstrip(" "), [show(pieces[number]).lstrip(" ") for number in ids])
        for piece, ids in added
        if show(piece).startswith(" ")
    ]


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
    backend: Tokenizer, vocabulary: list[str], counts: Counter, size: int
) -> list[str]:
    """Returns `size` pieces that the base lacks, each produced at least twice from these words.

    The learner merges pairs of pieces by frequency, but the tokenizer takes the longest piece
    first, so pieces that were only steps on the way to longer ones are hardly ever produced. More
    are learned than asked for, and the least used ones leave. Fewer are returned where the text
    has no more.
    """
    known = set(vocabulary)
    longest = json.loads(backend.to_str())["model"]["max_input_chars_per_word"]
    usable = Counter({word: count for word, count in counts.items() if len(word) <= longest})
    learned = _train_wordpiece(usable, len(vocabulary) + learner.LEARN_TIMES * size)

    def count_uses(new):
        found = learner.count_pieces(_build_bare_model(backend, vocabulary + new), usable)
        return dict(zip(new, found[len(vocabulary) :].tolist(), strict=True))

    new = [piece for piece in learned if piece not in known]
    return learner.keep_most_used(new, size, count_uses)


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
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(pieces)),
        min_frequency=learner.FEWEST_USES,
        special_tokens=pieces,
        show_progress=False,
    )
    wordpiece.train_from_iterator(learner.repeat_words(counts, alphabet), trainer)
    return pieces_in_order(wordpiece)


def _build_bare_model(backend: Tokenizer, vocabulary: list[str]) -> Tokenizer:
    """Returns a tokenizer of words that are normalised already: it only splits them into pieces."""
    settings = json.loads(backend.to_str())["model"]
    model = models.WordPiece(
        {piece: number for number, piece in enumerate(vocabulary)},
        unk_token=settings["unk_token"],
        max_input_chars_per_word=settings["max_input_chars_per_word"],
        continuing_subword_prefix=settings["continuing_subword_prefix"],
    )
    return Tokenizer(model)


def _measure_pieces(bare, counts, unknown_id):
    """Returns pieces per word, and the share of words with an unknown piece."""
    if not counts:
        return None, None
    ids, numbers = learner.tokenize_words(bare, list(counts))
    weights = np.fromiter(counts.values(), np.int64, len(counts))
    unknown = np.unique(numbers[ids == unknown_id])
    total = counts.total()
    return float(weights[numbers].sum() / total), float(weights[unknown].sum() / total)
