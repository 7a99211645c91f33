# SPDX-License-Identifier: Apache-2.0
"""What the steps of all methods share: settings, passes through a net, gradient and update."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from edad_jax.data import masking
from edad_jax.distillation import losses
from edad_jax.distillation.phases import WHOLE, Phase
from edad_jax.models.exbert import ExBert
from edad_jax.training.optimizer import skip_update
from edad_jax.training.parallel import AXIS
from edad_jax.training.state import TrainState
from edad_jax.types import Batch, EncoderOutput, MaskedBatch


class TripleSettings(NamedTuple):
    """Weights of DistilBERT's triple loss, which sum to 1; alpha is the teacher's share of them.

    With a schedule the shares of soft and cosine keep their proportion.
    """

    soft: float
    mlm: float
    cosine: float
    temperature: float
    positions: str  # one of `triple.POSITIONS`


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step needs beside the nets."""

    masking: masking.MaskingConfig
    alpha: optax.Schedule
    learning_rate: Mapping[str, optax.Schedule]  # net -> schedule; for the metrics only
    optimizers: Mapping[str, optax.GradientTransformation]  # net -> optimiser
    accumulate_steps: int  # micro-batches per update
    seed: int  # of dropout
    with_nsp: bool = True  # whether the rows have second segments to tell
    triple: TripleSettings | None = None  # of the triple loss
    relation_heads: int = 0  # of MiniLM's relations
    phase: Phase = WHOLE  # what the fused step computes


class Adapted(NamedTuple):
    """What a net says of masked rows."""

    output: EncoderOutput
    mlm_logits_bmv: jax.Array
    terms: dict[str, jax.Array]  # divided by global counts


def encode(
    model: ExBert,
    params: dict,
    batch: MaskedBatch,
    key: jax.Array | None,
    *,
    net: str,
    taps: Sequence[int] = (),
) -> EncoderOutput:
    """Returns the encoder's output; with a key, dropout is on. `net` is for profiles alone."""
    with jax.named_scope(net):
        return model.apply(
            {"params": params},
            batch.ids_bt,
            batch.segments_bt,
            batch.mask_bt,
            taps=taps,
            deterministic=key is None,
            method="encode",
            rngs={} if key is None else {"dropout": key},
        )


def adapt(
    model: ExBert,
    params: dict,
    batch: MaskedBatch,
    counts: losses.Counts,
    key: jax.Array,
    *,
    net: str,
    taps: Sequence[int] = (),
    with_nsp: bool = True,
) -> Adapted:
    """Returns what a net says of masked rows, and its L_MLM + L_NSP (BERT, section 3.1)."""
    with jax.named_scope(net):  # by which a profile tells the nets apart
        output, mlm_logits_bmv, nsp_logits_bc = model.apply(
            {"params": params}, batch, taps=taps, deterministic=False, rngs={"dropout": key}
        )
        terms = {f"{net}/mlm": losses.mlm_loss(mlm_logits_bmv, batch).sum() / counts.masked}
        if with_nsp and nsp_logits_bc is not None:
            terms[f"{net}/nsp"] = losses.nsp_loss(nsp_logits_bc, batch).sum() / counts.examples
    return Adapted(output, mlm_logits_bmv, terms)


def total(terms: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the sum of the terms."""
    return sum(terms.values())


def make_step(
    loss_fn: Callable,
    settings: StepSettings,
    trained_nets: Sequence[str],
    *,
    masked: bool,
    shows_alpha: bool = False,
) -> Callable:
    """Returns step(state, frozen, batch) -> (state, metrics), per device, for `Parallel.compile`.

    Args:
      loss_fn: (params, frozen, batch, counts, alpha, key) -> (loss, terms) of one micro-batch.
      settings: what a step needs beside the nets.
      trained_nets: the nets that learn; of others in the state, loss_fn gets all as `frozen`.
      masked: whether pieces of the rows are masked.
      shows_alpha: whether alpha means something to the loss, and so is among the metrics.

    The loss divides by counts of the whole batch, over all devices and micro-batches, so
    losses and gradients of the parts add up to those of the whole.
    """

    def step(state: TrainState, frozen: dict, batch: Batch) -> tuple[TrainState, dict]:
        prepared = (
            masking.mask_rows(batch, settings.masking) if masked else masking.leave_unmasked(batch)
        )
        counts = jax.lax.psum(losses.count_targets(prepared), AXIS)
        alpha = settings.alpha(state.step)
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        learning = {net: state.params[net] for net in trained_nets}
        resting = {net: tree for net, tree in state.params.items() if net not in learning}
        read_only = frozen | {net: frozen.get(net, {}) | tree for net, tree in resting.items()}

        def gradient(micro_batch, micro_step):
            return jax.value_and_grad(loss_fn, has_aux=True)(
                learning,
                read_only,
                micro_batch,
                counts,
                alpha,
                jax.random.fold_in(key, micro_step),
            )

        results = _accumulate(gradient, prepared, settings.accumulate_steps)
        (loss, terms), gradients = jax.lax.psum(results, AXIS)

        metrics = terms | {"loss": loss, "tokens": counts.tokens}
        if shows_alpha:
            metrics["alpha"] = alpha
        params = dict(resting)
        opt_state = {net: skip_update(state.opt_state[net]) for net in resting}
        for net in trained_nets:
            with jax.named_scope("optimizer"):
                updates, opt_state[net] = settings.optimizers[net].update(
                    gradients[net], state.opt_state[net], state.params[net]
                )
                params[net] = optax.apply_updates(state.params[net], updates)
            metrics[f"{net}/grad_norm"] = optax.tree.norm(gradients[net])
            metrics[f"{net}/learning_rate"] = settings.learning_rate[net](state.step)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step


def _accumulate(gradient, batch, accumulate_steps):
    """Returns the sum of gradient(micro_batch, number) over the batch's micro-batches."""
    if accumulate_steps == 1:
        return gradient(batch, 0)
    micro_batches = jax.tree.map(
        lambda x: x.reshape(accumulate_steps, x.shape[0] // accumulate_steps, *x.shape[1:]), batch
    )

    def add(total, numbered):
        micro_step, micro_batch = numbered
        return jax.tree.map(jnp.add, total, gradient(micro_batch, micro_step)), None

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], micro_batches), 0),
    )
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(accumulate_steps), micro_batches))
    return total
