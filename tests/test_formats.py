# SPDX-License-Identifier: Apache-2.0
"""Exported models say what Flax says, at any batch size and length."""

import json

import numpy as np
import onnx
import pytest

from edad_jax.export import check, formats, huggingface
from edad_jax.export.task import Task
from tests.test_export import CARD
from tests.tiny_models import random_params, tiny_exbert_config
from tests.tiny_text import write_tokenizer

LABELS = ("O", "B-Drug", "I-Drug", "B-Gene")


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("formats") / "tokenizer")


def save(directory, tokenizer_dir, kind, *, blocks=True, added_words=7):
    """Returns the folder of a tiny model of a kind; "encoder" has no task."""
    pieces = len((tokenizer_dir / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = tiny_exbert_config(
        blocks=blocks, added_words=added_words, vocab_size=pieces - added_words
    )
    parts = {
        "tagging": ("base", "extension"),
        "answering": ("base", "extension"),
        "classification": ("base", "extension", "pooler"),
    }
    labels = ("start", "end") if kind == "answering" else LABELS
    params = random_params(config)
    task = None
    if kind in parts:
        params = {part: params[part] for part in parts[kind] if part in params}
        random = np.random.default_rng(1)
        params["classifier"] = {
            "dense": {
                "kernel": random.standard_normal((24, len(labels))).astype(np.float32),
                "bias": random.standard_normal(len(labels)).astype(np.float32),
            }
        }
        task = Task(kind, labels)
    huggingface.save_model(directory, params, config, tokenizer_dir, card=CARD, task=task)
    return str(directory)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "tagging", "classification", "answering"])
def test_onnx_gives_what_flax_gives(tmp_path, tokenizer_dir, kind, blocks):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, kind, blocks=blocks))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    options = {"rows": 40, "batch_size": 3, "progress": False}
    assert check.largest_difference(model, "onnx", folder, **options) < 2e-5


@pytest.mark.parametrize("format_name", ["stablehlo", "hf"])
def test_other_formats_give_what_flax_gives(tmp_path, tokenizer_dir, format_name):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, format_name, tmp_path / "out")
    options = {"rows": 12, "batch_size": 3, "progress": False}
    assert check.largest_difference(model, format_name, folder, **options) < 1e-6


def test_a_model_without_added_words_is_exported_too(tmp_path, tokenizer_dir):
    model = formats.load(
        save(tmp_path / "model", tokenizer_dir, "tagging", blocks=False, added_words=0)
    )
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    assert check.largest_difference(model, "onnx", folder, rows=8, progress=False) < 2e-5


def test_int8_is_near_and_words_and_linear_layers_have_eight_bits(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx-int8", tmp_path / "int8")
    difference = check.largest_difference(model, "onnx-int8", folder, rows=40, progress=False)
    assert 1e-4 < difference < 1.5  # the logits reach beyond 10: no zero, and no other net
    graph = onnx.load(folder / "model.onnx").graph
    widths = {onnx.TensorProto.INT8: 1, onnx.TensorProto.UINT8: 1}
    tables = [
        each
        for each in graph.initializer
        if len(each.dims) == 2 and np.prod(each.dims) > 24 and "scale" not in each.name
        and not each.name.startswith(("positions", "segments"))
    ]  # fmt: skip
    assert len(tables) > 10
    assert {each.data_type for each in tables} <= set(widths), [each.name for each in tables]


def test_int8_word_vectors_err_by_half_a_step_of_their_own_row(tmp_path, tokenizer_dir):
    config = tiny_exbert_config()
    params = {part: random_params(config)[part] for part in ("base", "extension")}
    table = params["base"]["embeddings"]["word"]["embedding"]
    table[3] *= 1_000  # a scale for all rows would round the others to nothing
    from edad_jax.export.onnx import build_onnx

    graph = build_onnx(config, params, int8_words=True).graph
    rounded = only(graph, lambda each: each.data_type == onnx.TensorProto.INT8)[: len(table)]
    scales = only(graph, lambda each: each.name.startswith("words.scale"))[: len(table)]
    assert (np.abs(rounded * scales - table) <= 0.501 * scales).all()


def only(graph, is_it):
    """Returns the one array of a graph that is it."""
    (found,) = [onnx.numpy_helper.to_array(each) for each in graph.initializer if is_it(each)]
    return found


def test_the_graph_has_the_nodes_that_quantisers_and_runtimes_know(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    graph = onnx.load(folder / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert {"MatMul", "LayerNormalization", "Gelu", "Gather", "Softmax"} <= kinds
    assert "Einsum" not in kinds
    for value in graph.input:
        assert [axis.dim_param for axis in value.type.tensor_type.shape.dim] == ["batch", "length"]


def test_the_folder_has_what_the_runtime_reads_and_no_torch_code(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json"} <= names
    assert "modeling_exbert.py" not in names
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["1"] == "B-Drug" and "auto_map" not in config


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "run" / "model", tokenizer_dir, "tagging"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("years of work")
    for out in (tmp_path, tmp_path / "run", tmp_path / "run" / "model"):
        with pytest.raises(ValueError, match="has the model that is to be exported"):
            formats.export(model, "onnx", out)
    with pytest.raises(ValueError, match="something else than an exported model .precious.txt"):
        formats.export(model, "onnx", tmp_path / "notes")
    for _ in range(2):  # an exported model may be replaced
        formats.export(model, "onnx", tmp_path / "onnx")
    assert (tmp_path / "notes" / "precious.txt").read_text() == "years of work"


def test_entity_f1_is_the_same_before_and_after(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    bias = model.params["classifier"]["dense"]["bias"]
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    sentence = "\n".join(["a\tB-Drug", "b\tI-Drug", "c\tO", "d\tB-Gene"] * 8)
    (tmp_path / "data").mkdir()
    for split in ("train", "devel", "test"):
        (tmp_path / "data" / f"{split}.tsv").write_text(sentence + "\n", encoding="utf-8")
    before, after = check.entity_f1(model, folder, str(tmp_path / "data"))
    assert before == after
    bias = np.array([-50, 0, 0, 50], np.float32)  # every piece is a gene
    model.params["classifier"]["dense"]["bias"] = bias
    before, again = check.entity_f1(model, folder, str(tmp_path / "data"))
    assert (before, again) == (pytest.approx(2 * 8 / (16 + 32)), after)


def test_what_cannot_be_exported_is_told(tmp_path, tokenizer_dir):
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "tagging"))
    with pytest.raises(ValueError, match="got format 'tflite', expected one of hf, onnx"):
        formats.export(model, "tflite", tmp_path / "out")
    del model.params["classifier"]
    with pytest.raises(ValueError, match="lack"):
        formats.export(model, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="--model"):
        formats.load(str(tmp_path / "nowhere"))
