# SPDX-License-Identifier: Apache-2.0
"""New pieces for unigram and BPE tokenizers, each a run of old ones that often stand together.

Words are read as the old pieces that the tokenizer makes of them, and neighbours that are frequent
are joined, as BPE's learner joins letters (Sennrich et al. 2016). What joins them in the finished
tokenizer is such that nothing else about a text changes: each new piece stands where the old ones
stood that it is made of.

BPE: merges at the end of the list come after all the old ones, and so find the old pieces.
Unigram: a new piece has the score of its old ones and a little more for each that it saves. Any
other way to cut the text that was worse by more than that is still worse. Letters that no old
piece has are new pieces too, as dear as the rarest old one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from tokenizers import Tokenizer, models

from edad_jax.data import learner
from edad_jax.data.learner import FEWEST_USES, build_bare_model, count_pieces
from edad_jax.data.letters import is_byte_level, is_letter, letters_of

_SAVED = 1e-9  # by which a new piece wins, for each old one less; scores are float64
_MOST_IN_RUN = 100  # old pieces in one word that may become one
_FIRST = 0x10000  # characters that stand for pieces: no blanks and no surrogates from here on


class Grown(NamedTuple):
    """A tokenizer with new pieces at the end of its vocabulary."""

    tokenizer: Tokenizer
    new: list[str]
    steps: int  # of the new ones: used within others only, which BPE merges from them


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
    known = _ids_of(model)
    odd = [
        added["content"]
        for added in said["added_tokens"]
        if added["content"] not in known
        and ((kind == "Unigram" and not added["special"]) or len(added["content"]) == 1)
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
    base_size = len(_ids_of(said["model"]))
    # Learning knows all new letters, the finished tokenizer those that are used often enough.
    letters = _unknown_letters(said, counts) if is_unigram else []
    lettered = said | {"model": _with_letters(said["model"], letters)} if letters else said
    runs, many = _runs_of_letters(Tokenizer.from_str(json.dumps(lettered)), counts, base_size)
    merges = learner.learn_merges(runs, learner.LEARN_TIMES * size)
    pool = {each.piece: each for each in _join(merges, _pieces_of(lettered["model"]))}
    pool |= {
        letter: _Joined(letter, (letter,), (base_size + number,))
        for number, letter in enumerate(letters)
    }

    def build(new):
        joined = [pool[piece] for piece in new]
        scores = _with_scores(said, lettered, joined) if is_unigram else _with_merges(said, joined)
        return Tokenizer.from_str(json.dumps(said | {"model": scores}))

    def count_uses(new):
        found = count_pieces(build_bare_model(build(new)), many)[base_size:]
        uses = dict(zip(new, found.tolist(), strict=True))
        return _counting_letters(uses, letters) if letters else uses

    if is_unigram:
        new = learner.keep_most_used(list(pool), size, count_uses)
    else:
        new = _keep_chains(list(pool.values()), size, count_uses)
    grown = build(new)
    found = count_pieces(build_bare_model(grown), many)[base_size:]
    return Grown(grown, new, int((found < FEWEST_USES).sum()))


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
        found, numbers = learner.tokenize_words(Tokenizer(base), new)
        split: list[list[int]] = [[] for _ in new]
        for piece, number in zip(found.tolist(), numbers.tolist(), strict=True):
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


def _unknown_letters(said, counts):
    """Returns the letters that no piece of a unigram has, and that the words have twice or more."""
    special = {added["content"] for added in said["added_tokens"] if added["special"]}
    known = {letter for piece in _ids_of(said["model"]) if piece not in special for letter in piece}
    uses = Counter()
    for word, count in counts.items():
        for letter in set(word) - known:
            uses[letter] += count * word.count(letter)
    return sorted(each for each, n in uses.items() if n >= FEWEST_USES and is_letter(each))


def _with_letters(model, letters):
    least = _lowest_score(model)
    return model | {"vocab": [*model["vocab"], *([letter, least] for letter in letters)]}


def _counting_letters(uses, letters):
    """Returns how often pieces are used, letters also within others: so these keep theirs."""
    within = dict.fromkeys(set(letters) & set(uses), 0)
    for piece, count in uses.items():
        for letter in piece:
            if letter in within:
                within[letter] += count
    return uses | {letter: count + 1 for letter, count in within.items()}


def _runs_of_letters(backend, counts, base_size):
    """Returns (how often each run of old pieces occurs, counts of the words that have one).

    A run is of letters and digits within a word, with the blank before it: a piece with other
    signs in it would be met in every text. Pieces are characters here, `_FIRST` and their ids.
    A letter from `base_size` on is as good as a run.
    """
    bare, is_bytes, words = build_bare_model(backend), is_byte_level(backend), list(counts)
    skipped = _unreadable(json.loads(backend.to_str())["model"])
    runs, many = Counter(), {}
    for first, encoding in learner.encode_words(bare, words):
        pieces = zip(encoding.word_ids, encoding.ids, encoding.offsets, strict=True)
        for number, group in groupby(pieces, key=lambda each: each[0]):
            inside = list(group)
            word = words[first + number]
            if any(piece >= base_size for _, piece, _ in inside):
                many[word] = counts[word]
            if not 1 < len(inside) <= _MOST_IN_RUN:
                continue
            letters = letters_of(word, is_bytes=is_bytes)
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
    """Returns the first `size` merges whose pieces are used or lead to used ones."""
    kept, at = pool[:size], size
    while True:
        uses = count_uses([each.piece for each in kept])
        needed = {part for each in kept for part in each.parts}
        idle = {piece for piece, count in uses.items() if count < FEWEST_USES}
        if idle <= needed:
            return [each.piece for each in kept]
        kept = [each for each in kept if each.piece in needed or each.piece not in idle]
        have = {each.piece for each in kept}
        new = {each.piece for each in pool}
        while len(kept) < size and at < len(pool):
            if all(part in have or part not in new for part in pool[at].parts):
                kept.append(pool[at])
                have.add(pool[at].piece)
            at += 1


def _with_scores(said, lettered, joined):
    """Returns a unigram model with these pieces at the end of its vocabulary."""
    vocab = said["model"]["vocab"]
    scores = [score for _, score in lettered["model"]["vocab"]]
    least = -math.inf if _has_all_letters(said) else _lowest_score(said["model"])
    new = []
    for each in joined:
        score = sum(scores[number] for number in each.old_ids)
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
