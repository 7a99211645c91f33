# SPDX-License-Identifier: Apache-2.0
"""The notebooks' cells, executed from top to bottom at tiny size."""

import contextlib
import io
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import edad_jax
from configs import quickstart
from edad_jax.distillation.settings import read_settings
from edad_jax.report.summary import Summary
from tests.tiny_tasks import tiny_tuning, write_tagging

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """Works in a folder that has what a notebook reads of a clone; nothing is left in ours."""
    for name in ("configs", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(quickstart, "_find_teacher", lambda: "teacher")


@pytest.fixture
def trained(finished, tmp_path, monkeypatch):
    """Has edad_jax.train check its configuration and leave the session's tiny run."""
    asked = []

    def train(config, workdir):
        read_settings(config)
        asked.append((config, workdir))
        shutil.copytree(finished.workdir, tmp_path / workdir)
        summary = finished.summary
        examples = [{"text": "a ___", "word": "b", "teacher": "c", "student": "d"}]
        return Summary(summary | {"examples": examples}, tmp_path / workdir, summary.text)

    monkeypatch.setattr(edad_jax, "train", train, raising=False)
    return asked


def execute(name, **replaced):
    """Returns the names that the notebook leaves, and what it printed.

    `replaced` are texts of its source, and what stands there instead.
    """
    source = (NOTEBOOKS / f"{name}.py").read_text("utf-8")
    for before, after in replaced.items():
        assert before in source, before
        source = source.replace(before, after)
    space, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, name, "exec"), space)
    return space, printed.getvalue()


def test_the_quick_start_trains_and_shows_its_figures(trained):
    space, printed = execute("quickstart")
    ((config, workdir),) = trained
    assert config.max_steps == 240 and workdir == "runs/quickstart"
    assert "heldout/student_mlm_accuracy" in printed and "a ___ | b | c | d" in printed
    assert "<table>" in space["run"]._repr_html_()


def test_schedules_share_the_rows_of_the_first(trained):
    space, printed = execute("alpha")
    assert [config.alpha for config, _ in trained] == list(space["SCHEDULES"])
    assert [config.prepared for config, _ in trained[1:]] == ["runs/alpha/linear"] * 3
    assert printed.count("of the masked words") == 4 and "| only_adaptation" in printed
    assert Path(space["picture"]).stat().st_size > 10_000


def test_a_model_is_tuned_its_errors_are_shown_and_its_export_is_used(
    finished, tmp_path, monkeypatch
):
    tune = edad_jax.finetune
    data = write_tagging(tmp_path / "data")

    def finetune(config, workdir):
        assert config.optimizer.learning_rate == 3e-4
        small = tiny_tuning(
            "tagging", finished.workdir / "student", data, epochs=1, optimizer__learning_rate=1e-4
        )
        return tune(small, workdir)

    monkeypatch.setattr(edad_jax, "finetune", finetune, raising=False)
    space, printed = execute("fine_tune")
    assert "of 17 sentences have an error" in printed
    assert "->" in printed  # a word with its tag and what was said of it
    assert space["folder"] == Path("runs/ncbi/model-onnx-int8").resolve()
    assert "model.onnx" in printed
    assert "<table>" in space["scores"]._repr_html_()


@pytest.fixture
def on_colab(monkeypatch):
    """Returns the commands and the folders that a notebook asks Colab for; none is run."""
    run = []

    class Popen(contextlib.nullcontext):
        def __init__(self, command, **options):
            run.append(command)
            super().__init__(types.SimpleNamespace(stdout=(), returncode=0))

    monkeypatch.setattr(subprocess, "Popen", Popen)
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=run.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    return run


def test_colab_asks_for_the_address_of_the_repository(on_colab, tmp_path):
    with pytest.raises(ValueError, match="got no REPOSITORY and no .*; give its address"):
        execute("colab", **{"/content": str(tmp_path / "content")})
    assert not [each for each in on_colab if "git clone" in each]


def test_colab_runs_our_commands_in_an_environment_of_its_own(on_colab, tmp_path):
    run, address = on_colab, "https://git.example/edad-jax"
    given = {'REPOSITORY = ""': f'REPOSITORY = "{address}"'}
    space, _ = execute("colab", **{"/content": str(tmp_path / "content")}, **given)
    assert f"git clone --depth 1 {address} {space['CODE']}" in run
    assert "IPython" not in space
    ours = [shlex.split(command) for command in run if "launch/" in command]
    assert len(ours) == 2
    for words in ours:
        assert words[0] == "cd" and words[3].endswith("env/bin/python")
        assert (ROOT / words[4]).is_file()
    assert (
        f"--config.checkpoint.every_steps=100 --config.progress=False --workdir {space['RUN']}"
        in (" ".join(run[-1].split()))
    )
    assert "drive/MyDrive" in str(space["RUN"])
    assert any(f"-c {space['PINS']} -e" in command for command in run)
    assert (ROOT / space["PINS"]).is_file()
