# SPDX-License-Identifier: Apache-2.0
"""Numbers go to whom they are asked for, and no tracker can cost a run its own log."""

import math
import sys
import types

import pytest

from edad_jax.training.metrics import MetricsWriter, read_metrics
from edad_jax.training.trackers import VARIABLE


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which is set for the whole process


@pytest.fixture
def wandb(monkeypatch):
    """A package that keeps what it is told."""
    calls = []

    class Run:
        id = "abc"

        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setenv(VARIABLE, "wandb")
    return calls


def test_weights_and_biases_get_finite_numbers_and_one_run_even_after_a_stop(tmp_path, wandb):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 2.0, "alpha": math.nan})
    with MetricsWriter(tmp_path, resume_step=1) as writer:
        writer.write(2, {"loss": 1.0})
    begun, first, _, resumed, second, _ = wandb
    assert (begun["id"], resumed["id"], resumed["resume"]) == (None, "abc", "allow")
    assert begun["dir"] == str(tmp_path) and begun["project"] == "edad-jax"
    assert (first, second) == ((1, {"loss": 2.0}), (2, {"loss": 1.0}))
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_mlflow_gets_the_same_numbers(tmp_path, monkeypatch):
    calls = []

    class MlflowClient:
        def __init__(self, tracking_uri):
            calls.append(tracking_uri)

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"number of {name}"

        def create_run(self, experiment, run_name):
            calls.append((experiment, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

        def log_metric(self, run, name, value, step):
            calls.append((run, name, value, step))

        def set_terminated(self, run):
            calls.append((run, "terminated"))

    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=MlflowClient))
    monkeypatch.setenv(VARIABLE, "mlflow")
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {"loss": 2.0, "alpha": 0.5})
    place, run, *logged, end = calls
    assert place == (tmp_path / "mlruns").as_uri() and run == ("number of edad-jax", tmp_path.name)
    assert logged == [("r1", "loss", 2.0, 3), ("r1", "alpha", 0.5, 3)]
    assert end == ("r1", "terminated")


def test_a_tracker_that_fails_costs_its_own_record_alone(tmp_path, wandb, monkeypatch, caplog):
    def fail(**_):
        raise RuntimeError("no network")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 2.0})
    assert "wandb takes no more numbers: no network" in caplog.text
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [2.0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("wandb,comet", "got 'comet', expected wandb or mlflow"),
        ("mlflow", r"names mlflow, which is not installed: pip install 'edad-jax\[mlflow\]'"),
    ],
)
def test_a_tracker_that_is_not_there_is_told_before_the_run(tmp_path, monkeypatch, names, message):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv(VARIABLE, names)
    with pytest.raises(ValueError, match=message):
        MetricsWriter(tmp_path)
