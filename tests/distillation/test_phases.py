# SPDX-License-Identifier: Apache-2.0
"""What updates may leave out: when, at what price for the student, and through a whole run."""

import functools
import logging
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import edad
from edad_jax.distillation.phases import WHOLE, Phase, PhaseSettings
from edad_jax.distillation.settings import check_settings
from edad_jax.distillation.train import train
from edad_jax.training import schedules
from edad_jax.training.metrics import read_metrics
from tests.tiny_models import assert_trees_equal
from tests.tiny_run import STEPS, call_before_step, tiny_config
from tests.tiny_steps import (
    NO_DROPOUT,
    run_phases,
    run_steps,
    tiny_nets,
    tiny_params,
    tiny_settings,
)

TEACHER_TERMS = {"teacher/mlm", "teacher/nsp"}
FORWARD = Phase(teacher_learns=False)
ALONE = Phase(teacher_learns=False, imitates=False)
DISTILL_TERMS = {"distill/attention", "distill/hidden"}


def assert_close(ours, expected, tolerance=1e-6):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=tolerance, rtol=1e-5), ours, expected
    )


def differ(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any((a != b).any() for a, b in pairs)


def phases_of(alpha="linear", *, total_steps=10, **thresholds):
    """Returns the phase of every step of a short run."""
    settings = PhaseSettings(**thresholds)
    phase_at = settings.make_phase_at(schedules.alpha(alpha, total_steps=total_steps), total_steps)
    return [phase_at(step) for step in range(total_steps)]


def steps_where(name, phases):
    return [step for step, phase in enumerate(phases) if getattr(phase, name)]


# ---- which step leaves out what


@pytest.mark.parametrize("alpha", schedules.ALPHA_SCHEDULES)
def test_without_thresholds_every_step_is_whole(alpha):
    assert set(phases_of(alpha)) == {WHOLE}


def test_the_teacher_stops_where_alpha_falls_below_the_threshold_for_good():
    stops = {"stop_teacher_below": 0.35}
    assert steps_where("teacher_learns", phases_of("linear", **stops)) == [0, 1, 2, 3, 4, 5, 6]
    assert steps_where("imitates", phases_of("linear", **stops)) == list(range(10))
    # What it learns before a rising alpha is still to be handed on.
    assert set(phases_of("linear_reverse", **stops)) == {WHOLE}
    assert set(phases_of("same", **stops)) == {WHOLE}
    assert steps_where("teacher_learns", phases_of("same", stop_teacher_below=0.6)) == []


def test_the_student_imitates_nothing_where_alpha_is_below_the_other_threshold():
    drops = {"drop_teacher_below": 0.25}
    falling = phases_of("linear", **drops)
    assert steps_where("imitates", falling) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert steps_where("teacher_runs", falling) == [0, 1, 2, 3, 4, 5, 6, 7]
    rising = phases_of("linear_reverse", **drops)
    assert steps_where("imitates", rising) == [3, 4, 5, 6, 7, 8, 9]
    assert steps_where("teacher_learns", rising) == list(range(10))
    # Alpha of exactly 0 is below any threshold but 0, which is off.
    never = phases_of("only_adaptation", drop_teacher_below=1e-9)
    assert set(never) == {ALONE}


def test_the_phase_depends_on_the_step_alone():
    """Asked backwards, as no run does, and by a second function, as after a restart."""
    settings = PhaseSettings(stop_teacher_below=0.6, drop_teacher_below=0.2)
    alpha = schedules.alpha("cosine", total_steps=40)
    first, second = (settings.make_phase_at(alpha, 40) for _ in range(2))
    forwards = [first(step) for step in range(40)]
    assert [second(step) for step in reversed(range(40))] == forwards[::-1]
    assert len(set(forwards)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_teacher_below": -0.1}, "stop_teacher_below=-0.1, expected a value of alpha"),
        ({"drop_teacher_below": 1.5}, "drop_teacher_below=1.5, expected a value of alpha"),
        ({"stop_teacher_below": float("nan")}, "stop_teacher_below=nan, expected"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(changes, message):
    config = edad.get_config()
    config.phases.update(changes)
    with pytest.raises(ValueError, match=f"config.phases.{message}"):
        check_settings(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_teacher_below": 0.1},
        {"drop_teacher_below": 0.1},
    ],
)
def test_thresholds_of_another_method_are_an_error(changes):
    config = edad.get_config()
    config.method = "triple_adaptation"
    config.phases.update(changes)
    (name,) = changes
    with pytest.raises(ValueError, match=f"config.phases.{name}=.*'triple_adaptation'"):
        check_settings(config)


# ---- what a step that leaves something out does


def half_then_none(step):
    """Returns alpha: 0.5 at the first step, 0 at all others."""
    return jnp.where(step == 0, 0.5, 0.0)


@functools.cache
def after(*phases):
    """Returns [(state, metrics)] after each of the phases; with dropout, alpha half_then_none."""
    nets = tiny_nets(teacher_layers=1)
    settings = tiny_settings(nets, alpha=half_then_none)
    return [(state, metrics) for state, metrics, _ in run_phases(nets, settings, phases)]


def test_a_teacher_that_stops_stays_and_its_student_takes_the_step_of_the_whole():
    """Both steps draw the same dropout for both nets, though one runs no heads of the teacher."""
    whole, whole_metrics = after(WHOLE, WHOLE)[0]
    (first, metrics), (second, _) = after(FORWARD, FORWARD)
    assert_close(first.params["student"], whole.params["student"])
    assert_close(first.opt_state["student"], whole.opt_state["student"])
    gone = TEACHER_TERMS | {"teacher/grad_norm", "teacher/learning_rate"}
    assert set(whole_metrics) - set(metrics) == gone
    for name in DISTILL_TERMS | {"student/mlm", "student/grad_norm"}:
        np.testing.assert_allclose(metrics[name], whole_metrics[name], rtol=1e-5, err_msg=name)
    initial, _ = tiny_params(tiny_nets(teacher_layers=1))
    assert_trees_equal(second.params["teacher"], jax.device_get(initial["teacher"]))
    assert differ(second.params["student"], first.params["student"])


def test_where_alpha_is_zero_imitating_nothing_is_the_same_step():
    """The second step; the first is whole in all three runs."""
    whole, whole_metrics = after(WHOLE, WHOLE)[1]
    taught, metrics = after(WHOLE, Phase(imitates=False))[1]
    alone, alone_metrics = after(WHOLE, ALONE)[1]
    assert_close(taught.params, whole.params)
    assert_close(alone.params["student"], whole.params["student"])
    assert set(whole_metrics) - set(metrics) == DISTILL_TERMS
    assert not (DISTILL_TERMS | TEACHER_TERMS) & set(alone_metrics)
    np.testing.assert_allclose(metrics["loss"], whole_metrics["loss"], rtol=1e-6)


def test_a_student_that_imitates_nothing_counts_alpha_as_zero():
    """At the first step, where alpha is not; the metrics say so."""
    _, metrics = after(ALONE)[0]
    assert metrics["alpha"] == 0
    expected = metrics["student/mlm"] + metrics["student/nsp"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)


def test_two_devices_and_micro_batches_make_the_same_step_with_a_teacher_that_rests():
    nets = tiny_nets(**NO_DROPOUT)
    one, parts = (
        run_steps(nets, tiny_settings(nets, phase=ALONE, **settings), **spread)[0]
        for settings, spread in (
            ({}, {}),
            ({"accumulate_steps": 2}, {"devices": 2, "engine": "shard_map"}),
        )
    )
    assert_close(parts.params, one.params)


def test_a_teacher_that_rests_keeps_the_count_of_its_learning_rate():
    states = [state for state, _ in after(WHOLE, FORWARD, FORWARD)]
    assert {int(count) for count in _schedule_counts(states[-1])} == {3}


def _schedule_counts(train_state):
    """Returns the steps that the learning rates of all nets have counted."""
    is_schedule = lambda part: isinstance(part, optax.ScaleByScheduleState)  # noqa: E731
    parts = jax.tree.leaves(train_state.opt_state, is_leaf=is_schedule)
    return [part.count for part in parts if is_schedule(part)]


# ---- a whole run


def test_a_run_goes_through_its_phases_and_a_stop_between_them_leaves_no_trace(
    finished, tmp_path, monkeypatch, caplog
):
    """Alpha is 1, 7/8 ... 1/8: the teacher learns at 4 steps, does not run at the last."""
    thresholds = {"stop_teacher_below": 0.6, "drop_teacher_below": 0.2}
    config = tiny_config(
        finished.inputs,
        prepared=str(finished.workdir),
        heldout__every_steps=0,
        checkpoint__every_steps=0,
        **{f"phases__{name}": value for name, value in thresholds.items()},
    )
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    with caplog.at_level(logging.INFO):
        assert train(config, str(through))["steps"] == STEPS
    for line in (
        "From here on the teacher runs forward only, the student imitates it: compiling.",
        "From here on the teacher does not run, the student does not imitate it: compiling.",
    ):
        assert line in caplog.messages
    lines = [line for line in read_metrics(through / "metrics.jsonl") if "loss" in line]

    def logged(name):
        return [line["step"] for line in lines if name in line]

    assert logged("loss") == logged("student/mlm") == logged("alpha") == list(range(1, STEPS + 1))
    assert logged("teacher/mlm") == logged("teacher/learning_rate") == [1, 2, 3, 4]
    assert logged("distill/attention") == logged("distill/hidden") == [1, 2, 3, 4, 5, 6, 7]
    assert (through / "training.png").exists()

    with monkeypatch.context() as patch:
        call_before_step(patch, 6, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit, match="step 7 of"):
            train(config, str(stopped))
    train(config, str(stopped))
    for net in ("student", "teacher"):
        first, second = (
            (folder / net / "model.safetensors").read_bytes() for folder in (through, stopped)
        )
        assert first == second, net
    assert (through / "teacher" / "model.safetensors").read_bytes() != (
        finished.workdir / "teacher" / "model.safetensors"
    ).read_bytes()
