# SPDX-License-Identifier: Apache-2.0
import math
import re

import numpy as np
import pytest

from edad_jax.training import schedules
from edad_jax.training.optimizer import OptimizerSettings


@pytest.mark.parametrize(
    ("name", "first", "quarter", "middle", "last"),
    [
        ("linear", 1.0, 0.75, 0.5, 0.0),
        ("linear_reverse", 0.0, 0.25, 0.5, 1.0),
        ("cosine", 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.0),
        ("cosine_reverse", 0.0, 0.5 - math.sqrt(0.125), 0.5, 1.0),
        ("same", 0.5, 0.5, 0.5, 0.5),
        ("only_distillation", 1.0, 1.0, 1.0, 1.0),
        ("only_adaptation", 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_papers_seven_alphas(name, first, quarter, middle, last):
    alpha = schedules.alpha(name, total_steps=200)
    got = [float(alpha(step)) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(got, [first, quarter, middle, last], atol=1e-6)


def test_all_seven_are_offered():
    for name in schedules.ALPHA_SCHEDULES:
        assert 0 <= float(schedules.alpha(name, total_steps=7)(3)) <= 1
    assert len(schedules.ALPHA_SCHEDULES) == 7


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(ValueError, match="'lineer' is not one of linear, linear_reverse"):
        schedules.alpha("lineer", total_steps=10)
    with pytest.raises(ValueError, match="not one of constant, linear, warmup_linear"):
        schedules.learning_rate("cosine", peak=1.0, warmup_steps=0, total_steps=10)


def test_warm_up_never_wastes_an_update_and_ends_near_zero():
    rate = schedules.learning_rate("warmup_linear", peak=1.0, warmup_steps=10, total_steps=100)
    got = [float(rate(step)) for step in (0, 4, 9, 10, 55, 99)]
    np.testing.assert_allclose(got, [0.1, 0.5, 1.0, 1.0, 0.5, 1 / 90], rtol=1e-5)


def test_a_warm_up_longer_than_the_run_is_an_error():
    told = "warm-up of 10 steps does not fit a run of 10, .*of at most 0.9,"
    with pytest.raises(ValueError, match=told):
        schedules.learning_rate("warmup_linear", peak=1.0, warmup_steps=10, total_steps=10)


def test_a_run_too_short_for_any_warm_up_is_not_told_to_choose_another_one():
    settings = OptimizerSettings(schedule="warmup_linear", warmup_ratio=0.1)
    with pytest.raises(ValueError, match="a run of 1, .*train for more steps") as raised:
        settings.learning_rate(1.0, total_steps=1)
    assert "warmup_ratio" not in str(raised.value)


@pytest.mark.parametrize("total_steps", [2, 3, 7, 10, 101])
def test_the_advice_of_a_shorter_warm_up_fits(total_steps):
    with pytest.raises(ValueError) as raised:
        OptimizerSettings(schedule="warmup_linear", warmup_ratio=0.999).learning_rate(
            1.0, total_steps=total_steps
        )
    most = float(re.search(r"at most ([\d.]+\d)", str(raised.value))[1])
    settings = OptimizerSettings(schedule="warmup_linear", warmup_ratio=most)
    assert float(settings.learning_rate(1.0, total_steps=total_steps)(total_steps - 1)) > 0
