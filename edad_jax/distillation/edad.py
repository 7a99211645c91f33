# SPDX-License-Identifier: Apache-2.0
"""The fused EDAD step, and beside it the two stages that it replaces.

    edad          teacher: L_MLM + L_NSP                        (Eq. 5; its original BERT is frozen)
                  student: alpha L_TinyBERT + (1 - alpha)(L_MLM + L_NSP)                  (Eq. 6)
    adaptation    teacher: L_MLM + L_NSP                        (stage one of two)
    distillation  student: L_TinyBERT against a frozen teacher  (stage two; text unmasked)

All three are built by `step.make_step` from a loss over micro-batches, so they mask, sum,
accumulate and update alike. Student targets pass `stop_gradient`: one gradient serves both
nets, and neither disturbs the other.

Some steps may leave out a part of the fused step: see `savings`.
"""

import dataclasses
from collections.abc import Callable

import jax
import optax

from edad_jax.distillation import losses
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.step import StepSettings, adapt, encode, make_step, total

METHODS = {
    "edad": ("teacher", "student"),
    "adaptation": ("teacher",),
    "distillation": ("student",),
}  # method -> the nets it trains

# Of the layers that imitate, the embeddings first.
_ALL, _EARLY, _LAST = slice(None), slice(None, -1), slice(-1, None)


def make_edad_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the fused step: (state, frozen, batch) -> (state, metrics); EDAD, section 3.3.

    `frozen` holds, for each net, the parts that are not trained; `batch` is one device's
    `Batch`. The step uses the axis name of `parallel`, to be run by `Parallel.compile`. What
    `settings.phase` leaves out is not computed, and its terms are not among the metrics.
    """
    phase = settings.phase
    if not phase.imitates:  # Eq. 6 with alpha = 0
        settings = dataclasses.replace(settings, alpha=optax.constant_schedule(0.0))
    layers = _ALL if phase.early_weight else _LAST
    teacher_taps = nets.teacher_taps[layers] if phase.imitates else ()
    student_taps = nets.student_taps[layers] if phase.imitates else ()

    def loss_fn(params, frozen, batch, counts, alpha, key):
        teacher_key, student_key = jax.random.split(key)
        teacher_terms, teacher_output = {}, None
        if phase.teacher_learns:
            teacher_output, _, teacher_terms = adapt(
                nets.teacher,
                params["teacher"] | frozen["teacher"],
                batch,
                counts,
                teacher_key,
                net="teacher",
                taps=teacher_taps,
                with_nsp=settings.with_nsp,
            )
        elif phase.imitates:
            teacher_output = encode(
                nets.teacher,
                frozen["teacher"],
                batch,
                teacher_key,
                net="teacher",
                taps=teacher_taps,
            )
        student = adapt(
            nets.student,
            params["student"],
            batch,
            counts,
            student_key,
            net="student",
            taps=student_taps,
            with_nsp=settings.with_nsp,
        )
        student_loss = (1 - alpha) * total(student.terms)
        distill_terms = {}
        if phase.imitates:
            distill_loss, distill_terms = _imitate_in_phase(
                phase, nets, params["student"], student.output, teacher_output, batch, counts
            )
            student_loss = alpha * distill_loss + student_loss
        terms = teacher_terms | student.terms | distill_terms
        return total(teacher_terms) + student_loss, terms

    trained_nets = METHODS["edad"] if phase.teacher_learns else ("student",)
    return make_step(loss_fn, settings, trained_nets, masked=True, shows_alpha=True)


def make_adaptation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage one of two: the teacher alone learns the domain by MLM + NSP (Eq. 5)."""

    def loss_fn(params, frozen, batch, counts, alpha, key):
        del alpha
        teacher_key, _ = jax.random.split(key)  # the key that the fused step gives the teacher
        teacher = adapt(
            nets.teacher,
            params["teacher"] | frozen["teacher"],
            batch,
            counts,
            teacher_key,
            net="teacher",
            with_nsp=settings.with_nsp,
        )
        return total(teacher.terms), teacher.terms

    return make_step(loss_fn, settings, METHODS["adaptation"], masked=True)


def make_distillation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage two of two: TinyBERT's general distillation from a frozen teacher (Eq. 4).

    `frozen["teacher"]` holds all of the teacher. Its dropout is on, as in the reference code of
    TinyBERT and EDAD; give the teacher dropout rates of 0 for deterministic targets.
    """

    def loss_fn(params, frozen, batch, counts, alpha, key):
        del alpha
        teacher_key, student_key = jax.random.split(key)
        teacher_output = encode(
            nets.teacher,
            frozen["teacher"],
            batch,
            teacher_key,
            net="teacher",
            taps=nets.teacher_taps,
        )
        student_output = encode(
            nets.student,
            params["student"],
            batch,
            student_key,
            net="student",
            taps=nets.student_taps,
        )
        terms = _imitate(nets, params["student"], student_output, teacher_output, batch, counts)
        return total(terms), terms

    return make_step(loss_fn, settings, METHODS["distillation"], masked=False)


MAKERS = {
    "edad": make_edad_step,
    "adaptation": make_adaptation_step,
    "distillation": make_distillation_step,
}


def _imitate_in_phase(phase, *arguments):
    """Returns L_TinyBERT with the phase's weight of early layers, and its sums without weights.

    The sums are none where the early layers are left out: those of the last are another thing.
    """
    if phase.early_weight == 1:
        terms = _imitate(*arguments)
        return total(terms), terms
    last = _imitate(*arguments, layers=_LAST)
    if not phase.early_weight:
        return total(last), {}
    early = _imitate(*arguments, layers=_EARLY)
    terms = {name: early[name] + last[name] for name in last}
    return phase.early_weight * total(early) + total(last), terms


@jax.named_scope("imitation")
def _imitate(nets, student_params, student_output, teacher_output, batch, counts, *, layers=_ALL):
    """Returns the two sums of L_TinyBERT: attention scores; embeddings and hidden states."""
    targets = jax.lax.stop_gradient(teacher_output)

    def project(hidden_btd):
        return nets.projection.apply({"params": student_params["projection"]}, hidden_btd)

    attention = sum(
        losses.attention_loss(student_bhts, teacher_bhts, batch.mask_bt).sum()
        for student_bhts, teacher_bhts in zip(
            student_output.scores_bhts[layers], targets.scores_bhts[layers], strict=True
        )
    )
    hidden = sum(
        losses.hidden_loss(project(student_btd), teacher_bte, batch.mask_bt).sum()
        for student_btd, teacher_bte in zip(
            (student_output.embedding_btd, *student_output.hidden_btd)[layers],
            (targets.embedding_btd, *targets.hidden_btd)[layers],
            strict=True,
        )
    )
    return {
        "distill/attention": attention / counts.pairs,
        "distill/hidden": hidden / counts.tokens,
    }
