# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph under way: nodes, constants, and linear layers in 32 or in 8 bits.

In float32 a graph has ONNX's own nodes alone, which every runtime reads. Of these

    Sum                     stands where residuals are added: an Add and its LayerNormalization
                            become one SkipLayerNormalization, which takes several times as long as
                            both, wherever shapes are written beside the nodes (as its quantiser and
                            other tools do).

In eight bits it has some of onnxruntime's (the domain com.microsoft, part of every build of it, x86
and Arm), and they are chosen by measurement rather than left to its quantiser and optimiser:

    DynamicQuantizeMatMul   input to eight bits, product, scales and bias in one node. Weights are
                            signed and symmetric, and it is told so by the absence of zero points:
                            given zeros, as the quantiser writes them, it corrects for them at
                            every call. Unsigned weights run without VNNI's and AMX's instructions.
    MatMulIntegerToFloat    the same for an input whose range was measured beforehand.
    MultiHeadAttention      without a mask, since only then it goes through the keys in parts that
                            stay in the cache ("flash"); see `attention.AttentionInParts`.

Nodes are called after their layer, `0.base.intermediate.MatMul.17`, as the parts of a model that
may stay in float32 are (`0.base.intermediate`): other quantisers leave nodes out by their names.
"""

import contextlib
import fnmatch
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first that has Gelu
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CONTRIB = "com.microsoft"


class Graph:
    """Nodes and constants under way. Methods return the names of what they add.

    Args:
      int8: whether linear layers and word vectors have eight bits.
      reduce_range: whether linear layers have seven of them.
      ranges: {name of a linear layer: (smallest, largest) of its input}, fixed beforehand; layers
        that are not there take the range of what they are given, at every call.
      keep_float32: names of linear layers and tables that keep their 32 bits all the same, or
        patterns of names, such as "0.*".
    """

    def __init__(
        self,
        *,
        int8: bool = False,
        reduce_range: bool = False,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        keep_float32: Collection[str] = (),
    ):
        self.int8 = int8
        self.parts: list[str] = []  # names of linear layers and tables: what int8 rounds
        self.linear_inputs: dict[str, str] = {}  # name of a linear layer -> what it reads
        self._keep, self._scope = tuple(keep_float32), ""
        self._ranges = ranges or {}
        self._largest = 63 if reduce_range else 127
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names: dict[tuple, str] = {}  # content of a constant -> its name

    def constant(self, values: np.ndarray, name: str) -> str:
        """Adds a constant, where there is none like it; returns its name.

        The number behind its name makes it the only one so called.
        """
        values = np.asarray(values, order="C")
        digest = hashlib.sha256(values.data).digest()
        content = (values.dtype.str, values.shape, digest)
        if content not in self._names:
            self._names[content] = f"{name}.{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(values, self._names[content]))
        return self._names[content]

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of several."""
        node = f"{self._scope}{kind}.{len(self._nodes)}"
        names = [f"{node}.{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=node, **attributes))
        return names if outputs > 1 else names[0]

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Nodes that are added in the block are called after this part of the model."""
        outer, self._scope = self._scope, f"{name}."
        yield
        self._scope = outer

    def rename(self, value: str, name: str) -> str:
        """Adds another name for a value: that of an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}.Identity"))
        return name

    def _is_rounded(self, name):
        """Returns whether a part has eight bits; notes its name."""
        self.parts.append(name)
        return self.int8 and not any(fnmatch.fnmatchcase(name, each) for each in self._keep)

    def linear(
        self, hidden: str, kernel_de: np.ndarray, bias_e: np.ndarray | None, name: str
    ) -> str:
        """Adds hidden @ kernel + bias."""
        with self.within(name):
            return self._linear(hidden, kernel_de, bias_e, name)

    def _linear(self, hidden, kernel_de, bias_e, name):
        bias = () if bias_e is None else (self.constant(as_float(bias_e), f"{name}.bias"),)
        self.linear_inputs[name] = hidden
        if self._is_rounded(name):
            rounded_de, scale_1e = in_eight_bits(as_float(kernel_de), 0, self._largest)
            kernel = self.constant(rounded_de, f"{name}.kernel")
            scale = self.constant(scale_1e[0], f"{name}.scale")
            no_zeros = ""
            if name not in self._ranges:
                inputs = (hidden, kernel, scale, no_zeros, *bias)
                return self.add("DynamicQuantizeMatMul", *inputs, domain=CONTRIB)
            step, zero = self._steps(*self._ranges[name])
            rounded = self.add("QuantizeLinear", hidden, step, zero)
            inputs = (rounded, kernel, step, scale, zero, no_zeros, *bias)
            return self.add("MatMulIntegerToFloat", *inputs, domain=CONTRIB)
        product = self.add("MatMul", hidden, self.constant(as_float(kernel_de), f"{name}.kernel"))
        return self.add("Add", product, *bias) if bias else product

    def _steps(self, smallest: float, largest: float) -> tuple[str, str]:
        """Adds what turns numbers of a range into 0 to 255: the width of a step, and what 0 is."""
        smallest, largest = min(smallest, 0.0), max(largest, 0.0)
        step = max(largest - smallest, 1e-12) / 255
        zero = np.array(np.rint(-smallest / step), np.uint8)
        return self.constant(np.array(step, np.float32), "step"), self.constant(zero, "zero")

    def look_up(self, table_vd: np.ndarray, name: str, ids: str) -> str:
        """Adds the rows of a table, which has a scale for each row in eight bits."""
        if not self._is_rounded(name):
            return self.add("Gather", self.constant(table_vd, name), ids)
        rounded_vd, scale_v1 = in_eight_bits(table_vd, 1)
        rounded = self.add("Gather", self.constant(rounded_vd, name), ids)
        scale = self.add("Gather", self.constant(scale_v1, f"{name}.scale"), ids)
        return self.add("Mul", self.add("Cast", rounded, to=TensorProto.FLOAT), scale)

    def norm(self, hidden: str, params: Mapping, epsilon: float, name: str) -> str:
        """Adds a layer norm over the last axis."""
        parts = [
            self.constant(as_float(params[part]), f"{name}.{part}")
            for part in ("scale", "bias")
            if part in params
        ]
        with self.within(name):
            return self.add("LayerNormalization", hidden, *parts, axis=-1, epsilon=epsilon)

    def check_kept(self) -> None:
        """Raises ValueError where a name or pattern of `keep_float32` is of no part there is."""
        for each in self._keep:
            if not fnmatch.filter(self.parts, each):
                raise ValueError(
                    f"keep_float32: got {each!r}, expected names or patterns of "
                    f"{', '.join(self.parts)}"
                )

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
        graph = helper.make_graph(self._nodes, "edad_jax", inputs, results, self._constants)
        versions = [helper.make_opsetid("", OPSET)]
        if any(node.domain == CONTRIB for node in self._nodes):
            versions.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=versions, producer_name="edad_jax")
        model.ir_version = 10  # what onnxruntime 1.20 reads
        onnx.checker.check_model(model)
        return model


def in_eight_bits(
    table: np.ndarray, axis: int, largest: int = 127
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (int8 numbers, scales) whose product is near a table: one scale along `axis`."""
    scale = np.maximum(np.abs(table).max(axis=axis, keepdims=True), 1e-12) / largest
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def as_float(array: Any) -> np.ndarray:
    """Returns numbers of any kind in float32."""
    return np.asarray(array, np.float32)
