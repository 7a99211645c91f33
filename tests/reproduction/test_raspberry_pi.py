# SPDX-License-Identifier: Apache-2.0
"""Table 2 of the Raspberry Pi paper, from models that answer questions."""

import json
from types import SimpleNamespace

import pytest

from configs import squad
from edad_jax.export import formats
from edad_jax.tasks.exported import open_answerer
from reproduction import raspberry_pi
from reproduction.driver import reproduce
from tests.reproduction.conftest import plan_of
from tests.tiny_exports import tiny_model
from tests.tiny_run import write_teacher
from tests.tiny_tasks import write_questions
from tests.tiny_text import write_tokenizer


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """Returns the folder of a tiny model that answers questions."""
    folder = tmp_path_factory.mktemp("answering")
    return tiny_model(folder / "model", write_tokenizer(folder / "tokenizer"), "answering")


def test_models_that_answer_are_asked_and_others_are_tuned_first(make_run, models, answering):
    named = [f"a={answering}", f"b={models / 'bert'}"]
    run = make_run("pi-2", models=named, tune=["--config.epochs=1"])
    plan = plan_of(run)
    assert plan.models == {"a": answering, "b": f"{run.folder}/squad-b/model"}
    (cell,) = plan.cells
    assert f"--config.model={models / 'bert'}" in cell.words
    assert cell.words[-1] == "--config.epochs=1"
    with pytest.raises(ValueError, match="--models is empty"):
        plan_of(make_run("pi-2", models=[]))


def test_students_are_tuned_with_and_without_soft_labels(make_run, models):
    named = [f"{name}={models / 'bert'}" for name in ("big", "small", "third")]
    run = make_run("pi-2", models=named, soft_labels_of="big")
    plan = plan_of(run)
    assert [cell.name for cell in plan.cells] == [
        "squad-big",
        "squad-small",
        "squad-third",
        "squad-small-soft",
        "squad-third-soft",
    ]
    assert plan.cells[3].words[:-1] == plan.cells[1].words
    assert plan.cells[3].words[-1] == f"--config.teacher={run.folder}/squad-big/model"
    assert plan.models["small, soft labels of big"] == f"{run.folder}/squad-small-soft/model"
    with pytest.raises(ValueError, match="expected one of --models, big, small, third"):
        plan_of(make_run("pi-2", models=named, soft_labels_of="huge"))


def test_a_student_with_other_pieces_has_no_soft_labels(make_run, models, tmp_path, caplog):
    other = write_teacher(tmp_path / "other")
    write_tokenizer(other, lower=False)
    named = [f"big={models / 'bert'}", f"small={models / 'bio'}", f"other={other}"]
    plan = plan_of(make_run("pi-2", models=named, soft_labels_of="big"))
    assert [cell.name for cell in plan.cells][3:] == ["squad-small-soft"]
    assert plan.left_out == ["other"] and "other has other pieces than big" in caplog.text


def ask(make_run, answering, tmp_path, **changes):
    """Returns what the table of one model holds, and its text."""
    squad_file = str(write_questions(tmp_path / "squad.json"))
    run = make_run("pi-2", models=[f"tiny={answering}"], squad=squad_file, questions=4, **changes)
    written = reproduce(run)
    assert written.with_suffix(".png").stat().st_size > 5_000
    return json.loads(written.with_suffix(".json").read_text()), written.read_text("utf-8")


def test_every_model_is_scored_and_timed_in_both_kinds_of_numbers(make_run, answering, tmp_path):
    found, text = ask(make_run, answering, tmp_path, only_report=False)
    assert [row["numbers"] for row in found["rows"]] == ["float32", "int8"]
    for row in found["rows"]:
        assert 0 <= row["exact_match"] <= row["f1"] <= 1 and row["seconds"] > 0
    assert "4 questions of the test split (all), one at a time, windows of at most 20" in text
    assert "| BERT-base" in text and "Every command" not in text


def test_models_are_asked_as_they_were_tuned(make_run, models, answering, tmp_path):
    """Another seed of the split would ask questions that a model was trained on."""
    run = make_run("pi-2", models=[f"b={models / 'bert'}"])
    plan = plan_of(run)
    folder = run.folder / "squad-b"
    folder.mkdir(parents=True)
    config = {
        "encoding": "cp949",
        "split_seed": 3,
        "dataset_config": "",
        "max_length": 16,
        "overlap": 4,
        "max_query_length": 12,
        "max_answer_length": 5,
    }
    assert set(config) < set(squad.get_config())
    (folder / "config.json").write_text(json.dumps(config))
    settings = raspberry_pi.read_settings(plan, run.folder)
    assert settings.data == {"encoding": "cp949", "seed": 3, "dataset_config": ""}
    exported = formats.export(formats.load(answering), "onnx", tmp_path / "onnx")
    answerer = open_answerer(exported, **settings.search)
    assert (answerer.max_length, answerer.max_query_length, answerer.max_answer_length) == (
        16,
        12,
        5,
    )


class Told(list):
    """A reader that answers what it was told."""

    max_length = 20

    def __call__(self, pairs):
        return iter([list(self)] * len(pairs))


def test_korquads_scoring_selects_epochs_and_counts_answers(
    make_run, answering, tmp_path, monkeypatch
):
    (cell, _) = plan_of(make_run("pi-2", scoring="korquad")).cells
    assert "--config.scoring=korquad" in cell.words
    answer = [SimpleNamespace(text="prot")]  # four of the seven letters of "protein"
    monkeypatch.setattr(raspberry_pi, "open_answerer", lambda *_, **__: Told(answer))
    found, text = ask(make_run, answering, tmp_path, scoring="korquad")
    assert [row["f1"] for row in found["rows"]] == [pytest.approx(2 * 4 / (4 + 7))] * 2
    assert found["scoring"] == "korquad"
    assert "in KorQuAD 1.0's way" in text
