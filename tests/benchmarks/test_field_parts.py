# SPDX-License-Identifier: Apache-2.0
"""What the parts of a field day reckon by themselves; that they run is seen by the rehearsal."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.field_core import compare_distances, judge, relative_error
from benchmarks.field_part import Figures, Place, read_place
from benchmarks.field_train import missing_heads, plan_updates

STEPS = {
    "EDAD": {"seconds_in_a_row": 0.050, "compile_seconds": 80.0, "xla_flags": "--flag"},
    "adaptation": {"seconds_in_a_row": 0.040, "compile_seconds": 60.0},
    "distillation": {"seconds_in_a_row": 0.022, "compile_seconds": 40.0},
}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "train.json", tmp_path, tmp_path / "pack", 290.0, False)


def test_a_part_reads_its_place_from_the_command_line(place):
    words = [f"--out={place.out}", f"--work={place.work}", f"--pack={place.pack}", "--seconds=290"]
    assert read_place(None, words) == place
    assert read_place(None, [*words, "--rehearse"]).is_rehearsal


def test_both_ways_have_updates_for_the_same_time_and_fit_the_limit(place):
    place.figures_of("steps").write_text(json.dumps(STEPS))
    plan = plan_updates(place)
    updates = plan["updates"]
    assert plan["measured"]
    assert updates["adaptation"] == updates["distillation"]
    one, two = updates["EDAD"] * 0.050, updates["adaptation"] * 0.062
    assert one == pytest.approx(two, abs=0.1) == pytest.approx(plan["seconds"], abs=0.1)
    assert 30 < one and one + two + 80 < place.seconds
    assert place.xla_flags == "--flag"


def test_where_no_step_was_measured_the_plan_says_so(place):
    place.figures_of("steps").write_text(json.dumps(STEPS | {"EDAD": {"reason": "no memory"}}))
    plan = plan_updates(place)
    assert not plan["measured"] and plan["updates"]["EDAD"] > 100
    assert place.xla_flags == ""


def test_a_part_that_waits_has_all_its_time_and_then_what_it_was_given(place):
    assert place.seconds_left == 290.0
    place.out.with_suffix(".go").write_text("12.5")
    assert 10 < place.seconds_left <= 12.5


def test_figures_are_on_disk_one_by_one_and_what_fails_is_a_reason(tmp_path):
    figures = Figures(tmp_path / "figures.json")
    assert figures.attempt("one", lambda: {"ok": True})
    assert json.loads((tmp_path / "figures.json").read_text()) == {"one": {"ok": True}}
    assert not figures.attempt("two", lambda: {}["x"])
    assert json.loads((tmp_path / "figures.json").read_text())["two"] == {"reason": "KeyError: 'x'"}


def test_heads_that_a_checkpoint_lacks_are_named(tmp_path):
    tensor = np.zeros(2, np.float32)
    save_file({"pooler.dense.bias": tensor}, tmp_path / "model.safetensors")
    assert missing_heads(tmp_path) == ("mlm", "nsp")


def test_an_error_is_relative_and_what_is_no_number_never_passes():
    expected = {"a": np.array([3.0, 0.0]), "b": np.array(4.0)}
    near = {"a": np.array([3.0, 0.5]), "b": np.array(4.0)}
    assert relative_error(near, expected) == pytest.approx(0.1)
    broken = relative_error({"a": np.array([np.nan, 0.0]), "b": np.array(4.0)}, expected)
    judged = judge({"fine": 0.001, "broken": broken}, 0.01)
    assert not judged["ok"] and judged["where"] == "broken"


def test_the_gram_distance_is_that_of_the_scores_here():
    assert compare_distances()["ok"]
