# SPDX-License-Identifier: Apache-2.0
"""The tables of the Distil-KcBERT thesis, and their configurations."""

import dataclasses
import importlib
import json
import unicodedata

import numpy as np
import pytest

from configs import distilkcbert, edad
from edad_jax import types
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.distillation import nets
from edad_jax.distillation.settings import check_settings
from edad_jax.tasks.rows import classification_rows
from reproduction import kcbert
from reproduction.driver import reproduce
from tests.reproduction.conftest import finish, plan_of
from tests.tiny_tasks import write_labelled
from tests.tiny_text import write_tokenizer


def test_every_student_is_trained_once_and_each_model_tuned_alike(make_run):
    run = make_run("kcbert-6", models=["multilingual=/m/multi"])
    plan = plan_of(run)
    names = [cell.name for cell in plan.cells]
    assert len(names) == len(set(names)) == 1 + 9 + 11
    assert len(plan.models) == 11 and set(plan.tunings) == set(plan.models)
    flags = {tuple(w for w in cell.words if "model=" not in w) for cell in plan.tunings.values()}
    assert len(flags) == 1
    assert "--config.model=/m/multi" in plan.tunings["multilingual"].words
    other = plan_of(dataclasses.replace(run, sentiment="/d/nsmc"))
    assert other.cells[:10] == plan.cells[:10]  # the same students, for other labelled texts
    assert not {cell.name for cell in other.cells[10:]} & set(names)
    same = plan_of(dataclasses.replace(run, table="kcbert-4"))
    assert same.cells == plan.cells[:10] and not same.tunings
    assert len(plan_of(dataclasses.replace(run, table="kcbert-5")).tunings) == 9


def test_news_are_a_document_a_line_and_other_text_is_not():
    assert distilkcbert.get_config().corpus.lines
    for name in ("edad", "edad_small", "table_small", "minilm", "distil", "adapt_all_weights"):
        assert importlib.import_module(f"configs.{name}").get_config().corpus.lines is False


def test_the_configuration_is_sound_and_its_student_the_thesiss_fifth():
    config = distilkcbert.get_config()
    check_settings(config)
    assert set(config) == set(edad.get_config())
    student = nets.student_config(config.student, types.Vocabulary(30_000, 30_000, 4, 2, 3))
    assert student.extension is None and not student.base.has_pooler
    assert (student.base.num_hidden_layers, student.base.intermediate_size) == (3, 768)


def test_table_5_is_written_from_the_cells(make_run, models, tmp_path):
    run = make_run("kcbert-5", sentiment=str(write_labelled(tmp_path / "s.csv")))
    plan = plan_of(run)
    for number, cell in enumerate(plan.cells):
        accuracy = 0.5 + number / 100
        summary = {
            "validation_by_epoch": [[accuracy - 0.1, 0.0], [accuracy, 0.0]],
            "seeds": {"0": {"failed": False}, "1": {"failed": True}},
            "means": {"test/accuracy": {"mean": accuracy, "half": None}},
        }
        finish(cell, run.folder, summary)
    written = reproduce(run)
    text = written.read_text(encoding="utf-8")
    assert "| 1 x 192" in text and "50.0" in text and "--config.model=CELLS/kcbert-6x3072" in text
    assert "Not in the means, since their loss was not finite: 1 x 192, seed 1; " in text
    figures = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
    assert figures["by_epoch"]["1 x 192"] == [[pytest.approx(0.5)], [pytest.approx(0.6)]]
    assert figures["rows"][0]["epoch 2"] == "60.0"
    assert [figures[key] for key in ("scale", "teacher", "data")] == ["small", "bert", "s.csv"]
    assert written.with_suffix(".png").stat().st_size > 10_000
    (run.folder / plan.cells[-1].name / "summary.json").unlink()
    with pytest.raises(ValueError, match="kcbert-6x3072.s/summary.json: .*that the cell has run"):
        reproduce(run)


def test_tables_4_and_6_are_written_from_the_cells_and_the_times(make_run, tmp_path, monkeypatch):
    class Model:
        config = params = None

    def measure_speed(nets, *, length):
        return {name: 1_000 / (1 + number) / length for number, name in enumerate(nets)}

    monkeypatch.setattr(kcbert.formats, "load", lambda _: Model)
    monkeypatch.setattr(kcbert, "measure_speed", measure_speed)
    run = make_run("kcbert-6", sentiment=str(write_labelled(tmp_path / "s.csv")))
    for number, cell in enumerate(plan_of(run).cells):
        summary = {
            "nets": {"student": {"parameters": number}, "teacher": {"parameters": 99}},
            "time_cost": {"train/seconds": 60.0},
            "validation_by_epoch": [],
            "seeds": {"0": {"failed": False}},
            "means": dict.fromkeys(("test/accuracy", "test/macro_f1"), {"mean": 0.7, "half": 0.1}),
        }
        finish(cell, run.folder, summary)
    rows = json.loads(reproduce(run).with_suffix(".json").read_text())["rows"]
    assert [row["model"] for row in rows[:4]] == ["teacher", "big", "small", "1 x 192"]
    assert rows[3]["prediction of 5,000 (s)"] == 5 * 16 * 4  # --lengths' first alone
    written = reproduce(dataclasses.replace(run, table="kcbert-4"))
    rows = json.loads(written.with_suffix(".json").read_text())["rows"]
    assert [row["parameters"] for row in rows] == [99, *range(1, 10)]
    assert rows[2]["32 pieces: s"] == 5 * 32 * 3 and rows[2]["16 pieces: times the first"] == 1.5
    text = written.read_text(encoding="utf-8")
    assert "Rows of 16 pieces: the students' times are in the thesis's order." in text


def test_rows_of_tables_4_and_6_stand_beside_the_thesiss():
    row = kcbert.time_row("3 x 768", {64: 30.0, 256: 99.0}, {64: 12.0, 256: 33.0}, 34_533_936)
    assert row["thesis: parameters"] == row["parameters"]
    assert row["64 pieces: times the first"] == 2.5 and row["256 pieces: times the first"] == 3.0
    assert row["thesis: times its first"] == 2.58
    assert kcbert.time_row("teacher", {64: 30.0}, {64: 12.0}, 1)["thesis: s"] is None
    summary = {
        "time_cost": {"train/seconds": 60.0},
        "seeds": {"0": {}, "1": {}},
        "means": {
            "test/accuracy": {"mean": 0.8, "half": 0.01},
            "test/macro_f1": {"mean": 0.7, "half": 0.02},
        },
    }
    row = kcbert.accuracy_row("3 x 768", summary, 12.0)
    assert row["accuracy"] == "80.00 ± 1.00" and row["in all (s)"] == 42.0


def test_students_whose_order_by_time_is_not_the_thesiss_are_named():
    seconds = {student: s for student, (_, s) in kcbert.PUBLISHED.items()}
    assert kcbert.out_of_order(seconds | {"teacher": 0.0}) == []
    wrong = seconds | {"3 x 3072": 600.0}
    assert kcbert.out_of_order(wrong) == [("3 x 3072", "6 x 192")]
    (_, line) = kcbert.tell_order({64: wrong})
    assert "64 pieces" in line and "but for these: 3 x 3072 is slower than 6 x 192." in line


def test_hangul_in_parts_is_the_same_text(tmp_path):
    """A Mac's file names and texts have it so (NFD); the vocabulary has whole syllables."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, lower=False, strip_accents=False))
    text = "안녕하세요 뇌 세포"
    parts = unicodedata.normalize("NFD", text)
    assert parts != text
    whole, apart = (
        classification_rows([each], [0], tokenizer, max_length=16).ids for each in (text, parts)
    )
    np.testing.assert_array_equal(whole[0], apart[0])
    assert tokenizer.unk_token_id not in whole[0]
