# SPDX-License-Identifier: Apache-2.0
"""Table 2 of the Raspberry Pi paper, from models that answer questions."""

import json
from types import SimpleNamespace

import pytest

from configs import squad
from edad_jax.export import formats
from edad_jax.tasks.exported import open_answerer
from reproduction import raspberry_pi as reproduce_pi_module
from reproduction.raspberry_pi import _settings, plan_pi, reproduce_pi
from tests.test_launch import assert_dies
from tests.tiny_exports import tiny_model
from tests.tiny_run import run_command, write_teacher
from tests.tiny_tasks import write_questions
from tests.tiny_text import write_tokenizer


def test_models_that_answer_are_asked_and_others_are_tuned_first(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    answering = tiny_model(tmp_path / "answering", tokenizer, "answering")
    plain = str(write_teacher(tmp_path / "plain"))
    plan = plan_pi({"a": answering, "b": plain}, "/squad", "/cells", ("--config.epochs=1",))
    assert plan.models == {"a": answering, "b": "/cells/squad-b/model"}
    (cell,) = plan.cells
    assert f"--config.model={plain}" in cell.words and cell.words[-1] == "--config.epochs=1"
    with pytest.raises(ValueError, match="--models is empty"):
        plan_pi({}, "/squad", "/cells")


def test_students_are_tuned_with_and_without_soft_labels(tmp_path):
    models = {name: str(write_teacher(tmp_path / name)) for name in ("big", "small", "third")}
    plan = plan_pi(models, "/squad", "/cells", soft_labels_of="big")
    assert [cell.name for cell in plan.cells] == [
        "squad-big",
        "squad-small",
        "squad-third",
        "squad-small-soft",
        "squad-third-soft",
    ]
    assert plan.cells[3].words[:-1] == plan.cells[1].words
    assert plan.cells[3].words[-1] == "--config.teacher=/cells/squad-big/model"
    assert plan.models["small, soft labels of big"] == "/cells/squad-small-soft/model"
    with pytest.raises(ValueError, match="expected one of --models, big, small, third"):
        plan_pi(models, "/squad", "/cells", soft_labels_of="huge")


def test_a_student_with_other_pieces_has_no_soft_labels(tmp_path, caplog):
    models = {name: str(write_teacher(tmp_path / name)) for name in ("big", "small", "other")}
    write_tokenizer(tmp_path / "other", lower=False)
    plan = plan_pi(models, "/squad", "/cells", soft_labels_of="big")
    assert [cell.name for cell in plan.cells][3:] == ["squad-small-soft"]
    assert plan.left_out == ("other",) and "other has other pieces than big" in caplog.text


def test_every_model_is_scored_and_timed_in_both_kinds_of_numbers(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    model = tiny_model(tmp_path / "model", tokenizer, "answering")
    questions = write_questions(tmp_path / "squad.json")
    written = reproduce_pi(
        {"tiny": model},
        str(questions),
        scale_name="small",
        root=tmp_path,
        workdir=tmp_path / "work",
        out=tmp_path / "out",
        questions=4,
        progress=False,
    )
    found = json.loads((tmp_path / "out" / "table-pi-2.json").read_text())
    assert [row["numbers"] for row in found["rows"]] == ["float32", "int8"]
    for row in found["rows"]:
        assert 0 <= row["exact_match"] <= row["f1"] <= 1 and row["seconds"] > 0
    text = written.read_text(encoding="utf-8")
    assert (
        "4 questions of the test split (all), one at a time, windows of at most 20" in text
        and "| BERT-base" in text
    )
    assert (tmp_path / "out" / "table-pi-2.png").stat().st_size > 5_000


def test_models_are_asked_as_they_were_tuned(tmp_path):
    """Another seed of the split would ask questions that a model was trained on."""
    plain = str(write_teacher(tmp_path / "plain"))
    plan = plan_pi({"b": plain}, "/squad", str(tmp_path))
    (tmp_path / "squad-b").mkdir()
    config = {
        "encoding": "cp949",
        "split_seed": 3,
        "dataset_config": "",
        "max_length": 16,
        "overlap": 4,
        "max_query": 12,
        "longest_answer": 5,
    }
    assert set(config) < set(squad.get_config())
    (tmp_path / "squad-b" / "config.json").write_text(json.dumps(config))
    settings = _settings(plan, tmp_path)
    assert settings.data == {"encoding": "cp949", "seed": 3, "dataset_config": ""}
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    model = formats.load(tiny_model(tmp_path / "model", tokenizer, "answering"))
    reader = open_answerer(formats.export(model, "onnx", tmp_path / "onnx"), **settings.search)
    assert (reader.max_length, reader.max_query_length, reader.max_answer_length) == (16, 12, 5)


class Told(list):
    """A reader that answers what it was told."""

    max_length = 20

    def __call__(self, pairs):
        return iter([list(self)] * len(pairs))


def test_korquads_scoring_selects_epochs_and_counts_answers(tmp_path, monkeypatch):
    plain = str(write_teacher(tmp_path / "plain"))
    (cell,) = plan_pi({"b": plain}, "/squad", "/cells", scoring="korquad").cells
    assert "--config.scoring=korquad" in cell.words
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    model = tiny_model(tmp_path / "model", tokenizer, "answering")
    answer = [SimpleNamespace(text="prot")]  # four of the seven letters of "protein"
    monkeypatch.setattr(
        reproduce_pi_module,
        "open_answerer",
        lambda *_, **__: Told(answer),
    )
    places = {"root": tmp_path, "workdir": tmp_path / "work", "out": tmp_path / "out"}
    places["scale_name"] = "small"
    written = reproduce_pi(
        {"tiny": model},
        str(write_questions(tmp_path / "squad.json")),
        **places,
        questions=4,
        scoring="korquad",
        progress=False,
    )
    found = json.loads((tmp_path / "out" / "table-pi-2.json").read_text())
    assert [row["f1"] for row in found["rows"]] == [pytest.approx(2 * 4 / (4 + 7))] * 2
    assert found["scoring"] == "korquad"
    assert "in KorQuAD 1.0's way" in written.read_text(encoding="utf-8")


def test_missing_questions_are_named():
    done = run_command("--table", "pi-2", "--models", "a=/none", script="reproduce.py")
    assert_dies(done, "--squad is empty, expected questions and their contexts for table pi-2")
