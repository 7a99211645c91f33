# SPDX-License-Identifier: Apache-2.0
"""BertAdam and AdamW, one instance per net.

Teacher and student share a step but not an optimiser: a common clipping norm would let one
net's gradient scale the other's update, and the fused step would no longer equal two steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

OPTIMIZERS = ("bert_adam", "adamw")
CLIPPING = ("net", "tensor")


def make_optimizer(
    name: str,
    *,
    learning_rate: optax.Schedule,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip_norm: float,
    clip_by: str,
) -> optax.GradientTransformation:
    """Returns the optimiser of one net.

    `bert_adam` is the optimiser of BERT's release and of the exBERT and EDAD code: Adam
    without bias correction, epsilon outside the root, decoupled weight decay except for
    biases and layer norms. `adamw` corrects the bias, and is the same otherwise.

    Args:
      name: one of OPTIMIZERS.
      learning_rate: as a function of the step.
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient.
      eps: added to the root of the latter.
      weight_decay: times the learning rate is what a weight shrinks by per step.
      clip_norm: largest norm of a gradient.
      clip_by: "net" clips the norm over all tensors of the net (BERT's release), "tensor" each
        tensor by itself (exBERT, EDAD, TinyBERT).

    Raises:
      ValueError: on an unknown name or kind of clipping.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"config.optimizer.name={name!r} is not one of {', '.join(OPTIMIZERS)}")
    if clip_by not in CLIPPING:
        raise ValueError(
            f"config.optimizer.clip_by={clip_by!r} is not one of {', '.join(CLIPPING)}"
        )
    scale = (
        scale_by_bert_adam(b1=b1, b2=b2, eps=eps)
        if name == "bert_adam"
        else optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    )
    clip = optax.clip_by_global_norm if clip_by == "net" else clip_by_tensor_norm
    return optax.chain(
        clip(clip_norm),
        scale,
        optax.add_decayed_weights(weight_decay, mask=decayed),
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
    """Returns clipping of each tensor by its own norm."""

    def clip(gradient):
        norm = jnp.linalg.norm(gradient.ravel())
        return gradient * jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-12))

    return optax.stateless(lambda gradients, params: jax.tree.map(clip, gradients))


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

    def is_decayed(path, _):
        return path[-1].key not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def build_optimizer(section: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser that a config.optimizer section asks for, at this learning rate."""
    names = ("b1", "b2", "eps", "weight_decay", "clip_norm", "clip_by")
    return make_optimizer(
        section.name, learning_rate=schedule, **{name: section[name] for name in names}
    )
