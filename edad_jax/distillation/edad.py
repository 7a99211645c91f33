# SPDX-License-Identifier: Apache-2.0
"""The fused EDAD step (EDAD, section 3.3): the loss, its gradient, and the update, in order.

    teacher   L_MLM + L_NSP                                (Eq. 5; its original BERT is frozen)
    student   alpha L_TinyBERT + (1 - alpha)(L_MLM + L_NSP)                            (Eq. 6)

Student targets pass `stop_gradient`: one gradient serves both nets, and neither disturbs the
other. The parts of this step serve the other methods too: `two_stages`, `triple`, `minilm`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from edad_jax.data import masking
from edad_jax.distillation import losses
from edad_jax.distillation.imitation import check_nets, imitate, read_imitation, soft_targets
from edad_jax.distillation.method import Method, StepSettings
from edad_jax.distillation.nets import Nets
from edad_jax.models.exbert import ExBert
from edad_jax.training import schedules
from edad_jax.training.optimizer import skip_update
from edad_jax.training.parallel import AXIS
from edad_jax.training.state import TrainState, unpack
from edad_jax.types import Batch, EncoderOutput, MaskedBatch

DEFAULT_ALPHA = "linear"  # the paper's (section 4.4.4)


def make_edad_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the fused step: (state, frozen, batch) -> (state, metrics).

    What `settings.phase` leaves out is not computed, and its terms are not among the metrics.
    """
    phase, imitation = settings.phase, settings.own
    teacher_taps = nets.teacher_taps if phase.imitates else ()
    student_taps = nets.student_taps if phase.imitates else ()
    if not phase.imitates:  # Eq. 6 with alpha = 0
        settings = dataclasses.replace(settings, alpha=optax.constant_schedule(0.0))

    def loss_fn(params, batch, counts, alpha, key):
        teacher_key, student_key = jax.random.split(key)
        teacher_output, teacher_logits, teacher_terms, distill_terms = None, None, {}, {}
        teacher = ("teacher", nets.teacher, params["teacher"])
        student = ("student", nets.student, params["student"])
        if phase.teacher_learns or (phase.imitates and imitation.soft_weight):
            teacher_output, teacher_logits, teacher_terms = adapt(
                *teacher, batch, counts, teacher_key, teacher_taps, settings.with_nsp
            )
            if not phase.teacher_learns:
                teacher_terms = {}
        elif phase.imitates:
            teacher_output = encode(*teacher, batch, teacher_key, teacher_taps)
        student_output, student_logits, student_terms = adapt(
            *student, batch, counts, student_key, student_taps, settings.with_nsp
        )
        student_loss = (1 - alpha) * total(student_terms)
        if phase.imitates:
            distill_terms = imitate(
                nets, params["student"], student_output, teacher_output, batch, counts, imitation
            )
            student_loss = alpha * imitation.loss(distill_terms) + student_loss
        if imitation.soft_weight and teacher_logits is not None:
            soft_terms = soft_targets(
                student_logits, teacher_logits, batch, counts, imitation.temperature
            )
            student_loss = imitation.soft_weight * total(soft_terms) + student_loss
            distill_terms |= soft_terms
        terms = teacher_terms | student_terms | distill_terms
        return total(teacher_terms) + student_loss, terms

    trained_nets = EDAD.trained_nets if phase.teacher_learns else ("student",)
    return make_update(loss_fn, settings, trained_nets, masked=True, shows_alpha=True)


def encode(
    net: str,
    model: ExBert,
    params: dict,
    batch: MaskedBatch,
    key: jax.Array | None,
    taps: Sequence[int] = (),
) -> EncoderOutput:
    """Returns what a net's encoder makes of rows; with a key, dropout is on."""
    with jax.named_scope(net):  # by which a profile tells the nets apart
        return model.apply(
            {"params": params},
            batch.ids_bt,
            batch.segments_bt,
            batch.seen_bt,
            taps=taps,
            deterministic=key is None,
            method="encode",
            rngs={} if key is None else {"dropout": key},
        )


def adapt(
    net: str,
    model: ExBert,
    params: dict,
    batch: MaskedBatch,
    counts: losses.Counts,
    key: jax.Array,
    taps: Sequence[int] = (),
    with_nsp: bool = True,
) -> tuple[EncoderOutput, tuple[jax.Array, ...], dict[str, jax.Array]]:
    """Returns a net's output, its MLM logits, and its L_MLM and L_NSP (BERT, section 3.1)."""
    with jax.named_scope(net):
        output, mlm_logits, nsp_logits_bc = model.apply(
            {"params": params}, batch, taps=taps, deterministic=False, rngs={"dropout": key}
        )
        terms = {f"{net}/mlm": losses.mlm_loss(mlm_logits, batch).sum() / counts.masked}
        if with_nsp and nsp_logits_bc is not None:
            terms[f"{net}/nsp"] = losses.nsp_loss(nsp_logits_bc, batch).sum() / counts.examples
    return output, mlm_logits, terms


def total(terms: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the sum of the terms of a loss."""
    return sum(terms.values())


def make_update(
    loss_fn: Callable,
    settings: StepSettings,
    trained_nets: Sequence[str],
    *,
    masked: bool,
    shows_alpha: bool = False,
) -> Callable:
    """Returns step(state, frozen, batch) -> (state, metrics), per device, for `Parallel.compile`.

    `frozen` holds, for each net, the parts that are not trained; `batch` is one device's `Batch`.
    The loss divides by counts of the whole batch, over all devices and micro-batches, so losses
    and gradients of the parts add up to those of the whole.

    Args:
      loss_fn: (all parameters by net, micro-batch, counts, alpha, key) -> (loss, terms).
      settings: what a step needs beside the nets.
      trained_nets: the nets that learn; others in the state stay as they are.
      masked: whether pieces of the rows are masked.
      shows_alpha: whether alpha means something to the loss, and so is among the metrics.
    """
    prepare = masking.mask_rows if masked else lambda batch, _: masking.leave_unmasked(batch)

    def step(state: TrainState, frozen: dict, batch: Batch) -> tuple[TrainState, dict]:
        batch = prepare(batch, settings.masking)
        counts = jax.lax.psum(losses.count_targets(batch), AXIS)
        alpha = settings.alpha(state.step)
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        packing = {net: state.params[net].packing for net in trained_nets}
        learning = unpack({net: state.params[net] for net in trained_nets})
        resting = {net: tree for net, tree in state.params.items() if net not in learning}

        def gradient(micro_batch, number):
            def loss_of(learning):
                nets = learning | unpack(resting)
                params = {
                    net: nets.get(net, {}) | frozen.get(net, {}) for net in nets.keys() | frozen
                }
                micro_key = jax.random.fold_in(key, number)
                return loss_fn(params, micro_batch, counts, alpha, micro_key)

            loss_and_terms, gradients = jax.value_and_grad(loss_of, has_aux=True)(learning)
            return loss_and_terms, {net: packing[net].pack(gradients[net]) for net in learning}

        results = _sum_over_micro_batches(gradient, batch, settings.accumulate_steps)
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


def _sum_over_micro_batches(gradient, batch, count):
    """Returns the sum of gradient(micro-batch, number) over so many parts of the batch."""
    if count == 1:
        return gradient(batch, 0)
    micro_batches = jax.tree.map(
        lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch
    )

    def add(total, numbered):
        number, micro_batch = numbered
        return jax.tree.map(jnp.add, total, gradient(micro_batch, number)), None

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], micro_batches), 0),
    )
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), micro_batches))
    return total


def _learned_heads(config: ConfigDict) -> set[str]:
    if config.alpha != "only_distillation":
        return {"MLM", "NSP"}
    return {"MLM"} if read_imitation(config).soft_weight else set()


EDAD = Method(
    "edad",
    ("teacher", "student"),
    make_edad_step,
    options=("alpha", "phases", "imitation"),
    read=read_imitation,
    alpha=lambda own, config, total_steps: schedules.alpha(
        config.alpha or DEFAULT_ALPHA, total_steps=total_steps
    ),
    check_nets=check_nets,
    projects=lambda same_width: True,
    learned_heads=_learned_heads,
)
