# SPDX-License-Identifier: Apache-2.0
"""A ModernBERT's blocks and heads as nodes of an ONNX graph, all of them ONNX's own.

Angles are computed from the length of the rows, so that no table of 8,192 positions is in the file;
the runtime keeps rows within the positions that the model was trained with. In eight bits too,
attention has a mask and stands as in float32: the form without one (`attention.AttentionInParts`)
knows no window.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from edad_jax.export.attention import Attention
from edad_jax.export.graph import Graph, as_float
from edad_jax.models.config import BertConfig


class ModernBlocks:
    """The blocks of one model; what layers have in common is in the graph once."""

    def __init__(self, graph: Graph, config: BertConfig):
        self._graph, self._config = graph, config
        self._size = config.hidden_size // config.num_attention_heads
        self._attention = Attention(graph)
        whole = graph.add("Range", self._number(0), self._length(), self._number(1))
        self._places_t1 = graph.add("Unsqueeze", whole, self._axes(1))
        self._places_1t = graph.add("Unsqueeze", whole, self._axes(0))
        self._rotations: dict[float, tuple[str, str]] = {}
        self._windows: dict[int, str] = {}

    def add(self, block: Mapping[str, Any], layer: int, hidden: str) -> str:
        """Adds a block; returns the name of its output."""
        graph, name = self._graph, f"{layer}.base"
        attention = block["attention"]
        read = hidden
        if layer:
            read = self._norm(hidden, block["attention_norm"], f"{name}.norm1")
        scale = np.float32(self._size**-0.5)  # of the scores: in the queries' weights
        kernels = [as_float(attention[part]["kernel"]) for part in ("query", "key", "value")]
        joint = graph.linear(
            read, np.concatenate([kernels[0] * scale, *kernels[1:]], 1), None, f"{layer}.qkv"
        )
        parts = graph.add("Split", joint, outputs=3, axis=-1, num_outputs=3)
        with graph.within(name):
            context = self._attend(*parts, layer)
        attended = graph.linear(context, attention["output"]["kernel"], None, f"{name}.attention")
        hidden = graph.add("Sum", hidden, attended)
        read = self._norm(hidden, block["intermediate_norm"], f"{name}.norm2")
        both = [as_float(block[part]["kernel"]) for part in ("intermediate", "multiplier")]
        joint = graph.linear(read, np.concatenate(both, 1), None, f"{name}.intermediate")
        inner, multiplier = graph.add("Split", joint, outputs=2, axis=-1, num_outputs=2)
        inner = graph.add("Mul", graph.add("Gelu", inner, approximate="none"), multiplier)
        output = graph.linear(inner, block["output"]["kernel"], None, f"{name}.output")
        return graph.add("Sum", hidden, output)

    def finish(self, norm: Mapping[str, Any], hidden: str) -> str:
        """Adds the last norm."""
        return self._norm(hidden, norm, "final_norm")

    def head(self, params: Mapping[str, Any], hidden: str, *, of_texts: bool) -> str:
        """Adds what stands in front of a classifier: see `models.heads.ModernHead`."""
        graph = self._graph
        if of_texts and self._config.modern.pooling == "cls":
            first = graph.constant(np.array(0, np.int64), "first")
            hidden = graph.add("Gather", hidden, first, axis=1)
        elif of_texts:
            real_bt = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
            real = graph.add("Unsqueeze", real_bt, self._axes(2))
            total = graph.add(
                "ReduceSum", graph.add("Mul", hidden, real), self._axes(1), keepdims=0
            )
            hidden = graph.add(
                "Div", total, graph.add("ReduceSum", real, self._axes(1), keepdims=0)
            )
        inner = graph.linear(hidden, params["dense"]["kernel"], None, "pooler")
        inner = graph.add("Gelu", inner, approximate="none")
        return self._norm(inner, params["norm"], "pooler.norm")

    def _attend(self, query, key, value, layer):
        """Adds attention; returns the name of its output, [batch, length, width]."""
        graph, modern = self._graph, self._config.modern
        theta, window = modern.theta_of(layer), modern.window_of(layer)
        query, key, value = (
            self._attention.by_head(part, self._config) for part in (query, key, value)
        )
        query, key = self._rotate(query, theta), self._rotate(key, theta)
        key = graph.add("Transpose", key, perm=[0, 1, 3, 2])
        seen = self._attention.padding(1, 2)
        if window:
            seen = graph.add("Add", seen, self._beyond(window))
        return self._attention.weigh(query, key, value, seen, self._config)

    def _rotate(self, vectors, theta):
        """Adds vectors [batch, heads, length, size] turned by their positions."""
        graph = self._graph
        if theta not in self._rotations:
            halves = np.arange(0, self._size, 2, dtype=np.float32) / np.float32(self._size)
            turns_1h = (1 / np.float32(theta) ** halves).astype(np.float32)[None]
            places = graph.add("Cast", self._places_t1, to=TensorProto.FLOAT)
            angles = graph.add("Mul", places, graph.constant(turns_1h, "turns"))
            self._rotations[theta] = graph.add("Cos", angles), graph.add("Sin", angles)
        cos, sin = self._rotations[theta]
        one, other = graph.add("Split", vectors, outputs=2, axis=-1, num_outputs=2)
        first = graph.add("Sub", graph.add("Mul", one, cos), graph.add("Mul", other, sin))
        second = graph.add("Add", graph.add("Mul", other, cos), graph.add("Mul", one, sin))
        return graph.add("Concat", first, second, axis=-1)

    def _beyond(self, window):
        """Adds what keeps keys beyond a window from being seen, [length, length]."""
        graph = self._graph
        if window not in self._windows:
            distance = graph.add("Abs", graph.add("Sub", self._places_t1, self._places_1t))
            is_far = graph.add("Greater", distance, self._number(window))
            self._windows[window] = graph.add(
                "Mul", graph.add("Cast", is_far, to=TensorProto.FLOAT), self._attention.never
            )
        return self._windows[window]

    def _norm(self, hidden, params, name):
        return self._graph.norm(hidden, params, self._config.layer_norm_eps, name)

    def _length(self):
        shape = self._graph.add("Shape", "input_ids", start=1, end=2)
        return self._graph.add("Squeeze", shape, self._axes(0))

    def _number(self, value):
        return self._graph.constant(np.array(value, np.int64), "number")

    def _axes(self, *axes):
        return self._graph.constant(np.array(axes, np.int64), "axes")
