# SPDX-License-Identifier: Apache-2.0
"""The command as a user types it: it teaches, and ends every mistake with a word, not a trace."""

import json
import os
import re
import shutil

import pytest

from tests.tiny_run import make_inputs, run_command, tiny_config, write_config_file


@pytest.fixture(scope="module")
def config_file(finished, tmp_path_factory):
    """Returns the configuration of the finished run, for the command line."""
    return str(write_config_file(tmp_path_factory.mktemp("launch") / "tiny.py", finished.inputs))


def lines_of_error(done):
    """Returns what the command wrote to stderr, but for what it logs on its way."""
    return [line for line in done.stderr.splitlines() if not re.match(r"[IW]\d{4} ", line)]


def assert_dies(done, *words):
    """Asserts that the command failed with these words and without a trace."""
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_teaches_the_command():
    done = run_command("--help")
    for word in (
        "python launch/train.py --config configs/edad.py \\\n",
        "--workdir",
        "--config.KEY=VALUE",
        "configs/quickstart.py",
        "after a kill",
    ):
        assert word in done.stdout
    assert done.stderr == ""


def test_without_a_workdir_it_asks_for_one(config_file):
    assert_dies(run_command("--config", config_file), "--workdir must have a value")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--config.batchsize=4", ("no key 'batchsize'", 'Did you mean "batch_size"')),
        ("--config.student.hiddensize=4", ("no key 'hiddensize'", 'Did you mean "hidden_size"')),
        ("--config.batch_size=four", ("--config.batch_size=four: invalid literal for int",)),
        ("--config.batch_size=1.5", ("--config.batch_size=1.5: invalid literal for int",)),
        # A whole section cannot be replaced; hidden_size=0 is the way to have no extension.
        ("--config.student.extension=None", ("--config.student.extension=None", "not a dict")),
    ],
)
def test_a_wrong_option_dies_with_a_word(config_file, tmp_path, option, words):
    workdir = tmp_path / "run"
    assert_dies(run_command("--config", config_file, "--workdir", str(workdir), option), *words)
    assert not workdir.exists()


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    done = run_command("--config", "configs/edat.py", "--workdir", str(tmp_path))
    assert_dies(done, "configs/edat.py", "No such file")


def test_the_workdir_of_another_config_dies_naming_the_key(finished, config_file):
    done = run_command(
        "--config", config_file, "--workdir", str(finished.workdir), "--config.batch_size=4"
    )
    assert_dies(done, "another configuration", "config.batch_size: got 4, the run has 8")
    assert done.stderr.count("\n  config.") == 1  # this key and no other


def test_a_workdir_that_cannot_be_made_is_one_clear_line(config_file, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_command("--config", config_file, "--workdir", str(tmp_path / "file" / "run"))
    assert_dies(done, f"--workdir={tmp_path}/file/run: got Not a directory, expected a folder")
    assert len(lines_of_error(done)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_workdir_is_one_clear_line(config_file, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir(mode=0o555)
    done = run_command("--config", config_file, "--workdir", str(workdir))
    assert_dies(done, f"--workdir={workdir}: got ", "expected a folder that can be written")
    assert len(lines_of_error(done)) == 1


def test_a_forgotten_corpus_is_one_clear_line_and_the_workdir_can_be_used_again(tmp_path):
    inputs = make_inputs(tmp_path / "inputs")
    config = str(write_config_file(inputs / "tiny.py", inputs, corpus__files="", max_steps=1))
    workdir = tmp_path / "run"
    done = run_command("--config", config, "--workdir", str(workdir))
    assert_dies(done, "names no text; expected one of --config.corpus.files=")
    assert len(lines_of_error(done)) == 1
    files = f"--config.corpus.files={inputs / 'corpus.txt'}"
    bert = "--config.student.extension.hidden_size=0"
    done = run_command("--config", config, "--workdir", str(workdir), files, bert)
    assert done.returncode == 0, done.stderr[-2000:]
    # What the second command asked for is what the run did and what it recorded.
    student = json.loads((workdir / "student" / "config.json").read_text())
    assert student["model_type"] == "bert"
    recorded = json.loads((workdir / "config.json").read_text())
    assert recorded["corpus"]["files"] == str(inputs / "corpus.txt")
    assert recorded["student"]["extension"]["hidden_size"] == 0
    assert recorded["seed"] == tiny_config(inputs).seed


def test_a_finished_run_prints_its_figures(finished, config_file, tmp_path):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    done = run_command("--config", config_file, "--workdir", str(workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy = finished.summary["heldout"]["end"]["heldout/student_mlm_accuracy"]
    assert f"-> {accuracy:.1%}" in done.stdout
    assert "run/student/" in done.stdout
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
