# SPDX-License-Identifier: Apache-2.0
"""However many devices and processes: the same losses, the same weights."""

import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from edad_jax.training.metrics import read_metrics
from edad_jax.training.parallel import AXIS, Parallel, any_process
from edad_jax.training.progress import TIME_COSTS
from tests.tiny_run import ROOT, environment
from tests.tiny_steps import NO_DROPOUT, run_steps, tiny_nets, tiny_settings
from tests.two_processes import ROWS, STEPS, name_leaves


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two_processes(what, out, *folders):
    """Runs two processes of two devices each, and waits for both."""
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.two_processes",
                what,
                coordinator,
                "2",
                str(index),
                str(out),
                *map(str, folders),
            ],
            env=environment(devices=2),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


def load(path):
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def assert_close(ours, expected, tolerance):
    assert ours.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            ours[name], expected[name], atol=tolerance, rtol=1e-5, err_msg=name
        )


def test_two_processes_of_two_devices_equal_one_of_four(tmp_path):
    run_two_processes("steps", tmp_path)
    nets = tiny_nets(**NO_DROPOUT)
    settings = tiny_settings(nets)
    train_state, metrics, _ = run_steps(nets, settings, devices=4, rows=ROWS, steps=STEPS)
    first, second = (load(tmp_path / f"{index}.npz") for index in range(2))
    assert first.pop("device_count") == second.pop("device_count") == 4
    assert_close(first, name_leaves((train_state.params, metrics)), 1e-6)
    for name in first:  # both hold the same bits: none drifts away
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_whole_run_in_two_processes_equals_one(finished, tmp_path):
    """Dropout included: a device draws by its number, whatever process it belongs to."""
    workdir = tmp_path / "run"
    run_two_processes("train", workdir, finished.inputs, finished.workdir)
    for net in ("student", "teacher"):
        ours, expected = (
            load_file(folder / net / "model.safetensors") for folder in (workdir, finished.workdir)
        )
        # Softmax does not see the keys' biases: their gradients are rounding, which Adam scales up.
        assert_close(*(_key_biases(tensors, True) for tensors in (ours, expected)), 1e-3)
        assert_close(*(_key_biases(tensors, False) for tensors in (ours, expected)), 1e-5)
    ours, expected = (
        read_metrics(folder / "metrics.jsonl") for folder in (workdir, finished.workdir)
    )
    assert [line["step"] for line in ours] == [line["step"] for line in expected]
    for line, other in zip(ours, expected, strict=True):
        assert line.keys() - {"tokens_per_second"} == other.keys() - {"tokens_per_second"}
        for name in line.keys() - {"time", "tokens_per_second", "step", *TIME_COSTS}:
            assert line[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def _key_biases(tensors, wanted):
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name.endswith("attention.self.key.bias") == wanted
    }


@pytest.mark.parametrize(
    ("engine", "chosen"), [("auto", "pmap"), ("pmap", "pmap"), ("shard_map", "shard_map")]
)
def test_one_process_runs_by_pmap_unless_told_otherwise(engine, chosen):
    assert Parallel(engine).engine == chosen


def test_an_unknown_engine_is_an_error_that_lists_the_known():
    with pytest.raises(
        ValueError, match="config.parallel.engine='pjit' is not one of auto, pmap, shard_map"
    ):
        Parallel("pjit")


def test_pmap_across_processes_is_an_error_that_names_the_other(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="'pmap' runs in one process; got 2.*'shard_map'"):
        Parallel("pmap")
    assert Parallel("auto").engine == "shard_map"


@pytest.mark.parametrize(("batch_size", "accumulate_steps"), [(4, 1), (8, 1), (8, 2), (16, 4)])
def test_batches_that_split_are_taken(batch_size, accumulate_steps):
    Parallel("auto").check_batch_size(batch_size, accumulate_steps)


@pytest.mark.parametrize(
    ("batch_size", "accumulate_steps", "message"),
    [
        (6, 1, "config.batch_size=6 does not split over 4 devices x 1 micro-batches.*of 4"),
        (8, 3, "config.batch_size=8 does not split over 4 devices x 3 micro-batches.*of 12"),
        (2, 1, "multiple of 4"),
    ],
)
def test_a_batch_that_does_not_split_is_an_error(batch_size, accumulate_steps, message):
    with pytest.raises(ValueError, match=message):
        Parallel("auto").check_batch_size(batch_size, accumulate_steps)


@pytest.mark.parametrize("engine", ["pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 4])
def test_each_device_sees_its_rows_once_and_all_see_the_sum(engine, devices):
    parallel = Parallel(engine, jax.devices()[:devices])

    def step(state, frozen, batch):
        rows = jax.lax.psum(np.float32(1) * batch.shape[0], AXIS)
        return state + frozen * jax.lax.psum(batch.sum(), AXIS), rows

    run = parallel.compile(step, replicated_arguments=2, donate=True)
    total = parallel.replicate(np.float32(1))
    frozen = parallel.replicate(np.float32(2))
    for _ in range(2):
        total, rows = run(total, frozen, parallel.shard_batch(np.arange(8, dtype=np.float32)))
    assert (float(total), float(rows)) == (1 + 2 * (2 * 28), 8)
    assert total.shape == ()
    assert len(total.sharding.device_set) == devices


def test_one_process_answers_for_itself_at_once():
    assert any_process(True, 3) is True
    assert any_process(False, 10) is False
