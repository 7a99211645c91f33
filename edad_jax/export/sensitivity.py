# SPDX-License-Identifier: Apache-2.0
"""Which parts of a model lose most in eight bits, by what they give on real texts."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import numpy_helper

from edad_jax.export.calibration import watch
from edad_jax.export.formats import Model
from edad_jax.export.graph import in_eight_bits
from edad_jax.export.onnx import build_onnx

TEXTS = 16  # more change the order of the parts little


def losses(
    model: Model,
    texts: Sequence[str],
    ranges: Mapping[str, tuple[float, float]] | None = None,
    *,
    reduce_range: bool = False,
) -> dict[str, float]:
    """Returns {part: noise that eight bits add to what it gives}, the largest first.

    The noise is a sum of squares, as a share of the sum of squares of what the part gives in
    float32. Each part reads what it does in float32, so that a loss is its own.

    Args:
      model: from `formats.load`.
      texts: the first 16 are read, each cut off after 128 pieces.
      ranges: of linear layers' inputs, if fixed; see `calibration.measure_ranges`.
      reduce_range: whether weights have seven bits.
    """
    graph = build_onnx(model.config, model.params, model.task, watched="inputs")
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer}
    kernels = {
        node.name.rpartition(".MatMul.")[0]: arrays[node.input[1]]
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1] in arrays
    }
    largest = 63 if reduce_range else 127
    rounded = {
        name: np.multiply(*in_eight_bits(kernel, 0, largest), dtype=np.float32)
        for name, kernel in kernels.items()
    }
    (words,) = (table for name, table in arrays.items() if name.rpartition(".")[0] == "words")
    noise, signal = dict.fromkeys(["words", *kernels], 0.0), dict.fromkeys(["words", *kernels], 0.0)
    for ids, inputs in watch(model, graph, texts[:TEXTS]):
        vectors = words[ids[0]]
        values, scales = in_eight_bits(vectors, 1)
        noise["words"] += float(np.square(values * scales - vectors).sum())
        signal["words"] += float(np.square(vectors).sum())
        for name, kernel in kernels.items():
            hidden = inputs[f"{name}.input"]
            given = hidden @ kernel
            ends = (ranges or {}).get(name, (hidden.min(), hidden.max()))
            difference = _in_steps(hidden, *ends) @ rounded[name] - given
            noise[name] += float(np.square(difference).sum())
            signal[name] += float(np.square(given).sum())
    shares = {name: noise[name] / max(signal[name], 1e-30) for name in noise}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _in_steps(values, smallest, largest):
    """Returns what 256 steps from the smallest to the largest number make of some numbers."""
    smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    step = max(largest - smallest, 1e-12) / 255
    zero = np.rint(-smallest / step)
    return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)
