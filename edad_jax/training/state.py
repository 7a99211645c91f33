# SPDX-License-Identifier: Apache-2.0
"""What a training run carries from step to step, what it only reads, and how both begin."""

from collections.abc import Iterable, Mapping

import flax
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """All that a checkpoint holds. Nets are named "teacher" and "student"."""

    step: jax.Array  # int32; updates made
    params: dict  # net -> trained parameters
    opt_state: dict  # net -> state of its optimiser


def begin(
    params: Mapping[str, dict], optimizers: Mapping[str, optax.GradientTransformation]
) -> TrainState:
    """Returns the state before the first update."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=dict(params),
        opt_state={net: optimizers[net].init(params[net]) for net in params},
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
