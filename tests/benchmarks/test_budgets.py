# SPDX-License-Identifier: Apache-2.0
"""Budgets: what is over, what is not, and how one is made."""

import json

import pytest

from benchmarks import budgets
from benchmarks.targets import TARGETS

FIGURES = {
    "target": "h100x1",
    "quick": False,
    "method": "edad",
    "teacher": [2, 768, 12, 3072],
    "student": [2, 312, 12, 1200],
    "batch": [128, 128],
    "words": 30_522,
    "dtype": "bfloat16",
    "config": "edad.py",
    "overrides": ["--config.student.num_hidden_layers=2"],
    "milliseconds": 20.0,
    "gb_moved": 50.0,
    "kernels": 1_000,
    "float32_products": 27,
    "memory": {"peak": 6.5, "device": 80},
}


@pytest.fixture
def path(tmp_path):
    budgets.renew(FIGURES, tmp_path / "budgets.json")
    return tmp_path / "budgets.json"


def test_a_step_within_its_budget_has_nothing_to_say(path):
    assert budgets.check(FIGURES, path) == []
    better = FIGURES | {"milliseconds": 10.0, "float32_products": 0, "kernels": 1_050}
    assert budgets.check(better | {"memory": {"peak": 6.69}}, path) == []


@pytest.mark.parametrize(
    ("worse", "line"),
    [
        ({"milliseconds": 20.7}, "milliseconds: got 20.7, the budget is 20.0 (+3%)"),
        ({"gb_moved": 52.0}, "gb_moved: got 52.0, the budget is 50.0 (+3%)"),
        ({"kernels": 1_051}, "kernels: got 1,051, the budget is 1,000 (+5%)"),
        ({"float32_products": 28}, "float32_products: got 28, the budget is 27 (+0%)"),
        ({"memory": {"peak": 7.0}}, "peak_gb: got 7.0, the budget is 6.5 (+3%)"),
    ],
)
def test_each_figure_over_its_budget_is_named_with_both(path, worse, line):
    (found,) = budgets.check(FIGURES | worse, path)
    assert found.endswith(f"128 x 128 pieces: {line}")
    step = "edad of edad.py --config.student.num_hidden_layers=2 on h100x1, "
    assert f"{step}2 x 768 x 12 x 3072 and 2 x 312 x 12 x 1200" in found


def test_a_step_without_a_budget_is_told_how_to_make_one(path):
    other = FIGURES | {"target": "v5e-1"}
    with pytest.raises(ValueError, match="no budget of edad of edad.py .* on v5e-1.*--renew"):
        budgets.check(other, path)


def test_other_options_are_another_step(path):
    with pytest.raises(ValueError, match="has no budget of"):
        budgets.check(FIGURES | {"overrides": ["--config.remat=blocks"]}, path)


def test_renewing_replaces_the_entry_of_the_same_step_alone(path):
    budgets.renew(FIGURES | {"batch": [64, 128]}, path)
    budgets.renew(FIGURES | {"milliseconds": 30.0}, path)
    entries = json.loads(path.read_text())
    assert [(entry["batch"][0], entry["milliseconds"]) for entry in entries] == [
        (128, 30.0), (64, 20.0),
    ]  # fmt: skip


def test_the_committed_budgets_are_of_targets_and_bind():
    entries = json.loads(budgets.BUDGETS.read_text())
    assert {TARGETS[entry["target"]].platform for entry in entries} == {"gpu", "tpu"}
    for entry in entries:
        figures = entry | {"memory": {"peak": entry["peak_gb"]}}
        assert budgets.check(figures) == []
        assert len(budgets.check(figures | {"milliseconds": 1.1 * entry["milliseconds"]})) == 1
