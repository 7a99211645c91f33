# SPDX-License-Identifier: Apache-2.0
"""Whole runs by the triple loss and by relations: what they leave, and that they resume."""

import json

import pytest

from edad_jax.distillation import train as train_module
from edad_jax.distillation.train import train
from edad_jax.training.metrics import read_metrics
from tests.tiny_run import make_inputs, tiny_config

PLAIN = {"vocabulary__size": 0, "teacher__extension__hidden_size": 0}
DISTILBERT = PLAIN | {
    "student__type_vocab_size": 0,
    "student__has_pooler": False,
    "student__extension__hidden_size": 0,
    "rows__mode": "single",
    "rows__buckets": (16, 24),
    "masking__smoothing": 0.7,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("recipes"))


def test_a_stopped_run_by_the_triple_loss_ends_in_the_same_bits(inputs, tmp_path, monkeypatch):
    config = tiny_config(inputs, method="triple", triple__positions="all", **DISTILBERT)
    summary = train(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "any_process", lambda flag, step: step == 3)
        with pytest.raises(SystemExit, match="stopped by a signal at step 3"):
            train(config, str(tmp_path / "halves"))
    train(config, str(tmp_path / "halves"))
    whole, halves = (
        (tmp_path / name / "student" / "model.safetensors").read_bytes()
        for name in ("whole", "halves")
    )
    assert whole == halves

    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert {"distill/soft", "distill/cosine", "student/mlm", "alpha"} <= set(steps[-1])
    assert not any("nsp" in name for line in lines for name in line)
    assert summary["time_cost"]["train/seconds"] > 0
    student = tmp_path / "whole" / "student"
    assert json.loads((student / "config.json").read_text())["model_type"] == "distilbert"
    assert "no loss of this run" not in (student / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "whole" / "training.png").stat().st_size > 20_000
    counts = json.loads((tmp_path / "whole" / "counts.stage.json").read_text())
    assert counts["facts"]["pieces"] > 1_000


def test_a_teacher_that_grows_words_teaches_by_the_triple_loss_as_it_learns(inputs, tmp_path):
    config = tiny_config(inputs, method="triple_adaptation", max_steps=2)
    summary = train(config, str(tmp_path / "run"))
    assert set(summary["nets"]) == {"teacher", "student"}
    last = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line][-1]
    assert {"teacher/mlm", "teacher/nsp", "distill/soft", "distill/cosine"} <= set(last)
    card = (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert "no loss of this run reached them: NSP" in card


def test_a_run_by_relations_ends_with_a_student(inputs, tmp_path):
    config = tiny_config(
        inputs,
        method="minilm",
        max_steps=2,
        minilm__relation_heads=6,
        student__extension__hidden_size=0,
        **PLAIN,
    )
    train(config, str(tmp_path / "run"))
    last = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line][-1]
    assert {"distill/query", "distill/key", "distill/value"} <= set(last)
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    card = (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert "trained in its queries, keys and values only" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "triple"}, "has no extension yet"),
        ({"method": "triple", "teacher__random_heads": ("mlm",), **PLAIN}, "takes soft targets"),
        ({"method": "minilm", "minilm__relation_heads": 5, **PLAIN}, "relation_heads=5 does not"),
        (
            {"method": "minilm", **PLAIN},
            "student.extension.hidden_size=6, expected 0 with config.m",
        ),
        ({"method": "distillation", "teacher__from_scratch": True, **PLAIN}, "no extension yet"),
        ({"rows__buckets": (16, 64)}, r"config.rows.buckets has \[64\]"),
        ({"masking__mlm_probability": 0.0}, "got config.masking.mlm_probability=0.0"),
        ({"rows__mode": "triples"}, "'triples' is not one of pairs, single"),
    ],
)
def test_what_does_not_go_together_is_told_before_text_is_prepared(
    inputs, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        train(tiny_config(inputs, **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "vocabulary").exists()


def test_rows_of_another_mode_are_refused(inputs, tmp_path):
    train(tiny_config(inputs, max_steps=1, method="triple", **DISTILBERT), str(tmp_path / "single"))
    config = tiny_config(
        inputs, max_steps=1, method="adaptation", prepared=str(tmp_path / "single"), **PLAIN
    )
    with pytest.raises(ValueError, match="rows.mode='pairs', but the rows in .* are 'single'"):
        train(config, str(tmp_path / "run"))
