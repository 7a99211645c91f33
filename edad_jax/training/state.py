# SPDX-License-Identifier: Apache-2.0
"""What a training run carries from step to step, what it only reads, and how both begin."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from edad_jax.training.packing import Packing, is_packed


@flax.struct.dataclass
class TrainState:
    """All that a checkpoint holds. Nets are named "teacher" and "student".

    A step takes it packed (`packing.py`); a checkpoint has it as `unpack` returns it.
    """

    step: jax.Array  # int32; updates made
    params: dict  # net -> trained parameters, Packed
    opt_state: dict  # net -> state of its optimiser, in which moments are Packed


def begin(
    params: Mapping[str, dict], optimizers: Mapping[str, optax.GradientTransformation]
) -> TrainState:
    """Returns the state before the first update."""
    packed = {net: Packing.of(tree).pack(tree) for net, tree in params.items()}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=packed,
        opt_state={net: optimizers[net].init(packed[net]) for net in params},
    )


def unpack(tree: Any) -> Any:
    """Returns a state, or a part of one, with a tree of tensors for everything that is packed."""
    return jax.tree.map(
        lambda node: node.unpack() if is_packed(node) else node, tree, is_leaf=is_packed
    )


def pack_like(packed: Any, tree: Any) -> Any:
    """Returns what `unpack` made of a state of `packed`'s form, packed again."""
    return jax.tree.map(
        lambda node, part: node.packing.pack(part) if is_packed(node) else part,
        *(packed, tree),
        is_leaf=is_packed,
    )


def freeze(params: dict, parts: Iterable[str]) -> tuple[dict, dict]:
    """Returns (trained, frozen): params without the named top-level parts, and those parts.

    The frozen parts are an argument of the step, of which no gradient is taken; they are in no
    optimiser, in no checkpoint, and not donated.
    """
    parts = set(parts)
    return (
        {part: tree for part, tree in params.items() if part not in parts},
        {part: tree for part, tree in params.items() if part in parts},
    )
