# SPDX-License-Identifier: Apache-2.0
"""The fused EDAD step, and beside it the two stages that it replaces.

    edad          teacher: L_MLM + L_NSP                        (Eq. 5; its original BERT is frozen)
                  student: alpha L_TinyBERT + (1 - alpha)(L_MLM + L_NSP)                  (Eq. 6)
    adaptation    teacher: L_MLM + L_NSP                        (stage one of two)
    distillation  student: L_TinyBERT against a frozen teacher  (stage two; text unmasked)

All three are built by one function from a loss over micro-batches, so they mask, sum,
accumulate and update alike. Student targets pass `stop_gradient`: one gradient serves both
nets, and neither disturbs the other.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from edad_jax import losses
from edad_jax.data import masking
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.parallel import AXIS
from edad_jax.state import TrainState
from edad_jax.types import Batch

METHODS = {
    "edad": ("teacher", "student"),
    "adaptation": ("teacher",),
    "distillation": ("student",),
}  # method -> the nets it trains


@dataclasses.dataclass(frozen=True)
class Nets:
    """Teacher, student, and the map from the student's width to the teacher's."""

    teacher: ExBert
    student: ExBert
    projection: WidthProjection

    @property
    def student_taps(self) -> tuple[int, ...]:
        """Returns all layers of the student."""
        return tuple(range(self.student.config.base.num_hidden_layers))

    @property
    def teacher_taps(self) -> tuple[int, ...]:
        """Returns the teacher layer that each student layer imitates."""
        return layer_map(self.teacher.config.base.num_hidden_layers, len(self.student_taps))


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step needs beside the nets."""

    masking: masking.MaskingConfig
    alpha: optax.Schedule
    learning_rate: Mapping[str, optax.Schedule]  # net -> schedule; for the metrics only
    optimizers: Mapping[str, optax.GradientTransformation]  # net -> optimiser
    accumulate_steps: int  # micro-batches per update
    seed: int  # of dropout


def layer_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Returns, for each student layer, the teacher layer (from 0) that it imitates.

    TinyBERT's uniform map: student layer m imitates teacher layer m N / M (from 1), so 12 -> 4
    gives 3, 6, 9, 12. Where M does not divide N it is rounded up, so that the last layers
    always meet: 6 -> 4 gives 2, 3, 5, 6.

    Raises:
      ValueError: where the student has more layers than the teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"a student of {student_layers} layers cannot imitate a teacher of {teacher_layers}; "
            "config.student.num_hidden_layers must be between 1 and the teacher's"
        )
    return tuple(-(-m * teacher_layers // student_layers) - 1 for m in range(1, student_layers + 1))


def check_heads(teacher: ExBert, student: ExBert) -> None:
    """Raises ValueError where attention scores of the two nets cannot be compared by index."""
    (teacher_base, teacher_added), (student_base, student_added) = (
        teacher.config.score_heads,
        student.config.score_heads,
    )
    if teacher_base != student_base:
        raise ValueError(
            f"the student has {student_base} attention heads and the teacher {teacher_base}; "
            f"TinyBERT compares heads one by one: set config.student.num_attention_heads="
            f"{teacher_base}"
        )
    if teacher_added and student_added and teacher_added != student_added:
        raise ValueError(
            f"the student's extension has {student_added} heads and the teacher's {teacher_added};"
            f" set config.student.extension.num_attention_heads={teacher_added}"
        )


def make_edad_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the fused step: (state, frozen, batch) -> (state, metrics); EDAD, section 3.3.

    `frozen` holds, for each net, the parts that are not trained; `batch` is one device's
    `Batch`. The step uses the axis name of `parallel`, to be run by `Parallel.compile`.
    """

    def loss_fn(params, frozen, batch, counts, alpha, key):
        teacher_key, student_key = jax.random.split(key)
        teacher_output, teacher_terms = _adapt(
            nets.teacher, params["teacher"] | frozen["teacher"], batch, counts, teacher_key,
            taps=nets.teacher_taps, net="teacher",
        )  # fmt: skip
        student_output, student_terms = _adapt(
            nets.student, params["student"], batch, counts, student_key,
            taps=nets.student_taps, net="student",
        )  # fmt: skip
        distill_terms = _imitate(
            nets, params["student"], student_output, teacher_output, batch, counts
        )
        student_loss = alpha * _total(distill_terms) + (1 - alpha) * _total(student_terms)
        terms = teacher_terms | student_terms | distill_terms
        return _total(teacher_terms) + student_loss, terms

    return _make_step(loss_fn, settings, METHODS["edad"], masked=True)


def make_adaptation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage one of two: the teacher alone learns the domain by MLM + NSP (Eq. 5)."""

    def loss_fn(params, frozen, batch, counts, alpha, key):
        del alpha
        teacher_key, _ = jax.random.split(key)  # the key that the fused step gives the teacher
        _, terms = _adapt(
            nets.teacher, params["teacher"] | frozen["teacher"], batch, counts, teacher_key,
            taps=(), net="teacher",
        )  # fmt: skip
        return _total(terms), terms

    return _make_step(loss_fn, settings, METHODS["adaptation"], masked=True)


def make_distillation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage two of two: TinyBERT's general distillation from a frozen teacher (Eq. 4).

    `frozen["teacher"]` holds all of the teacher. Its dropout is on, as in the reference code of
    TinyBERT and EDAD; give the teacher dropout rates of 0 for deterministic targets.
    """

    def loss_fn(params, frozen, batch, counts, alpha, key):
        del alpha
        teacher_key, student_key = jax.random.split(key)
        teacher_output = _encode(
            nets.teacher, frozen["teacher"], batch, teacher_key, taps=nets.teacher_taps
        )
        student_output = _encode(
            nets.student, params["student"], batch, student_key, taps=nets.student_taps
        )
        terms = _imitate(nets, params["student"], student_output, teacher_output, batch, counts)
        return _total(terms), terms

    return _make_step(loss_fn, settings, METHODS["distillation"], masked=False)


MAKERS = {
    "edad": make_edad_step,
    "adaptation": make_adaptation_step,
    "distillation": make_distillation_step,
}


def _encode(model, params, batch, key, *, taps):
    return model.apply(
        {"params": params}, batch.ids_bt, batch.segments_bt, batch.mask_bt,
        taps=taps, deterministic=False, rngs={"dropout": key}, method="encode",
    )  # fmt: skip


def _adapt(model, params, batch, counts, key, *, taps, net):
    """Returns the encoder's output and the terms of L_MLM + L_NSP, divided by global counts.

    A net without pooler has no L_NSP.
    """
    output, mlm_logits_bmv, nsp_logits_bc = model.apply(
        {"params": params}, batch, taps=taps, deterministic=False, rngs={"dropout": key}
    )
    terms = {f"{net}/mlm": losses.mlm_loss(mlm_logits_bmv, batch).sum() / counts.masked}
    if nsp_logits_bc is not None:
        terms[f"{net}/nsp"] = losses.nsp_loss(nsp_logits_bc, batch).sum() / counts.examples
    return output, terms


def _imitate(nets, student_params, student_output, teacher_output, batch, counts):
    """Returns the two sums of L_TinyBERT: attention scores; embeddings and hidden states."""
    targets = jax.lax.stop_gradient(teacher_output)

    def project(hidden_btd):
        return nets.projection.apply({"params": student_params["projection"]}, hidden_btd)

    attention = sum(
        losses.attention_loss(student_bhts, teacher_bhts, batch.mask_bt).sum()
        for student_bhts, teacher_bhts in zip(
            student_output.scores_bhts, targets.scores_bhts, strict=True
        )
    )
    hidden = sum(
        losses.hidden_loss(project(student_btd), teacher_bte, batch.mask_bt).sum()
        for student_btd, teacher_bte in zip(
            (student_output.embedding_btd, *student_output.hidden_btd),
            (targets.embedding_btd, *targets.hidden_btd),
            strict=True,
        )
    )
    return {
        "distill/attention": attention / counts.pairs,
        "distill/hidden": hidden / counts.tokens,
    }


def _total(terms):
    return sum(terms.values())


def _make_step(loss_fn, settings, trained_nets, *, masked):
    """Returns step(state, frozen, batch) for a loss over one micro-batch of one device.

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

        def gradient(micro_batch, micro_step):
            return jax.value_and_grad(loss_fn, has_aux=True)(
                state.params,
                frozen,
                micro_batch,
                counts,
                alpha,
                jax.random.fold_in(key, micro_step),
            )

        results = _accumulate(gradient, prepared, settings.accumulate_steps)
        (loss, terms), gradients = jax.lax.psum(results, AXIS)

        metrics = terms | {"loss": loss, "tokens": counts.tokens}
        if trained_nets == METHODS["edad"]:  # the two stages have no use for it
            metrics["alpha"] = alpha
        params, opt_state = {}, {}
        for net in trained_nets:
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
