# SPDX-License-Identifier: Apache-2.0
"""What stops a run before its text is read: each of these was told after all rows were made."""

import shutil

import pytest

from edad_jax.data import prepare
from edad_jax.distillation.preflight import check_run
from edad_jax.distillation.settings import check_settings, resolve_config
from edad_jax.distillation.train import train
from edad_jax.files import RemoteError
from tests.tiny_run import make_inputs, tiny_config


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def check(inputs, **changes):
    config = tiny_config(inputs, **changes)
    settings = check_settings(config)
    check_run(resolve_config(config, settings), settings, str(inputs / "run"))


def test_a_run_that_fits_is_let_through_and_nothing_is_left(inputs):
    before = sorted(inputs.rglob("*"))
    check(inputs)
    check(inputs, student__init="teacher", student__hidden_size=24)
    assert sorted(inputs.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows__max_length": 41}, "max_length=41: the student has only 40 positions"),
        (
            {"rows__max_length": 1024, "student__max_position_embeddings": 1024},
            "max_length=1024: the teacher has only 40 positions",
        ),
        ({"student__num_hidden_layers": 3}, "3 layers cannot imitate a teacher of 2"),
        ({"student__num_attention_heads": 4}, "num_attention_heads=3"),
        ({"student__init": "teacher"}, "config.student.hidden_size=24"),
        ({"max_steps": 1, "optimizer__schedule": "warmup_linear"}, "a run of 1, .*more steps"),
        ({"checkpoint__keep": 10**12, "max_steps": 0}, "got .* free on its disk, expected at lea"),
        ({"checkpoint__directory": "nowhere://x"}, "nowhere"),
    ],
)
def test_sizes_that_cannot_be_are_told_at_once(inputs, changes, told):
    with pytest.raises((ValueError, RemoteError), match=told):
        check(inputs, **changes)


def test_a_tokenizer_of_another_model_is_told_at_once(inputs, tmp_path):
    shutil.copytree(inputs / "teacher", tmp_path / "teacher")
    with open(tmp_path / "teacher" / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("one\ntwo\n")
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ pieces, the model's word table"):
        check(inputs, teacher__checkpoint=str(tmp_path / "teacher"))


def test_training_looks_before_it_reads(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "read_text", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--workdir=\S+/file: got Not a directory"):
        train(tiny_config(inputs), str(tmp_path / "file"))
    with pytest.raises(ValueError, match="the student has only 40 positions"):
        train(tiny_config(inputs, rows__max_length=41), str(tmp_path / "run"))
