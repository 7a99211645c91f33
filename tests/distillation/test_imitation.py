# SPDX-License-Identifier: Apache-2.0
"""What of TinyBERT's loss may be otherwise: a form, weights, and the teacher's words."""

import numpy as np
import pytest

from edad_jax.distillation.edad import EDAD
from edad_jax.distillation.imitation import ImitationSettings
from edad_jax.distillation.phases import Phase
from edad_jax.distillation.settings import read_settings, resolve_config
from tests.tiny_models import assert_trees_equal
from tests.tiny_run import make_inputs, tiny_config
from tests.tiny_steps import NO_DROPOUT, run_phases, run_steps, tiny_nets, tiny_settings


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("imitation"))


def test_the_students_loss_is_the_weighted_sum_of_what_is_logged():
    own = ImitationSettings("centred", 0.5, 3.0, 0.25, temperature=2.0)
    nets = tiny_nets(**NO_DROPOUT)
    _, found, _ = run_steps(nets, tiny_settings(nets, own=own, alpha="same"), steps=1)
    imitated = 0.5 * found["distill/attention"] + 3.0 * found["distill/hidden"]
    student = 0.5 * imitated + 0.5 * (found["student/mlm"] + found["student/nsp"])
    student += 0.25 * found["distill/soft"]
    loss = found["teacher/mlm"] + found["teacher/nsp"] + student
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    assert found["distill/soft"] > 0

    _, plain, _ = run_steps(nets, tiny_settings(nets, alpha="same"), steps=1)
    assert "distill/soft" not in plain
    assert found["distill/attention"] < plain["distill/attention"]  # less the means
    # The teacher learns alike whatever the student does with it.
    np.testing.assert_allclose(found["teacher/grad_norm"], plain["teacher/grad_norm"], rtol=1e-5)


def test_the_teachers_words_are_compared_as_long_as_it_runs():
    """A teacher that no longer learns still says words; one that does not run says none."""
    own = ImitationSettings(soft_weight=0.25)
    nets = tiny_nets(**NO_DROPOUT)
    settings = tiny_settings(nets, own=own, alpha="same")
    phases = [Phase(), Phase(teacher_learns=False), Phase(teacher_learns=False, imitates=False)]
    after = run_phases(nets, settings, phases)
    learns, runs, rests = (metrics for _, metrics, _ in after)
    assert {"teacher/mlm", "distill/soft"} <= set(learns)
    assert "distill/soft" in runs and "teacher/mlm" not in runs
    assert not {"distill/soft", "distill/hidden"} & set(rests)
    kept, rested = (state.params["teacher"] for state, _, _ in after[:2])
    assert_trees_equal(kept, rested)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "relations"}, "attention='relations' is not one of scores, centred"),
        ({"attention_weight": -1.0}, "attention_weight=-1.0, expected 0 or more"),
        ({"soft_weight": -0.5}, "soft_weight=-0.5, expected 0 or more"),
        ({"soft_weight": 1.0, "temperature": 0.0}, "temperature=0.0, expected more than 0"),
    ],
)
def test_settings_that_cannot_be_are_named(inputs, changes, message):
    changes = {f"imitation__{name}": value for name, value in changes.items()}
    with pytest.raises(ValueError, match=f"config.imitation.{message}"):
        read_settings(tiny_config(inputs, **changes))


def test_words_are_compared_where_words_are_masked_only(inputs):
    config = tiny_config(inputs, method="distillation", imitation__soft_weight=1.0)
    with pytest.raises(ValueError, match="compares words at masked pieces, and .* masks none"):
        read_settings(config)
    config = tiny_config(inputs, method="triple", imitation__attention="centred")
    with pytest.raises(ValueError, match="is read with config.method=edad or distillation only"):
        read_settings(config)


def test_what_was_run_is_written_down(inputs):
    config = tiny_config(inputs, imitation__attention="centred")
    resolved = resolve_config(config, read_settings(config))
    assert resolved.imitation.to_dict() == {
        "attention": "centred",
        "attention_weight": 1.0,
        "hidden_weight": 1.0,
        "soft_weight": 0.0,
        "temperature": 1.0,
    }


def test_the_mlm_head_learns_where_a_loss_reaches_it(inputs):
    """Left to the optimiser without a gradient, it would only shrink."""
    only = tiny_config(inputs, alpha="only_distillation")
    assert EDAD.learned_heads(only) == set()
    only.imitation.soft_weight = 0.5
    assert EDAD.learned_heads(only) == {"MLM"}
    assert EDAD.learned_heads(tiny_config(inputs)) == {"MLM", "NSP"}
