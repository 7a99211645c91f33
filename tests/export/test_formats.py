# SPDX-License-Identifier: Apache-2.0
"""Exported models say what Flax says, at any batch size and length."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.special import softmax

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import check, formats
from edad_jax.export.attention import Attention, AttentionInParts
from edad_jax.export.graph import Graph
from edad_jax.export.huggingface import save_model
from edad_jax.export.onnx import build_onnx
from edad_jax.models.task import Task
from edad_jax.runtime.models import open_model
from tests.tiny_exports import CARD, LABELS, arrays_of, tiny_model, tuned
from tests.tiny_models import random_params, tiny_bert_config, tiny_exbert_config
from tests.tiny_text import write_tokenizer


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "tagging", "classification", "answering"])
def test_onnx_gives_what_flax_gives(tmp_path, tokenizer_dir, kind, blocks):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, kind, blocks=blocks))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    options = {"rows": 40, "batch_size": 3, "progress": False}
    assert check.largest_difference(model, "onnx", folder, **options) < 2e-5


@pytest.mark.parametrize("format_name", ["stablehlo", "hf"])
def test_other_formats_give_what_flax_gives(tmp_path, tokenizer_dir, format_name):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, format_name, tmp_path / "out")
    options = {"rows": 12, "batch_size": 3, "progress": False}
    assert check.largest_difference(model, format_name, folder, **options) < 1e-6


def test_a_model_without_added_words_is_exported_too(tmp_path, tokenizer_dir):
    model = formats.load(
        tiny_model(tmp_path / "model", tokenizer_dir, "tagging", blocks=False, added_words=0)
    )
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    assert check.largest_difference(model, "onnx", folder, rows=8, progress=False) < 2e-5


@pytest.mark.parametrize("kind", ["encoder", "tagging", "classification", "answering"])
def test_int8_is_near_and_words_and_linear_layers_have_eight_bits(tmp_path, tokenizer_dir, kind):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, kind))
    folder = formats.export(model, "onnx-int8", tmp_path / "int8")
    difference = check.largest_difference(model, "onnx-int8", folder, rows=40, progress=False)
    assert 1e-4 < difference < 1.5  # the logits reach beyond 10: no zero, and no other net
    graph = onnx.load(folder / "model.onnx").graph
    tables = [
        each
        for each in graph.initializer
        if len(each.dims) == 2
        and np.prod(each.dims) > 24
        and ".scale" not in each.name
        and not each.name.startswith(("positions", "segments"))
    ]
    assert len(tables) > 10
    assert {each.data_type for each in tables} == {onnx.TensorProto.INT8}, [
        each.name for each in tables
    ]


def test_int8_word_vectors_err_by_half_a_step_of_their_own_row():
    config = tiny_exbert_config()
    params = {part: random_params(config)[part] for part in ("base", "extension")}
    table = np.array(params["base"]["embeddings"]["word"]["embedding"])
    table[3] *= 1_000  # a scale for all rows would round the others to nothing
    params["base"]["embeddings"]["word"]["embedding"] = table
    arrays = arrays_of(build_onnx(config, params, int8=True))
    rounded, scales = arrays["words"][: len(table)], arrays["words.scale"][: len(table)]
    assert rounded.dtype == np.int8
    assert (np.abs(rounded * scales - table) <= 0.501 * scales).all()


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 63)])
def test_int8_layers_err_by_half_a_step_of_their_own_output(reduce_range, largest):
    config = tiny_exbert_config()
    params = {part: random_params(config)[part] for part in ("base", "extension")}
    kernel = np.array(params["base"]["layers_0"]["intermediate"]["kernel"])
    kernel[:, 2] *= 1_000
    kernel[:, 5] = 0
    params["base"]["layers_0"]["intermediate"]["kernel"] = kernel
    model = build_onnx(config, params, int8=True, reduce_range=reduce_range)
    name = "0.base.intermediate"
    rounded, scales = (arrays_of(model)[f"{name}.{part}"] for part in ("kernel", "scale"))
    assert np.abs(rounded).max() == largest and rounded.dtype == np.int8
    assert (np.abs(rounded * scales - kernel) <= 0.501 * scales).all()


@pytest.mark.parametrize("attention", [Attention, AttentionInParts])
@pytest.mark.parametrize("lengths", [(7, 4), (150, 83)])
def test_attention_passes_over_padding(attention, lengths):
    sizes, longest = tiny_bert_config(hidden_size=12, num_attention_heads=3), max(lengths)
    random = np.random.default_rng(0)
    hidden = random.standard_normal((2, longest, 12)).astype(np.float32)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    arrays = random.standard_normal((3, 13, 12)).astype(np.float32)
    params = {
        name: {"kernel": array[1:], "bias": array[0]}
        for name, array in zip(("query", "key", "value"), arrays, strict=True)
    }
    query, key, value = (
        (hidden @ each["kernel"] + each["bias"]).reshape(2, longest, 3, 4)
        for each in params.values()
    )
    scores = np.einsum("bthd,bshd->bhts", query, key) / 2
    weights = softmax(np.where(mask[:, None, None], scores, -np.inf), axis=-1)
    expected = np.einsum("bhts,bshd->bthd", weights, value).reshape(hidden.shape)

    graph = Graph()
    made = attention(graph)
    parts = [hidden @ kernel + bias for kernel, bias in made.weights(params, sizes)]
    parts[2][~mask] = 1e6  # values of padding; would be seen
    context = made.add(*(graph.constant(part, "part") for part in parts), sizes)
    outputs = {graph.rename(context, "context"): ["batch", "length", 12]}
    session = onnxruntime.InferenceSession(graph.finish(outputs).SerializeToString())
    ids = np.zeros(mask.shape, np.int64)
    feed = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": ids}
    np.testing.assert_allclose(session.run(None, feed)[0][mask], expected[mask], atol=1e-4)


def optimised(model, path):
    """Returns the nodes of what onnxruntime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return onnx.load(path).graph.node


def test_layer_norms_stay_apart_where_shapes_are_known(tmp_path):
    config = tiny_exbert_config()
    params = {part: random_params(config)[part] for part in ("base", "extension")}
    model = onnx.shape_inference.infer_shapes(build_onnx(config, params))
    kinds = Counter(node.op_type for node in optimised(model, tmp_path / "optimised.onnx"))
    assert kinds["LayerNormalization"] == 4 * config.base.num_hidden_layers + 1
    assert "SkipLayerNormalization" not in kinds


@pytest.mark.parametrize("blocks", [True, False])
def test_onnxruntime_joins_the_gelus_of_float32_and_leaves_attention_apart(tmp_path, blocks):
    config = tiny_exbert_config(blocks=blocks)
    params = random_params(config)
    params = {part: params[part] for part in ("base", "extension") if part in params}
    model = build_onnx(config, params)
    before = Counter(node.op_type for node in model.graph.node)
    after = Counter(node.op_type for node in optimised(model, tmp_path / "optimised.onnx"))
    gelus = before["Gelu"]
    assert after["BiasGelu"] == gelus == (2 if blocks else 1) * config.base.num_hidden_layers
    assert after + Counter(Add=gelus, Gelu=gelus, Identity=1) == before + Counter(BiasGelu=gelus)


def test_what_onnxruntime_makes_of_int8_is_what_was_measured(tmp_path):
    config = tiny_exbert_config()
    params = {part: random_params(config)[part] for part in ("base", "extension")}
    nodes = optimised(build_onnx(config, params, int8=True), tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in nodes)
    layers = config.base.num_hidden_layers
    assert kinds["MultiHeadAttention"] == 2 * layers
    assert kinds["DynamicQuantizeMatMul"] == 7 * layers
    assert not set(kinds) & {"SkipLayerNormalization", "MatMul", "Transpose"}, kinds
    assert all(not n.input[3] for n in nodes if n.op_type == "DynamicQuantizeMatMul")


def test_the_graph_has_the_nodes_that_quantisers_and_runtimes_know(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    graph = onnx.load(folder / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert {"MatMul", "LayerNormalization", "Gelu", "Gather", "Softmax"} <= kinds
    assert "Einsum" not in kinds
    for value in graph.input:
        assert [axis.dim_param for axis in value.type.tensor_type.shape.dim] == ["batch", "length"]


def test_the_folder_has_what_the_runtime_reads_and_no_torch_code(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json"} <= names
    assert "modeling_exbert.py" not in names
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["1"] == "B-Drug" and "auto_map" not in config


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "run" / "model", tokenizer_dir, "tagging"))
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


def test_trained_models_and_files_are_left_alone(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    other = Path(tiny_model(tmp_path / "other", tokenizer_dir, "classification"))
    both = Path(tiny_model(tmp_path / "both", tokenizer_dir, "classification"))
    (both / "model.onnx").write_bytes(b"made by another tool")
    (tmp_path / "file").write_text("years of work")
    for format_name in ("onnx", "hf"):
        for out in (other, both, tokenizer_dir):
            with pytest.raises(ValueError, match="something else than an exported model"):
                formats.export(model, format_name, out)
        with pytest.raises(ValueError, match="file is a file, expected a folder"):
            formats.export(model, format_name, tmp_path / "file")
    assert {formats.load(str(each)).task.kind for each in (other, both)} == {"classification"}
    assert (tokenizer_dir / "vocab.txt").is_file()
    assert (tmp_path / "file").read_text() == "years of work"


def test_an_export_takes_the_place_of_one_of_another_format(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    for format_name, has_weights in (("hf", True), ("onnx", False), ("hf", True), ("hf", True)):
        formats.export(model, format_name, tmp_path / "out")
        assert (tmp_path / "out" / "model.safetensors").is_file() == has_weights
        assert (tmp_path / "out" / "model.onnx").is_file() != has_weights


def test_what_cannot_be_exported_is_told(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    with pytest.raises(ValueError, match="got format 'tflite', expected one of hf, onnx"):
        formats.export(model, "tflite", tmp_path / "out")
    del model.params["classifier"]
    with pytest.raises(ValueError, match="lack"):
        formats.export(model, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="--model"):
        formats.load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("kind", ["encoder", "tagging", "answering"])
def test_a_difference_at_one_piece_is_found_and_at_padding_not(
    tmp_path, tokenizer_dir, monkeypatch, kind
):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, kind))
    run, forward = {}, formats.forward

    def differ(*inputs):
        outputs = [np.array(each) for each in forward(model, model.params, *inputs)]
        ids, mask, _ = inputs
        row = len(ids) - 1
        outputs[0][row, int(mask[row].sum()) - 1 + run["past"]] += 3
        return outputs

    monkeypatch.setattr(check, "open_export", lambda *_: differ)
    found = []
    for run["past"] in (0, 1):
        options = {"rows": 1, "seed": 3, "progress": False}  # a row of 17 pieces, padded to 20
        found.append(check.largest_difference(model, "onnx", tmp_path, **options))
    assert found[0] == pytest.approx(3, abs=1e-4)
    assert found[1] < 1e-4


def test_special_pieces_may_have_other_names(tmp_path):
    """RoBERTa's, which some BERTs have: the roles are in tokenizer_config.json."""
    names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    usual = write_tokenizer(tmp_path / "usual")
    other = write_tokenizer(
        tmp_path / "other", **{f"{role}_token": name for role, name in names.items()}
    )
    text = (other / "vocab.txt").read_text(encoding="utf-8")
    for role, name in names.items():
        text = text.replace(f"[{role.upper()}]\n", f"{name}\n")
    (other / "vocab.txt").write_text(text, encoding="utf-8")
    said = []
    for tokenizer in (usual, other):
        model = formats.load(tiny_model(tmp_path / f"{tokenizer.name}-model", tokenizer, "tagging"))
        folder = formats.export(model, "onnx", tmp_path / f"{tokenizer.name}-onnx")
        said.append(list(open_model(folder)(["The cat sat here."])))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert settings["model_max_length"] == 20  # the tiny model's positions
    assert said[0] == said[1]


def test_words_of_added_tokens_json_count(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "words")
    count = len((tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines())
    added = {"covid-19": count, "BRCA1": count + 1}
    (tokenizer / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    config, params = tuned("tagging", added_words=0, blocks=False, vocab_size=count + 2)
    task = Task("tagging", LABELS)
    folder = save_model(tmp_path / "model", params, config, tokenizer, card=CARD, task=task)
    assert len(load_tokenizer(folder)) == count + 2
