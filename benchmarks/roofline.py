# SPDX-License-Identifier: Apache-2.0
"""The time of a compiled program by a model: for every kernel, what bounds it.

GPU: the longest of its bytes at 85% of the memory's bandwidth, its products at 70% of the peak of
their type, and 2 microseconds, since a kernel that does nothing takes about that long. TPU: the
static cycles that its own compiler gives each operation, at the clock. What runs beside each other
is counted one after the other, but for copies and sums that a program starts and waits for later.
"""

import math
import re
from typing import NamedTuple

from benchmarks.hlo import Module, Operation
from benchmarks.products import Product, find_products
from benchmarks.targets import Target

BANDWIDTH_SHARE = 0.85
PEAK_SHARE = 0.70
LAUNCH_SECONDS = 2e-6
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_SLICES = ("slice", "dynamic-slice", "gather")
_PALLAS = ("tpu_custom_call",)  # a kernel of one's own, of which the compiler tells no cycles
_CYCLES = r'"estimated_cycles":"?(\d+)'


class Kernel(NamedTuple):
    """What a device runs as one, and how often."""

    operation: Operation
    scope: str
    times: int
    bytes: float  # of memory that it reads and writes
    products: tuple[Product, ...]
    seconds: float  # each time
    is_overlapped: bool  # it only moves data, while others work
    is_at_floor: bool = False  # it takes as long as any kernel does (GPU)


def find_kernels(module: Module, target: Target) -> list[Kernel]:
    """Returns what a device of the target runs in an update, in order; sums over devices not."""
    measure = _gpu_kernel if target.platform == "gpu" else _tpu_kernel
    return [
        measure(module, operation, times, target)
        for operation, times in module.run()
        if not is_collective(operation)
    ]


def is_collective(operation: Operation) -> bool:
    """Returns whether an operation exchanges data with other devices."""
    return operation.kind.removesuffix("-start") in _COLLECTIVES


def _gpu_kernel(module, operation, times, target):
    products = tuple(find_products(module, operation))
    moved = _gpu_bytes(module, operation)
    seconds = max(
        moved / (target.bandwidth_gb * 1e9 * BANDWIDTH_SHARE),
        sum(map(lambda product: _product_seconds(product, target), products)),
        LAUNCH_SECONDS,
    )
    is_copy = operation.kind == "copy-start"
    return Kernel(
        operation,
        module.scope(operation),
        times,
        moved,
        products,
        0.0 if is_copy else seconds,
        is_copy,
        is_at_floor=seconds == LAUNCH_SECONDS and not is_copy,
    )


def _product_seconds(product: Product, target: Target) -> float:
    peak = target.bfloat16_tflops
    if product.is_float32:
        peak = target.float32_tflops if product.precision == "highest" else target.tf32_tflops
    return product.flops / (peak * 1e12 * PEAK_SHARE)


def _gpu_bytes(module, operation):
    """Returns the bytes of what a kernel reads and writes, where it is named by whole arrays.

    Of an array of which a fusion only takes slices or rows, these count; so do those of an array
    that it updates in place. Scratch memory (s8, of a library's kernel) does not.
    """
    if operation.kind == "custom-call":
        results = [shape for shape in operation.shapes if shape.type != "s8"]
        operands = module.operand_shapes(operation)
        return sum(shape.bytes for shape in [*results, *sum(operands, ())])
    if operation.kind == "copy-start":
        return 2 * operation.shapes[0].bytes
    body = module.computations.get(operation.attribute("calls"), [operation])
    updates = {inner.name: inner for inner in body if inner.kind == "dynamic-update-slice"}
    root = next((inner for inner in body if inner.is_root), body[-1])
    written = [root] if root.kind != "tuple" else []
    if root.kind == "tuple":
        named = {inner.name: inner for inner in body}
        written = [named[name] for name in root.operands]
    total = 0
    for inner in written:
        if inner.name in updates:
            total += sum(shape.bytes for shape in module.operand_shapes(inner)[1])
        else:
            total += sum(shape.bytes for shape in inner.shapes)
    for place, shapes in enumerate(module.operand_shapes(operation)):
        total += min(sum(shape.bytes for shape in shapes), _read_bytes(body, place))
    return total


def _read_bytes(body, place):
    """Returns what a fusion takes of an argument in slices; infinite where it takes it whole."""
    argument = next(
        (
            inner.name
            for inner in body
            if inner.kind == "parameter" and inner.attributes.startswith(f"{place})")
        ),
        None,
    )
    uses = [inner for inner in body if argument in inner.operands]
    if not uses:
        return math.inf
    if all(use.kind in _SLICES and use.operands[0] == argument for use in uses):
        return sum(shape.bytes for use in uses for shape in use.shapes)
    if all(use.kind == "dynamic-update-slice" and use.operands[0] == argument for use in uses):
        return 0
    return math.inf


def _tpu_kernel(module, operation, times, target):
    told = re.search(_CYCLES, operation.attributes)
    operands = sum(module.operand_shapes(operation), ())
    moved = sum(shape.tiled_bytes for shape in [*operation.shapes, *operands])
    is_copy = operation.kind.endswith("-start")
    if is_copy:  # to the chip's own memory or from it: one side is not in HBM, the other is once
        moved = max((shape.bytes for shape in operation.shapes), default=0)
    seconds = int(told[1]) / (target.clock_ghz * 1e9) if told else 0.0
    if not told and operation.attribute("custom_call_target").strip('"') in _PALLAS:
        seconds = moved / (target.bandwidth_gb * 1e9 * BANDWIDTH_SHARE)
    return Kernel(
        operation,
        module.scope(operation),
        times,
        moved,
        tuple(find_products(module, operation)),
        0.0 if is_copy else seconds,
        is_copy,
    )
