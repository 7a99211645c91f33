# SPDX-License-Identifier: Apache-2.0
"""A net cut to smaller sizes: which coordinates, units and numbers of a head stay.

    width          the same coordinates in all tables, kernels and norms: those with most energy.
                   Norms keep their scale. Of each head the strongest numbers of queries and keys
                   (by the product of the norms of the weights that make them), and likewise of
                   values and output; queries are scaled so that scores keep their size
    feed-forward   the units with the largest product of the norms of incoming and outgoing weights

Where nothing is to be cut, everything comes back as it was.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edad_jax.models.config import ExBertConfig

_READERS = ("query", "key", "value")


def strongest(weights: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the `count` largest weights, in ascending order."""
    return np.sort(np.argsort(-weights, kind="stable")[:count])


def unit_weights(inner_df: np.ndarray, output_fd: np.ndarray) -> np.ndarray:
    """Returns weight_f: for each unit the norm of what comes in times that of what goes out."""
    return np.linalg.norm(inner_df, axis=0) * np.linalg.norm(output_fd, axis=1)


def coordinate_energy(base: Mapping[str, Any]) -> np.ndarray:
    """Returns energy_d: how much each coordinate of the residual stream tells the blocks.

    Summed over the layers: the power that a layer norm gives the coordinate (scale^2 + bias^2)
    times that of the weights that read it next, of queries, keys and values or of the
    feed-forward layer. No text is needed.
    """
    layers = [base[name] for name in sorted(base) if name.startswith("layers_")]
    width = len(layers[0]["output_norm"]["scale"])
    norm = base["embeddings"]["norm"]
    is_full = len(norm["scale"]) == width  # behind factorised tables there is no norm
    written_d = _power(norm) if is_full else np.ones(width, np.float32)
    energy_d = np.zeros(width)
    for number in range(len(layers)):
        layer = base[f"layers_{number}"]
        for reader in _READERS:
            kernel = layer["attention"][reader]["kernel"]
            energy_d += written_d * np.square(kernel).sum(axis=1)
        kernel = layer["intermediate"]["kernel"]
        energy_d += _power(layer["attention_norm"]) * np.square(kernel).sum(axis=1)
        written_d = _power(layer["output_norm"])
    return energy_d


def _power(norm):
    return np.square(norm["scale"]) + np.square(norm["bias"])


def narrow(
    params: Mapping[str, Any],
    kept: np.ndarray,
    student: ExBertConfig,
    teacher: ExBertConfig,
    *,
    random_units: bool = False,
) -> dict[str, Any]:
    """Returns a teacher's parameters in a student's sizes.

    Extension blocks are left out where the student's have other heads or more numbers.

    Args:
      params: the teacher's, with as many layers as the student has.
      kept: coordinates of the residual stream that the student has, in ascending order.
      student: its sizes; heads as the teacher has them.
      teacher: its sizes.
      random_units: leaves the feed-forward layers out where their size differs.
    """
    factorised = bool(student.base.embedding_size)  # then the tables keep their own width
    cut = {"base": {"embeddings": _cut_embeddings(params["base"]["embeddings"], kept, factorised)}}
    sizes = student.base
    for name, block in params["base"].items():
        if name.startswith("layers_"):
            cut["base"][name] = _cut_block(
                block,
                kept,
                sizes.num_attention_heads,
                sizes.hidden_size,
                sizes.intermediate_size,
                random_units,
            )
    if "relative" in params["base"]:
        cut["base"]["relative"] = params["base"]["relative"]  # a number for each head
    if "extension" in params:
        cut["extension"] = _cut_extension(
            params["extension"], kept, factorised, student, teacher, random_units
        )
    if "pooler" in params:
        cut["pooler"] = {"dense": _cut_dense(params["pooler"]["dense"], kept, kept)}
    if "nsp" in params:
        cut["nsp"] = {"dense": _cut_dense(params["nsp"]["dense"], kept, slice(None))}
    if "mlm" in params:
        cut["mlm"] = {"bias": params["mlm"]["bias"]}
        if "transform" in params["mlm"]:
            last = slice(None) if factorised else kept
            cut["mlm"]["transform"] = _cut_dense(params["mlm"]["transform"], kept, last)
            cut["mlm"]["norm"] = {name: x[last] for name, x in params["mlm"]["norm"].items()}
    return cut


def narrow_modern(
    params: Mapping[str, Any], units: int, *, random_units: bool = False
) -> dict[str, Any]:
    """Returns a ModernBERT's parameters with so many units in its feed-forward layers.

    Args:
      params: with as many layers as are wanted.
      units: of each layer.
      random_units: leaves the feed-forward layers out where their size differs.
    """
    base = dict(params["base"])
    for name in [name for name in base if name.startswith("layers_")]:
        block = dict(base[name])
        inner, outer = block["intermediate"]["kernel"], block["output"]["kernel"]
        multiplier = block["multiplier"]["kernel"]
        weights = unit_weights(inner, outer) * np.linalg.norm(multiplier, axis=0)
        chosen = strongest(weights, units)
        cut = {
            "intermediate": {"kernel": inner[:, chosen]},
            "multiplier": {"kernel": multiplier[:, chosen]},
            "output": {"kernel": outer[chosen]},
        }
        if units != len(outer) and random_units:
            block = {part: tree for part, tree in block.items() if part not in cut}
            cut = {}
        base[name] = block | cut
    return dict(params) | {"base": base}


def _cut_embeddings(tables, kept, factorised):
    cut = dict(tables)
    if factorised:
        cut["projection"] = _cut_dense(tables["projection"], slice(None), kept)
        return cut
    return {
        part: {name: x[..., kept] for name, x in leaves.items()} for part, leaves in tables.items()
    }


def _cut_extension(extension, kept, factorised, student, teacher, random_units):
    cut = {}
    if "word" in extension:
        table_vd = extension["word"]["embedding"]
        cut["word"] = {"embedding": table_vd if factorised else table_vd[:, kept]}
    ours, theirs = student.extension, teacher.extension
    if not ours or not theirs or ours.num_attention_heads != theirs.num_attention_heads:
        return cut
    if ours.hidden_size > theirs.hidden_size or ours.intermediate_size > theirs.intermediate_size:
        return cut
    for name, part in extension.items():
        if name.startswith("gates_"):
            cut[name] = _cut_dense(part, kept, slice(None))
        elif name.startswith("layers_"):
            cut[name] = _cut_block(
                part,
                kept,
                ours.num_attention_heads,
                ours.hidden_size,
                ours.intermediate_size,
                random_units,
            )
    return cut


def _cut_block(block, kept, heads, attention_size, units, random_units):
    """Returns a block of `attention_size` and `units`, which reads the kept coordinates."""
    attention = block["attention"]
    queries, keys, values = (_cut_dense(attention[name], kept, slice(None)) for name in _READERS)
    output = _cut_dense(attention["output"], slice(None), kept)
    asked = _strongest_of_heads(
        unit_weights(queries["kernel"], keys["kernel"].T), heads, attention_size
    )
    told = _strongest_of_heads(
        unit_weights(values["kernel"], output["kernel"]), heads, attention_size
    )
    # Scores are divided by the root of the head's width: what is left of them keeps its size.
    rescale = np.float32(np.sqrt(len(asked) / queries["kernel"].shape[1]))
    cut = {
        "attention": {
            "query": {
                name: x * rescale for name, x in _cut_dense(queries, slice(None), asked).items()
            },
            "key": _cut_dense(keys, slice(None), asked),
            "value": _cut_dense(values, slice(None), told),
            "output": _cut_dense(output, told, slice(None)),
        },
    }
    for norm in ("attention_norm", "output_norm"):
        cut[norm] = {name: x[kept] for name, x in block[norm].items()}
    inner = _cut_dense(block["intermediate"], kept, slice(None))
    outer = _cut_dense(block["output"], slice(None), kept)
    if units != len(outer["kernel"]) and random_units:
        return cut
    chosen = strongest(unit_weights(inner["kernel"], outer["kernel"]), units)
    return cut | {
        "intermediate": _cut_dense(inner, slice(None), chosen),
        "output": _cut_dense(outer, chosen, slice(None)),
    }


def _strongest_of_heads(weights, heads, attention_size):
    """Returns the places of the strongest numbers, equally many of each head."""
    size = len(weights) // heads
    wanted = attention_size // heads
    return np.concatenate(
        [
            head * size + strongest(weights[head * size : (head + 1) * size], wanted)
            for head in range(heads)
        ]
    )


def _cut_dense(dense, rows, columns):
    return {"kernel": dense["kernel"][rows][:, columns], "bias": dense["bias"][columns]}
