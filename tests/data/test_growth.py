# SPDX-License-Identifier: Apache-2.0
"""Unigram and BPE tokenizers with new pieces: what is new, and all that stays."""

import json
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer

from edad_jax.data.growth import split_into_base
from edad_jax.data.letters import letters_of, reader_of
from edad_jax.data.pieces import table_for
from edad_jax.data.prepare import prepare
from edad_jax.data.tokenizer import SPECIAL_TOKENS, load_tokenizer, pieces_in_order
from edad_jax.data.vocabulary import added_words, extend_vocabulary, split_added_words
from tests.tiny_run import tiny_config, write_corpus
from tests.tiny_text import DOMAIN_WORDS, load_rows, make_documents, read_files
from tests.tiny_tokenizers import GROWN_BY, KOREAN, growing_texts, write_kind

OTHERS = ("unigram", "kobert", "bytes", "metaspace")  # the other forms are read into these
_ALPHABETS = (
    "abcdefgh THE cells .,;()",
    "해마는 기억을 뇌세포",
    "\u0301\u0300é ñ ﬁ ① ２ Ａ İß",
    " \t\n\u3000\xa0\u200b",
    "aaaaoo....--ㅋㅋ00",
    "中文字 \U0001f600 हिन्दी \u1112\u1161\u11ab",
)


def grow(base, out, size=GROWN_BY, texts=None):
    texts = growing_texts() if texts is None else texts
    return extend_vocabulary(base, texts, size=size, out=out, progress=False)


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """One tokenizer of each kind, before and after; nobody may change them."""
    where = tmp_path_factory.mktemp("growth")
    made = {}
    for kind in OTHERS:
        base, out = write_kind(kind, where / kind), where / f"{kind}-out"
        report = grow(base, out)
        before, after = load_tokenizer(base), load_tokenizer(out)
        made[kind] = SimpleNamespace(
            base=base, out=out, report=report, before=before, after=after, size=len(before)
        )
    return made


@pytest.fixture(params=OTHERS)
def kind(request):
    return request.param


@pytest.fixture
def grown(every, kind):
    return every[kind]


def pieces_of(tokenizer):
    return pieces_in_order(tokenizer.backend_tokenizer)


def ids_of(tokenizer, texts):
    """Returns the ids of texts as rows have them, a list each."""
    table = table_for(tokenizer.backend_tokenizer)
    found = table.encode([table.split(text, is_first=True) for text in texts])
    stops = found.sentence_starts.tolist()
    return [found.ids[a:b].tolist() for a, b in zip(stops[:-1], stops[1:], strict=True)]


def real_and_fuzzed(tokenizer, first_new, count):
    """Returns texts: sentences, odd characters, pieces in a row, new words that are misspelt."""
    generator = random.Random(1)
    pieces = pieces_of(tokenizer)
    shown = [*map(str.strip, map(reader_of(tokenizer.backend_tokenizer), pieces))]
    texts = [
        line for document in make_documents(count // 8, seed=5) for line in document.split("\n")
    ]
    texts = [*texts[:count], "", " ", KOREAN]
    for _ in range(count):
        drawn = generator.choices(_ALPHABETS, k=generator.randrange(1, 25))
        texts.append("".join(map(generator.choice, drawn)))
        some = generator.choices(shown, k=generator.randrange(1, 7))
        texts.append(generator.choice(["", " "]).join(some))
        word = generator.choice(shown[first_new:])
        at = generator.randrange(len(word))
        other = generator.choice([word[at] * 2, "", *"aeist의"])
        texts.append(f"the {word}s {word[:at]}{other}{word[at + 1 :]}, {word}.")
    return texts


# What stays


def test_old_ids_stay_and_the_new_ones_follow(grown):
    before, after = pieces_of(grown.before), pieces_of(grown.after)
    assert after[: grown.size] == before
    assert len(after) == len(set(after)) == grown.size + GROWN_BY == grown.report.size
    for role in SPECIAL_TOKENS:
        assert getattr(grown.after, f"{role}_id") == getattr(grown.before, f"{role}_id")


def test_a_text_is_split_as_before_but_for_runs_that_are_one_piece_now(grown):
    """So a text without a new piece has its old ids: some hundreds of these are.

    Letters that were unknown are pieces now, beside which nothing changes either.
    """
    texts = real_and_fuzzed(grown.after, grown.size, 600)
    before, after = ids_of(grown.before, texts), ids_of(grown.after, texts)
    split = split_added_words(grown.after.backend_tokenizer, grown.size)
    untouched = 0
    for text, old, new in zip(texts, before, after, strict=True):
        untouched += max(new, default=0) < grown.size
        if max(new, default=0) < grown.size:
            assert new == old, ascii(text)
        spelled = [i for n in new for i in ((n,) if n < grown.size else split[n - grown.size])]
        unknown = grown.before.unk_token_id
        assert [i for i in spelled if i != unknown] == [i for i in old if i != unknown], ascii(text)
    assert 300 < untouched < len(texts) - 300


def test_a_piece_that_a_word_was_not_made_of_is_not_made_of_it(every):
    """A second way to an old piece would change the ids of texts without a new word."""
    said = json.loads(every["bytes"].after.backend_tokenizer.to_str())["model"]
    old = json.loads(every["bytes"].before.backend_tokenizer.to_str())["model"]
    assert said["merges"][: len(old["merges"])] == old["merges"]
    new = ["".join(pair) for pair in said["merges"][len(old["merges"]) :]]
    assert sorted(new) == sorted(pieces_of(every["bytes"].after)[every["bytes"].size :])


def test_what_is_unknown_stays_so(every):
    for kind in ("unigram", "kobert", "metaspace"):
        grown = every[kind]
        texts = ["中文 hippocampus中 हिhippocampus", "\U0001f600amygdala\U0001f600"]
        before, after = ids_of(grown.before, texts), ids_of(grown.after, texts)
        unknown = grown.before.unk_token_id
        counts = [[row.count(unknown) for row in ids] for ids in (before, after)]
        assert counts[0] == counts[1] and min(counts[0]) > 0


# What is new


@pytest.mark.parametrize("kind", ["unigram", "kobert"])
def test_letters_that_a_unigram_does_not_know_become_pieces(grown):
    (before,), (after,) = (ids_of(each, ["신경세포"]) for each in (grown.before, grown.after))
    assert before.count(grown.before.unk_token_id) == 1  # two letters
    assert grown.after.unk_token_id not in after and len(after) < len(before)
    assert {"신", "경"} <= set(pieces_of(grown.after)[grown.size :])
    assert grown.report.unknown_after < grown.report.unknown_before


def test_new_pieces_are_letters_and_come_out_twice_or_are_steps(grown):
    uses = np.zeros(grown.size + GROWN_BY, int)
    for ids in ids_of(grown.after, growing_texts()):
        np.add.at(uses, ids, 1)
    idle = int((uses[grown.size :] < 2).sum())
    assert idle <= grown.report.steps  # one line of fifty was held out
    assert 0 < grown.report.steps < GROWN_BY / 2
    assert f"{grown.report.steps} of the new ones only within others" in grown.report.summary()
    new = pieces_of(grown.after)[grown.size :]
    shown = [*map(str.strip, map(reader_of(grown.after.backend_tokenizer), new))]
    shown = [piece.replace("\ufffd", "") for piece in shown]  # bytes of half a letter
    assert all(piece.isalnum() for piece in shown if piece), shown
    assert max(map(len, shown)) > 8


@pytest.mark.parametrize(
    ("word", "is_bytes", "expected"),
    [
        ("\u2581a1,b", False, [True, True, True, False, True]),
        ("a\u2581", False, [True, False]),  # a blank within
        ("\u0120\u00c3\u00a9!", True, [True, True, True, False]),  # é in two bytes
        ("\u00e2\u0122\u013b", True, [False, False, False]),  # a sign in three
        ("\u00c3", True, [False]),  # half a letter
        ("a b", True, [False, False, False]),  # no bytes at all
        ("", False, []),
    ],
)
def test_only_letters_digits_and_the_blank_before_them_are_joined(word, is_bytes, expected):
    assert letters_of(word, is_bytes=is_bytes) == expected


def test_words_of_the_domain_become_one_piece(grown):
    whole = [
        word
        for word in DOMAIN_WORDS
        if len(grown.after.tokenize(f"the {word}")) < len(grown.before.tokenize(f"the {word}"))
    ]
    assert len(whole) >= 5  # byte-level BPE had the others in one piece
    words = added_words(grown.after.backend_tokenizer, grown.size)
    assert {"hippocampus", "dopamine"} <= {word for word, _ in words}
    known = {letter for piece in pieces_of(grown.before) for letter in piece}
    for word, before in words:
        spelled = "".join(before)
        assert spelled in (word, "".join(each for each in word if each in known)) or (
            "\ufffd" in spelled  # half a letter's bytes
        )


def test_pieces_per_word_fall_as_the_report_says(grown):
    report = grown.report
    assert 1 <= report.pieces_per_word_after < report.pieces_per_word_before
    assert report.added == GROWN_BY and report.base_size == grown.size
    assert f"{grown.size} + {GROWN_BY} = " in report.summary()


def test_the_same_text_gives_the_same_tokenizer(grown, tmp_path):
    grow(grown.base, tmp_path / "again")
    assert read_files(tmp_path / "again") == read_files(grown.out)


def test_each_new_piece_is_made_of_the_old_ones_that_spell_it(grown):
    split = split_into_base(grown.after.backend_tokenizer, grown.size)
    pieces = pieces_of(grown.after)
    known = {letter for piece in pieces[: grown.size] for letter in piece}
    for piece, ids in zip(pieces[grown.size :], split, strict=True):
        spelled = [letter for letter in piece if letter in known]
        assert "".join(pieces[number] for number in ids) == "".join(spelled)
        assert max(ids, default=0) < grown.size
        assert len(ids) > 1 or len(spelled) < len(piece)


def test_a_grown_tokenizer_grows_again(grown, tmp_path):
    texts = ["nephrologist nephrologists\n" * 30] * 5
    report = grow(grown.out, tmp_path / "more", 2, texts)
    assert pieces_of(load_tokenizer(tmp_path / "more"))[:-2] == pieces_of(grown.after)
    assert report.pieces_per_word_after < report.pieces_per_word_before


# Rows


def test_rows_have_the_new_pieces_and_nets_are_told_what_they_were(every, tmp_path):
    write_corpus(tmp_path / "corpus.txt")
    for kind in ("unigram", "bytes"):
        config = tiny_config(tmp_path, vocabulary__base=str(every[kind].base), vocabulary__size=30)
        prepared = prepare(config, tmp_path / kind)
        size = every[kind].size
        assert (prepared.vocabulary.base_size, prepared.vocabulary.size) == (size, size + 30)
        pieces = pieces_of(load_tokenizer(prepared.tokenizer_dir))
        added = [[pieces[i] for i in ids] for ids in prepared.vocabulary.added_pieces]
        assert ["".join(each) for each in added] == pieces[size:]
        rows = load_rows(tmp_path / kind / "rows" / "train")
        steps = prepared.facts["vocabulary"]["steps"]
        assert len(set(rows["ids"][rows["ids"] >= size].tolist())) >= 28 - steps


# What cannot grow, and what is odd


def change(source, folder, how):
    """Returns a copy of a tokenizer's folder whose tokenizer.json has been changed."""
    shutil.copytree(source, folder)
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    how(said)
    path.write_text(json.dumps(said), encoding="utf-8")
    return folder


def add_token(said, content, *, special):
    """Adds a token beyond a model's pieces, as people add some to a tokenizer."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    number = len(said["model"]["vocab"])
    said["added_tokens"].append({"id": number, "content": content, "special": special} | flags)


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("bytes", lambda said: said["model"].update(dropout=0.5), "a BPE with dropout=0.5"),
        ("bytes", lambda said: said["model"].update(ignore_merges=True), "ignore_merges"),
        (
            "bytes",
            lambda said: said["model"].update(end_of_word_suffix="</w>"),
            "a BPE with end_of_word_suffix='</w>'",
        ),
        (
            "unigram",
            lambda said: add_token(said, "heart attack", special=False),
            "a Unigram with added tokens beyond its model's pieces .heart attack.",
        ),
    ],
)
def test_a_kind_that_cannot_grow_says_why(every, kind, how, message, tmp_path):
    base = change(every[kind].base, tmp_path / "base", how)
    with pytest.raises(ValueError, match=f"got .*{message}.*cannot grow.*vocabulary.size=0"):
        grow(base, tmp_path / "out")
    assert grow(base, tmp_path / "out", size=0).added == 0  # as it is, it goes


def test_wordpiece_that_splits_otherwise_than_bert_cannot_grow(tmp_path):
    backend = load_tokenizer(write_kind("wordpiece", tmp_path / "bert")).backend_tokenizer
    said = json.loads(backend.to_str()) | {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    (tmp_path / "odd").mkdir()
    Tokenizer.from_str(json.dumps(said)).save(str(tmp_path / "odd" / "tokenizer.json"))
    with pytest.raises(ValueError, match="a WordPiece that splits words otherwise than BERT, of"):
        grow(tmp_path / "odd", tmp_path / "out")


def test_a_vocabulary_of_the_domains_own_is_for_berts_kind(grown, tmp_path):
    with pytest.raises(ValueError, match="vocabulary.from_scratch=False"):
        extend_vocabulary(
            grown.base, [], size=0, out=tmp_path / "out", keep_base=False, progress=False
        )


def test_too_little_text_is_an_error_that_says_how_many(grown, tmp_path):
    with pytest.raises(ValueError, match=r"got \d+ new pieces .* expected 5,000"):
        grow(grown.base, tmp_path / "out", 5000, ["the hippocampus\n" * 10] * 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "token", "special"),
    [("unigram", "<spare>", True), ("bytes", "<spare>", True), ("bytes", "   ", False)],
)
def test_tokens_beyond_the_models_pieces_keep_their_ids(every, kind, token, special, tmp_path):
    def how(said):
        add_token(said, token, special=special)

    base = change(every[kind].base, tmp_path / "base", how)
    size = len(load_tokenizer(base))
    assert size == every[kind].size + 1
    grow(base, tmp_path / "out")
    after = load_tokenizer(tmp_path / "out")
    assert after.convert_tokens_to_ids(token) == size - 1
    assert len(after) == size + GROWN_BY
    texts = ["the <spare> hippocampus<spare>", "a spare"]
    split = split_added_words(after.backend_tokenizer, size)
    before = ids_of(load_tokenizer(base), texts)
    for old, new in zip(before, ids_of(after, texts), strict=True):
        assert [i for n in new for i in ((n,) if n < size else split[n - size])] == old
        assert size - 1 not in new
    assert (size - 1 in after("a   b")["input_ids"]) == (not special)  # the blanks, whole


def test_letters_that_only_longer_pieces_have_do_not_become_unknown_otherwise(every, tmp_path):
    """What is unknown costs as much as the rarest piece and more, so none may be rarer."""

    def how(said):
        vocab = said["model"]["vocab"]
        place = [piece for piece, _ in vocab].index("p")
        vocab[place][0] = "q\u0301"  # so that "p" is in longer pieces only

    base = change(every["unigram"].base, tmp_path / "base", how)
    grow(base, tmp_path / "out", 20)
    said = json.loads((tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8"))
    scores = [score for _, score in said["model"]["vocab"]]
    assert min(scores[-20:]) >= min(scores[:-20])
    before, after = load_tokenizer(base), load_tokenizer(tmp_path / "out")
    texts = real_and_fuzzed(after, len(before), 300)
    untouched = 0
    for text, old, new in zip(texts, ids_of(before, texts), ids_of(after, texts), strict=True):
        if max(new, default=0) < len(before):
            assert new == old, ascii(text)
            untouched += 1
    assert untouched > 100
