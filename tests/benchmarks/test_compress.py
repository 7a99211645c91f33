# SPDX-License-Identifier: Apache-2.0
"""Smaller models: what goes, and what must not change."""

import json

import numpy as np
import pytest

from benchmarks.compress import compress, variants
from benchmarks.pruning import prune_extension, prune_vocabulary
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import formats
from tests.tiny_exports import tiny_model
from tests.tiny_tasks import tiny_sentences, write_tagged, write_tagging


@pytest.fixture
def tagger(tmp_path, tokenizer_dir):
    return formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))


def logits(model, text):
    ids = np.array([load_tokenizer(model.source)(text)["input_ids"][:20]], np.int32)
    (found,) = formats.forward(model, model.params, ids, np.ones_like(ids), np.zeros_like(ids))
    return np.asarray(found)


def test_without_unused_words_the_used_ones_say_the_same(tagger, tmp_path):
    texts = [" ".join(words) for words in tiny_sentences(3)]
    smaller = prune_vocabulary(tagger, texts, tmp_path / "tokenizer")
    assert smaller.config.vocab_size < tagger.config.vocab_size
    for text in texts:
        np.testing.assert_array_equal(logits(smaller, text), logits(tagger, text))


def test_a_word_whose_piece_is_gone_is_cut_up_and_not_unknown(tagger, tmp_path):
    smaller = prune_vocabulary(tagger, ["x"], tmp_path / "tokenizer")
    before, after = load_tokenizer(tagger.source), load_tokenizer(tmp_path / "tokenizer")
    word = next(
        piece
        for piece in before.get_vocab()
        if len(piece) > 4 and piece.isascii() and piece.isalpha()
    )
    assert before.tokenize(word) == [word]
    assert [piece.removeprefix("##") for piece in after.tokenize(word)] == list(word)
    assert after.cls_token_id == before.cls_token_id
    assert len(after) == smaller.config.vocab_size


def test_all_added_words_may_go(tagger, tmp_path):
    smaller = prune_vocabulary(tagger, ["x"], tmp_path / "tokenizer", fewest_uses=10**6)
    left = smaller.config.extension_vocab_size
    assert left < 7 and ("word" in smaller.params["extension"]) == bool(left)
    assert np.isfinite(logits(smaller, "x y z")).all()


def test_units_that_weigh_nothing_go_first_and_nothing_changes(tagger):
    for layer in range(2):
        inner = tagger.params["extension"][f"layers_{layer}"]["intermediate"]
        inner["kernel"] = np.array(inner["kernel"])
        inner["kernel"][:, 3:11] = 0
        inner["bias"] = np.where((np.arange(16) >= 3) & (np.arange(16) < 11), 0, inner["bias"])
    smaller = prune_extension(tagger, 0.5)
    assert smaller.config.extension.intermediate_size == 8
    text = "what is left says the same"
    np.testing.assert_allclose(logits(smaller, text), logits(tagger, text), atol=2e-5)
    assert tagger.config.extension.intermediate_size == 16
    with pytest.raises(ValueError, match="from 0 to less than 1"):
        prune_extension(tagger, 1.0)


def test_a_model_without_extension_has_none_to_prune(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging", blocks=False))
    with pytest.raises(ValueError, match="has no extension blocks"):
        prune_extension(model, 0.5)


def test_a_higher_rank_is_nearer_and_the_full_one_is_refused(tagger, tmp_path):
    from edad_jax.export import check

    differences = []
    for rank in (23, 12):
        folder = formats.export(tagger, "onnx", tmp_path / f"rank-{rank}", word_rank=rank)
        options = {"rows": 20, "progress": False}
        differences.append(check.largest_difference(tagger, "onnx", folder, **options))
    assert 0 < differences[0] < differences[1]
    with pytest.raises(ValueError, match="got word_rank=24, expected less than 24"):
        formats.export(tagger, "onnx", tmp_path / "rank", word_rank=24)


def test_every_variant_is_written_scored_and_drawn(tagger, tmp_path):
    data = write_tagging(tmp_path / "data")
    write_tagged(data / "test.tsv", tiny_sentences(5))
    rows = compress(tagger, str(data), tmp_path / "out", variants(tagger), seconds=0.01)
    assert len(rows) == 8 and len({row["folder"] for row in rows}) == 8
    sizes = {row["name"]: row["file_mb"] for row in rows}
    assert sizes["int8"] < sizes["float32"]
    assert sizes["int8, words of the task"] < sizes["int8"]
    assert json.loads((tmp_path / "out" / "compression.json").read_text()) == rows
    assert (tmp_path / "out" / "compression.png").stat().st_size > 5_000
    assert "| entity F1 |" in (tmp_path / "out" / "compression.md").read_text(encoding="utf-8")
