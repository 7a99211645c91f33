# SPDX-License-Identifier: Apache-2.0
"""The paper's tables: their rows, the runs that those need, and what is read from them."""

import ast
import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from edad_jax.machine import describe_machine, name_machine
from reproduction import edad
from reproduction.driver import reproduce
from tests.reproduction.conftest import finish, plan_of, write_json
from tests.tiny_tasks import tiny_sentences, write_tagged


def cells_of(run):
    return {cell.name: cell for cell in plan_of(run).cells}


def test_table_4_has_the_seven_schedules_and_shares_edad_with_table_2(make_run):
    assert len(plan_of(make_run("4")).rows) == 7
    here, there = cells_of(make_run("4")), cells_of(make_run("2"))
    shared = {name for name in here if name.split(".")[0] == "edad-linear"}
    assert len(shared) == 1 + len(edad.DATASETS)
    assert all(here[name] == there[name] for name in shared)


@pytest.mark.parametrize(
    ("chosen", "rows", "trainings"),
    [
        (["EDAD"], ["EDAD"], ["rows", "edad-linear"]),
        (["exBERT_GD"], ["exBERT_GD"], ["rows", "adaptation", "distillation"]),
        # The row whose model gives it soft labels comes with it.
        (["EDAD_TD"], ["exBERT", "EDAD_TD"], ["rows", "adaptation", "edad-linear"]),
    ],
)
def test_chosen_rows_bring_the_cells_that_they_need_and_no_others(
    make_run, chosen, rows, trainings
):
    plan = plan_of(make_run("2", rows=chosen))
    assert [row.name for row in plan.rows] == rows
    assert [cell.name for cell in plan.trainings] == trainings
    tuned = {row.cell for row in plan.rows}
    assert {cell.name.split(".NCBI")[0] for cell in plan.cells if ".NCBI" in cell.name} == tuned


def test_the_rows_of_a_table_are_told_apart_and_trained_by_its_cells(make_run, models):
    for table in "1234":
        run = make_run(table, biobert=str(models / "bio"), scibert=str(models / "sci"))
        plan = plan_of(run)
        assert len({(row.name, row.kind) for row in plan.rows}) == len(plan.rows)
        for row in plan.rows:
            assert set(row.trained_by) <= {cell.name for cell in plan.trainings}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_a_vocabulary_from_scratch_has_about_as_many_pieces_as_berts(make_run, scale):
    words = cells_of(make_run("1", scale=scale))["rows-new"].words
    [size] = [w.partition("=")[2] for w in words if w.startswith("--config.vocabulary.size=")]
    assert 28_000 < int(size) < 31_000


def test_a_row_without_its_checkpoint_says_what_to_give(make_run):
    plan = plan_of(make_run("3"))
    notes = {row.name: row.note for row in plan.rows}
    assert notes["BioBERT"] == "not run: no BioBERT at hand, give --biobert=DIR_OR_HUB_ID"
    assert notes["SciBERT_GD"] == "not run: no SciBERT at hand, give --scibert=DIR_OR_HUB_ID"
    assert notes["EDAD"] == "" and set(plan.tunings) == {"EDAD"}


def test_every_row_of_the_paper_is_planned_and_has_its_figures(make_run):
    planned = {row.name for n in "1234" for row in plan_of(make_run(n, scale="paper")).rows}
    assert planned == set(edad.PUBLISHED) | {"EDAD_TD"}
    assert {len(row) for row in edad.PUBLISHED.values()} == {7}
    assert edad.PUBLISHED["EDAD"]["average"] == "88.36 ± 0.09"
    assert edad.PUBLISHED["linear"]["time cost (h)"] == ""


def tuned(f1):
    """Returns what a fine-tuning run with three seeds would leave; the last one failed."""
    seeds = {
        "0": {"failed": False, "test": {"f1": f1, "paper_metric": f1 + 0.1}},
        "1": {"failed": False, "test": {"f1": f1 + 0.02, "paper_metric": f1 + 0.1}},
        "2": {"failed": True},
    }
    return {"seeds": seeds, "time_cost": {}, "examples": {}, "epochs": 1, "notes": {}}


def test_a_table_is_written_from_what_is_there_and_adds_up_the_stages(make_run, tmp_path):
    run = make_run("2", datasets=["BC5CDR"])  # the other columns show what has run before
    plan = plan_of(dataclasses.replace(run, datasets=list(edad.DATASETS)))
    cells = {cell.name: cell for cell in plan.cells}
    for number, dataset in enumerate(edad.DATASETS):
        finish(cells[f"distillation.{dataset}"], run.folder, tuned(0.5 + number / 10))
    for name, seconds in (("adaptation", 600.0), ("distillation", 300.0)):
        costs = {"train/seconds": seconds, "train/cpu_seconds": 2 * seconds}
        nets = {"teacher": {"parameters": 9_000_000}, "student": {"parameters": 4_000_000}}
        end = {"step": 120, "time": 1.5e9, "heldout/student_mlm_accuracy": seconds / 1e3}
        summary = {"time_cost": costs, "nets": nets, "steps": 120, "heldout": {"end": end}}
        finish(cells[name], run.folder, summary)
    written = reproduce(run)
    table = json.loads(written.with_suffix(".json").read_text())
    row = next(row for row in table["rows"] if row["name"] == "exBERT_GD")
    assert row["seconds"] == 900.0 and row["cpu_seconds"] == 1800.0
    assert row["f1"]["average"]["mean"] == pytest.approx(0.61)
    assert row["f1"]["average"]["half"] == pytest.approx(12.706 * 0.01, rel=1e-3)
    text = written.read_text(encoding="utf-8")
    assert "| exBERT_GD " in text and "4.0M" in text and "61.00 ± 12.71" in text
    assert "exBERT_GD, BC5CDR, seed 2" in text  # named among the failed
    assert "88.36 ± 0.09" in text  # the paper's EDAD
    assert "CELLS/distillation.NCBI-disease" in text and "CELLS/adaptation.NCBI" not in text
    assert table["teacher"] == "bert"
    assert table["machine"] == describe_machine() and name_machine(table["machine"]) in text
    assert set(table["cells"]) == {"adaptation", "distillation"}  # of those that train, what ran
    cell = table["cells"]["distillation"]
    assert cell["command"] in text and "--config.method=distillation" in cell["command"]
    assert cell["steps"] == 120 and cell["heldout"] == {"student_mlm_accuracy": 0.3}
    assert cell["time_cost"] == {"train/seconds": 300.0, "train/cpu_seconds": 600.0}
    assert written.with_suffix(".png").stat().st_size > 5_000


def test_a_report_does_not_take_a_cell_of_another_command_for_its_own(make_run):
    run = make_run("2")
    words = ["launch/prepare.py", "--config=other.py", "--out", str(run.folder / "rows")]
    write_json(run.folder / "rows.command.json", words)
    with pytest.raises(ValueError, match="rows was made by another command.*--config=other.py"):
        reproduce(run)


def test_data_are_checked_by_their_reader_before_anything_runs(make_run, tmp_path):
    run = make_run("4", ner=str(tmp_path / "ner"), datasets=["NCBI-disease"], only_report=False)
    folder = tmp_path / "ner" / "NCBI-disease-IOB"
    with pytest.raises(ValueError, match="got no such file.*--ner=FOLDER that has NCBI-disease"):
        plan_of(run)
    write_tagged(folder / "test.conll", tiny_sentences(9))
    with pytest.raises(ValueError, match=r"got test\.conll, expected a training split"):
        plan_of(run)
    write_tagged(folder / "train.conll", tiny_sentences(9))
    (folder / "test.conll").rename(folder / "dev.conll")
    with pytest.raises(ValueError, match="IOB: got no test split, expected one to score; give"):
        plan_of(run)
    write_tagged(folder / "test.conll", tiny_sentences(9))
    assert plan_of(run).cells


def test_a_small_student_is_as_wide_as_the_teacher_that_gives_it_layers(make_run, models):
    cells = cells_of(make_run("2"))
    sizes = json.loads(Path(models, "bert", "config.json").read_text())
    assert f"--config.student.hidden_size={sizes['hidden_size']}" in cells["edad-linear"].words
    inner = f"--config.student.intermediate_size={sizes['intermediate_size']}"
    assert inner in cells["edad-linear"].words
    assert not any("config.student" in word for word in cells["edad-linear-random"].words[2:])
    words = cells_of(make_run("3", scibert=str(models / "sci")))["distillation-scibert"].words
    assert "--config.student.hidden_size=12" in words


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("adapt_all_weights", "adaptation-all-weights"),
        ("adapt_from_scratch", "adaptation-from-scratch"),
        ("adapt_extension", "adaptation"),
        ("distil", "distillation"),
    ],
)
def test_the_baselines_configurations_are_what_table_1_runs_at_the_papers_size(
    make_run, name, cell
):
    expected = importlib.import_module(f"configs.{name}").get_config()
    cells = cells_of(make_run("1", scale="paper"))
    config = importlib.import_module("configs.edad").get_config()
    prepared = next(w for w in cells[cell].words if w.startswith("--config.prepared="))
    rows = cells[prepared.rpartition("/")[2]]
    sizes = [flag for flag in rows.words if flag.startswith("--config.vocabulary.size=")]
    for flag in (*cells[cell].words[2:], *sizes):
        key, _, value = flag.removeprefix("--config.").partition("=")
        if key in ("prepared", "teacher.checkpoint"):
            continue
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass
        config.update_from_flattened_dict({key: value})
    assert config.to_dict() == expected.to_dict()
