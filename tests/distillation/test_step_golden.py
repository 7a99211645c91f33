# SPDX-License-Identifier: Apache-2.0
"""The claim that all else rests on: our fused step computes what torch computes.

Torch's numbers lie in tests/golden/step, so this needs no torch. That they still are torch's,
tests/distillation/test_torch_step.py sees where it is installed.
"""

import numpy as np
import pytest

from tests import golden_step
from tests.golden_step import ALPHAS, CASES, ROWS, Case, load_step_golden, our_updates


@pytest.fixture(autouse=True, scope="module")
def inputs_are_those_that_torch_read():
    """Otherwise every test here would blame the step for what an initialiser did."""
    golden_step.check_inputs(load_step_golden().numbers["inputs"])


def test_a_changed_initialiser_is_told_from_a_changed_step():
    expected = load_step_golden().numbers["inputs"]
    with pytest.raises(AssertionError, match="^parameters: not what torch read.*make_step_golden"):
        golden_step.check_inputs(expected | {"parameters": "0123456789abcdef"})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_and_every_gradients_norm_are_torchs(case):
    got = our_updates(case)
    terms = {"edad": 7, "adaptation": 3, "distillation": 3}[case.method]  # "loss" is one of them
    assert [len(losses) for losses in got.losses] == [terms] * golden_step.UPDATES
    golden_step.assert_updates(got, case)


@pytest.mark.parametrize("case", [case for case in CASES if case.updates_parameters], ids=str)
def test_parameters_after_two_updates_are_torchs(case):
    golden_step.assert_parameters(our_updates(case), case)


@pytest.mark.parametrize("rows", ROWS)
def test_golden_losses_hold_eq_5_and_eq_6(rows):
    """So that a wrong weight in the peer cannot have made the files and ours alike wrong."""
    for alpha in ALPHAS:
        for losses in load_step_golden().losses(Case("edad", alpha, rows)):
            total = {
                net: sum(value for name, value in losses.items() if name.startswith(net))
                for net in ("teacher", "student", "distill")
            }
            expected = total["teacher"] + alpha * total["distill"] + (1 - alpha) * total["student"]
            np.testing.assert_allclose(losses["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "clip_by"), golden_step.OPTIMIZERS)
def test_two_updates_by_each_optimiser_are_torchs(name, clip_by):
    for leaf, got in golden_step.our_optimizer(name, clip_by).items():
        expected = load_step_golden().arrays[f"optimizer/{name}/{clip_by}/{leaf}"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6, err_msg=leaf)
