# SPDX-License-Identifier: Apache-2.0
"""DistilBERT's triple loss (Sanh et al. 2019, sections 2 and 3), alone and in EDAD's single pass.

    triple             student: soft T^2 KL(teacher, student) + mlm L_MLM + cosine (1 - cos(h, h'))
                       against a frozen teacher
    triple_adaptation  the same, while the teacher learns the domain by L_MLM + L_NSP: its original
                       weights are frozen, its extension and added words learn

Distil-KcBERT is the first; neither paper has the second. The weights sum to 1. With a schedule the
teacher's part of them, alpha, moves: alpha (soft + cosine) + (1 - alpha) L_MLM.

Deviations from the published code: the masked pieces are drawn for each row, not over a batch (a
row's mask does not depend on its neighbours), and their number is rounded for each row, not
rounded up for the whole batch; without smoothing [UNK] is masked too, where the code never does;
rows of half [UNK] or more are kept, where the code drops them; where the widths differ, the
student's last hidden state is mapped to the teacher's, as TinyBERT does, where the code refuses.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from edad_jax.distillation import losses
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.step import StepSettings, TripleSettings, adapt, encode, make_step, total
from edad_jax.training import schedules

METHODS = {"triple": ("student",), "triple_adaptation": ("teacher", "student")}
POSITIONS = ("masked", "all")  # where soft targets are compared


def read_settings(section: ConfigDict) -> TripleSettings:
    """Returns the settings of a config.triple section.

    Raises:
      ValueError: weights that are negative or do not sum to 1, another temperature than a
        positive one, or unknown positions.
    """
    weights = {name: section[name] for name in ("soft", "mlm", "cosine")}
    if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(
            "config.triple: got "
            + ", ".join(f"{name}={weight}" for name, weight in weights.items())
            + f", together {sum(weights.values()):g}; expected weights from 0 to 1 that sum to 1"
        )
    if section.temperature <= 0:
        raise ValueError(f"config.triple.temperature={section.temperature}, expected more than 0")
    if section.positions not in POSITIONS:
        raise ValueError(
            f"config.triple.positions={section.positions!r} is not one of {', '.join(POSITIONS)}"
        )
    return TripleSettings(**weights, temperature=section.temperature, positions=section.positions)


def alpha_schedule(
    section: ConfigDict, settings: TripleSettings, total_steps: int
) -> optax.Schedule:
    """Returns the teacher's part of the weights by step.

    Raises:
      ValueError: an unknown schedule, or one that has nothing to weigh.
    """
    if section.schedule == "constant":
        return optax.constant_schedule(settings.soft + settings.cosine)
    if section.schedule not in schedules.ALPHA_SCHEDULES:
        raise ValueError(
            f"config.triple.schedule={section.schedule!r} is not one of constant, "
            f"{', '.join(schedules.ALPHA_SCHEDULES)}"
        )
    if settings.mlm in (0, 1):
        raise ValueError(
            f"config.triple.schedule={section.schedule!r} moves weight between the teacher and "
            f"MLM, but config.triple.mlm={settings.mlm} leaves one of them none; give both a weight"
        )
    return schedules.alpha(section.schedule, total_steps=total_steps)


def make_triple_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step of a student that learns from a frozen teacher, which has no dropout."""

    def loss_fn(params, frozen, batch, counts, alpha, key):
        teacher_output = encode(nets.teacher, frozen["teacher"], batch, None, net="teacher")
        terms, shares = _triple_terms(
            nets,
            params["student"],
            frozen["teacher"],
            teacher_output,
            batch,
            counts,
            alpha,
            key,
            settings,
        )
        return sum(shares[name] * term for name, term in terms.items()), terms

    return make_step(loss_fn, settings, METHODS["triple"], masked=True, shows_alpha=True)


def make_triple_adaptation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step in which the teacher learns the domain and the student learns from it."""

    def loss_fn(params, frozen, batch, counts, alpha, key):
        teacher_key, student_key = jax.random.split(key)
        teacher_params = params["teacher"] | frozen["teacher"]
        teacher = adapt(
            nets.teacher,
            teacher_params,
            batch,
            counts,
            teacher_key,
            net="teacher",
            with_nsp=settings.with_nsp,
        )
        terms, shares = _triple_terms(
            nets,
            params["student"],
            teacher_params,
            teacher.output,
            batch,
            counts,
            alpha,
            student_key,
            settings,
        )
        student_loss = sum(shares[name] * term for name, term in terms.items())
        return total(teacher.terms) + student_loss, teacher.terms | terms

    return make_step(loss_fn, settings, METHODS["triple_adaptation"], masked=True, shows_alpha=True)


MAKERS = {"triple": make_triple_step, "triple_adaptation": make_triple_adaptation_step}


def _triple_terms(
    nets, student_params, teacher_params, teacher_output, batch, counts, alpha, key, settings
):
    """Returns the three terms, divided by global counts, and the weight of each."""
    triple = settings.triple
    student_output = encode(nets.student, student_params, batch, key, net="student")
    if triple.positions == "masked":
        positions_bm, weights_bm = batch.masked_positions_bm, batch.masked_weights_bm
        count = counts.masked
    else:
        rows, length = batch.ids_bt.shape
        positions_bm = jnp.broadcast_to(jnp.arange(length), (rows, length))
        weights_bm, count = batch.mask_bt.astype(jnp.float32), counts.tokens
    student_bmv = _mlm_logits(nets.student, student_params, student_output, positions_bm)
    terms = {}
    if triple.mlm:
        at_masked_bmv = student_bmv
        if triple.positions == "all":
            at_masked_bmv = jnp.take_along_axis(
                student_bmv, batch.masked_positions_bm[..., None], axis=1
            )
        terms["student/mlm"] = losses.mlm_loss(at_masked_bmv, batch).sum() / counts.masked
    if triple.soft:
        teacher_bmv = jax.lax.stop_gradient(
            _mlm_logits(nets.teacher, teacher_params, teacher_output, positions_bm)
        )
        terms["distill/soft"] = (
            losses.soft_loss(student_bmv, teacher_bmv, weights_bm, triple.temperature).sum() / count
        )
    if triple.cosine:
        student_btd = student_output.last_hidden_btd
        if "projection" in student_params:
            student_btd = nets.projection.apply(
                {"params": student_params["projection"]}, student_btd
            )
        teacher_btd = jax.lax.stop_gradient(teacher_output.last_hidden_btd)
        terms["distill/cosine"] = (
            losses.cosine_loss(student_btd, teacher_btd, batch.mask_bt).sum() / counts.tokens
        )
    imitation = triple.soft + triple.cosine
    return terms, {
        "student/mlm": 1 - alpha,
        "distill/soft": alpha * triple.soft / max(imitation, 1e-30),
        "distill/cosine": alpha * triple.cosine / max(imitation, 1e-30),
    }


def _mlm_logits(model, params, output, positions_bm):
    return model.apply(
        {"params": params}, output.last_hidden_btd, positions_bm, method="mlm_logits"
    )
