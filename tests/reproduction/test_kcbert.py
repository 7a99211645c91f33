# SPDX-License-Identifier: Apache-2.0
"""The tables of the Distil-KcBERT thesis, and their configurations."""

import importlib
import json
import re
import unicodedata

import numpy as np
import pytest

from configs import distilkcbert, edad
from edad_jax import types
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.distillation import build, nets
from edad_jax.tasks.rows import classification_rows
from reproduction import kcbert
from reproduction.cells import command
from reproduction.reproduce_kcbert import _tell_order, reproduce_kcbert
from tests.test_launch import assert_dies
from tests.tiny_run import run_command, write_teacher
from tests.tiny_text import write_tokenizer

INPUTS = kcbert.KcInputs("/m/kcbert", "/d/*.txt", "/d/s.csv", 300, {"multilingual": "/m/multi"})


def test_every_student_is_trained_once_and_each_model_tuned_alike():
    plan = kcbert.plan_kcbert(6, kcbert.KC_SCALES["small"], INPUTS, "/cells")
    names = [cell.name for cell in plan.cells]
    assert len(names) == len(set(names)) == 1 + 9 + 11
    assert len(plan.models) == 11 and set(plan.tunings) == set(plan.models)
    flags = {tuple(w for w in cell.words if "model=" not in w) for cell in plan.tunings.values()}
    assert len(flags) == 1
    assert "--config.model=/m/multi" in plan.tunings["multilingual"].words
    other = kcbert.plan_kcbert(
        6, kcbert.KC_SCALES["small"], INPUTS._replace(sentiment="/d/nsmc"), "/cells"
    )
    assert other.cells[:10] == plan.cells[:10]  # the same students, for other labelled texts
    assert not {cell.name for cell in other.cells[10:]} & set(names)
    same = kcbert.plan_kcbert(4, kcbert.KC_SCALES["small"], INPUTS, "/cells")
    assert same.cells == plan.cells[:10] and not same.tunings
    assert len(kcbert.plan_kcbert(5, kcbert.KC_SCALES["small"], INPUTS, "/cells").tunings) == 9


def assert_flags_are_options(cells):
    """Asserts that the configuration that a cell names has every key that its flags set."""
    for cell in cells:
        name = re.search(r"--config=configs/(\w+)\.py", " ".join(cell.words))[1]
        config = importlib.import_module(f"configs.{name}").get_config()
        for word in cell.words:
            if word.startswith("--config."):
                node = config
                for key in word.removeprefix("--config.").split("=", 1)[0].split("."):
                    node = node[key]  # KeyError: no such option


@pytest.mark.parametrize("scale", kcbert.KC_SCALES.values(), ids=kcbert.KC_SCALES)
def test_the_flags_are_options_of_the_configurations(scale):
    assert_flags_are_options(kcbert.plan_kcbert(6, scale, INPUTS, "/cells").cells)


def test_news_are_a_document_a_line_and_other_text_is_not():
    assert distilkcbert.get_config().corpus.lines
    for name in ("edad", "edad_small", "table_small", "minilm", "distil", "adapt_all_weights"):
        assert importlib.import_module(f"configs.{name}").get_config().corpus.lines is False


def test_the_configuration_is_sound_and_its_student_the_thesiss_fifth():
    config = distilkcbert.get_config()
    build.check_settings(config)
    assert set(config) == set(edad.get_config())
    student = nets.student_config(config.student, types.Vocabulary(30_000, 30_000, 4, 2, 3))
    assert student.extension is None and not student.base.has_pooler
    assert (student.base.num_hidden_layers, student.base.intermediate_size) == (3, 768)


def test_table_5_is_written_from_the_cells(tmp_path):
    folder = tmp_path / "small" / "cells"
    plan = kcbert.plan_kcbert(5, kcbert.KC_SCALES["small"], INPUTS, str(folder))
    for number, cell in enumerate(plan.cells):
        (folder / cell.name).mkdir(parents=True)
        (folder / f"{cell.name}.command.json").write_text(json.dumps(command(cell, folder)))
        accuracy = 0.5 + number / 100
        summary = {
            "validation_by_epoch": [[accuracy - 0.1, 0.0], [accuracy, 0.0]],
            "seeds": {"0": {"failed": False}, "1": {"failed": True}},
            "means": {"test/accuracy": {"mean": accuracy, "half": None}},
        }
        (folder / cell.name / cell.marker).write_text(json.dumps(summary))
    arguments = {"root": tmp_path, "workdir": tmp_path, "out": tmp_path / "out"}
    written = reproduce_kcbert(
        5, "small", kcbert.KC_SCALES["small"], INPUTS, only_report=True, **arguments
    )
    text = written.read_text(encoding="utf-8")
    assert "| 1 x 192" in text and "50.0" in text and "--config.model=CELLS/kcbert-6x3072" in text
    assert "Not in the means, since their loss was not finite: 1 x 192, seed 1; " in text
    figures = json.loads((tmp_path / "out" / "table-kcbert-5.json").read_text(encoding="utf-8"))
    assert figures["by_epoch"]["1 x 192"] == [[pytest.approx(0.5)], [pytest.approx(0.6)]]
    assert figures["rows"][0]["epoch 2"] == "60.0"
    assert (tmp_path / "out" / "table-kcbert-5.png").stat().st_size > 10_000
    other = INPUTS._replace(teacher="/m/other")
    for cell in kcbert.plan_kcbert(5, kcbert.KC_SCALES["small"], other, str(folder)).cells:
        (folder / f"{cell.name}.command.json").write_text(json.dumps(command(cell, folder)))
    reproduce_kcbert(5, "small", kcbert.KC_SCALES["small"], other, only_report=True, **arguments)
    kept = {"table-kcbert-5", "table-kcbert-5-small-kcbert-s.csv"}
    assert {path.name.removesuffix(".md") for path in (tmp_path / "out").glob("*.md")} == kept
    for cell in plan.cells:
        (folder / f"{cell.name}.command.json").write_text(json.dumps(command(cell, folder)))
    (folder / plan.cells[-1].name / "summary.json").unlink()
    with pytest.raises(ValueError, match="kcbert-6x3072.s/summary.json: got no such file"):
        reproduce_kcbert(
            5, "small", kcbert.KC_SCALES["small"], INPUTS, only_report=True, **arguments
        )


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
    seconds = {kcbert.student_name(*sizes): s for sizes, (_, s) in kcbert.PUBLISHED.items()}
    assert kcbert.out_of_order(seconds | {"teacher": 0.0}) == []
    wrong = seconds | {"3 x 3072": 600.0}
    assert kcbert.out_of_order(wrong) == [("3 x 3072", "6 x 192")]
    (_, line) = _tell_order({64: wrong})
    assert "64 pieces" in line and "but for these: 3 x 3072 is slower than 6 x 192." in line


def test_missing_inputs_of_a_table_are_named():
    common = ("--teacher", "/none", "--corpus", "/none/*.txt")
    done = run_command("--table", "kcbert-5", *common, script="reproduce.py")
    assert_dies(done, "--sentiment is empty, expected labelled texts for table kcbert-5")
    done = run_command("--table=kcbert-5", *common, "--sentiment=/none.csv", script="reproduce.py")
    assert_dies(done, "/none.csv: got no such file or folder; give another --sentiment")
    done = run_command("--table", "2", *common, script="reproduce.py")
    assert_dies(done, "--ner is empty, expected the folder of the three data sets for table 2")


def test_lengths_that_the_teacher_cannot_read_are_named_at_once(tmp_path):
    teacher = write_teacher(tmp_path)  # 40 positions
    common = ("--table", "kcbert-4", f"--teacher={teacher}", "--corpus=/none/*.txt")
    done = run_command(*common, "--lengths=16,64", script="reproduce.py")
    assert_dies(done, "got --lengths=16,64, expected numbers from 1 to 40")


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
