# SPDX-License-Identifier: Apache-2.0
"""The ablation of the triple loss: what its runs are, and its table."""

import json
import re

import pytest

from configs import distilkcbert
from edad_jax.distillation.settings import check_settings
from reproduction.driver import reproduce
from reproduction.triple_loss import SEEDS, TERMS
from tests.reproduction.conftest import finish, plan_of


def test_students_differ_in_terms_and_seed_alone(make_run):
    run = make_run("triple")
    plan = plan_of(run)
    assert len(plan.cells) == 2 + 2 * len(TERMS) * len(SEEDS)
    kept = {
        tuple(
            word
            for word in cell.words
            if "triple.soft" not in word
            and "triple.mlm" not in word
            and "triple.cosine" not in word
            and "config.seed" not in word
        )
        for cells in plan.trainings.values()
        for cell in cells
    }
    assert len(kept) == 1
    assert f"--config.teacher.checkpoint={run.folder}/triple-teacher/teacher" in kept.pop()
    assert len({cell.words for cells in plan.trainings.values() for cell in cells}) == 15


def test_what_is_left_of_the_weights_keeps_its_proportions(make_run):
    weights = {}
    for name, cells in plan_of(make_run("triple")).trainings.items():
        words = " ".join(cells[0].words)
        weights[name] = [
            float(re.search(rf"triple\.{term}=([\d.]+)", words)[1])
            for term in ("soft", "mlm", "cosine")
        ]
        assert sum(weights[name]) == pytest.approx(1, abs=1e-6)
    assert weights["all three"] == [0.625, 0.25, 0.125]
    assert weights["MLM alone"] == [0, 1, 0]
    assert weights["without MLM"] == pytest.approx([5 / 6, 0, 1 / 6], abs=1e-6)
    assert weights["without cosine"] == pytest.approx([5 / 7, 2 / 7, 0], abs=1e-6)


def test_a_teacher_that_knows_words_needs_no_head_and_data_are_optional(make_run, models, tmp_path):
    config = json.loads((models / "bert" / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = plan_of(make_run("triple", ner="", teacher=str(tmp_path)))
    assert len(plan.cells) == 1 + len(TERMS) * len(SEEDS)
    assert f"--config.teacher.checkpoint={tmp_path}" in plan.trainings["MLM alone"][0].words
    assert not any(plan.tunings.values())


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_teacher_and_students_read_single_segments_at_every_scale(make_run, scale):
    """As the rows are made; the configuration of the teacher's head has pairs."""
    head = plan_of(make_run("triple", scale=scale)).cells[1]
    assert head.name == "triple-teacher" and "--config.rows.mode=single" in head.words


def test_the_text_has_blank_lines_between_documents(make_run):
    """Other than the news of the configuration."""
    rows, *_ = plan_of(make_run("triple")).cells
    assert rows.name == "triple-rows" and "--config.corpus.lines=False" in rows.words


def test_every_weighing_is_accepted(make_run):
    for cells in plan_of(make_run("triple")).trainings.values():
        config = distilkcbert.get_config()
        for word in cells[0].words:
            if word.startswith("--config.triple.") and "positions" not in word:
                key, value = word.removeprefix("--config.triple.").split("=")
                config.triple[key] = float(value)
        check_settings(config)


def test_the_table_is_written_from_the_cells(make_run):
    run = make_run("triple")
    plan = plan_of(run)
    for number, cell in enumerate(plan.cells):
        end = {
            "heldout/student_mlm_accuracy": 0.2 + number / 1_000,
            "heldout/student_mlm_loss": 5.0,
            "heldout/agreement": 0.3,
        }
        seeds = {"0": {"test": {"f1": 0.4 + number / 1_000}}}
        finish(cell, run.folder, {"heldout": {"end": end}, "seeds": seeds})
    written = reproduce(run)
    text = written.read_text(encoding="utf-8")
    # Cells 2, 7 and 12 are those of all three terms, five numbers apart: 20.7 ± t * 0.5 / sqrt(3).
    assert "20.70 ± 1.24" in text and "42.20 ± 1.24" in text
    # Each seed's MLM alone is four cells after all three: the difference has no spread.
    (line,) = [line for line in text.splitlines() if "-0.40 ± 0.00" in line and "all three" in line]
    assert "+0.000 ± 0.000" in line
    assert "| MLM alone" in text and "--config.model=CELLS/triple-mlm-2/student" in text
    assert written.with_suffix(".png").stat().st_size > 10_000
    (run.folder / plan.cells[-1].name / "summary.json").unlink()
    with pytest.raises(ValueError, match="summary.json: .*expected that the cell has run"):
        reproduce(run)
