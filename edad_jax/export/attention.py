# SPDX-License-Identifier: Apache-2.0
"""Attention as nodes of an ONNX graph: in ONNX's own for float32, in onnxruntime's for int8.

Both begin with the product of all queries, keys and values of a layer, whose weights they give.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from edad_jax.export.graph import CONTRIB, Graph, as_float
from edad_jax.models.attention import PADDING_SCORE
from edad_jax.models.config import BertConfig, ExtensionConfig
from edad_jax.models.relative_position import buckets

Sizes = BertConfig | ExtensionConfig
Weights = tuple[np.ndarray, np.ndarray]  # kernel [inputs, outputs] and bias [outputs], float32


class Attention:
    """Attention in ONNX's own nodes, with what padding adds to its scores: a large negative number.

    onnxruntime 1.31 leaves them as they are, here and in graphs without extension: its `Attention`
    is not made of them. Of a whole float32 graph it joins each Gelu with its bias, and no more.
    """

    columns = 1  # outputs of the product of a layer: a multiple of this

    def __init__(self, graph: Graph):
        self._graph = graph
        one = graph.constant(np.array(1, np.int64), "one")
        is_padding = graph.add(
            "Cast", graph.add("Sub", one, "attention_mask"), to=TensorProto.FLOAT
        )
        self.never = graph.constant(np.array(PADDING_SCORE, np.float32), "padding")
        self._scores_bt = graph.add("Mul", is_padding, self.never)
        self._made: dict[tuple[int, ...], str] = {}  # what padding adds -> its name in the graph

    def weights(self, params: Mapping[str, Any], sizes: Sizes) -> Iterable[Weights]:
        """Returns the weights of queries, keys and values; 1/sqrt(head size) is in the first."""
        query, key, value = (
            (as_float(params[name]["kernel"]), as_float(params[name]["bias"]))
            for name in ("query", "key", "value")
        )
        scale = np.float32((sizes.hidden_size // sizes.num_attention_heads) ** -0.5)
        return (query[0] * scale, query[1] * scale), key, value

    def add(self, query: str, key: str, value: str, sizes: Sizes) -> str:
        """Adds attention; returns the name of its output, [batch, length, width]."""
        query = self.by_head(query, sizes)
        key = self.by_head(key, sizes, [0, 2, 3, 1])
        value = self.by_head(value, sizes)
        return self.weigh(query, key, value, self.padding(1, 2), sizes)

    def by_head(self, part: str, sizes: Sizes, axes: Iterable[int] = (0, 2, 1, 3)) -> str:
        """Adds [batch, length, width] as [batch, length, heads, size] with its axes in an order."""
        width, heads = sizes.hidden_size, sizes.num_attention_heads
        shape = self._graph.constant(np.array([0, 0, heads, width // heads], np.int64), "heads")
        return self._graph.add("Transpose", self._graph.add("Reshape", part, shape), perm=axes)

    def weigh(self, query: str, key: str, value: str, added: str, sizes: Sizes) -> str:
        """Adds softmax(query key + added) value, [batch, length, width]; keys come transposed."""
        graph = self._graph
        scores = graph.add("Add", graph.add("MatMul", query, key), added)
        context = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        context = graph.add("Transpose", context, perm=[0, 2, 1, 3])
        joined = graph.constant(np.array([0, 0, sizes.hidden_size], np.int64), "joint")
        return graph.add("Reshape", context, joined)

    def padding(self, *axes: int) -> str:
        """Returns what is added for padding, with these axes beside batch and length."""
        if axes not in self._made:
            constant = self._graph.constant(np.array(axes, np.int64), "axes")
            self._made[axes] = self._graph.add("Unsqueeze", self._scores_bt, constant)
        return self._made[axes]


class AttentionWithBias(Attention):
    """Attention whose scores have a bias of relative positions: see `models.relative_position`.

    Made once, with what padding adds, and read by all layers. In int8 too: onnxruntime goes through
    the keys in parts only where nothing is added to scores.
    """

    def __init__(self, graph: Graph, table_nh: np.ndarray, positions: int):
        """Adds the bias of rows of up to so many positions."""
        super().__init__(graph)
        zero, one = (graph.constant(np.array(number, np.int64), "number") for number in (0, 1))
        first = graph.constant(np.array([0], np.int64), "axis")
        second = graph.constant(np.array([1], np.int64), "axis")
        length = graph.add("Squeeze", graph.add("Shape", "input_ids", start=1, end=2), first)
        places = graph.add("Range", zero, length, one)
        ahead = graph.add(
            "Sub", graph.add("Unsqueeze", places, first), graph.add("Unsqueeze", places, second)
        )
        # By how far a piece is ahead, from as far behind as can be to as far ahead.
        by_distance = as_float(table_nh)[buckets(np.arange(1 - positions, positions))]
        start = graph.constant(np.array(positions - 1, np.int64), "start")
        bias = graph.add(
            "Gather", graph.constant(by_distance, "bias"), graph.add("Add", ahead, start)
        )
        self._bias_hts = graph.add("Transpose", bias, perm=[2, 0, 1])

    def padding(self, *axes: int) -> str:
        """Returns what is added to scores, for padding and for where pieces are."""
        if axes not in self._made:
            self._made[axes] = self._graph.add("Add", super().padding(*axes), self._bias_hts)
            return self._made[axes]
        return super().padding(*axes)


class AttentionInParts(Attention):
    """Attention that reads the keys part by part, so that scores are never stored.

    onnxruntime does so only where there is no mask. Padding is in the keys instead: each of their
    heads has one more number, 0 or the score of padding, and each of the queries' a 1.
    """

    columns = 16  # eight-bit products of so many columns, or multiples, have no slow remainder

    def weights(self, params: Mapping[str, Any], sizes: Sizes) -> Iterable[Weights]:
        """Returns the weights of queries and keys with room for one more number, and of values."""
        (query, query_bias), (key, key_bias), value = super().weights(params, sizes)
        heads = sizes.num_attention_heads
        query = _with_last(query, heads, 0.0), _with_last(query_bias, heads, 1.0)
        key = _with_last(key, heads, 0.0), _with_last(key_bias, heads, 0.0)
        return query, key, value

    def add(self, query: str, key: str, value: str, sizes: Sizes) -> str:
        """Adds attention; returns the name of its output, [batch, length, width]."""
        heads = sizes.num_attention_heads
        padding = self._padding_of_keys(heads, sizes.hidden_size // heads + 1)
        key = self._graph.add("Add", key, padding)
        return self._graph.add(
            "MultiHeadAttention", query, key, value, num_heads=heads, scale=1.0, domain=CONTRIB
        )

    def _padding_of_keys(self, heads, size):
        """Returns [batch, length, heads * size]: each head's last number."""
        if (heads, size) not in self._made:
            last = np.tile(np.arange(size) == size - 1, heads).astype(np.float32)
            constant = self._graph.constant(last, "last")
            self._made[heads, size] = self._graph.add("Mul", self.padding(2), constant)
        return self._made[heads, size]


def _with_last(values, heads, last):
    """Returns [..., heads * size] with one more number after those of each head."""
    split = values.reshape(*values.shape[:-1], heads, -1)
    added = np.full((*split.shape[:-1], 1), last, np.float32)
    return np.concatenate([split, added], -1).reshape(*values.shape[:-1], -1)
