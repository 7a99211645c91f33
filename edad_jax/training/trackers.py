# SPDX-License-Identifier: Apache-2.0
"""Where the numbers of a run go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

    EDAD_JAX_TRACKERS=wandb,mlflow python launch/train.py ...

An environment variable, as these packages have their own (WANDB_MODE=offline, WANDB_PROJECT,
MLFLOW_TRACKING_URI): who watches a run is no setting of it. TensorBoard is written to wherever
tensorboardX is installed. metrics.jsonl stays the truth: a tracker that fails is let go, and the
run goes on.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol

from absl import logging

VARIABLE = "EDAD_JAX_TRACKERS"
PROJECT = "edad-jax"  # for want of WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME


class Tracker(Protocol):
    """What takes the numbers of a run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes finite values."""

    def close(self) -> None:
        """Ends the record."""


class TensorBoard:
    """Events in workdir/tensorboard."""

    def __init__(self, workdir: Path, resume_step: int | None):
        package = importlib.import_module("tensorboardX")
        purge_step = 0 if resume_step is None else resume_step + 1
        self._writer = package.SummaryWriter(str(workdir / "tensorboard"), purge_step=purge_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in workdir/wandb; a run that goes on keeps its id."""

    def __init__(self, workdir: Path, resume_step: int | None):
        package = _import("wandb")
        known = _read_id(workdir / "wandb_id.txt", resume_step)
        self._run = package.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=workdir.name,
            dir=str(workdir),
            id=known,
            resume="allow" if known else None,
        )
        (workdir / "wandb_id.txt").write_text(self._run.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, in files in workdir/mlruns unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, workdir: Path, resume_step: int | None):
        package = _import("mlflow")
        # From version 3 on MLflow takes files only from who asks for them; a database needs more.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        place = os.environ.get("MLFLOW_TRACKING_URI") or (workdir / "mlruns").absolute().as_uri()
        self._client = package.MlflowClient(tracking_uri=place)
        self._id = _read_id(workdir / "mlflow_id.txt", resume_step)
        if self._id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self._client.create_experiment(name)
            run = self._client.create_run(experiment, run_name=workdir.name)
            self._id = run.info.run_id
            (workdir / "mlflow_id.txt").write_text(self._id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS = {"wandb": WeightsAndBiases, "mlflow": MLflow}


class Trackers:
    """All trackers of a run.

    Args:
      workdir: an existing folder.
      resume_step: the step that the run goes on from; None: it begins.

    Raises:
      ValueError: the variable names no tracker, or one whose package is not installed.
    """

    def __init__(self, workdir: Path, resume_step: int | None):
        self._open: list[Tracker] = []
        names = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"{VARIABLE}: got {name!r}, expected {' or '.join(TRACKERS)}")
        for name in names:
            _import(name)
        try:
            self._open.append(TensorBoard(workdir, resume_step))
        except ImportError:
            logging.info("No TensorBoard: pip install 'edad-jax[tensorboard]' adds it.")
        for name in names:
            self._attempt(name, lambda name=name: self._begin(name, workdir, resume_step))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hands finite values on; a tracker that fails gets no more."""
        for tracker in list(self._open):
            if not self._attempt(type(tracker).__name__, lambda t=tracker: t.write(step, values)):
                self._open.remove(tracker)

    def close(self) -> None:
        """Ends all records."""
        for tracker in self._open:
            self._attempt(type(tracker).__name__, tracker.close)
        self._open = []

    def _begin(self, name, workdir, resume_step):
        self._open.append(TRACKERS[name](workdir, resume_step))

    def _attempt(self, name, act):
        try:
            act()
        except Exception as error:  # whatever a package raises costs its own record alone
            logging.error("%s takes no more numbers: %s. metrics.jsonl has all.", name, error)
            return False
        return True


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{VARIABLE} names {name}, which is not installed: pip install 'edad-jax[{name}]'"
        ) from error


def _read_id(path, resume_step):
    """Returns the id that a run had before it was stopped; None for a new one."""
    return path.read_text() if resume_step is not None and path.is_file() else None
