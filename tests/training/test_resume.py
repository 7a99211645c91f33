# SPDX-License-Identifier: Apache-2.0
"""The real command, killed and given again: it ends in the same bits as one that ran through."""

import signal
import subprocess
import time

import pytest

from edad_jax.training.metrics import read_metrics
from edad_jax.training.progress import TIME_COSTS
from tests.tiny_run import ROOT, command, environment, run_command, write_config_file

STEPS, SAVE_EVERY = 40, 5
NOT_COMPARED = ("time", "tokens_per_second", *TIME_COSTS)


@pytest.fixture(scope="module")
def config_file(finished, tmp_path_factory):
    """Returns a configuration of some epochs, with rows that are there already."""
    return write_config_file(
        tmp_path_factory.mktemp("resume") / "tiny.py",
        finished.inputs,
        prepared=str(finished.workdir),
        max_steps=STEPS,
        checkpoint__every_steps=SAVE_EVERY,
        heldout__every_steps=8,
    )


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """Returns the workdir of the command that ran through."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    done = run_command("--config", str(config_file), "--workdir", str(workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    return workdir


def stop_midway(config_file, workdir, number):
    """Starts the command, sends it the signal between two checkpoints; returns (rc, stderr)."""
    log = workdir / "metrics.jsonl"
    process = subprocess.Popen(
        command("--config", str(config_file), "--workdir", str(workdir)),
        env=environment(),
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 300
    try:
        while not (log.exists() and f'"step": {2 * SAVE_EVERY + 2},' in log.read_text()):
            assert process.poll() is None, process.communicate()[1][-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, errors


def last_logged_step(workdir):
    return read_metrics(workdir / "metrics.jsonl")[-1]["step"]


def whole_checkpoints(workdir):
    return {int(path.stem) for path in (workdir / "checkpoints" / "checksums").glob("*.json")}


def resume(config_file, workdir):
    done = run_command("--config", str(config_file), "--workdir", str(workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def assert_same_end(workdir, expected):
    for net in ("student", "teacher"):
        ours, theirs = (
            (folder / net / "model.safetensors").read_bytes() for folder in (workdir, expected)
        )
        assert ours == theirs, net
    ours, theirs = (
        [
            {name: value for name, value in line.items() if name not in NOT_COMPARED}
            for line in read_metrics(folder / "metrics.jsonl")
        ]
        for folder in (workdir, expected)
    )
    assert ours == theirs


def test_a_kill_mid_epoch_leaves_no_trace(config_file, uninterrupted, tmp_path):
    code, _ = stop_midway(config_file, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    saved, reached = max(whole_checkpoints(tmp_path)), last_logged_step(tmp_path)
    assert SAVE_EVERY <= saved < reached < STEPS  # some steps are lost, and made again
    assert not (tmp_path / "student").exists()
    assert f"Going on from the checkpoint of step {saved}" in resume(config_file, tmp_path)
    assert_same_end(tmp_path, uninterrupted)


def test_sigterm_saves_says_so_and_leaves_no_trace(config_file, uninterrupted, tmp_path):
    code, errors = stop_midway(config_file, tmp_path, signal.SIGTERM)
    assert code == 1
    assert "Traceback" not in errors
    reached = last_logged_step(tmp_path)
    assert f"stopped by a signal at step {max(whole_checkpoints(tmp_path))} of {STEPS}" in errors
    assert max(whole_checkpoints(tmp_path)) >= reached
    assert f"Going on from the checkpoint of step {reached}" in resume(config_file, tmp_path)
    assert_same_end(tmp_path, uninterrupted)
