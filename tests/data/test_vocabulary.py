# SPDX-License-Identifier: Apache-2.0
"""Extended vocabularies: ids that do not move, pieces that are really used."""

import json

import pytest
from tokenizers import Tokenizer, models

from edad_jax.data import tokenizer as tokenizer_module
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.data.vocabulary import extend_vocabulary, split_added_words
from tests.tiny_text import DOMAIN_WORDS, make_documents, write_tokenizer
from tests.tiny_tokenizers import MPNET, write_mpnet


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def texts():
    # Punctuation stuck to words, which must not enter any piece.
    return [text.replace(" the", " (the),").replace("##", "") for text in make_documents(80)]


def extend(base, texts, out, size=14):
    return extend_vocabulary(base, texts, size=size, out=out, progress=False)


def pieces_of(tokenizer):
    return tokenizer.convert_ids_to_tokens(range(len(tokenizer)))


def test_base_ids_do_not_change_and_the_new_ones_follow(base, texts, tmp_path):
    report = extend(base, texts, tmp_path / "out")
    before, after = load_tokenizer(base), load_tokenizer(tmp_path / "out")
    assert pieces_of(after)[: len(before)] == pieces_of(before)
    assert len(after) == len(before) + 14 == report.size
    assert len(set(pieces_of(after))) == len(after)
    assert (tmp_path / "out/vocab.txt").read_text().splitlines() == pieces_of(after)


def test_every_new_piece_is_produced_from_the_text(base, texts, tmp_path):
    extend(base, texts, tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    used = {piece for text in texts for piece in tokenizer.tokenize(text)}
    new = pieces_of(tokenizer)[len(load_tokenizer(base)) :]
    assert set(new) <= used
    assert not any(c in piece.removeprefix("##") for piece in new for c in "().,#")
    assert len(set(new) & set(DOMAIN_WORDS)) >= 10


def test_pieces_per_word_fall(base, texts, tmp_path):
    report = extend(base, texts, tmp_path / "out")
    assert 1 <= report.pieces_per_word_after < report.pieces_per_word_before - 1
    assert "14 = " in report.summary()


def test_same_text_gives_the_same_vocabulary(base, texts, tmp_path):
    for name in ("one", "two"):
        extend(base, texts, tmp_path / name)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_too_little_text_is_an_error_that_says_how_many(base, texts, tmp_path):
    with pytest.raises(ValueError, match=r"got \d+ new pieces .* expected 5,000"):
        extend(base, texts, tmp_path / "out", size=5000)
    with pytest.raises(ValueError, match="got config.vocabulary.size=-1, expected 0"):
        extend(base, texts, tmp_path / "out", size=-1)
    assert not (tmp_path / "out").exists()


def test_size_zero_is_the_base(base, tmp_path):
    report = extend(base, [], tmp_path / "out", size=0)
    before, after = load_tokenizer(base), load_tokenizer(tmp_path / "out")
    assert pieces_of(before) == pieces_of(after)
    assert report.added == 0 and report.pieces_per_word_before is None
    assert "not measured, no text was read" in report.summary()


@pytest.mark.parametrize(
    ("lower", "config"),
    [
        (True, {}),
        (False, {}),
        (False, {"strip_accents": False, "tokenize_chinese_chars": False}),
        (True, {"strip_accents": False}),
    ],
)
def test_extended_tokenizer_normalises_as_its_base(tmp_path, texts, lower, config):
    import transformers

    base = write_tokenizer(tmp_path / "base", lower=lower, **config)
    extend(base, texts, tmp_path / "out", size=5)
    before = load_tokenizer(base).backend_tokenizer
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "out").backend_tokenizer
    assert before.normalizer.__getstate__() == after.normalizer.__getstate__()
    text = "Ünlü É 뇌세포 中文 THE cell"
    assert before.normalizer.normalize_str(text) == after.normalizer.normalize_str(text)
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is lower
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("the cell", "a dose")
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_vocabulary_text_is_replaced_whole(base, texts, tmp_path):
    extend(base, texts, tmp_path / "out", size=5)
    extend(base, texts, tmp_path / "out", size=6)
    assert len(load_tokenizer(tmp_path / "out")) == len(load_tokenizer(base)) + 6
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_missing_folder_and_unreachable_hub_name_the_option(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "is_hub_reachable", lambda: False)
    with pytest.raises(ValueError, match="expected a folder with a tokenizer; give --config"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="hub cannot be reached; give a local folder: --here"):
        load_tokenizer("some-owner/some-model", option="--here")
    with pytest.raises(ValueError, match="neither vocab.txt nor tokenizer.json"):
        load_tokenizer(tmp_path)


def test_vocabulary_with_a_line_twice_is_an_error(tmp_path):
    base = write_tokenizer(tmp_path / "base")
    with open(base / "vocab.txt", "a") as file:
        file.write("the\nlast\n")
    with pytest.raises(ValueError, match="a line twice"):
        load_tokenizer(base)


def test_tokenizer_without_special_pieces_is_an_error(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(
        ValueError, match="lacks pad_token, unk_token, cls_token, sep_token, mask_token"
    ):
        load_tokenizer(tmp_path)


def test_korean_pieces_are_learned(tmp_path):
    base = write_tokenizer(
        tmp_path / "base", lower=False, strip_accents=False, tokenize_chinese_chars=False
    )
    texts = ["해마는 기억을 맡는다. 소뇌는 운동을 맡는다.\n" * 5] * 20
    extend(base, texts, tmp_path / "out", size=5)
    assert load_tokenizer(tmp_path / "out").tokenize("해마는 소뇌는") == ["해마는", "소뇌는"]


def test_an_added_word_is_split_into_the_base_pieces_that_it_stood_for():
    base = ["[UNK]", "neu", "##ro", "##r", "##o", "n", "##n", "ro"]
    words = ["neuron", "##ron", "xenon", "##oo"]
    pieces = {piece: number for number, piece in enumerate(base + words)}
    backend = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    assert split_added_words(backend, len(base)) == [(1, 2, 6), (2, 6), (), (4, 4)]


def test_a_vocabulary_of_the_domains_own_keeps_only_the_special_pieces_and_their_ids(
    base, tmp_path
):
    texts = make_documents(30, seed=1)
    report = extend_vocabulary(
        base, texts, size=12, out=tmp_path / "out", keep_base=False, progress=False
    )
    before, after = load_tokenizer(base), load_tokenizer(tmp_path / "out")
    kept = max(before.all_special_ids) + 1
    assert len(after) == kept + 12 == report.size
    assert pieces_of(after)[:kept] == pieces_of(before)[:kept]
    assert after.all_special_ids == before.all_special_ids
    assert pieces_of(after)[kept:] != pieces_of(before)[kept : kept + 12]


@pytest.mark.parametrize(
    ("behind", "kept"),
    [
        (("<mask>",), ("<s>", "<pad>", "</s>", "<unk>", "[unused0]", "[UNK]", "<mask>")),
        (("[UNK]", "<mask>"), ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")),
    ],
)
def test_special_pieces_behind_words_move_where_the_words_leave(base, tmp_path, behind, kept):
    """Else a vocabulary of the domain's own would have all of MPNet's: the last one is <mask>."""
    words = (base / "vocab.txt").read_text(encoding="utf-8").splitlines()[5:]
    (tmp_path / "mpnet").mkdir()
    folder = write_mpnet(tmp_path / "mpnet", words, behind=behind)
    texts = make_documents(30, seed=1)
    report = extend_vocabulary(
        folder, texts, size=12, out=tmp_path / "out", keep_base=False, progress=False
    )
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tuple(pieces_of(tokenizer)[: len(kept)]) == kept
    assert len(tokenizer) == len(kept) + 12 == report.size
    for name, piece in MPNET.items():
        assert (getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")) == (
            piece,
            kept.index(piece),
        )
    said = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert {token["content"]: token["id"] for token in said["added_tokens"]} == {
        piece: kept.index(piece) for piece in MPNET.values()
    }
    assert tokenizer("zzz")["input_ids"] == [0, kept.index("[UNK]"), 2]
    assert report.unknown_after > 0  # by the number that [UNK] has now


def test_pieces_that_can_never_come_out_are_counted(tmp_path, caplog):
    for lower, is_told in ((True, True), (False, False)):
        caplog.clear()
        load_tokenizer(write_tokenizer(tmp_path / f"lower-{lower}", lower=lower))
        # The tiny vocabulary has all 26 capitals, alone and within words.
        assert ("52 of " in caplog.text and '"do_lower_case": false' in caplog.text) == is_told


def test_vocab_txt_without_a_word_of_case_is_read_as_bert_reads_it(tmp_path, caplog):
    folder = write_tokenizer(tmp_path / "alone")
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).tokenize("The") == ["the"]
    assert "its tokenizer lower-cases text" in caplog.text


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_vocabulary_without_its_unknown_piece_is_an_error(tmp_path, kept):
    """Found by benchmarks/fuzz_campaign.py: it loaded, and failed at the first unknown word."""
    folder = write_tokenizer(tmp_path / "tokenizer")
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    left = [piece for piece in pieces if piece != "[UNK]"][:kept]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in left), encoding="utf-8")
    with pytest.raises(ValueError, match=r"without '\[UNK\]'|lacks|expected every id"):
        load_tokenizer(folder)


def test_a_length_that_is_no_number_is_told(tmp_path):
    folder = write_tokenizer(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": ""}))
    with pytest.raises(ValueError, match="got model_max_length '' in tokenizer_config.json"):
        load_tokenizer(folder)


def test_a_class_that_is_no_name_is_as_if_none_were_named(tmp_path):
    folder = write_tokenizer(tmp_path)
    pieces = pieces_of(load_tokenizer(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": []}))
    assert pieces_of(load_tokenizer(folder)) == pieces
