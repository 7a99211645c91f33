# SPDX-License-Identifier: Apache-2.0
"""What stops fine-tuning and probes before data are tokenised or a net is made."""

import shutil

import pytest

from edad_jax.data import disk
from edad_jax.export import formats
from edad_jax.tasks import exported, probe_report, setup
from edad_jax.tasks.finetune import finetune
from edad_jax.tasks.tagging import Tagging
from edad_jax.tasks.task import Task
from tests.tiny_tasks import tiny_tuning, write_exbert, write_labelled, write_tagging


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_exbert(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tagging(tmp_path_factory.mktemp("tagging") / "words")


@pytest.fixture
def nothing_is_made(monkeypatch):
    """Fails where a text is tokenised or a net is built."""
    for name in ("build_net",):
        monkeypatch.setattr(setup, name, None)
    monkeypatch.setattr(Tagging, "rows", None)


@pytest.fixture
def nothing_is_read(nothing_is_made, monkeypatch):
    monkeypatch.setattr(Tagging, "read", None)


def change_tags(data, folder, split, tag):
    """Returns a copy of the data whose split has another type for all entities, or none."""
    shutil.copytree(data, folder)
    text = (folder / f"{split}.tsv").read_text()
    (folder / f"{split}.tsv").write_text(
        text.replace("B-Vowel", f"B-{tag}" if tag else "O").replace(
            "I-Vowel", f"I-{tag}" if tag else "O"
        )
    )
    return folder


@pytest.mark.parametrize(
    ("split", "tag", "told"),
    [
        ("test", "Other", "entities of the test split .*Other .*Vowel"),
        ("devel", "Other", "entities of the validation split"),
        ("devel", "", "got no entities in the validation split"),
        ("test", "", "got no entities in the test split"),
    ],
)
def test_labels_are_looked_at_before_any_text_is_tokenised(
    model, data, tmp_path, nothing_is_made, split, tag, told
):
    changed = change_tags(data, tmp_path / "data", split, tag)
    with pytest.raises(ValueError, match=told):
        finetune(tiny_tuning("tagging", model, changed), str(tmp_path / "run"))


def test_the_model_is_looked_at_before_the_data(model, data, tmp_path, nothing_is_read):
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        finetune(tiny_tuning("tagging", broken, data), str(tmp_path / "a"))
    with pytest.raises(ValueError, match="the model has only 40 positions"):
        finetune(tiny_tuning("tagging", model, data, max_length=41), str(tmp_path / "b"))
    with pytest.raises(ValueError, match="config.json says no|fine-tuned|expected"):
        finetune(tiny_tuning("tagging", model, data, teacher=str(model)), str(tmp_path / "c"))


def test_the_disk_is_looked_at_before_the_data(model, data, tmp_path, nothing_is_read, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(ValueError, match="got 1 B free .* of checkpoints and the model"):
        finetune(tiny_tuning("tagging", model, data), str(tmp_path / "run"))
    with pytest.raises(ValueError, match="--out=.*: got 1 B free .* of the model"):
        formats.check_target(formats.load(str(model)), "onnx", tmp_path / "onnx")


def test_a_mistake_in_the_last_probe_is_told_before_the_first(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(probe_report, "probe", None)
    config = tiny_tuning("tagging", "", "")
    changed = change_tags(data, tmp_path / "data", "test", "")
    with pytest.raises(ValueError, match="got no entities in the test split"):
        probe_report.probe_all(config, [str(model)], [str(data), str(changed)], [-1])
    with pytest.raises(ValueError, match=r"layers=\[2\]"):
        deep = write_exbert(tmp_path / "deep", layers=2)
        probe_report.probe_all(config, [str(deep), str(model)], [str(data)], [2])


def test_data_of_another_task_are_refused_before_an_export_is_scored(model, data, tmp_path):
    task = formats.Task("classification", ("bad", "good"))
    trained = formats.load(str(model))._replace(task=task)
    texts = write_labelled(tmp_path / "texts.csv")
    with pytest.raises(ValueError, match="got the labels high, low, mid to score, .*bad, good"):
        exported.check_data(trained, str(texts), scoring="squad")


def test_every_task_says_what_its_labels_are():
    for task in setup.TASKS.values():
        assert isinstance(task, Task) and task.labelled
