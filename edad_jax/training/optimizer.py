# SPDX-License-Identifier: Apache-2.0
"""BertAdam and AdamW, one instance per net.

Teacher and student share a step but not an optimiser: a common clipping norm would let one
net's gradient scale the other's update, and the fused step would no longer equal two steps.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from edad_jax.training import schedules
from edad_jax.training.packing import is_packed

OPTIMIZERS = ("bert_adam", "adamw")
CLIPPING = ("net", "tensor")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """A config.optimizer section, less its learning rates.

    `bert_adam` is the optimiser of BERT's release and of the exBERT and EDAD code: Adam
    without bias correction, epsilon outside the root, decoupled weight decay except for
    biases and layer norms. `adamw` corrects the bias, and is the same otherwise.
    """

    name: str = "bert_adam"  # one of OPTIMIZERS
    schedule: str = "constant"  # one of schedules.LEARNING_RATE_SCHEDULES
    warmup_ratio: float = 0.1  # of all steps, for warmup_linear
    b1: float = 0.9  # decay of the mean gradient
    b2: float = 0.999  # decay of the mean squared gradient
    eps: float = 1e-6  # added to the root of the latter
    weight_decay: float = 0.01  # times the learning rate: what a weight shrinks by per step
    clip_norm: float = 1.0  # largest norm of a gradient
    # "net": the norm over all tensors of the net (BERT's release); "tensor": of each by itself
    # (exBERT, EDAD, TinyBERT).
    clip_by: str = "tensor"

    def __post_init__(self):
        for name, choices in (
            ("name", OPTIMIZERS),
            ("clip_by", CLIPPING),
            ("schedule", schedules.LEARNING_RATE_SCHEDULES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"config.optimizer.{name}={getattr(self, name)!r} is not one of "
                    f"{', '.join(choices)}"
                )

        for name, is_wrong, expected in (
            ("b1", not 0 <= self.b1 < 1, "0 or more, below 1"),
            ("b2", not 0 <= self.b2 < 1, "0 or more, below 1"),
            ("eps", not self.eps >= 0, "0 or more"),
            ("weight_decay", not self.weight_decay >= 0, "0 (none) or more"),
            ("clip_norm", not self.clip_norm > 0, "more than 0"),
        ):
            if is_wrong:
                raise ValueError(
                    f"config.optimizer.{name}={getattr(self, name)}, expected {expected}"
                )
        if self.schedule == "warmup_linear" and not 0 < self.warmup_ratio < 1:
            raise ValueError(
                f"config.optimizer.warmup_ratio={self.warmup_ratio}, expected a share of all steps "
                "between 0 and 1, for example 0.1"
            )

    def learning_rate(self, peak: float, total_steps: int) -> optax.Schedule:
        """Returns the learning rate by step.

        Raises:
          ValueError: a rate below 0, or a warm-up that does not fit the run.
        """
        if not peak >= 0:
            raise ValueError(f"got a learning rate of {peak}, expected 0 or more")
        return schedules.learning_rate(
            self.schedule,
            peak=peak,
            warmup_steps=max(1, round(self.warmup_ratio * total_steps)),
            total_steps=total_steps,
        )

    def build(
        self, learning_rate: optax.Schedule, *, block_ratio: float = 1.0
    ) -> optax.GradientTransformation:
        """Returns the optimiser of one net; its extension blocks learn by block_ratio of the rate.

        No paper of ours has such a ratio: there, blocks begin at random, as heads and words do.
        """
        adam = scale_by_bert_adam if self.name == "bert_adam" else optax.scale_by_adam
        clip = optax.clip_by_global_norm if self.clip_by == "net" else clip_by_tensor_norm
        return optax.chain(
            clip(self.clip_norm),
            adam(b1=self.b1, b2=self.b2, eps=self.eps),
            add_decayed_weights(self.weight_decay),
            *([scale_blocks(block_ratio)] if block_ratio != 1 else []),
            optax.scale_by_learning_rate(learning_rate),
        )


class BertAdamState(NamedTuple):
    """Running means of the gradient and of its square."""

    mean: optax.Params
    mean_square: optax.Params


def scale_by_bert_adam(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns Adam's scaling without bias correction: m / (sqrt(v) + eps)."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return BertAdamState(mean=zeros, mean_square=zeros)

    def update(gradients, state, params=None):
        del params
        mean = optax.tree.update_moment(gradients, state.mean, b1, 1)
        mean_square = optax.tree.update_moment(gradients, state.mean_square, b2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mean, mean_square)
        return updates, BertAdamState(mean=mean, mean_square=mean_square)

    return optax.GradientTransformation(init, update)


def clip_by_tensor_norm(clip_norm: float) -> optax.GradientTransformation:
    """Returns clipping of each tensor by its own norm.

    Deviation: the MLM bias of original and added words is one tensor here, two in the reference
    code, and so is clipped as one.
    """

    def factor(norm):
        return jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-12))

    def clip(gradient):
        if is_packed(gradient):
            return gradient.scale(factor(jnp.sqrt(gradient.squared_norms())))
        return gradient * factor(jnp.linalg.norm(gradient.ravel()))

    return optax.stateless(
        lambda gradients, params: jax.tree.map(clip, gradients, is_leaf=is_packed)
    )


def add_decayed_weights(weight_decay: float) -> optax.GradientTransformation:
    """Returns decoupled weight decay: optax's for trees, the same for packed tensors."""
    of_tree = optax.add_decayed_weights(weight_decay, mask=decayed)

    def update(updates, state, params=None):
        if not is_packed(params):
            return of_tree.update(updates, state, params)
        factors = np.array(
            [weight_decay * _is_decayed(path) for path in params.packing.paths], np.float32
        )
        return jax.tree.map(jnp.add, updates, params.scale(factors)), state

    return optax.GradientTransformation(
        lambda params: optax.EmptyState() if is_packed(params) else of_tree.init(params), update
    )


def scale_blocks(ratio: float) -> optax.GradientTransformation:
    """Returns updates of which those of extension blocks and gates are times `ratio`."""

    def factor(path):
        is_block = path[0] == "extension" and path[1].startswith(("layers_", "gates_"))
        return ratio if is_block else 1.0

    def scale(updates):
        if is_packed(updates):
            return updates.scale(np.array([factor(p) for p in updates.packing.paths], np.float32))
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * factor([part.key for part in path]), updates
        )

    return optax.stateless(lambda updates, params: scale(updates))


def skip_update(opt_state: optax.OptState) -> optax.OptState:
    """Returns the state of an optimiser of a net that does not learn in this step.

    The means, and with them Adam's bias correction, stay as they are. The learning rate is a
    function of the run's steps, not of the net's updates, so its count goes on.
    """

    def skip(part):
        is_schedule = isinstance(part, optax.ScaleByScheduleState)
        return part._replace(count=part.count + 1) if is_schedule else part

    return jax.tree.map(
        skip, opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState)
    )


def decayed(params: optax.Params) -> optax.Params:
    """Returns a tree of booleans: True where weight decay applies, so not at biases and norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _is_decayed([part.key for part in path]), params
    )


def _is_decayed(path):
    return path[-1] not in ("bias", "scale")


def read_optimizer(section: ConfigDict) -> OptimizerSettings:
    """Returns the settings of a config.optimizer section, which has learning rates beside them."""
    return OptimizerSettings(
        **{field.name: section[field.name] for field in dataclasses.fields(OptimizerSettings)}
    )
