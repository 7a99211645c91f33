# SPDX-License-Identifier: Apache-2.0
"""New pieces for unigram and BPE tokenizers, each a run of old ones that often stand together.

Words are read as the old pieces that the tokenizer makes of them, and neighbours that are frequent
are joined, as BPE's learner joins letters (Sennrich et al. 2016). What joins them in the finished
tokenizer is such that nothing else about a text changes: each new piece stands where the old ones
stood that it is made of.

BPE: merges at the end of the list come after all the old ones, and so find the old pieces.
Unigram: a new piece has the score of its old ones and a little more for each that it saves. Any
other way to cut the text that was worse by more than that is still worse.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LEARN_FROM_WORDS = 20_000_000  # running words given to a learner; counts are scaled down to it
LEARN_TIMES = 4  # as many pieces are learned as are asked for
FEWEST_USES = 2  # of a new piece in the text
_SAVED = 1e-9  # by which a new piece wins, for each old one less; scores are float64
_MOST_IN_RUN = 100  # old pieces in one word that may become one
_FIRST = 0x10000  # characters that stand for pieces: no blanks and no surrogates from here on
_WORDS_AT_ONCE = 500
_BLANK = "\u2581"  # SentencePiece's


class Grown(NamedTuple):
    """A tokenizer with new pieces at the end of its vocabulary."""

    tokenizer: Tokenizer
    new: list[str]
    steps: int  # of the new ones: only on the way to others, by which these are merged


class _Joined(NamedTuple):
    """A new piece: two neighbours, each an old piece or a new one."""

    piece: str
    parts: tuple[str, str]
    old_ids: tuple[int, ...]


def why_it_cannot_grow(backend: Tokenizer) -> str | None:
    """Returns what keeps a tokenizer that is not BERT's from growing; None where nothing does."""
    said = json.loads(backend.to_str())
    model, kind = said["model"], said["model"]["type"]
    if kind not in ("Unigram", "BPE"):
        return f"a {kind} that splits words otherwise than BERT"
    if kind == "BPE":
        for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
            if model.get(setting):
                return f"a BPE with {setting}={model[setting]!r}"
        if model.get("ignore_merges"):
            return "a BPE that looks whole words up before it merges (ignore_merges)"
    beyond = [added for added in said["added_tokens"] if added["content"] not in _ids_of(model)]
    odd = [
        added["content"]
        for added in beyond
        if (kind == "Unigram" and not added["special"]) or len(added["content"]) == 1
    ]
    if odd:
        return f"a {kind} with added tokens beyond its model's pieces ({', '.join(odd[:5])})"
    return None


def count_words(backend: Tokenizer, chunks: Mapping[str, int]) -> Counter:
    """Returns how often each word occurs, after a blank, as the tokenizer splits it off."""
    words = Counter()
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    for chunk, count in chunks.items():
        text = f" {chunk}"
        text = normalizer.normalize_str(text) if normalizer else text
        for word, _ in splitter.pre_tokenize_str(text) if splitter else ((text, None),):
            words[word] += count
    return words


def grow(backend: Tokenizer, counts: Mapping[str, int], size: int) -> Grown:
    """Returns a tokenizer with `size` new pieces, or with as many as the words have.

    Args:
      backend: a unigram or BPE tokenizer that `why_it_cannot_grow` knows nothing against.
      counts: how often each word occurs, from `count_words`.
      size: how many pieces to append. Each occurs twice at least, or is a step to one that does.
    """
    said = _with_added_inside(json.loads(backend.to_str()))
    is_unigram = said["model"]["type"] == "Unigram"
    pieces = _pieces_of(said["model"])
    runs, many = _runs_of_letters(backend, counts)
    pool = {each.piece: each for each in _join(_learn_merges(runs, LEARN_TIMES * size), pieces)}
    extended = _with_scores if is_unigram else _with_merges

    def build(new):
        model = extended(said, [pool[piece] for piece in new])
        return Tokenizer.from_str(json.dumps(said | {"model": model}))

    def count_uses(new):
        uses = count_pieces(build_bare_model(build(new)), many)[len(pieces) :]
        return dict(zip(new, uses.tolist(), strict=True))

    if is_unigram:
        new, steps = keep_most_used(list(pool), size, count_uses), 0
    else:
        new, steps = _keep_chains(list(pool.values()), size, count_uses)
    return Grown(build(new), new, steps)


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


def build_bare_model(backend: Tokenizer) -> Tokenizer:
    """Returns a tokenizer of words that are normalised already: it only splits them into pieces."""
    return Tokenizer(backend.model)


def tokenize_words(bare: Tokenizer, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (id, number of the word) of every piece of the words, in order."""
    ids, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first, encoding in _encode(bare, words):
        ids.append(np.array(encoding.ids, np.int64))
        numbers.append(np.array(encoding.word_ids, np.int64) + first)
    return np.concatenate(ids), np.concatenate(numbers)


def count_pieces(bare: Tokenizer, counts: Mapping[str, int]) -> np.ndarray:
    """Returns how often each piece is produced from these words, by its id."""
    ids, numbers = tokenize_words(bare, list(counts))
    weights = np.fromiter(counts.values(), np.int64, len(counts))[numbers]
    return np.bincount(ids, weights, minlength=bare.get_vocab_size()).astype(np.int64)


def reader_of(backend: Tokenizer) -> Callable[[str], str]:
    """Returns what shows a piece as text: blanks as blanks, bytes as the letters they make up."""
    if not _is_byte_level(backend):
        return lambda piece: piece.replace(_BLANK, " ")
    values = _bytes_of_characters()
    return lambda piece: bytes(values[each] for each in piece).decode("utf-8", "replace")


def split_into_base(backend: Tokenizer, base_size: int) -> list[tuple[int, ...]]:
    """Returns, for each piece from `base_size` on, the ids of the pieces before that it stands for.

    Args:
      backend: a unigram or BPE tokenizer that has grown.
      base_size: how many pieces it had.
    """
    said = json.loads(backend.to_str())
    model = said["model"]
    new = _pieces_of(model)[base_size:]
    if model["type"] == "Unigram":
        base = models.Unigram(
            [tuple(pair) for pair in model["vocab"][:base_size]],
            unk_id=model["unk_id"],
            byte_fallback=model["byte_fallback"],
        )
        split: list[list[int]] = [[] for _ in new]
        for number, piece in zip(*_swapped(tokenize_words(Tokenizer(base), new)), strict=True):
            split[number].append(piece)
        return [tuple(piece for piece in ids if piece != model["unk_id"]) for ids in split]
    ids = model["vocab"]
    parts: dict[str, Sequence[str]] = {}
    for pair in model["merges"]:
        parts.setdefault("".join(pair), pair)

    def expand(piece):
        if ids[piece] < base_size:
            return (ids[piece],)
        return tuple(number for part in parts.get(piece, ()) for number in expand(part))

    return [expand(piece) for piece in new]


def _swapped(pair):
    first, second = pair
    return second.tolist(), first.tolist()


def _encode(bare, words):
    """Yields (number of its first word, encoding) of some words at a time."""
    step = _WORDS_AT_ONCE * 200
    for start in range(0, len(words), step):
        some = words[start : start + step]
        texts = [some[i : i + _WORDS_AT_ONCE] for i in range(0, len(some), _WORDS_AT_ONCE)]
        for number, encoding in enumerate(bare.encode_batch(texts, is_pretokenized=True)):
            yield start + number * _WORDS_AT_ONCE, encoding


def _ids_of(model):
    """Returns the ids of a model's pieces, by name."""
    if model["type"] == "Unigram":
        return {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    return model["vocab"]


def _pieces_of(model):
    ids = _ids_of(model)
    return sorted(ids, key=ids.__getitem__)


def _with_added_inside(said):
    """Returns a tokenizer.json whose added tokens are pieces of its model too.

    What is appended to the model would else get their ids. No text comes to them there: BPE has no
    merges for them, and special ones are cut before a unigram looks (`shield_specials`).
    """
    model = said["model"]
    known = _ids_of(model)
    for added in sorted(said["added_tokens"], key=lambda each: each["id"]):
        if added["content"] in known:
            continue
        if model["type"] == "Unigram":
            model["vocab"].append([added["content"], _lowest_score(model)])
        else:
            model["vocab"][added["content"]] = added["id"]
    return said


def _lowest_score(model):
    return min(score for _, score in model["vocab"])


def _is_byte_level(backend):
    said = json.loads(backend.to_str())
    return '"ByteLevel"' in json.dumps([said["normalizer"], said["pre_tokenizer"]])


def _runs_of_letters(backend, counts):
    """Returns (how often each run of old pieces occurs, counts of the words that have one).

    A run is of letters and digits within a word, with the blank before it: a piece with other
    signs in it would be met in every text. Pieces are characters here, `_FIRST` and their ids.
    """
    bare, is_bytes, words = build_bare_model(backend), _is_byte_level(backend), list(counts)
    skipped = _unreadable(json.loads(backend.to_str())["model"])
    runs, many = Counter(), {}
    for first, encoding in _encode(bare, words):
        pieces = zip(encoding.word_ids, encoding.ids, encoding.offsets, strict=True)
        for number, group in groupby(pieces, key=lambda each: each[0]):
            inside = list(group)
            if not 1 < len(inside) <= _MOST_IN_RUN:
                continue
            word = words[first + number]
            letters = _letters(word, is_bytes)
            found = [
                piece not in skipped and end > start and all(letters[start:end])
                for _, piece, (start, end) in inside
            ]
            for is_run, some in groupby(zip(found, inside, strict=True), key=lambda each: each[0]):
                run = "".join(chr(_FIRST + piece) for _, (_, piece, _) in some) if is_run else ""
                if len(run) > 1:
                    runs[run] += counts[word]
                    many[word] = counts[word]
    return runs, many


def _unreadable(model):
    """Returns the ids of pieces that are not what they are called: unknown, and bytes."""
    ids = _ids_of(model)
    odd = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    unknown = model.get("unk_id") if model["type"] == "Unigram" else ids.get(model["unk_token"])
    return {ids[piece] for piece in odd if piece in ids} | {unknown}


def _letters(word, is_bytes):
    """Returns whether each character of a word is a letter, a digit, or the blank before it."""
    if not is_bytes:
        flags = [_is_letter(character) for character in word]
        return [word[:1] == _BLANK or flags[0], *flags[1:]] if flags else flags
    data = bytes(_bytes_of_characters()[character] for character in word)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return [False] * len(data)
    flags = []
    for number, character in enumerate(text):
        is_good = _is_letter(character) or (number == 0 and character == " ")
        flags += [is_good] * len(character.encode("utf-8"))
    return flags


def _is_letter(character):
    return character.isalnum() or unicodedata.category(character)[0] == "M"


_BYTES: dict[str, int] = {}


def _bytes_of_characters():
    """Returns the byte that each character stands for in byte-level BPE (Radford et al. 2019)."""
    if not _BYTES:
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [byte for byte in range(256) if byte not in shown]
        _BYTES.update({chr(byte): byte for byte in shown})
        _BYTES.update({chr(256 + number): byte for number, byte in enumerate(hidden)})
    return _BYTES


def _learn_merges(runs: Counter, most: int) -> list[tuple[str, str]]:
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


def _join(merges: Iterable[tuple[str, str]], pieces: list[str]) -> list[_Joined]:
    """Returns new pieces for merges of runs, in order; each has a name that nothing else has.

    A merge may give a name that a piece has already, in text that is split otherwise. As a second
    way to that piece it would change the ids of such text, so it is left, and what needs it.
    """
    names = {chr(_FIRST + number): piece for number, piece in enumerate(pieces)}
    taken = set(pieces)
    joined = []
    for pair in merges:
        parts = tuple(names.get(run) for run in pair)
        if None in parts or "".join(parts) in taken:
            continue
        run, piece = "".join(pair), "".join(parts)
        names[run] = piece
        taken.add(piece)
        joined.append(_Joined(piece, parts, tuple(ord(each) - _FIRST for each in run)))
    return joined


def _keep_chains(pool, size, count_uses):
    """Returns the first `size` merges whose pieces are used or lead to used ones; and the steps."""
    kept, at = pool[:size], size
    while True:
        uses = count_uses([each.piece for each in kept])
        needed = {part for each in kept for part in each.parts}
        idle = {piece for piece, count in uses.items() if count < FEWEST_USES}
        if idle <= needed:
            return [each.piece for each in kept], len(idle)
        kept = [each for each in kept if each.piece in needed or each.piece not in idle]
        have = {each.piece for each in kept}
        new = {each.piece for each in pool}
        while len(kept) < size and at < len(pool):
            if all(part in have or part not in new for part in pool[at].parts):
                kept.append(pool[at])
                have.add(pool[at].piece)
            at += 1


def _with_scores(said, joined):
    """Returns a unigram model with these pieces at the end of its vocabulary."""
    vocab = said["model"]["vocab"]
    least = -math.inf if _has_all_letters(said) else _lowest_score(said["model"])
    new = []
    for each in joined:
        score = sum(vocab[number][1] for number in each.old_ids)
        new.append([each.piece, max(least, score + _SAVED * (len(each.old_ids) - 1))])
    return said["model"] | {"vocab": [*vocab, *new]}


def _with_merges(said, joined):
    """Returns a BPE model with these pieces at the end of its vocabulary and of its merges."""
    model = said["model"]
    first = len(model["vocab"])
    vocab = {each.piece: first + number for number, each in enumerate(joined)}
    merges = [list(each.parts) for each in joined]
    return model | {"vocab": model["vocab"] | vocab, "merges": [*model["merges"], *merges]}


def _has_all_letters(said):
    """Returns whether every letter of a unigram's pieces is a piece itself.

    What is unknown costs as much as the rarest piece and a fixed sum. New pieces are rarer, and
    so make it dearer, which is all one where a text has no other way round an unknown letter.
    """
    special = {added["content"] for added in said["added_tokens"] if added["special"]}
    pieces = {piece for piece, _ in said["model"]["vocab"]} - special
    return all(letter in pieces for piece in pieces for letter in piece)
