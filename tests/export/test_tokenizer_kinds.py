# SPDX-License-Identifier: Apache-2.0
"""Every kind of tokenizer gives the same ids in training, from an export, and at the edge."""

import json
import unicodedata

import numpy as np
import pytest
import transformers

from edad_jax.data.pieces import table_for
from edad_jax.data.tokenizer import SPECIAL_TOKENS, composing, load_tokenizer
from edad_jax.export import formats
from edad_jax.export.huggingface import copy_tokenizer, save_model
from edad_jax.models.config import ExBertConfig
from edad_jax.models.task import Task
from edad_jax.runtime import models, windows
from edad_jax.tasks.data.questions import Question
from edad_jax.tasks.question_rows import question_rows
from edad_jax.tasks.rows import NO_LABEL, classification_rows, tagging_rows
from tests.tiny_exports import CARD, LABELS
from tests.tiny_models import random_params, tiny_bert_config
from tests.tiny_text import make_documents
from tests.tiny_tokenizers import GROWN, KINDS, KOREAN, write_kind

OTHERS = (*KINDS[1:], *GROWN)
TEXT = "The hippocampus binds 뇌세포 <mask> [SEP] </s> é cells"


@pytest.fixture(params=OTHERS)
def kind(request):
    return request.param


@pytest.fixture
def source(tmp_path, kind):
    return write_kind(kind, tmp_path / "tokenizer")


def reading(tokenizer):
    """Returns the tokenizer as the edge has it."""
    return windows.read_all(composing(tokenizer.backend_tokenizer))


def write_tagger(folder, source):
    """Returns the ONNX folder of a tiny tagger with random weights."""
    base = tiny_bert_config(vocab_size=len(load_tokenizer(source)))
    params = {"base": random_params(ExBertConfig(base, None, 0))["base"]}
    kernel = np.random.default_rng(1).standard_normal((24, len(LABELS)), np.float32)
    params["classifier"] = {"dense": {"kernel": kernel, "bias": kernel[0]}}
    config, task = ExBertConfig(base, None, 0), Task("tagging", LABELS)
    save_model(folder / "model", params, config, source, card=CARD, task=task)
    return formats.export(formats.load(str(folder / "model")), "onnx", folder / "onnx")


@pytest.mark.parametrize("text", [TEXT, unicodedata.normalize("NFD", TEXT)])
def test_a_text_has_the_same_ids_in_rows_tasks_and_at_the_edge(source, text):
    tokenizer = load_tokenizer(source)
    table = table_for(tokenizer.backend_tokenizer)
    composed = unicodedata.normalize("NFC", text)  # as `prepare.read_text` does
    expected = table.encode([table.split(composed, is_first=True)]).ids.tolist()
    words = text.split()
    (of_words,) = tagging_rows([words], [[NO_LABEL] * len(words)], tokenizer, max_length=99).ids
    (of_text,) = classification_rows([text], [0], tokenizer, max_length=99).ids
    question = Question("1", text, text, (), "", "")
    (of_pair,) = question_rows(
        [question], tokenizer, max_length=199, max_query_length=99, overlap=4
    ).ids
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert of_words.tolist() == of_text.tolist() == [cls, *expected, sep]
    assert of_pair.tolist() == [cls, *expected, sep, *expected, sep]
    assert windows.tokenize(reading(tokenizer), text).ids.tolist() == expected


def test_an_export_gives_the_ids_of_training_and_is_the_same_tokenizer(source, tmp_path):
    for name, before in (("once", source), ("again", tmp_path / "once")):
        (tmp_path / name).mkdir()
        copy_tokenizer(before, tmp_path / name, positions=20)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        first, second = ((tmp_path / each / name).read_bytes() for each in ("once", "again"))
        assert first == second
    before, after = load_tokenizer(source), load_tokenizer(tmp_path / "once")
    assert before.backend_tokenizer.to_str() == after.backend_tokenizer.to_str()
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "once", trust_remote_code=False)
    assert {role: getattr(auto, role) for role in SPECIAL_TOKENS} == {
        role: getattr(before, role) for role in SPECIAL_TOKENS
    }
    assert auto.model_max_length == 20
    parts = unicodedata.normalize("NFD", "안녕 한국어 é the cell")
    (ours,) = classification_rows([parts], [0], before, max_length=64).ids
    assert auto(parts)["input_ids"] == ours.tolist()
    masked = auto(f"the {auto.mask_token} binds")["input_ids"]  # as others fill masks
    assert masked.count(auto.mask_token_id) == 1


def test_words_that_are_tagged_keep_their_labels_on_their_first_pieces(source):
    tokenizer = load_tokenizer(source)
    words = ["Hippocampus", ",", "뇌세포의", "binds", "(", "DNA", ")", "."]
    rows = tagging_rows([words], [list(range(8))], tokenizer, max_length=64)
    assert rows.words[0][rows.words[0] >= 0].tolist() == list(range(8))
    np.testing.assert_array_equal(rows.labels[0], rows.words[0])
    pieces = rows.pieces_per_word[0]
    assert pieces.sum() == len(rows.ids[0]) - 2 and pieces.min() >= 1 and pieces.max() > 1
    starts = 1 + np.cumsum(pieces) - pieces
    np.testing.assert_array_equal(np.flatnonzero(rows.words[0] >= 0), starts)


def test_the_edge_finds_the_words_that_bert_finds(source, tmp_path):
    texts = [
        "The cell, (hippocampus) binds.",
        "  DNA-binding 뇌세포의 안녕. ",
        "a\n\nb",
        "...",
        " ",
    ]
    ours = reading(load_tokenizer(source))
    berts = reading(load_tokenizer(write_kind("wordpiece", tmp_path / "bert")))
    for text in texts:
        pieces, expected = windows.tokenize(ours, text), windows.tokenize(berts, text)
        found = set(pieces.starts[pieces.is_first].tolist())
        words = set(expected.starts[expected.is_first].tolist())
        if text != "...":  # whose three signs may be one piece
            assert found & words == words, text
        inside = [(s, e) for s, e in zip(pieces.starts, pieces.ends, strict=True) if e > s]
        assert not any(text[start].isspace() for start, _ in inside), text


def test_a_long_text_has_the_ids_of_a_short_one_however_it_is_cut(source, monkeypatch):
    backend = reading(load_tokenizer(source))
    text = " ".join(make_documents(4)).replace("\n", " ") + " " + KOREAN
    whole = windows.tokenize(backend, text)
    monkeypatch.setattr(windows, "SEGMENT", 100)
    assert len(list(windows.segments(text))) > 10
    ours = windows.tokenize(backend, text)
    for name in ("ids", "starts", "is_first"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(whole, name))
    # A piece that is a blank alone ends with it, or with the letter that it was put before.
    assert np.abs(ours.ends - whole.ends).max() <= 1


@pytest.mark.parametrize("kind", ["grown bytes", "kobert"])
def test_a_tagger_at_the_edge_reads_words_and_texts_alike(source, tmp_path):
    tagger = models.Tagger(write_tagger(tmp_path, source), max_length=20)
    specials = json.loads((tmp_path / "onnx" / "tokenizer_config.json").read_text())
    tokenizer = load_tokenizer(source)
    assert specials["cls_token"] == tokenizer.cls_token
    assert tagger.ends == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    words = ["the", "cell", "binds", "뇌세포의", "gene"]
    (labels,) = tagger.tag_words([words])
    (spans,) = tagger([" ".join(words)])
    places = np.cumsum([0, *(len(word) + 1 for word in words)])
    inside = {n for n, label in enumerate(labels) if label != "O"}
    covered = {n for n in range(len(words)) for span in spans if span.start <= places[n] < span.end}
    assert covered == inside
