# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and metrics in object storage: a new machine goes on from there, bit for bit."""

import json
import logging
import shutil

import fsspec
import pytest

from edad_jax.distillation.train import train
from edad_jax.files import RemoteError
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import read_metrics
from edad_jax.training.mirror import Mirror
from edad_jax.training.progress import TIME_COSTS
from tests.tiny_run import SAVE_EVERY, STEPS, call_before_step, tiny_config
from tests.tiny_storage import failing, put, read_bucket
from tests.training.test_checkpoint import assert_same_bits, make_state


def save(url, workdir, *steps, keep=2, config=None):
    """Saves states with copies, as a run does that begins or goes on in this workdir."""
    workdir.mkdir(exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(config or {"batch_size": 8}))
    (workdir / "frozen_sha256.json").write_text("{}")
    mirror = Mirror(url, workdir, keep=keep)
    mirror.fetch()
    checkpoints = workdir / "checkpoints"
    with Checkpointer(checkpoints, keep=keep, on_saved=mirror.store) as checkpointer:
        restored = checkpointer.restore(make_state(0))
        for step in steps:
            with open(workdir / "metrics.jsonl", "a") as log:
                log.write(json.dumps({"step": step}) + "\n")
            checkpointer.save(step, make_state(step))
    return restored


def steps_in(url):
    names = read_bucket(url)
    return sorted(int(name[10:-5]) for name in names if name.startswith("checksums/"))


def test_a_new_machine_gets_the_newest_step_bit_for_bit(bucket, tmp_path):
    save(f"{bucket}/run", tmp_path / "a", 2, 4, 6)
    assert steps_in(f"{bucket}/run") == [4, 6]  # keep=2, and nothing else of step 2
    assert not [name for name in read_bucket(f"{bucket}/run") if name.startswith("2/")]
    step, state = save(f"{bucket}/run", tmp_path / "b", 8)
    assert step == 6
    assert_same_bits(state, make_state(6))
    assert [line["step"] for line in read_metrics(tmp_path / "b/metrics.jsonl")] == [2, 4, 6, 8]
    step, state = save(f"{bucket}/run", tmp_path / "a")  # back on the first one, which is behind
    assert step == 8
    assert_same_bits(state, make_state(8))


def test_a_workdir_that_is_as_far_is_not_touched(tmp_path):
    save("memory://as-far", tmp_path / "a", 2, 4)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    Mirror("memory://as-far", tmp_path / "a", keep=2).fetch()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == times


def test_a_step_without_checksums_is_none_and_a_broken_one_is_passed_over(tmp_path, caplog):
    url = "memory://broken"
    save(url, tmp_path / "a", 2, 4, 6, keep=3)
    system = fsspec.filesystem("memory")
    system.rm_file("/broken/checksums/6.json")  # stopped before its end
    name = max((n for n in read_bucket(f"{url}/4")), key=lambda n: len(read_bucket(f"{url}/4")[n]))
    content = read_bucket(f"{url}/4")[name]
    put(f"{url}/4/{name}", content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        step, state = save(url, tmp_path / "b")
    assert step == 2
    assert_same_bits(state, make_state(2))
    assert f"{url}/4/{name}: got xxh3_128" in caplog.text
    save(url, tmp_path / "b", 4, keep=3)  # made again, and whole
    assert save(url, tmp_path / "c")[0] == 4


def test_nothing_whole_is_an_error_and_not_a_new_beginning(tmp_path):
    save("memory://none-whole", tmp_path / "a", 2)
    for name in read_bucket("memory://none-whole/2"):
        put(f"memory://none-whole/2/{name}", b"?")
    with pytest.raises(
        ValueError, match="(?s)memory://none-whole: got no whole checkpoint.*xxh3_128"
    ):
        save("memory://none-whole", tmp_path / "b")
    assert not (tmp_path / "b/checkpoints/checksums").exists()


def test_a_copy_that_was_stopped_goes_on(tmp_path, monkeypatch):
    url = "memory://stopped-copy"
    save(url, tmp_path / "a", 2)
    get, done = fsspec.filesystem("memory").__class__.get_file, []

    def stop(self, there, here, **options):
        if len(done) == 3:
            raise ConnectionError("reset by peer")
        done.append(there)
        get(self, there, here, **options)

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "get_file", stop)
    with pytest.raises(RemoteError, match="memory://stopped-copy/2/.*: got ConnectionError: reset"):
        save(url, tmp_path / "b")
    first = list(done)
    done[:] = [""] * 4
    assert save(url, tmp_path / "b")[0] == 2
    assert not set(first) & set(done[4:])


def test_storage_that_fails_costs_the_copy_and_not_the_run(tmp_path, monkeypatch, caplog):
    with failing(monkeypatch, "put_file", PermissionError("Forbidden")):
        save("memory://failing", tmp_path / "a", 2)
    assert "step 2 is not in memory://failing: memory://failing/2/" in caplog.text
    assert "PermissionError: Forbidden; expected access" in caplog.text
    assert steps_in("memory://failing") == []
    save("memory://failing", tmp_path / "a", 4)
    assert steps_in("memory://failing") == [4]


def test_copies_of_another_configuration_are_an_error_that_names_the_key(tmp_path):
    save("memory://other", tmp_path / "a", 2)
    shutil.rmtree(tmp_path / "a/checkpoints/2")
    (tmp_path / "a/config.json").write_text(json.dumps({"batch_size": 4}))
    with pytest.raises(ValueError, match="(?s)another configuration.*batch_size: got 4, there 8"):
        Mirror("memory://other", tmp_path / "a", keep=2).fetch()
    with pytest.raises(ValueError, match="config.checkpoint.directory='/data': got a path, expect"):
        Mirror("/data", tmp_path, keep=2)


def test_a_run_goes_on_in_an_empty_workdir_as_if_nothing_had_been(
    finished,
    bucket,
    tmp_path,
    monkeypatch,
):
    def run_config(**changes):
        changes |= {"prepared": str(finished.workdir), "checkpoint__directory": f"{bucket}/run"}
        return tiny_config(finished.inputs, **changes)

    class GoneError(Exception):
        pass

    def die():
        raise GoneError

    with monkeypatch.context() as patch, pytest.raises(GoneError):
        call_before_step(patch, STEPS - SAVE_EVERY + 1, die)
        train(run_config(), str(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(ValueError, match="config.seed: got 7, the run has 0"):
        train(run_config(seed=7), str(tmp_path / "wrong"))
    train(run_config(), str(tmp_path / "second"))
    unlike = {"time", "tokens_per_second", *TIME_COSTS}
    lines = [
        [{k: v for k, v in line.items() if k not in unlike} for line in read_metrics(path)]
        for path in (tmp_path / "second/metrics.jsonl", finished.workdir / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]
    weights = [
        folder / "student/model.safetensors" for folder in (tmp_path / "second", finished.workdir)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    copies = read_bucket(f"{bucket}/run")
    assert copies["student/model.safetensors"] == weights[0].read_bytes()
    assert json.loads(copies["summary.json"])["steps"] == STEPS
    assert {"training.png", "teacher/config.json"} <= copies.keys()


def test_a_workdir_that_is_a_url_is_an_error_that_names_the_option(finished):
    with pytest.raises(
        ValueError, match="--workdir=gs://b/run: got a URL.*checkpoint.directory=URL"
    ):
        train(tiny_config(finished.inputs), "gs://b/run")
