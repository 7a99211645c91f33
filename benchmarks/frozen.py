# SPDX-License-Identifier: Apache-2.0
"""Whether a compiled program computes a gradient of a weight that the method does not train.

A gradient that nobody reads costs a third of a layer's products. XLA drops it only if nothing at
all reads it, a norm of all gradients included; so it is looked for where it would be: among the
products of the backward pass and the sums into rows of tables, and among the state.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax

from benchmarks.hlo import Module
from benchmarks.products import find_products

_TILE = 8  # a GPU's products are padded to a multiple of this many rows or columns
_FUNCTIONS = re.compile(r"[A-Za-z_]+\(")  # jit(step), transpose(jvp(teacher))


def find_gradients(
    module: Module,
    frozen: Mapping[str, dict],
    summed: Collection[int],
    trained: Mapping[str, dict] | None = None,
) -> list[str]:
    """Returns a line for every operation that makes a gradient of a frozen weight, or changes it.

    Args:
      module: the program.
      frozen: net -> parameters that it only reads.
      summed: how many numbers a kernel's gradient is a sum over: rows x pieces, rows x masked
        slots, rows, of one device and micro-batch.
      trained: net -> parameters that its state holds.

    A product counts where it sums over pieces or rows, has no batches, is in the backward pass of
    the net, and either its scope is that of a frozen layer or one of its sides is the length of a
    frozen table. A merged product, of a frozen layer and a trained one, counts by its scope.
    """
    weights = list(_weights(frozen))
    found = [f"state holds {each}" for each in _in_state(trained or {}, weights)]
    for operation, _ in module.run():
        for product in find_products(module, operation):
            scope = product.operation.scope or module.scope(operation)
            if not product.summed or product.is_batched or product.summed not in summed:
                continue
            if path := _frozen_weight(scope, product.result.dims, weights):
                dims = " x ".join(map(str, product.result.dims))
                found.append(f"a product makes [{dims}] for {path}: {scope}")
        for inner in module.inside(operation):
            if inner.kind == "scatter" and "transpose(" in inner.scope:
                if path := _scattered(inner, weights):
                    found.append(f"a scatter sums rows of {path}: {inner.scope}")
    return found


def gradient_sums(config: Any, devices: int) -> set[int]:
    """Returns `summed` of `find_gradients` for a configuration's batch on so many devices."""
    rows = config.batch_size // (devices * config.accumulate_steps)
    length = config.rows.max_length
    slots = min(
        config.masking.max_predictions_per_seq, round(config.masking.mlm_probability * length)
    )
    return {rows * length, rows * slots, rows * config.masking.max_predictions_per_seq, rows}


def _weights(frozen) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Yields net, path and shape of every frozen kernel and table."""
    for net, params in frozen.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if len(leaf.shape) == 2:
                yield net, tuple(key.key for key in path), tuple(leaf.shape)


def _frozen_weight(scope, dims, weights):
    net, words = _read_scope(scope)
    if "transpose(" not in scope:
        return ""
    sides = {size for size in dims if size > 1}
    for of_net, path, shape in weights:
        if of_net != net:
            continue
        *layer, name = path
        if name == "kernel" and _follows(layer, words):
            return "/".join((net, *path))
        is_word_table = name == "embedding" and layer[-1:] == ["word"]
        if is_word_table and any(0 <= size - shape[0] < _TILE for size in sides):
            return "/".join((net, *path))
    return ""


def _scattered(operation, weights):
    net, words = _read_scope(operation.scope)
    for of_net, path, shape in weights:
        is_table = path[-1] == "embedding" and of_net == net
        if is_table and any(result.dims == shape for result in operation.shapes):
            return "/".join((net, *path))
    return ""


def _in_state(trained, weights):
    """Yields frozen weights that are among the trained."""
    held = {(net, *path) for net, path, _ in _weights(trained)}
    for net, path, _ in weights:
        if (net, *path) in held:
            yield "/".join((net, *path))


def _read_scope(scope):
    """Returns the net of a scope and its words; of "base.block", a method, the module alone."""
    plain = _FUNCTIONS.sub("", scope).replace(")", "")
    words = [word.partition(".")[0] for word in plain.split("/")]
    net = next((word for word in words if word in ("teacher", "student")), "")
    return net, words


def _follows(layer, words):
    """Returns whether all words of a layer's path are among the words, in this order."""
    rest = iter(words)
    return all(name in rest for name in layer)
