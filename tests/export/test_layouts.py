# SPDX-License-Identifier: Apache-2.0
"""Folders as other libraries look for them; docs/export.md tells which have opened them."""

import json

import onnxruntime
import pytest

from edad_jax.export import formats
from edad_jax.export.card import Verified
from tests.tiny_exports import tiny_model


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_sentence_transformers_finds_its_modules(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "encoder"))
    for _ in range(2):  # an export may be replaced
        folder = formats.export(model, "sentence-transformers", tmp_path / "out")
    modules = json.loads((folder / "modules.json").read_text())
    assert [each["path"] for each in modules] == ["", "1_Pooling", "2_Normalize"]
    assert {each["type"].rpartition(".")[0] for each in modules} == {"sentence_transformers.models"}
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 24 and pooling["pooling_mode_mean_tokens"]
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 20
    assert {"model.safetensors", "modeling_exbert.py", "config.json"} <= names_in(folder)
    assert "SentenceTransformer(" in (folder / "README.md").read_text()


def test_only_encoders_give_the_vectors_of_sentence_transformers(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    with pytest.raises(ValueError, match="is for encoders, which give vectors; .* is for tagging"):
        formats.export(model, "sentence-transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_transformers_js_finds_both_models_each_compared(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    seen = []

    def check(folder, format_name):
        seen.append((format_name, (folder / "model.onnx").is_file()))
        return Verified(f"{format_name} is right")

    folder = formats.export(model, "transformers.js", tmp_path / "out", check=check)
    assert seen == [("onnx", True), ("onnx-int8", True)]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names_in(folder)
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= names_in(folder)
    for name in ("model", "model_quantized"):
        session = onnxruntime.InferenceSession(folder / "onnx" / f"{name}.onnx")
        assert [each.name for each in session.get_outputs()] == ["logits"]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "bert"  # a type that it knows; the graph is fed as a BERT's
    assert config["architectures"] == ["BertForTokenClassification"]
    assert '"token-classification"' in (folder / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}
    formats.export(model, "onnx", tmp_path / "out")  # in its place
    assert "onnx/model.onnx" not in names_in(tmp_path / "out")
