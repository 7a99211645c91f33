# SPDX-License-Identifier: Apache-2.0
"""Text gives the same ids everywhere: in training, from an exported folder, and at the edge."""

import json
import unicodedata

import numpy as np
import pytest
import transformers

from edad_jax.data.pieces import PieceTable, split_words
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import formats
from edad_jax.export.huggingface import copy_tokenizer, save_model
from edad_jax.runtime import models
from edad_jax.runtime.windows import read_all, tokenize
from edad_jax.tasks.data.questions import Question
from edad_jax.tasks.question_rows import question_rows
from edad_jax.tasks.rows import NO_LABEL, classification_rows, tagging_rows
from tests.tiny_exports import CARD, save, tiny_model
from tests.tiny_models import random_params, tiny_exbert_config
from tests.tiny_text import write_tokenizer

DECOMPOSED = [unicodedata.normalize("NFD", text) for text in ("안녕 한국어 하세요", "é a é")]
SPECIAL_WORDS = "the [SEP] gene[MASK] [CLS] [PAD][UNK] cells"


def write_cased(folder):
    """Returns the folder of a tokenizer that leaves case and accents as they are."""
    return write_tokenizer(folder, lower=False, strip_accents=False)


@pytest.mark.parametrize("form", ["hf", "onnx"])
@pytest.mark.parametrize("blocks", [True, False])
def test_auto_tokenizer_gives_the_ids_of_training_for_text_in_parts(tmp_path, form, blocks):
    source = write_cased(tmp_path / "tokenizer")
    folder = tmp_path / "model"
    save(folder, source, "tagging", blocks=blocks)
    if form != "hf":
        folder = formats.export(formats.load(str(folder)), form, tmp_path / form)
    auto = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ours = classification_rows(
        DECOMPOSED, [0] * len(DECOMPOSED), load_tokenizer(source), max_length=64
    )
    assert auto(DECOMPOSED)["input_ids"] == [ids.tolist() for ids in ours.ids]
    old = transformers.BertTokenizer.from_pretrained(source)
    assert auto(DECOMPOSED)["input_ids"] != old(DECOMPOSED)["input_ids"]
    pair = auto("a", "the gene")
    assert pair["token_type_ids"] == old("a", "the gene")["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert auto("a [MASK]")["input_ids"][2] == auto.mask_token_id  # as others fill masks


def test_a_tokenizer_is_the_same_before_and_after_its_export(tmp_path):
    """Else a run that begins with an exported student would make other rows."""
    source = write_cased(tmp_path / "tokenizer")
    save(tmp_path / "model", source)
    save(tmp_path / "again", tmp_path / "model")
    before, after = load_tokenizer(source), load_tokenizer(tmp_path / "model")
    assert before.backend_tokenizer.to_str() == after.backend_tokenizer.to_str()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        first, second = ((tmp_path / each / name).read_bytes() for each in ("model", "again"))
        assert first == second


def test_settings_of_the_tokenizer_are_kept_but_for_a_length_beyond_the_models(tmp_path):
    source = write_tokenizer(tmp_path / "tokenizer", model_max_length=512, mask_token="[MASK]")
    save(tmp_path / "model", source)
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["do_lower_case"]) == (20, True)
    assert (config["cls_token"], config["mask_token"]) == ("[CLS]", "[MASK]")


@pytest.mark.parametrize("text", [SPECIAL_WORDS, *DECOMPOSED])
def test_special_words_and_text_in_parts_have_the_same_ids_everywhere(tmp_path, text):
    source = write_cased(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(source)
    composed = unicodedata.normalize("NFC", text)  # as `prepare.read_text` does
    expected = PieceTable(tokenizer.backend_tokenizer).encode([split_words(composed)]).ids.tolist()
    assert len(expected) >= 3
    assert not set(expected) & {0, 2, 3, 4}  # [PAD], [CLS], [SEP], [MASK]

    words = text.split()
    (of_words,) = tagging_rows([words], [[NO_LABEL] * len(words)], tokenizer, max_length=64).ids
    (of_text,) = classification_rows([text], [0], tokenizer, max_length=64).ids
    question = Question("1", text, text, (), "", "")
    (of_pair,) = question_rows(
        [question], tokenizer, max_length=96, max_query_length=64, overlap=4
    ).ids
    assert of_words.tolist() == of_text.tolist() == [2, *expected, 3]
    assert of_pair.tolist() == [2, *expected, 3, *expected, 3]

    model = formats.load(tiny_model(tmp_path / "model", source, "tagging"))
    tagger = models.Tagger(formats.export(model, "onnx", tmp_path / "onnx"), max_length=20)
    assert tagger.tokenize(text).ids.tolist() == expected


def test_reading_special_words_as_text_moves_no_offset(tmp_path):
    tokenizer = read_all(load_tokenizer(write_cased(tmp_path)).backend_tokenizer)
    pieces = tokenize(tokenizer, SPECIAL_WORDS)
    covered = np.zeros(len(SPECIAL_WORDS), int)
    for start, end in zip(pieces.starts, pieces.ends, strict=True):
        covered[start:end] += 1
    once = [character for character, n in zip(SPECIAL_WORDS, covered, strict=True) if n == 1]
    assert "".join(once) == SPECIAL_WORDS.replace(" ", "")


def test_added_words_of_several_words_are_cut_alike_in_training_and_after_it(tmp_path, caplog):
    source = write_tokenizer(tmp_path / "tokenizer")
    pieces = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (source / "added_tokens.json").write_text(
        json.dumps({"gene cell": len(pieces), "covid19": len(pieces) + 1})
    )
    text = "the gene cell, a Gene cells of covid19s"
    assert len(pieces) in transformers.BertTokenizer.from_pretrained(source)(text)["input_ids"]
    tokenizer = load_tokenizer(source)
    assert "added tokens of several words (1: 'gene cell') are read word by word" in caplog.text
    assert len(tokenizer) == len(pieces) + 2  # the id stays
    config = tiny_exbert_config(blocks=False, added_words=0, vocab_size=len(tokenizer))
    params = random_params(config)
    save_model(tmp_path / "model", params, config, source, card=CARD)
    onnx = formats.export(formats.load(str(tmp_path / "model")), "onnx", tmp_path / "onnx")
    expected = PieceTable(tokenizer.backend_tokenizer).encode([split_words(text)]).ids.tolist()
    assert len(pieces) not in expected and len(pieces) + 1 in expected
    rows = classification_rows([text], [0], tokenizer, max_length=64)
    assert rows.ids[0].tolist()[1:-1] == expected
    words = split_words(text)
    tagged = tagging_rows([words], [[0] * len(words)], tokenizer, max_length=64)
    assert tagged.ids[0].tolist()[1:-1] == expected
    assert models.Encoder(onnx).tokenize(text).ids.tolist() == expected
    for folder in (tmp_path / "model", onnx):
        auto = transformers.AutoTokenizer.from_pretrained(folder)
        assert auto(text, add_special_tokens=False)["input_ids"] == expected
        assert load_tokenizer(folder).backend_tokenizer.to_str() == (
            tokenizer.backend_tokenizer.to_str()
        )


def test_what_reads_no_segments_is_handed_none(tmp_path):
    """A DistilBERT refuses `token_type_ids`, which AutoTokenizer gives unless told otherwise."""
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    for segments, given in ((True, True), (False, False)):
        folder = tmp_path / str(segments)
        folder.mkdir()
        copy_tokenizer(tokenizer, folder, positions=20, segments=segments)
        read = transformers.AutoTokenizer.from_pretrained(folder)("The cat sat.")
        assert ("token_type_ids" in read) == given and "attention_mask" in read
