# SPDX-License-Identifier: Apache-2.0
"""The matrix products of a compiled program: their types, FLOPs, and what they sum over."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.hlo import Module, Operation, Shape

FLOAT32 = "float32"
TYPES = {"f32": FLOAT32, "bf16": "bfloat16", "f16": "float16", "f64": "float64", "s8": "int8"}
_CUBLAS, _CUDNN_ATTENTION = "__cublas$", "__cudnn$fmha"
# Of the operands of cuDNN's attention: q [b, t, n, h], k [b, s, n, h], v.
_ATTENTION_BACKWARD = 2.5  # times the FLOPs of its forward pass: five products in place of two


class Product(NamedTuple):
    """A product, as one kernel or in one."""

    operation: Operation
    types: tuple[str, ...]  # of the operands, of the result
    precision: str  # "default", or "highest" where float32 is not rounded to TF32 or bfloat16
    flops: float
    summed: int  # how many products a number of the result is the sum of; 0: attention as a whole
    result: Shape
    is_batched: bool

    @property
    def is_float32(self) -> bool:
        """Returns whether an operand is float32: no matrix unit takes it as it is."""
        return FLOAT32 in self.types[:-1]

    @property
    def kind(self) -> str:
        """Returns the types in one word, as "bfloat16 x bfloat16 -> float32"."""
        *operands, result = self.types
        exact = ", highest precision" if self.precision == "highest" and self.is_float32 else ""
        return f"{' x '.join(operands)} -> {result}{exact}"


def find_products(module: Module, operation: Operation) -> Iterator[Product]:
    """Yields the products that an operation is, or is fused of."""
    for inner in module.inside(operation):
        if inner.kind == "custom-call":
            target = inner.attribute("custom_call_target").strip('"')
            if target.startswith(_CUBLAS):
                yield _dot(module, inner)
            elif target.startswith(_CUDNN_ATTENTION):
                yield _attention(module, inner, is_backward="Backward" in target)
        elif inner.kind == "dot":
            yield _dot(module, inner)
        elif inner.kind == "convolution":
            yield _convolution(module, inner)


def _dot(module, operation):
    left, right = (shapes[0] for shapes in module.operand_shapes(operation)[:2])
    axes = operation.numbers("lhs_contracting_dim(?:ension)?s")
    batches = operation.numbers("lhs_batch_dim(?:ension)?s")
    summed = math.prod(left.dims[axis] for axis in axes)
    is_batched = math.prod(left.dims[axis] for axis in batches) > 1
    return _product(operation, left, right, summed, is_batched)


def _convolution(module, operation):
    """Returns a product that a TPU's compiler calls a convolution, as it does with all of them.

    Batches are an axis along which the window is as long as the input and moves in steps, so that
    each batch meets its own part; other axes with a window are summed over.
    """
    left, right = (shapes[0] for shapes in module.operand_shapes(operation)[:2])
    labels = re.match(r"(\w+)_(\w+)->(\w+)", operation.attribute("dim_labels"))
    summed, is_batched = 1, False
    for label, size in zip(labels[2], right.dims, strict=True):
        if label == "i":
            summed *= size
        elif label.isdigit() and size > 1:
            if operation.shapes[0].dims[labels[3].index(label)] == 1:
                summed *= size
            else:
                is_batched = True
    return _product(operation, left, right, summed, is_batched)


def _product(operation, left, right, summed, is_batched):
    result = operation.shapes[0]
    return Product(
        operation,
        tuple(TYPES.get(shape.type, shape.type) for shape in (left, right, result)),
        _precision(operation),
        2.0 * math.prod(result.dims) * summed,
        summed,
        result,
        is_batched,
    )


def _attention(module, operation, *, is_backward):
    query, key = (shapes[0] for shapes in module.operand_shapes(operation)[:2])
    flops = 4.0 * math.prod(query.dims) * key.dims[1]
    return Product(
        operation,
        (TYPES[query.type], TYPES[key.type], TYPES[operation.shapes[0].type]),
        "default",
        flops * _ATTENTION_BACKWARD if is_backward else flops,
        0,
        operation.shapes[0],
        True,
    )


def _precision(operation):
    asked = operation.attributes.lower()
    is_exact = re.search(r"operand_precision\"?[=:][{\[]\"?highest", asked)
    return "highest" if is_exact or "alg_dot_f32_f32_f32" in asked else "default"
