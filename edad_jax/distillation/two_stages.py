# SPDX-License-Identifier: Apache-2.0
"""The two stages that the fused step replaces, one after the other.

adaptation    teacher: L_MLM + L_NSP                        (EDAD, Eq. 5)
distillation  student: L_TinyBERT against a frozen teacher  (Eq. 4; text unmasked)
"""

from collections.abc import Callable

import jax

from edad_jax.distillation.edad import adapt, encode, make_update, total
from edad_jax.distillation.imitation import check_nets, imitate, read_stage_two
from edad_jax.distillation.method import Method, StepSettings
from edad_jax.distillation.nets import Nets


def make_adaptation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage one: the teacher alone learns the domain by MLM + NSP."""

    def loss_fn(params, batch, counts, alpha, key):
        del alpha
        teacher_key, _ = jax.random.split(key)  # the key that the fused step gives the teacher
        _, _, terms = adapt(
            "teacher",
            nets.teacher,
            params["teacher"],
            batch,
            counts,
            teacher_key,
            with_nsp=settings.with_nsp,
        )
        return total(terms), terms

    return make_update(loss_fn, settings, ADAPTATION.trained_nets, masked=True)


def make_distillation_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns stage two: TinyBERT's general distillation from a frozen teacher.

    The teacher's dropout is on, as in the reference code of TinyBERT and EDAD; give it dropout
    rates of 0 for deterministic targets.
    """

    def loss_fn(params, batch, counts, alpha, key):
        del alpha
        teacher_key, student_key = jax.random.split(key)
        teacher_output = encode(
            "teacher", nets.teacher, params["teacher"], batch, teacher_key, nets.teacher_taps
        )
        student_output = encode(
            "student", nets.student, params["student"], batch, student_key, nets.student_taps
        )
        terms = imitate(
            nets, params["student"], student_output, teacher_output, batch, counts, settings.own
        )
        return settings.own.loss(terms), terms

    return make_update(loss_fn, settings, DISTILLATION.trained_nets, masked=False)


ADAPTATION = Method("adaptation", ("teacher",), make_adaptation_step)
DISTILLATION = Method(
    "distillation",
    ("student",),
    make_distillation_step,
    options=("imitation",),
    read=read_stage_two,
    check_nets=check_nets,
    projects=lambda same_width: True,
)
