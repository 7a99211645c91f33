# SPDX-License-Identifier: Apache-2.0
"""A trained model as one ONNX file, written node by node from the parameters.

    input_ids, attention_mask, token_type_ids   int64 [batch, length], both free
    logits                                      float32, of a tagger or classifier
    start_logits, end_logits                    float32, of a reader
    last_hidden_state, pooler_output            float32, of an encoder

Three things are done here once that the training code does at every call: queries, keys and values
of a block and of its extension, and the gate between them, are one product; the attention's
1/sqrt(head size) is in the query's weights; the two word tables are one. Equal constants are
stored once, so that the one block of an ALBERT is. See `graph` for what eight bits change.

`token_type_ids` is an input of every model, so that all are fed alike; one without segment vectors
does not read it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edad_jax.export.graph import CONTRIB, Graph, as_float
from edad_jax.models.bert import PADDING_SCORE
from edad_jax.models.config import ExBertConfig
from edad_jax.models.task import Task

_COLUMNS = 16  # eight-bit products of so many columns, or multiples, have no slow remainder


def write_onnx(
    path: str | Path,
    config: ExBertConfig,
    params: Mapping[str, Any],
    task: Task | None = None,
    *,
    int8: bool = False,
    reduce_range: bool = False,
    word_rank: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Path:
    """Returns the path, now an ONNX file of the model.

    Args:
      path: where to.
      config: the model's sizes.
      params: "base", "extension", and "pooler" or "classifier" where the model has them.
      task: what the model was fine-tuned for; None for an encoder.
      int8: weights in eight bits: word vectors with a scale for each word, linear layers with a
        scale for each output, whose inputs onnxruntime quantises as they come.
      word_rank: word vectors as products of so many numbers with one small matrix (by singular
        values, ALBERT's factorisation after the fact); 0 for the whole vectors.
      reduce_range: seven bits, for x86 CPUs without VNNI, whose eight-bit sums overflow.
      ranges: of linear layers' inputs, from `calibration.measure_ranges`; int8 alone reads them.

    Raises:
      ValueError: parameters are missing.
      OSError: the file cannot be written.
    """
    model = build_onnx(
        config,
        params,
        task,
        int8=int8,
        reduce_range=reduce_range,
        word_rank=word_rank,
        ranges=ranges,
    )
    path = Path(path)
    path.write_bytes(model.SerializeToString())
    return path


def build_onnx(
    config: ExBertConfig,
    params: Mapping[str, Any],
    task: Task | None = None,
    *,
    int8: bool = False,
    reduce_range: bool = False,
    word_rank: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    watched: bool = False,
) -> onnx.ModelProto:
    """Returns the model as an ONNX graph; see `write_onnx`.

    With `watched` it gives what its linear layers read, instead of its own outputs: the smallest
    and the largest number of each, as "NAME.smallest" and "NAME.largest".
    """
    graph = Graph(int8=int8, reduce_range=reduce_range, ranges=ranges)
    try:
        hidden = _encode(graph, config, params, word_rank)
        outputs = _heads(graph, config.base, params, hidden, task)
    except KeyError as error:
        raise ValueError(f"the parameters lack {error}; expected those of the task") from error
    if watched:
        outputs = {
            graph.rename(graph.add(kind, hidden, keepdims=0), f"{name}.{end}"): []
            for name, hidden in graph.linear_inputs.items()
            for kind, end in (("ReduceMin", "smallest"), ("ReduceMax", "largest"))
        }
    return graph.finish(outputs)


def _encode(graph, config, params, word_rank):
    base = params["base"]
    extension = params.get("extension", {})
    table_vd = as_float(base["embeddings"]["word"]["embedding"])
    if config.extension_vocab_size:
        table_vd = np.concatenate([table_vd, as_float(extension["word"]["embedding"])])
    if word_rank:
        if not 0 < word_rank < min(table_vd.shape):
            raise ValueError(f"got word_rank={word_rank}, expected less than {min(table_vd.shape)}")
        left_vr, values_r, right_rd = np.linalg.svd(table_vd, full_matrices=False)
        narrow_vr = left_vr[:, :word_rank] * values_r[:word_rank]
        words = graph.look_up(narrow_vr, "words", "input_ids")
        words = graph.linear(words, right_rd[:word_rank], None, "words.right")
    else:
        words = graph.look_up(table_vd, "words", "input_ids")
    hidden = graph.add("Add", words, _positions(graph, base["embeddings"]))
    if config.base.type_vocab_size:
        table = graph.constant(as_float(base["embeddings"]["token_type"]["embedding"]), "segments")
        hidden = graph.add("Add", hidden, graph.add("Gather", table, "token_type_ids"))
    hidden = graph.norm(
        hidden, base["embeddings"]["norm"], config.base.layer_norm_eps, "embeddings.norm"
    )
    if config.base.embedding_size:
        projection = base["embeddings"]["projection"]
        hidden = graph.linear(
            hidden, projection["kernel"], projection["bias"], "embeddings.projection"
        )
    padding = _Padding(graph)
    for layer in range(config.base.num_hidden_layers):
        hidden = _layer(graph, config, base, extension, layer, hidden, padding)
    return hidden


def _positions(graph, embeddings):
    """Adds the first `length` position vectors."""
    table = graph.constant(as_float(embeddings["position"]["embedding"]), "positions")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    start = graph.constant(np.array([0], np.int64), "start")
    axis = graph.constant(np.array([0], np.int64), "axis")
    return graph.add("Slice", table, start, length, axis)


class _Padding:
    """What padding adds to the attention's scores: a large negative number."""

    def __init__(self, graph: Graph):
        one = graph.constant(np.array(1, np.int64), "one")
        is_padding = graph.add(
            "Cast", graph.add("Sub", one, "attention_mask"), to=TensorProto.FLOAT
        )
        score = graph.constant(np.array(PADDING_SCORE, np.float32), "padding")
        self._graph = graph
        self._scores_bt = graph.add("Mul", is_padding, score)
        self._made: dict[tuple, str] = {}

    def for_scores(self) -> str:
        """Returns [batch, 1, 1, length], to be added to scores."""
        return self._unsqueezed(1, 2)

    def for_keys(self, heads: int, size: int) -> str:
        """Returns [batch, length, heads * size], to be added to keys: each head's last number."""
        if (heads, size) not in self._made:
            last = np.tile(np.arange(size) == size - 1, heads).astype(np.float32)
            constant = self._graph.constant(last, "last")
            added = self._graph.add("Mul", self._unsqueezed(2), constant)
            self._made[heads, size] = added
        return self._made[heads, size]

    def _unsqueezed(self, *axes):
        if axes not in self._made:
            constant = self._graph.constant(np.array(axes, np.int64), "axes")
            self._made[axes] = self._graph.add("Unsqueeze", self._scores_bt, constant)
        return self._made[axes]


def _layer(graph, config, base, extension, layer, hidden, padding):
    sizes = config.base
    block = base[f"layers_{0 if sizes.shares_layers else layer}"]
    blocks = [("base", block, sizes.hidden_size, sizes.num_attention_heads)]
    if config.extension:
        blocks.append(
            (
                "extension",
                extension[f"layers_{layer}"],
                config.extension.hidden_size,
                config.extension.num_attention_heads,
            )
        )
    kernels, biases = [], []
    for _, block, width, heads in blocks:
        for name in ("query", "key", "value"):
            kernel = as_float(block["attention"][name]["kernel"])
            bias = as_float(block["attention"][name]["bias"])
            if name == "query":
                scale = np.float32((width // heads) ** -0.5)
                kernel, bias = kernel * scale, bias * scale
            if name != "value" and graph.int8:
                kernel = _with_last(kernel, heads, 0.0)
                bias = _with_last(bias, heads, 1.0 if name == "query" else 0.0)
            kernels.append(kernel)
            biases.append(bias)
    if config.extension:
        gate = extension[f"gates_{layer}"]
        kernels.append(as_float(gate["kernel"]))
        biases.append(as_float(gate["bias"]))
    rest = -sum(map(len, biases)) % _COLUMNS
    if graph.int8 and rest:
        kernels.append(np.zeros((sizes.hidden_size, rest), np.float32))
        biases.append(np.zeros(rest, np.float32))
    joint = graph.linear(hidden, np.concatenate(kernels, 1), np.concatenate(biases), f"{layer}.qkv")
    widths = graph.constant(np.array([len(bias) for bias in biases], np.int64), "widths")
    parts = graph.add("Split", joint, widths, outputs=len(biases), axis=-1)
    attend = _attend_in_pieces if graph.int8 else _attend
    outputs = []
    for place, (name, block, width, heads) in enumerate(blocks):
        context = attend(graph, parts[3 * place : 3 * place + 3], width, heads, padding)
        outputs.append(_after_attention(graph, block, context, hidden, sizes, f"{layer}.{name}"))
    if not config.extension:
        return outputs[0]
    share = graph.add("Sigmoid", parts[3 * len(blocks)])
    difference = graph.add("Sub", outputs[0], outputs[1])
    return graph.add("Add", outputs[1], graph.add("Mul", share, difference))


def _with_last(values, heads, last):
    """Returns [..., heads * size] with one more number after those of each head."""
    split = values.reshape(*values.shape[:-1], heads, -1)
    added = np.full((*split.shape[:-1], 1), last, np.float32)
    return np.concatenate([split, added], -1).reshape(*values.shape[:-1], -1)


def _attend(graph, query_key_value, width, heads, padding):
    """Adds attention in ONNX's own nodes.

    onnxruntime 1.31 leaves them as they are, here and in graphs without extension: its `Attention`
    is not made of them. Of a whole float32 graph it joins each Gelu with its bias, and no more.
    """
    shape = graph.constant(np.array([0, 0, heads, width // heads], np.int64), "heads")
    query, key, value = (
        graph.add("Transpose", graph.add("Reshape", part, shape), perm=axes)
        for part, axes in zip(
            query_key_value, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
        )
    )
    scores = graph.add("Add", graph.add("MatMul", query, key), padding.for_scores())
    context = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    context = graph.add("Transpose", context, perm=[0, 2, 1, 3])
    return graph.add("Reshape", context, graph.constant(np.array([0, 0, width], np.int64), "joint"))


def _attend_in_pieces(graph, query_key_value, width, heads, padding):
    """Adds attention that reads the keys piece by piece, so that scores are never stored.

    onnxruntime does so only where there is no mask. Padding is in the keys instead: their heads
    have one more number, 0 or the score of padding, and those of the queries a 1 (`_with_last`).
    """
    query, key, value = query_key_value
    key = graph.add("Add", key, padding.for_keys(heads, width // heads + 1))
    return graph.add(
        "MultiHeadAttention", query, key, value, num_heads=heads, scale=1.0, domain=CONTRIB
    )


def _after_attention(graph, block, context, hidden, sizes, name):
    epsilon = sizes.layer_norm_eps
    output = block["attention"]["output"]
    attended = graph.linear(context, output["kernel"], output["bias"], f"{name}.attention")
    hidden = graph.norm(
        graph.add("Sum", hidden, attended), block["attention_norm"], epsilon, f"{name}.norm1"
    )
    inner = block["intermediate"]
    inner = graph.linear(hidden, inner["kernel"], inner["bias"], f"{name}.intermediate")
    form = "tanh" if sizes.hidden_act == "gelu_new" else "none"
    inner = graph.add("Gelu", inner, approximate=form)
    output = block["output"]
    output = graph.linear(inner, output["kernel"], output["bias"], f"{name}.output")
    return graph.norm(
        graph.add("Sum", hidden, output), block["output_norm"], epsilon, f"{name}.norm2"
    )


def _heads(graph, sizes, params, hidden, task):
    """Adds the heads; returns the model's outputs and their axes."""
    classifier = params["classifier"]["dense"] if task else None
    if task and task.kind == "tagging":
        logits = graph.linear(hidden, classifier["kernel"], classifier["bias"], "classifier")
        return {graph.rename(logits, "logits"): ["batch", "length", len(task.labels)]}
    if task and task.kind == "answering":
        logits = graph.linear(hidden, classifier["kernel"], classifier["bias"], "classifier")
        axis = graph.constant(np.array([2], np.int64), "axis")
        return {
            graph.rename(graph.add("Squeeze", part, axis), name): ["batch", "length"]
            for name, part in zip(
                ("start_logits", "end_logits"),
                graph.add("Split", logits, outputs=2, axis=-1, num_outputs=2),
                strict=True,
            )
        }
    outputs = {}
    if task is None:
        width = sizes.hidden_size
        outputs[graph.rename(hidden, "last_hidden_state")] = ["batch", "length", width]
        if "pooler" not in params:
            return outputs
    first = graph.add("Gather", hidden, graph.constant(np.array(0, np.int64), "first"), axis=1)
    dense = params["pooler"]["dense"]
    pooled = graph.linear(first, dense["kernel"], dense["bias"], "pooler")
    pooled = graph.add("Tanh" if sizes.has_pooler else "Relu", pooled)
    if task is None:
        return outputs | {graph.rename(pooled, "pooler_output"): ["batch", width]}
    logits = graph.linear(pooled, classifier["kernel"], classifier["bias"], "classifier")
    return {graph.rename(logits, "logits"): ["batch", len(task.labels)]}
