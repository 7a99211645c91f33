# SPDX-License-Identifier: Apache-2.0
"""Tiny teacher, student, optimisers and batches, for tests of the training steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from edad_jax.data.masking import MaskingConfig
from edad_jax.distillation.imitation import ImitationSettings
from edad_jax.distillation.method import StepSettings
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.nets import Nets
from edad_jax.models import init
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.training import schedules, state
from edad_jax.training.optimizer import OptimizerSettings
from edad_jax.training.parallel import Parallel
from edad_jax.types import Batch
from tests.tiny_models import tiny_exbert_config

CLS, SEP, MASK = 1, 2, 3
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny_nets(*, teacher_layers=2, student_layers=1, student_extension=True, **changes) -> Nets:
    """Returns a teacher of two layers and a narrower student of one."""
    teacher = ExBert(tiny_exbert_config(num_hidden_layers=teacher_layers, **changes), jnp.float32)
    student = ExBert(
        tiny_exbert_config(
            num_hidden_layers=student_layers, hidden_size=12, blocks=student_extension, **changes
        ),
        jnp.float32,
    )
    return Nets(teacher, student, WidthProjection(24, student.config.base, jnp.float32))


def tiny_params(nets: Nets) -> tuple[dict, dict]:
    """Returns (params of both nets, frozen part of the teacher)."""
    teacher, frozen = state.freeze(
        init.init_params(nets.teacher, (0,), gate_bias=0.0), ("base", "pooler")
    )
    student = init.init_params(nets.student, (1,), gate_bias=0.0)
    student["projection"] = init.init_projection(nets.projection, (2,))
    return {"teacher": teacher, "student": student}, {"teacher": frozen}


def tiny_settings(
    nets, *, alpha="linear", total_steps=10, accumulate_steps=1, clip_by="net", **changes
):
    """Returns step settings with one BertAdam per net."""
    rate = optax.constant_schedule(1e-2)
    optimizer = OptimizerSettings(eps=1e-3, clip_by=clip_by)
    return StepSettings(
        masking=MaskingConfig(nets.teacher.config.vocab_size, MASK, (CLS, SEP), 0.15, 4, 0),
        alpha=schedules.alpha(alpha, total_steps=total_steps) if isinstance(alpha, str) else alpha,
        learning_rate={"teacher": rate, "student": rate},
        optimizers={net: optimizer.build(rate) for net in ("teacher", "student")},
        accumulate_steps=accumulate_steps,
        seed=0,
        **{"own": ImitationSettings()} | changes,
    )


def tiny_rows(*, rows=8, length=18, vocab_size=68, seed=0) -> Batch:
    """Returns rows of very different lengths, so that means of means would show."""
    random = np.random.default_rng(seed)
    length_b = random.integers(6, length + 1, rows).astype(np.int32)
    length_b[0] = length
    ids_bt = random.integers(4, vocab_size, (rows, length)).astype(np.int32)
    start_b = np.maximum(3, length_b // 2)
    positions_1t = np.arange(length)[None]
    ids_bt[:, 0] = CLS
    ids_bt[np.arange(rows), start_b - 1] = SEP
    ids_bt[np.arange(rows), length_b - 1] = SEP
    ids_bt = np.where(positions_1t < length_b[:, None], ids_bt, 0)
    return Batch(
        ids_bt=ids_bt,
        segment_b_start_b=start_b.astype(np.int32),
        length_b=length_b,
        next_sentence_b=random.integers(0, 2, rows).astype(np.int32),
        row_b=np.arange(rows, dtype=np.int32) + 1000,
        epoch_b=np.zeros(rows, np.int32),
    )


def run_steps(nets, settings, *, steps=2, **choices):
    """Returns (state, metrics, frozen) after some steps on the first so many devices."""
    return run_phases(nets, settings, [settings.phase] * steps, **choices)[-1]


def run_phases(
    nets,
    settings,
    phases,
    *,
    method="edad",
    engine="pmap",
    devices=1,
    rows=8,
    params=None,
    same_rows=False,
):
    """Returns [(state, metrics, frozen)] after each step; a phase is a step."""
    parallel = Parallel(engine, jax.devices()[:devices])
    initial, frozen = tiny_params(nets)
    initial = params or initial
    trained_nets = METHODS[method].trained_nets
    if "teacher" not in trained_nets:
        frozen = {"teacher": frozen["teacher"] | initial["teacher"]}
    train_state = state.begin({net: initial[net] for net in trained_nets}, settings.optimizers)
    step_of = {
        phase: parallel.compile(
            METHODS[method].make_step(nets, dataclasses.replace(settings, phase=phase)),
            replicated_arguments=2,
            donate=True,
        )
        for phase in phases
    }
    train_state, frozen = parallel.replicate(train_state), parallel.replicate(frozen)
    unpack = jax.jit(state.unpack)
    after = []
    for number, phase in enumerate(phases):
        batch = parallel.shard_batch(tiny_rows(rows=rows, seed=0 if same_rows else number))
        train_state, metrics = step_of[phase](train_state, frozen, batch)
        # Copies: the next step may write where these lie.
        after.append(jax.tree.map(np.array, (unpack(train_state), metrics, frozen)))
    return after
