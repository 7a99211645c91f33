# SPDX-License-Identifier: Apache-2.0
"""The step of fine-tuning: one net with a classifier, a group of seeds at once, maybe a teacher.

Seeds are an axis: all parameters, moments and losses have it in front, [s, ...]. They never mix,
so a seed whose loss is no longer finite leaves the others alone. A group is all seeds, or one:
groups take turns with the same program.
"""

import dataclasses
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import optax

from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier, make_pooler, read_vectors
from edad_jax.models.task import heads_between
from edad_jax.tasks.rows import IMPOSSIBLE
from edad_jax.training.parallel import AXIS
from edad_jax.types import TaskBatch

OVER_SEEDS = ("vmap", "loop")


@dataclasses.dataclass(frozen=True)
class TaskNet:
    """An encoder and the classifier on it. Params: base, extension, pooler, classifier."""

    task: str  # a key of KINDS
    encoder: ExBert
    classifier: Classifier

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns the names of the encoder's parts that the task uses."""
        return ("base", "extension", *heads_between(self.task, self.encoder.config.base))

    def logits(self, params: dict, batch: TaskBatch, key: jax.Array | None) -> jax.Array:
        """Returns float32 logits_bnc; with a key, dropout is on."""
        encoder_key, head_key = (None, None) if key is None else jax.random.split(key)
        segments_bt = _segments(batch)
        hidden = self.encoder.apply(
            {"params": params},
            batch.ids_bt,
            segments_bt,
            batch.mask_bt,
            deterministic=key is None,
            method="encode",
            **_dropout(encoder_key),
        ).last_hidden_btd
        if "pooler" in self.parts:
            config = self.encoder.config.base
            pooler = make_pooler(config, self.encoder.dtype, self.encoder.matmul_dtype)
            of_texts = self.task == "classification"
            hidden = read_vectors(
                pooler, params["pooler"], hidden, batch.mask_bt, of_texts=of_texts
            )
            hidden = hidden[:, None] if of_texts else hidden
        logits = self.classifier.apply(
            {"params": params["classifier"]},
            hidden,
            deterministic=key is None,
            **_dropout(head_key),
        )
        return logits if self.task != "answering" else _over_positions(logits, segments_bt)


@flax.struct.dataclass
class TuningState:
    """What fine-tuning carries from step to step; every leaf but `step` has the seeds in front."""

    step: jax.Array  # int32
    params: dict
    opt_state: tuple
    seeds: jax.Array  # int32 [s]


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """What a step needs beside the net."""

    optimizer: optax.GradientTransformation
    temperature: float = 1.0  # of the soft labels
    soft_weight: float = 0.0  # of the teacher's soft labels against the true ones, 0 to 1


def begin_tuning(params: dict, seeds: list[int], settings: TuningSettings) -> TuningState:
    """Returns the state before the first step; params have the seeds in front."""
    return TuningState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=jax.vmap(settings.optimizer.init)(params),
        seeds=jnp.asarray(seeds, jnp.int32),
    )


def make_tuning_step(net: TaskNet, settings: TuningSettings) -> Callable:
    """Returns step(state, batch) -> (state, {"loss": loss_s}), per device, for `Parallel`.

    `batch` has the seeds second, [b, s, ...]: each seed has rows of its own. The loss is

        (1 - w) CE(true classes) + w T^2 CE(softmax(teacher / T), student / T)

    as mean over the labelled positions of the whole batch (Hinton et al. 2015; TinyBERT, section
    3.2, has w = 1 and T = 1).
    """

    def loss_fn(params, batch, count, key):
        logits_bnc = net.logits(params, batch, key)
        return classification_loss(logits_bnc, batch, settings) / count

    def one_seed(params, opt_state, batch, seed, step):
        count = jax.lax.psum((batch.labels_bn >= 0).sum(), AXIS).astype(jnp.float32)
        key = jax.random.fold_in(jax.random.key(seed), step)
        key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        results = jax.value_and_grad(loss_fn)(params, batch, jnp.maximum(count, 1.0), key)
        loss, gradients = jax.lax.psum(results, AXIS)
        updates, opt_state = settings.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    def step(state: TuningState, batch: TaskBatch) -> tuple[TuningState, dict]:
        batch = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
        params, opt_state, loss_s = over_seeds(lambda *arguments: one_seed(*arguments, state.step))(
            state.params, state.opt_state, batch, state.seeds
        )
        state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
        return state, {"loss": loss_s}

    return step


def make_prediction_step(net: TaskNet) -> Callable:
    """Returns step(params, batch) -> logits_sbnc of one device's rows, without dropout."""

    def step(params: dict, batch: TaskBatch) -> jax.Array:
        return over_seeds(lambda one: net.logits(one, batch, None))(params)

    return step


def classification_loss(
    logits_bnc: jax.Array, batch: TaskBatch, settings: TuningSettings
) -> jax.Array:
    """Returns the sum of hard and soft cross-entropy, by soft_weight, over labelled positions."""
    labelled_bn = batch.labels_bn >= 0
    hard_bn = optax.softmax_cross_entropy_with_integer_labels(
        logits_bnc, jnp.maximum(batch.labels_bn, 0)
    )
    loss_bn = hard_bn
    if settings.soft_weight:
        weight, temperature = settings.soft_weight, settings.temperature
        # TinyBERT's code takes the mean over the classes too: ours is `classes` times as large.
        soft_bn = optax.softmax_cross_entropy(
            logits_bnc / temperature, jax.nn.softmax(batch.teacher_bnc / temperature)
        )
        loss_bn = (1 - weight) * hard_bn + weight * temperature**2 * soft_bn
    return jnp.where(labelled_bn, loss_bn, 0.0).sum()


def choose_over_seeds(how: str) -> str:
    """Returns what config.over_seeds="auto" means here, all at once but for CPUs; else `how`."""
    if how != "auto":
        return how
    return "loop" if jax.default_backend() == "cpu" else "vmap"


def group_seeds(count: int, how: str) -> list[slice]:
    """Returns which of `count` seeds share a call of the step.

    "vmap": all, for devices that one small net does not fill. "loop": each alone, for CPUs, where
    batched products are slower, and where memory is short: one seed's temporaries at a time.
    """
    size = {"vmap": count, "loop": 1}[how]
    return [slice(first, first + size) for first in range(0, count, size)]


def over_seeds(function: Callable) -> Callable:
    """Returns the function over a leading axis of all its arguments."""

    def run(*arguments):
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        results = function(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: x[None], results)

    return run


def _segments(batch: TaskBatch) -> jax.Array:
    """Returns segments_bt: 1 from the second text on, and 0 at padding."""
    if batch.segment_b_start_b is None:
        return jnp.zeros_like(batch.ids_bt)
    positions_1t = jnp.arange(batch.ids_bt.shape[1])[None]
    return ((positions_1t >= batch.segment_b_start_b[:, None]) & batch.mask_bt).astype(jnp.int32)


def _over_positions(logits_bt2: jax.Array, segments_bt: jax.Array) -> jax.Array:
    """Returns logits_b2t: where the answer starts and where it ends are two choices of a piece.

    An answer lies in the context or, where a window does not have it, at [CLS]. BERT's code leaves
    the question and the padding among the choices; a net that has learnt never takes them.
    """
    positions_1t = jnp.arange(segments_bt.shape[1])[None]
    allowed_bt = (segments_bt == 1) | (positions_1t == 0)
    return jnp.where(allowed_bt[:, None], jnp.swapaxes(logits_bt2, 1, 2), IMPOSSIBLE)


def _dropout(key: jax.Array | None) -> dict:
    return {} if key is None else {"rngs": {"dropout": key}}
