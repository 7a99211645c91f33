# SPDX-License-Identifier: Apache-2.0
"""A trained model as one ONNX file, written node by node from the parameters.

    input_ids, attention_mask, token_type_ids   int64 [batch, length], both free
    logits                                      float32, of a tagger or classifier
    start_logits, end_logits                    float32, of a question answerer
    last_hidden_state, pooler_output            float32, of an encoder

Three things are done here once that the training code does at every call: queries, keys and values
of a block and of its extension, and the gate between them, are one product; the attention's
1/sqrt(head size) is in the query's weights; the two word tables are one. Equal constants are
stored once, so that the one block of an ALBERT is. See `graph` for what eight bits change.

`token_type_ids` is an input of every model, so that all are fed alike; one without segment vectors
does not read it.
"""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx

from edad_jax.export.attention import Attention, AttentionInParts, AttentionWithBias
from edad_jax.export.graph import Graph, as_float
from edad_jax.export.modernbert import ModernBlocks
from edad_jax.models.config import ExBertConfig
from edad_jax.models.task import Task


def build_onnx(
    config: ExBertConfig,
    params: Mapping[str, Any],
    task: Task | None = None,
    *,
    int8: bool = False,
    reduce_range: bool = False,
    word_rank: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    keep_float32: Collection[str] = (),
    watched: str = "",
) -> onnx.ModelProto:
    """Returns the model as an ONNX graph.

    Args:
      config: the model's sizes.
      params: "base", "extension", and "pooler" or "classifier" where the model has them.
      task: what the model was fine-tuned for; None for an encoder.
      int8: weights in eight bits: word vectors with a scale for each word, linear layers with a
        scale for each output, whose inputs onnxruntime quantises as they come.
      reduce_range: seven bits, for x86 CPUs without VNNI, whose eight-bit sums overflow.
      word_rank: word vectors as products of so many numbers with one small matrix (by singular
        values, ALBERT's factorisation after the fact); 0 for the whole vectors.
      ranges: of linear layers' inputs, from `calibration.measure_ranges`; int8 alone reads them.
      keep_float32: what keeps 32 bits in int8: names of linear layers and tables ("words",
        "0.qkv", "0.base.output", "classifier", ...), or patterns of them such as "0.*".
      watched: give what linear layers read, instead of the model's outputs: with "ranges" the
        smallest and the largest number of each, as "NAME.smallest" and "NAME.largest"; with
        "inputs" all of it, as "NAME.input".

    Raises:
      ValueError: parameters are missing; nothing is called as `keep_float32` says.
    """
    graph = Graph(int8=int8, reduce_range=reduce_range, ranges=ranges, keep_float32=keep_float32)
    try:
        if config.base.modern:
            outputs = _modern(graph, config, params, word_rank, task)
        else:
            hidden = _encode(graph, config, params, word_rank)
            outputs = _heads(graph, config.base, params, hidden, task)
    except KeyError as error:
        raise ValueError(f"the parameters lack {error}; expected those of the task") from error
    graph.check_kept()
    if watched == "inputs":
        outputs = {
            graph.rename(hidden, f"{name}.input"): []
            for name, hidden in graph.linear_inputs.items()
        }
    elif watched:
        outputs = {
            graph.rename(graph.add(kind, hidden, keepdims=0), f"{name}.{end}"): []
            for name, hidden in graph.linear_inputs.items()
            for kind, end in (("ReduceMin", "smallest"), ("ReduceMax", "largest"))
        }
    return graph.finish(outputs)


def _encode(graph, config, params, word_rank):
    with graph.within("embeddings"):
        hidden = _embed(graph, config, params, word_rank)
    attention = _attention(graph, config.base, params["base"])
    for layer in range(config.base.num_hidden_layers):
        with graph.within(str(layer)):
            hidden = _layer(graph, attention, config, params, layer, hidden)
    return hidden


def _attention(graph, sizes, base):
    """Returns what adds attention."""
    if sizes.relative_attention_num_buckets:
        table_nh = base["relative"]["embedding"]
        return AttentionWithBias(graph, table_nh, sizes.max_position_embeddings)
    return AttentionInParts(graph) if graph.int8 else Attention(graph)


def _modern(graph, config, params, word_rank, task):
    """Adds a ModernBERT; returns the model's outputs and their axes."""
    base = params["base"]
    with graph.within("embeddings"):
        words = _words(graph, config, params, word_rank)
        norm = base["embeddings"]["norm"]
        hidden = graph.norm(words, norm, config.base.layer_norm_eps, "embeddings.norm")
    blocks = ModernBlocks(graph, config.base)
    for layer in range(config.base.num_hidden_layers):
        with graph.within(str(layer)):
            hidden = blocks.add(base[f"layers_{layer}"], layer, hidden)
    hidden = blocks.finish(base["final_norm"], hidden)
    if task:
        of_texts = task.kind == "classification"
        hidden = blocks.head(params["pooler"], hidden, of_texts=of_texts)
        if of_texts:
            return _classes(graph, params, hidden, task)
    return _heads(graph, config.base, params, hidden, task)


def _words(graph, config, params, word_rank):
    """Adds the word vectors."""
    base = params["base"]
    table_vd = as_float(base["embeddings"]["word"]["embedding"])
    if config.extension_vocab_size:
        table_vd = np.concatenate([table_vd, as_float(params["extension"]["word"]["embedding"])])
    if word_rank:
        if not 0 < word_rank < min(table_vd.shape):
            raise ValueError(f"got word_rank={word_rank}, expected less than {min(table_vd.shape)}")
        left_vr, values_r, right_rd = np.linalg.svd(table_vd, full_matrices=False)
        narrow_vr = left_vr[:, :word_rank] * values_r[:word_rank]
        words = graph.look_up(narrow_vr, "words", "input_ids")
        return graph.linear(words, right_rd[:word_rank], None, "words.right")
    return graph.look_up(table_vd, "words", "input_ids")


def _embed(graph, config, params, word_rank):
    """Adds what the first layer reads."""
    base = params["base"]
    words = _words(graph, config, params, word_rank)
    hidden = graph.add("Add", words, _positions(graph, base["embeddings"]))
    if config.base.type_vocab_size:
        table = graph.constant(as_float(base["embeddings"]["token_type"]["embedding"]), "segments")
        kinds = "token_type_ids"
        if config.base.type_vocab_size == 1:  # whatever the ids say
            kinds = graph.constant(np.zeros((1, 1), np.int64), "segment")
        hidden = graph.add("Add", hidden, graph.add("Gather", table, kinds))
    hidden = graph.norm(
        hidden, base["embeddings"]["norm"], config.base.layer_norm_eps, "embeddings.norm"
    )
    if config.base.embedding_size:
        projection = base["embeddings"]["projection"]
        hidden = graph.linear(
            hidden, projection["kernel"], projection["bias"], "embeddings.projection"
        )
    return hidden


def _positions(graph, embeddings):
    """Adds the first `length` position vectors."""
    table = graph.constant(as_float(embeddings["position"]["embedding"]), "positions")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    start = graph.constant(np.array([0], np.int64), "start")
    axis = graph.constant(np.array([0], np.int64), "axis")
    return graph.add("Slice", table, start, length, axis)


def _layer(graph, attention, config, params, layer, hidden):
    """Adds a layer: its block and, where there is one, the extension's with the gate between."""
    base, number = params["base"], 0 if config.base.shares_layers else layer
    blocks = {"base": (base[f"layers_{number}"], config.base)}
    if config.extension:
        blocks["extension"] = (params["extension"][f"layers_{layer}"], config.extension)
    weights = [
        part
        for block, sizes in blocks.values()
        for part in attention.weights(block["attention"], sizes)
    ]
    if config.extension:
        gate = params["extension"][f"gates_{layer}"]
        weights.append((as_float(gate["kernel"]), as_float(gate["bias"])))
    rest = -sum(len(bias) for _, bias in weights) % attention.columns
    if rest:
        width = config.base.hidden_size
        weights.append((np.zeros((width, rest), np.float32), np.zeros(rest, np.float32)))
    kernels, biases = zip(*weights, strict=True)
    joint = graph.linear(hidden, np.concatenate(kernels, 1), np.concatenate(biases), f"{layer}.qkv")
    widths = graph.constant(np.array([len(bias) for bias in biases], np.int64), "widths")
    parts = iter(graph.add("Split", joint, widths, outputs=len(biases), axis=-1))
    outputs = []
    for name, (block, sizes) in blocks.items():
        with graph.within(f"{layer}.{name}"):
            context = attention.add(*itertools.islice(parts, 3), sizes)
            outputs.append(
                _after_attention(graph, block, context, hidden, config.base, f"{layer}.{name}")
            )
    if not config.extension:
        return outputs[0]
    share = graph.add("Sigmoid", next(parts))
    difference = graph.add("Sub", outputs[0], outputs[1])
    return graph.add("Add", outputs[1], graph.add("Mul", share, difference))


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
    with graph.within("head"):
        return _vectors_and_classes(graph, sizes, params, hidden, task)


def _vectors_and_classes(graph, sizes, params, hidden, task):
    """Adds what an encoder or a classifier of texts gives."""
    outputs = {}
    if task is None:
        width = sizes.hidden_size
        outputs[graph.rename(hidden, "last_hidden_state")] = ["batch", "length", width]
        if "pooler" not in params:
            return outputs
    first = graph.add("Gather", hidden, graph.constant(np.array(0, np.int64), "first"), axis=1)
    dense = params["pooler"]["dense"]
    pooled = graph.linear(first, dense["kernel"], dense["bias"], "pooler")
    pooled = graph.add(sizes.pooler_act.capitalize(), pooled)
    if task is None:
        return outputs | {graph.rename(pooled, "pooler_output"): ["batch", width]}
    return _classes(graph, params, pooled, task)


def _classes(graph, params, pooled, task):
    """Adds the classifier of whole texts."""
    classifier = params["classifier"]["dense"]
    logits = graph.linear(pooled, classifier["kernel"], classifier["bias"], "classifier")
    return {graph.rename(logits, "logits"): ["batch", len(task.labels)]}
