# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted leaves the same log as one that was not, in valid JSON."""

import json
import math
import subprocess
import sys
import types

import jax.numpy as jnp
import pytest

from edad_jax.training import metrics
from edad_jax.training.metrics import MetricsWriter, read_metrics


def write_steps(workdir, first, last, resume_step=None):
    with MetricsWriter(workdir, resume_step=resume_step) as writer:
        for step in range(first, last + 1):
            writer.write(step, {"loss": 10.0 / (step + 1), "student/mlm": float(step)})


def without_time(lines):
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def test_written_values_are_read_back(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {"loss": jnp.float32(0.5), "alpha": 1})
    [line] = read_metrics(tmp_path / "metrics.jsonl")
    assert without_time([line]) == [{"step": 3, "loss": 0.5, "alpha": 1.0}]
    assert line["time"] > 1.7e9


def test_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_not_finite_values_are_strings_in_valid_json(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    raw = json.loads(text, parse_constant=refuse)
    assert (raw["a"], raw["b"], raw["c"]) == ("NaN", "Infinity", "-Infinity")
    [line] = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(line["a"]) and (line["b"], line["c"]) == (math.inf, -math.inf)


def test_interrupted_and_resumed_run_has_the_log_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    write_steps(tmp_path / "whole", 0, 9)
    write_steps(tmp_path / "parts", 0, 6)
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # and killed
    write_steps(tmp_path / "parts", 5, 9, resume_step=4)
    whole, parts = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("whole", "parts"))
    assert without_time(parts) == without_time(whole)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["metrics.jsonl"]


def test_whole_last_line_without_its_end_is_kept(tmp_path):
    write_steps(tmp_path, 0, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    write_steps(tmp_path, 3, 3, resume_step=2)
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 3]


def test_new_run_keeps_the_old_log_beside(tmp_path):
    write_steps(tmp_path, 0, 2)
    write_steps(tmp_path, 0, 0)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert len(read_metrics(tmp_path / "metrics.previous.jsonl")) == 3


@pytest.mark.parametrize("broken", ["not json", "[1]", '{"loss": 1.0}', "", "\x00\x00"])
def test_broken_line_is_an_error_with_file_and_line(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: got .*expected"):
        read_metrics(path)


def test_line_that_does_not_fit_costs_the_line_and_nothing_else(tmp_path, monkeypatch):
    class FullDisk:
        """Takes half of what is written, as a disk does with its last block."""

        def __init__(self, file):
            self.file, self.name, self.is_full = file, file.name, True

        def write(self, data):
            return self.file.write(data[: len(data) // 2] if self.is_full else data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
        disk = FullDisk(writer._file)
        monkeypatch.setattr(writer, "_file", disk)
        writer.write(2, {"loss": 2.0})
        disk.is_full = False
        writer.write(3, {"loss": 3.0})
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics.jax, "process_index", lambda: 1)
    write_steps(tmp_path, 0, 2)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_same_numbers_where_it_is_installed(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, logdir, purge_step):
            calls.append((logdir, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def flush(self):
            pass

        def close(self):
            calls.append("closed")

    package = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "tensorboardX", package)
    with MetricsWriter(tmp_path, resume_step=4) as writer:
        writer.write(5, {"loss": 1.5, "alpha": math.nan})
    assert calls == [(str(tmp_path / "tensorboard"), 5), ("loss", 1.5, 5), "closed"]


def test_absent_tensorboard_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    write_steps(tmp_path, 0, 1)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_killed_writer_leaves_whole_lines(tmp_path):
    program = (
        "import sys, os\n"
        "from edad_jax.training.metrics import MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1])\n"
        "for step in range(50):\n"
        "    writer.write(step, {'loss': step})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [*range(50)]
