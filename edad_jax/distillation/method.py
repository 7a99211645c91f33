# SPDX-License-Identifier: Apache-2.0
"""What a training method is, and what its step is given."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax
from ml_collections import ConfigDict

from edad_jax.data.masking import MaskingConfig
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.phases import WHOLE, Phase


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step needs beside the nets."""

    masking: MaskingConfig
    alpha: optax.Schedule  # the weight of distillation by step
    learning_rate: Mapping[str, optax.Schedule]  # net -> schedule; for the metrics only
    optimizers: Mapping[str, optax.GradientTransformation]  # net -> optimiser
    accumulate_steps: int  # micro-batches per update
    seed: int  # of dropout
    with_nsp: bool = True  # whether the rows have second segments to tell
    own: Any = None  # what the method's `read` returned
    phase: Phase = WHOLE  # of the fused step: what it computes


def _nothing(*arguments: Any) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method: the nets that it trains, its step, and the options that are its own.

    Attributes:
      name: config.method.
      trained_nets: "teacher", "student" or both, in this order.
      make_step: (nets, settings) -> step(state, frozen, batch) -> (state, metrics), per device.
      learned_heads: (config) -> heads of the student that a loss reaches, of "MLM" and "NSP".
      options: options that this method reads and not every method does, with all below them.
      read: (config) -> the method's own settings; raises ValueError where they cannot be.
      alpha: (own settings, config, total_steps) -> the weight of distillation by step.
      check_nets: (nets, own settings) -> None; raises ValueError where the student cannot learn
        from this teacher in this way.
      projects: (whether both nets have one width) -> whether a learned map takes the student's
        vectors to the teacher's width.
      needs_mlm_head: whether the teacher's MLM head must have learned to predict words.
      note: what a model card must say of a student, by name.
    """

    name: str
    trained_nets: tuple[str, ...]
    make_step: Callable[[Nets, StepSettings], Callable]
    learned_heads: Callable[[ConfigDict], set[str]] = lambda config: set()
    options: tuple[str, ...] = ()
    read: Callable[[ConfigDict], Any] = _nothing
    alpha: Callable[[Any, ConfigDict, int], optax.Schedule] = lambda own, config, total_steps: (
        optax.constant_schedule(1.0)
    )
    check_nets: Callable[[Nets, Any], None] = _nothing
    projects: Callable[[bool], bool] = lambda same_width: False
    needs_mlm_head: bool = False
    note: Mapping[str, str] = dataclasses.field(default_factory=dict)
