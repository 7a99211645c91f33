# SPDX-License-Identifier: Apache-2.0
"""A trained model as one ONNX file, written node by node from the parameters.

    input_ids, attention_mask, token_type_ids   int64 [batch, length], both free
    logits                                      float32, of a tagger or classifier
    start_logits, end_logits                    float32, of a reader
    last_hidden_state, pooler_output            float32, of an encoder

Every linear layer is a MatMul with constant weights, which is what onnxruntime's quantiser looks
for. Three things are done here once that the training code does at every call: queries, keys and
values of a block and of its extension are one product; the attention's 1/sqrt(head size) is in the
query's weights; the two word tables are one. Equal constants are stored once, so that the one
block of an ALBERT is.

`token_type_ids` is an input of every model, so that all are fed alike; one without segment vectors
does not read it.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edad_jax.export.task import Task
from edad_jax.models.bert import PADDING_SCORE
from edad_jax.models.exbert import ExBertConfig

OPSET = 20  # the first that has Gelu
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_onnx(
    path: str | Path,
    config: ExBertConfig,
    params: Mapping[str, Any],
    task: Task | None = None,
    *,
    int8: bool = False,
    reduce_range: bool = False,
    word_rank: int = 0,
) -> Path:
    """Returns the path, now an ONNX file of the model.

    Args:
      path: where to.
      config: the model's sizes.
      params: "base", "extension", and "pooler" or "classifier" where the model has them.
      task: what the model was fine-tuned for; None for an encoder.
      int8: weights in eight bits: word vectors with a scale for each word, linear layers with a
        scale for each output, whose inputs onnxruntime then quantises as they come.
      word_rank: word vectors as products of so many numbers with one small matrix (by singular
        values, ALBERT's factorisation after the fact); 0 for the whole vectors.
      reduce_range: seven bits, for x86 CPUs without VNNI, whose eight-bit sums overflow.

    Raises:
      ValueError: parameters are missing.
      OSError: the file cannot be written.
    """
    model = build_onnx(config, params, task, int8_words=int8, word_rank=word_rank)
    if int8:
        model = _quantise(model, reduce_range=reduce_range)
    path = Path(path)
    path.write_bytes(model.SerializeToString())
    return path


def build_onnx(
    config: ExBertConfig,
    params: Mapping[str, Any],
    task: Task | None = None,
    *,
    int8_words: bool = False,
    word_rank: int = 0,
) -> onnx.ModelProto:
    """Returns the model as an ONNX graph; see `write_onnx`."""
    graph = _Graph()
    try:
        hidden = _encode(graph, config, params, int8_words, word_rank)
        outputs = _heads(graph, config.base, params, hidden, task)
    except KeyError as error:
        raise ValueError(f"the parameters lack {error}; expected those of the task") from error
    return graph.finish(outputs)


class _Graph:
    """Nodes and constants under way. Methods return the names of what they add."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[tuple, str] = {}  # content of a constant -> its name

    def constant(self, values: np.ndarray, name: str) -> str:
        """Adds a constant, where there is none like it; returns its name.

        The number behind its name makes it the only one so called.
        """
        values = np.asarray(values, order="C")
        digest = hashlib.sha256(values.data).digest()
        content = (values.dtype.str, values.shape, digest)
        if content not in self._names:
            self._names[content] = f"{name}.{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(values, self._names[content]))
        return self._names[content]

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of several."""
        names = [f"{kind}.{len(self.nodes)}.{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names if outputs > 1 else names[0]

    def linear(self, hidden: str, kernel_de: np.ndarray, bias_e: np.ndarray, name: str) -> str:
        """Adds hidden @ kernel + bias."""
        product = self.add("MatMul", hidden, self.constant(_float(kernel_de), f"{name}.kernel"))
        return self.add("Add", product, self.constant(_float(bias_e), f"{name}.bias"))

    def norm(self, hidden: str, params: Mapping, epsilon: float, name: str) -> str:
        """Adds a layer norm over the last axis."""
        scale = self.constant(_float(params["scale"]), f"{name}.scale")
        bias = self.constant(_float(params["bias"]), f"{name}.bias")
        return self.add("LayerNormalization", hidden, scale, bias, axis=-1, epsilon=epsilon)

    def finish(self, outputs: Mapping[str, Sequence[str | int]]) -> onnx.ModelProto:
        """Returns the checked model; `outputs` are names and their axes."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in INPUTS
        ]
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
            for name, axes in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "edad_jax", inputs, results, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edad_jax"
        )
        model.ir_version = 10  # what onnxruntime 1.20 reads
        onnx.checker.check_model(model)
        return model


def _encode(graph, config, params, int8_words, word_rank):
    base = params["base"]
    extension = params.get("extension", {})
    table_vd = _float(base["embeddings"]["word"]["embedding"])
    if config.extension_vocab_size:
        table_vd = np.concatenate([table_vd, _float(extension["word"]["embedding"])])
    if word_rank:
        if not 0 < word_rank < min(table_vd.shape):
            raise ValueError(f"got word_rank={word_rank}, expected less than {min(table_vd.shape)}")
        left_vr, values_r, right_rd = np.linalg.svd(table_vd, full_matrices=False)
        narrow_vr = left_vr[:, :word_rank] * values_r[:word_rank]
        right = graph.constant(right_rd[:word_rank], "words.right")
        words = graph.add("MatMul", _look_up(graph, narrow_vr, int8=int8_words), right)
    else:
        words = _look_up(graph, table_vd, int8=int8_words)
    hidden = graph.add("Add", words, _positions(graph, base["embeddings"]))
    if config.base.type_vocab_size:
        table = graph.constant(_float(base["embeddings"]["token_type"]["embedding"]), "segments")
        hidden = graph.add("Add", hidden, graph.add("Gather", table, "token_type_ids"))
    hidden = graph.norm(
        hidden, base["embeddings"]["norm"], config.base.layer_norm_eps, "embeddings.norm"
    )
    if config.base.embedding_size:
        projection = base["embeddings"]["projection"]
        hidden = graph.linear(
            hidden, projection["kernel"], projection["bias"], "embeddings.projection"
        )
    padding = _padding(graph)
    for layer in range(config.base.num_hidden_layers):
        hidden = _layer(graph, config, base, extension, layer, hidden, padding)
    return hidden


def _look_up(graph, table_vd, *, int8):
    if not int8:
        return graph.add("Gather", graph.constant(table_vd, "words"), "input_ids")
    scale_v1 = np.maximum(np.abs(table_vd).max(axis=1, keepdims=True), 1e-12) / 127
    rounded_vd = np.rint(table_vd / scale_v1).astype(np.int8)
    rounded = graph.add("Gather", graph.constant(rounded_vd, "words"), "input_ids")
    scale = graph.add("Gather", graph.constant(scale_v1, "words.scale"), "input_ids")
    return graph.add("Mul", graph.add("Cast", rounded, to=TensorProto.FLOAT), scale)


def _positions(graph, embeddings):
    """Adds the first `length` position vectors."""
    table = graph.constant(_float(embeddings["position"]["embedding"]), "positions")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    start = graph.constant(np.array([0], np.int64), "start")
    axis = graph.constant(np.array([0], np.int64), "axis")
    return graph.add("Slice", table, start, length, axis)


def _padding(graph):
    """Adds [batch, 1, 1, length]: 0 for pieces, a large negative number for padding."""
    one = graph.constant(np.array(1, np.int64), "one")
    is_padding = graph.add("Cast", graph.add("Sub", one, "attention_mask"), to=TensorProto.FLOAT)
    scores = graph.add(
        "Mul", is_padding, graph.constant(np.array(PADDING_SCORE, np.float32), "padding")
    )
    return graph.add("Unsqueeze", scores, graph.constant(np.array([1, 2], np.int64), "axes"))


def _layer(graph, config, base, extension, layer, hidden, padding):
    sizes = config.base
    block = base[f"layers_{0 if sizes.shares_layers else layer}"]
    blocks = [("base", block, sizes.hidden_size, sizes.num_attention_heads)]
    if config.extension:
        blocks.append(
            (
                "extension", extension[f"layers_{layer}"], config.extension.hidden_size,
                config.extension.num_attention_heads,
            )
        )  # fmt: skip
    kernels, biases, widths = [], [], []
    for _, block, width, heads in blocks:
        for name in ("query", "key", "value"):
            scale = (width // heads) ** -0.5 if name == "query" else 1.0
            kernels.append(_float(block["attention"][name]["kernel"]) * np.float32(scale))
            biases.append(_float(block["attention"][name]["bias"]) * np.float32(scale))
            widths.append(width)
    joint = graph.linear(hidden, np.concatenate(kernels, 1), np.concatenate(biases), f"{layer}.qkv")
    split = graph.constant(np.array(widths, np.int64), "widths")
    parts = graph.add("Split", joint, split, outputs=len(widths), axis=-1)
    outputs = []
    for place, (name, block, width, heads) in enumerate(blocks):
        context = _attend(graph, parts[3 * place : 3 * place + 3], width, heads, padding)
        outputs.append(_after_attention(graph, block, context, hidden, sizes, f"{layer}.{name}"))
    if not config.extension:
        return outputs[0]
    gate = extension[f"gates_{layer}"]
    share = graph.add(
        "Sigmoid", graph.linear(hidden, gate["kernel"], gate["bias"], f"{layer}.gate")
    )
    difference = graph.add("Sub", outputs[0], outputs[1])
    return graph.add("Add", outputs[1], graph.add("Mul", share, difference))


def _attend(graph, query_key_value, width, heads, padding):
    shape = graph.constant(np.array([0, 0, heads, width // heads], np.int64), "heads")
    query, key, value = (
        graph.add("Transpose", graph.add("Reshape", part, shape), perm=axes)
        for part, axes in zip(
            query_key_value, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
        )
    )
    scores = graph.add("Add", graph.add("MatMul", query, key), padding)
    context = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    context = graph.add("Transpose", context, perm=[0, 2, 1, 3])
    return graph.add("Reshape", context, graph.constant(np.array([0, 0, width], np.int64), "joint"))


def _after_attention(graph, block, context, hidden, sizes, name):
    epsilon = sizes.layer_norm_eps
    output = block["attention"]["output"]
    attended = graph.linear(context, output["kernel"], output["bias"], f"{name}.attention")
    hidden = graph.norm(
        graph.add("Add", hidden, attended), block["attention_norm"], epsilon, f"{name}.norm1"
    )
    inner = block["intermediate"]
    inner = graph.linear(hidden, inner["kernel"], inner["bias"], f"{name}.intermediate")
    form = "tanh" if sizes.hidden_act == "gelu_new" else "none"
    inner = graph.add("Gelu", inner, approximate=form)
    output = block["output"]
    output = graph.linear(inner, output["kernel"], output["bias"], f"{name}.output")
    return graph.norm(
        graph.add("Add", hidden, output), block["output_norm"], epsilon, f"{name}.norm2"
    )


def _heads(graph, sizes, params, hidden, task):
    """Adds the heads; returns the model's outputs and their axes."""
    classifier = params["classifier"]["dense"] if task else None
    if task and task.kind == "tagging":
        logits = graph.linear(hidden, classifier["kernel"], classifier["bias"], "classifier")
        return {_named(graph, logits, "logits"): ["batch", "length", len(task.labels)]}
    if task and task.kind == "answering":
        logits = graph.linear(hidden, classifier["kernel"], classifier["bias"], "classifier")
        axis = graph.constant(np.array([2], np.int64), "axis")
        return {
            _named(graph, graph.add("Squeeze", part, axis), name): ["batch", "length"]
            for name, part in zip(
                ("start_logits", "end_logits"),
                graph.add("Split", logits, outputs=2, axis=-1, num_outputs=2),
                strict=True,
            )
        }
    outputs = {}
    if task is None:
        width = sizes.hidden_size
        outputs[_named(graph, hidden, "last_hidden_state")] = ["batch", "length", width]
        if "pooler" not in params:
            return outputs
    first = graph.add("Gather", hidden, graph.constant(np.array(0, np.int64), "first"), axis=1)
    dense = params["pooler"]["dense"]
    pooled = graph.linear(first, dense["kernel"], dense["bias"], "pooler")
    pooled = graph.add("Tanh" if sizes.has_pooler else "Relu", pooled)
    if task is None:
        return outputs | {_named(graph, pooled, "pooler_output"): ["batch", width]}
    logits = graph.linear(pooled, classifier["kernel"], classifier["bias"], "classifier")
    return {_named(graph, logits, "logits"): ["batch", len(task.labels)]}


def _named(graph, value, name):
    graph.nodes.append(helper.make_node("Identity", [value], [name]))
    return name


def _float(array):
    return np.asarray(array, np.float32)


def _quantise(model, *, reduce_range):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The quantiser asks for a pass over graphs that other tools have made; this one needs none.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(
            model,
            f"{folder}/model.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
        )
        return onnx.load(f"{folder}/model.onnx")
