# SPDX-License-Identifier: Apache-2.0
"""The claims: which runs are behind each, and what is said of them."""

import json

import pytest

from configs import table_small
from reproduction.claims import CLAIMS, WAYS
from reproduction.driver import reproduce
from tests.reproduction.conftest import finish, plan_of


def options_of(cell):
    return dict(word.split("=", 1) for word in cell.words if word.startswith("--config."))


def test_the_runs_of_a_pair_differ_in_the_way_alone(make_run):
    plan = plan_of(make_run("claims", pairs=2))
    assert set(plan.trainings) == set(WAYS)
    first, second = plan.trainings["one pass"]
    assert options_of(first[0]) == options_of(second[0]) | {"--config.seed": "0"}
    shared = ("--config.prepared", "--config.seed", "--config.student.init")
    others = [plan.trainings[way][0][-1] for way in ("two stages", "MLM alone")]
    for name in shared:
        assert {options_of(cell)[name] for cell in (first[0], *others)} == {
            options_of(first[0])[name]
        }
    # Both stages are in the cost, and both ways share the adapted teacher of the seed.
    assert plan.trainings["two stages"][1][0] == plan.trainings["adapted"][1][0]
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)


def test_the_student_alone_takes_more_updates_for_the_same_flops(make_run):
    usual, longer = (
        plan_of(make_run("claims", pairs=1, train=train)).trainings["MLM alone"][0][0]
        for train in ((), ("--config.max_steps=1200",))
    )
    # Of an option given twice the last counts: ours, whatever --train says.
    steps = [int(options_of(cell)["--config.max_steps"]) for cell in (usual, longer)]
    assert steps[0] > 1.5 * table_small.get_config().max_steps == 180
    assert steps[1] == pytest.approx(10 * steps[0], rel=0.01)
    assert longer.words[-1] == f"--config.max_steps={steps[1]}"


def finish_all(run, scores):
    """Writes what the cells would leave: of each probe the F1 of its way and seed."""
    plan = plan_of(run)
    for way, found in plan.probes.items():
        for data, cells in found.items():
            for seed, cell in enumerate(cells):
                f1 = scores[way] + 0.01 * seed + (0.1 if data == "BC5CDR" else 0.0)
                finish(cell, run.folder, {"probes": [{"f1": f1}]})
    for way, seeds in plan.trainings.items():
        for cells in seeds:
            for number, cell in enumerate(cells):
                seconds = 100.0 if way == "one pass" else 60.0 + number
                finish(cell, run.folder, {"time_cost": {"train/cpu_seconds": seconds}})
    for cell in plan.cells:
        if not (run.folder / cell.name).exists():
            finish(cell, run.folder, {})


def test_a_claim_is_a_difference_over_pairs_with_its_interval(make_run):
    run = make_run("claims", pairs=3)
    scores = dict.fromkeys(WAYS, 0.5) | {"one pass": 0.52, "start": 0.4}
    finish_all(run, scores)
    text = reproduce(run).read_text()
    claims = {each["claim"]: each for each in json.loads((run.out / "claims.json").read_text())}
    assert set(claims) == {claim.name for claim in CLAIMS}
    stages = claims["one pass beats two stages"]
    assert stages["difference"] == pytest.approx(2.0)
    assert stages["low"] == pytest.approx(2.0) and stages["high"] == pytest.approx(2.0)
    assert stages["pairs"] == 3 and stages["reached"] is True
    assert stages["cost"] == pytest.approx(100 / 121)
    assert "--pairs 3" in stages["command"] and str(run.folder) not in stages["command"]
    assert stages["data"] == ["BC5CDR", "BioNLP09", "NCBI-disease"]
    # The start has one probe, and its pairs the spread of the other side.
    assert claims["adaptation does not hurt the teacher"]["cost"] is None
    assert claims["a copied extension beats a random one"]["reached"] is False  # both alike
    assert "+2.00" in text and "table-claims.png" in text


def test_some_of_the_claims_may_be_asked_for(make_run):
    plan = plan_of(make_run("claims", rows=("adaptation",), pairs=2))
    assert set(plan.trainings) == {"adapted", "start"}
    assert len(plan.cells) == 1 + 2 + 3 + 2 * 3  # rows, trainings, probes of the start and of each
    with pytest.raises(ValueError, match="got --rows=nothing, expected the starts of some of"):
        plan_of(make_run("claims", rows=("nothing",)))


def test_a_goal_is_not_reached_on_a_part_of_the_data(make_run):
    run = make_run("claims", pairs=2, datasets=("NCBI-disease",), rows=("one pass beats two",))
    finish_all(run, dict.fromkeys(WAYS, 0.5) | {"one pass": 0.52})
    reproduce(run)
    (claim,) = json.loads((run.out / "claims.json").read_text())
    assert claim["difference"] == pytest.approx(2.0) and claim["reached"] is False
