# SPDX-License-Identifier: Apache-2.0
"""The sums over devices of a compiled program: how many, of how much, and what hides them."""

from collections.abc import Sequence
from typing import Any

from benchmarks.hlo import Module
from benchmarks.roofline import BANDWIDTH_SHARE, Kernel, is_collective
from benchmarks.targets import Target


def describe_collectives(
    module: Module, kernels: Sequence[Kernel], target: Target
) -> list[dict[str, Any]]:
    """Returns the collectives of an update, in order.

    Args:
      module: the program.
      kernels: of the program, as `roofline.find_kernels` returns them.
      target: its devices.

    Returns:
      {"kind", "times", "arrays" (combined into this one), "megabytes", "seconds" (in a ring: each
      device sends 2 (n - 1) / n of the bytes, at 85% of its links), "hidden_seconds" (work between
      its start and its end, at most all of it)}
    """
    seconds = {id(kernel.operation): kernel.seconds for kernel in kernels}
    started, found = {}, []
    for operation, times in module.run(ends=True):
        for row in started.values():
            row["between"] += times * seconds.get(id(operation), 0.0)
        if is_collective(operation):
            row = _describe(module, operation, times, target)
            found.append(row)
            if operation.kind.endswith("-start"):
                started[operation.name] = row
        elif operation.kind.endswith("-done"):
            for name in operation.operands:
                started.pop(name, None)
    for row in found:
        row["hidden_seconds"] = min(row["seconds"], row.pop("between"))
    return found


def exposed_seconds(collectives: Sequence[dict[str, Any]]) -> float:
    """Returns how long the devices wait for each other's numbers in an update."""
    return sum(row["seconds"] - row["hidden_seconds"] for row in collectives)


def _describe(module, operation, times, target):
    # Of what is summed, the operands: a start's results repeat them.
    arrays = sum(module.operand_shapes(operation), ())
    total = sum(shape.bytes for shape in arrays) * times
    share = 2 * (target.devices - 1) / target.devices
    return {
        "kind": operation.kind.removesuffix("-start"),
        "times": times,
        "arrays": len(arrays),
        "megabytes": total / 1e6,
        "seconds": share * total / (target.link_gb * 1e9 * BANDWIDTH_SHARE),
        "between": 0.0,
    }
