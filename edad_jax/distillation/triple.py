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

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from edad_jax.distillation import losses
from edad_jax.distillation.edad import adapt, encode, make_update, total
from edad_jax.distillation.method import Method, StepSettings
from edad_jax.distillation.nets import Nets
from edad_jax.models.exbert import ExBert
from edad_jax.training import schedules
from edad_jax.training.sections import read_section
from edad_jax.types import EncoderOutput, MaskedBatch

POSITIONS = ("masked", "all")  # where soft targets are compared


@dataclasses.dataclass(frozen=True)
class TripleSettings:
    """A config.triple section: weights, which sum to 1, and how soft targets are compared.

    With a schedule the shares of soft and cosine keep their proportion.
    """

    soft: float = 0.625  # DistilBERT's 5 : 2 : 1
    mlm: float = 0.25
    cosine: float = 0.125
    temperature: float = 2.0
    positions: str = "masked"  # one of POSITIONS; all: every real piece
    schedule: str = "constant"  # or one of alpha's: the teacher's part of the weights

    def __post_init__(self):
        weights = {name: getattr(self, name) for name in ("soft", "mlm", "cosine")}
        if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
            raise ValueError(
                "config.triple: got "
                + ", ".join(f"{name}={weight}" for name, weight in weights.items())
                + f", together {sum(weights.values()):g}; expected weights from 0 to 1 that sum "
                "to 1"
            )
        if self.temperature <= 0:
            raise ValueError(f"config.triple.temperature={self.temperature}, expected more than 0")
        if self.positions not in POSITIONS:
            raise ValueError(
                f"config.triple.positions={self.positions!r} is not one of {', '.join(POSITIONS)}"
            )
        if self.schedule not in ("constant", *schedules.ALPHA_SCHEDULES):
            raise ValueError(
                f"config.triple.schedule={self.schedule!r} is not one of constant, "
                f"{', '.join(schedules.ALPHA_SCHEDULES)}"
            )
        if self.schedule != "constant" and self.mlm in (0, 1):
            raise ValueError(
                f"config.triple.schedule={self.schedule!r} moves weight between the teacher and "
                f"MLM, but config.triple.mlm={self.mlm} leaves one of them none; give both a weight"
            )

    def alpha(self, total_steps: int) -> optax.Schedule:
        if self.schedule == "constant":
            return optax.constant_schedule(self.soft + self.cosine)
        return schedules.alpha(self.schedule, total_steps=total_steps)


def make_triple_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step of a student that learns from a frozen teacher, which has no dropout."""

    def loss_fn(params, batch, counts, alpha, key):
        teacher_output = encode("teacher", nets.teacher, params["teacher"], batch, None)
        return _triple_loss(nets, params, teacher_output, batch, counts, alpha, key, settings.own)

    return make_update(loss_fn, settings, TRIPLE.trained_nets, masked=True, shows_alpha=True)


def make_triple_adaptation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step in which the teacher learns the domain and the student learns from it."""

    def loss_fn(params, batch, counts, alpha, key):
        teacher_key, student_key = jax.random.split(key)
        teacher_output, _, teacher_terms = adapt(
            "teacher",
            nets.teacher,
            params["teacher"],
            batch,
            counts,
            teacher_key,
            with_nsp=settings.with_nsp,
        )
        student_loss, terms = _triple_loss(
            nets, params, teacher_output, batch, counts, alpha, student_key, settings.own
        )
        return total(teacher_terms) + student_loss, teacher_terms | terms

    return make_update(
        loss_fn, settings, TRIPLE_ADAPTATION.trained_nets, masked=True, shows_alpha=True
    )


def _triple_loss(
    nets: Nets,
    params: dict,
    teacher: EncoderOutput,
    batch: MaskedBatch,
    counts: losses.Counts,
    alpha: jax.Array,
    key: jax.Array,
    triple: TripleSettings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the student's weighted loss, and its three terms without their weights."""
    student = encode("student", nets.student, params["student"], batch, key)
    if triple.positions == "masked":
        positions_bm, weights_bm = batch.masked_positions_bm, batch.masked_weights_bm
        count = counts.masked
    else:
        rows, length = batch.ids_bt.shape
        positions_bm = jnp.broadcast_to(jnp.arange(length), (rows, length))
        weights_bm, count = batch.mask_bt.astype(jnp.float32), counts.tokens
    student_bmv = _mlm_logits(nets.student, params["student"], student, positions_bm)
    terms = {}
    if triple.mlm:
        at_masked_bmv = student_bmv
        if triple.positions == "all":
            at_masked_bmv = jnp.take_along_axis(
                student_bmv, batch.masked_positions_bm[..., None], axis=1
            )
        terms["student/mlm"] = losses.mlm_loss([at_masked_bmv], batch).sum() / counts.masked
    if triple.soft:
        teacher_bmv = jax.lax.stop_gradient(
            _mlm_logits(nets.teacher, params["teacher"], teacher, positions_bm)
        )
        terms["distill/soft"] = (
            losses.soft_loss(student_bmv, teacher_bmv, weights_bm, triple.temperature).sum() / count
        )
    if triple.cosine:
        student_btd = student.last_hidden_btd
        if "projection" in params["student"]:
            student_btd = nets.projection.apply(
                {"params": params["student"]["projection"]}, student_btd
            )
        teacher_btd = jax.lax.stop_gradient(teacher.last_hidden_btd)
        terms["distill/cosine"] = (
            losses.cosine_loss(student_btd, teacher_btd, batch.mask_bt).sum() / counts.tokens
        )
    imitation = max(triple.soft + triple.cosine, 1e-30)
    weights = {
        "student/mlm": 1 - alpha,
        "distill/soft": alpha * triple.soft / imitation,
        "distill/cosine": alpha * triple.cosine / imitation,
    }
    return sum(weights[name] * term for name, term in terms.items()), terms


def _mlm_logits(model: ExBert, params: dict, output: EncoderOutput, positions_bm: jax.Array):
    return model.apply(
        {"params": params}, output.last_hidden_btd, positions_bm, method="mlm_logits"
    )


def _read(config: ConfigDict) -> TripleSettings:
    return read_section(TripleSettings, config.triple)


TRIPLE = Method(
    "triple",
    ("student",),
    make_triple_step,
    options=("triple",),
    read=_read,
    alpha=lambda triple, config, total_steps: triple.alpha(total_steps),
    projects=lambda same_width: not same_width,
    learned_heads=lambda config: {"MLM"} if _read(config).soft + _read(config).mlm else set(),
    needs_mlm_head=True,
)
TRIPLE_ADAPTATION = dataclasses.replace(
    TRIPLE,
    name="triple_adaptation",
    trained_nets=("teacher", "student"),
    make_step=make_triple_adaptation_step,
    needs_mlm_head=False,
)
