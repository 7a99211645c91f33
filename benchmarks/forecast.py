# SPDX-License-Identifier: Apache-2.0
"""What an update will take on a target, from its compiled program alone."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks import collectives, frozen, roofline
from benchmarks.ahead import Program, compile_step, on_target
from benchmarks.hlo import Module
from benchmarks.operations import place
from benchmarks.roofline import Kernel
from benchmarks.step import Case, batch_shape
from benchmarks.targets import Target, find_target
from edad_jax.training.batch_size import SHARE

_LONGEST = 12  # kernels that the report names


def forecast(case: Case, target_name: str, *, fits: bool = False) -> tuple[dict[str, Any], str]:
    """Returns the figures of a case on a target, and the text of its program.

    Args:
      case: which step; its `devices` are the target's.
      target_name: of `targets.TARGETS`.
      fits: whether to compile half of the batch too, for a better guess of the largest that fits.

    Raises:
      ValueError: as `ahead.compile_step`; or the program makes a gradient of a frozen weight.
    """
    target = find_target(target_name)
    program = compile_step(case, target)
    figures = {"target": target_name, **describe(case, target, program)}
    less = None
    if fits:
        config = case.config.copy_and_resolve_references()
        config.batch_size //= 2
        less = compile_step(case._replace(config=config), target).memory
    figures["largest_batch"] = largest_batch(case, target, program.memory, less)
    return figures, program.text


def describe(case: Case, target: Target, program: Program) -> dict[str, Any]:
    """Returns all that `forecast` tells of one program, but for the largest batch.

    Returns:
      what was compiled ("device", "devices", "method", "teacher", "words", "student", "dtype",
      "batch", "trace_seconds", "compile_seconds"); "milliseconds", "tokens_per_second",
      "model_gflop", "mfu"; "gb_moved", "kernels", "floor_kernels", "floor_milliseconds";
      "memory": GB of one device; "products": {types: {"count", "tflop", "milliseconds"}};
      "float32_products";
      "rows": as `operations.time_operations` has them; "longest": kernels that are alike;
      "collectives"; "frozen_gradients": lines, none where all is well.
    """
    config = on_target(case.config)
    module = Module(program.text)
    kernels = roofline.find_kernels(module, target)
    sums = collectives.describe_collectives(module, kernels, target)
    busy = sum(kernel.seconds * kernel.times for kernel in kernels)
    seconds = busy + collectives.exposed_seconds(sums)
    batch = batch_shape(config)
    at_floor = [kernel for kernel in kernels if kernel.is_at_floor]
    products = _products(kernels, target)
    peak = target.bfloat16_tflops * 1e3 * target.devices
    return {
        "device": target.device,
        "devices": target.devices,
        "method": case.method,
        "teacher": list(case.teacher),
        "student": _sizes(config.student),
        "dtype": config.dtype,
        "words": case.words,
        "batch": batch,
        "trace_seconds": program.trace_seconds,
        "compile_seconds": program.compile_seconds,
        "milliseconds": 1e3 * seconds,
        "tokens_per_second": batch[0] * batch[1] / seconds,
        "model_gflop": program.model_gflop,
        "mfu": program.model_gflop / (seconds * peak),
        "gb_moved": sum(kernel.bytes * kernel.times for kernel in kernels) / 1e9,
        # Copies that go on beside them, and on a TPU what is as good as free, are none.
        "kernels": sum(kernel.times for kernel in kernels if kernel.seconds),
        "floor_kernels": sum(kernel.times for kernel in at_floor),
        "floor_milliseconds": 1e3 * sum(kernel.seconds * kernel.times for kernel in at_floor),
        "memory": {name: value / 1e9 for name, value in program.memory.items()}
        | {"device": target.memory_gb},
        "products": products,
        "float32_products": sum(
            row["count"] for name, row in products.items() if "float32" in name.split(" -> ")[0]
        ),
        "rows": _by_place(kernels, seconds),
        "longest": _longest(kernels),
        "collectives": sums,
        "frozen_gradients": frozen.find_gradients(
            module,
            program.run.frozen,
            frozen.gradient_sums(config, target.devices),
            program.run.trained,
        ),
    }


def corpus_cost(
    figures: dict[str, Any], *, tokens: float, epochs: float, price_per_hour: float | None
) -> dict[str, float | None]:
    """Returns hours and cost of training on so many tokens, all devices together.

    Padding is not counted: rows of a corpus are full but for a tenth that is drawn shorter.
    """
    hours = tokens * epochs / figures["tokens_per_second"] / 3600
    cost = None if price_per_hour is None else hours * price_per_hour * figures["devices"]
    return {"tokens": tokens, "epochs": epochs, "hours": hours, "cost": cost}


def largest_batch(
    case: Case, target: Target, memory: dict[str, float], less: dict[str, float] | None = None
) -> dict[str, Any]:
    """Returns about how many rows fit, of all devices, by a straight line.

    Args:
      case: which step.
      target: its devices.
      memory: bytes of its program, as `ahead.Program` has them.
      less: bytes with half of the batch. Without them, all but the arguments is taken to grow with
        the rows, which is too much, since gradients do not: the guess is low where more rows fit.

    Returns:
      {"rows", "share_of_memory" (that they may take), "from" (how many programs), "gb_a_row" and
      "gb_fixed": the line, of one device}.
    """
    rows = case.config.batch_size
    budget = SHARE * target.memory_gb * 1e9
    if less is None:
        fixed, grows = memory["arguments"], (memory["peak"] - memory["arguments"]) / rows
    else:
        grows = (memory["peak"] - less["peak"]) / (rows - rows // 2)
        fixed = memory["peak"] - rows * grows
    unit = target.devices * case.config.accumulate_steps
    most = (budget - fixed) / grows if grows > 0 else 0.0
    return {
        "rows": max(0, int(most // unit) * unit),
        "share_of_memory": SHARE,
        "from": "one program" if less is None else "two programs",
        "gb_a_row": grows / 1e9,
        "gb_fixed": fixed / 1e9,
    }


def _products(kernels: Sequence[Kernel], target):
    rows: dict[str, dict] = defaultdict(lambda: {"count": 0, "tflop": 0.0, "milliseconds": 0.0})
    for kernel in kernels:
        for product in kernel.products:
            row = rows[product.kind]
            row["count"] += kernel.times
            row["tflop"] += kernel.times * product.flops / 1e12
            row["milliseconds"] += 1e3 * kernel.times * kernel.seconds / len(kernel.products)
    return dict(sorted(rows.items(), key=lambda item: -item[1]["milliseconds"]))


def _by_place(kernels, seconds):
    spent, moved = Counter(), Counter()
    for kernel in kernels:
        where = place(kernel.scope)
        if kernel.operation.kind == "copy":  # an array laid out anew
            where = ("copies", "", "")
        spent[where] += kernel.times * kernel.seconds
        moved[where] += kernel.times * kernel.bytes
    return [
        {
            "part": where[0],
            "net": where[1],
            "direction": where[2],
            "seconds": value,
            "share": value / seconds,
            "gb": moved[where] / 1e9,
        }
        for where, value in spent.most_common()
    ]


def _longest(kernels):
    """Returns the kernels that take longest, those of all layers together."""
    rows: dict[tuple, dict] = {}
    for kernel in kernels:
        operation = kernel.operation
        # Of names like loop_add_fusion.12 and layers_3, all numbers are one kind of kernel.
        scope = re.sub(r"layers_\d+", "layers_*", kernel.scope.partition("/")[2])
        result = ", ".join(
            f"{shape.type}[{','.join(map(str, shape.dims))}]" for shape in operation.shapes[:2]
        )
        key = (re.sub(r"[.\d]+$", "", operation.name), result, scope)
        row = rows.setdefault(
            key,
            {"kernel": key[0], "result": result, "scope": scope, "count": 0, "ms": 0.0, "gb": 0.0},
        )
        row["count"] += kernel.times
        row["ms"] += 1e3 * kernel.times * kernel.seconds
        row["gb"] += kernel.times * kernel.bytes / 1e9
    return sorted(rows.values(), key=lambda row: -row["ms"])[:_LONGEST]


def _sizes(student):
    return [
        student.num_hidden_layers,
        student.hidden_size,
        student.num_attention_heads,
        student.intermediate_size,
    ]
