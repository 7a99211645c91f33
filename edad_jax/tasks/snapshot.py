# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of a fine-tuning run holds, when it is made, and how a run goes on from it.

It may fall on any step. What its epoch has come to by then, the losses of the steps so far, is in
it too: a run that goes on from there writes what one that was never stopped writes.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from edad_jax.files import read_json_or_none, write_json
from edad_jax.tasks.rows import TaskRows
from edad_jax.tasks.step import TuningState
from edad_jax.training.checkpoint import Checkpointer, farewell
from edad_jax.training.parallel import Parallel
from edad_jax.training.progress import TIME_COSTS, StopSignal, Stopwatch
from edad_jax.training.schedules import make_due


@flax.struct.dataclass
class RunState:
    """What goes from epoch to epoch. The lists are by group of seeds."""

    tuning: list[TuningState]
    best: list[dict]  # the parameters after each seed's best epoch, seeds in front
    best_score_s: jax.Array  # float32
    failed_s: jax.Array  # bool; whether a loss of the seed was not finite


@flax.struct.dataclass
class Snapshot:
    """What a checkpoint holds. Those that were made after epochs only hold a RunState alone."""

    run: RunState
    losses_ts: jax.Array  # float32 [steps of an epoch, s]; 0 for those that are yet to come
    costs: jax.Array  # float32; TIME_COSTS so far


class Saver:
    """Writes the checkpoints that are due, and ends a run that was asked to end."""

    def __init__(
        self,
        section: ConfigDict,
        checkpoints: Checkpointer,
        total_steps: int,
        steps_per_epoch: int,
        watch: Stopwatch,
        stop: StopSignal,
    ) -> None:
        self._checkpoints, self._watch, self._stop = checkpoints, watch, stop
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._every_minutes = section.every_minutes
        self._is_due = make_due(section.every_steps, total_steps)
        self._by_steps = section.every_steps > 0
        self._saved_at = time.perf_counter()

    def save_if_due(
        self, done: int, state: RunState, losses: list[list[jax.Array]], parallel: Parallel
    ) -> None:
        """Saves after this step, if it is due; `losses` are of the steps of an unfinished epoch.

        Raises:
          SystemExit: a signal has come, and the checkpoint is on the disk.
        """
        is_stopped = self._stop.is_set and done < self._total
        minutes = (time.perf_counter() - self._saved_at) / 60
        by_clock = 0 < self._every_minutes <= minutes and done < self._total
        if not (is_stopped or by_clock or (self._by_steps and self._is_due(done))):
            return
        costs = self._watch.read()
        so_far = (
            collect_losses(losses) if losses else np.zeros((0, len(state.failed_s)), np.float32)
        )
        missing = self._steps_per_epoch - len(so_far)
        snapshot = Snapshot(
            run=state,
            losses_ts=jnp.asarray(np.pad(so_far, ((0, missing), (0, 0)))),
            costs=jnp.asarray([costs[name] for name in TIME_COSTS], jnp.float32),
        )
        self._checkpoints.save(done, parallel.to_save(snapshot))
        self._saved_at = time.perf_counter()
        if is_stopped:
            self._checkpoints.wait()
            raise SystemExit(farewell(done, self._total, self._checkpoints.last_error))
        self._watch.restart()


def restore_snapshot(
    checkpoints: Checkpointer, state: RunState, steps_per_epoch: int
) -> tuple[int, Snapshot]:
    """Returns (steps done, what the run goes on with); `state` is what it begins with."""
    losses_ts = np.zeros((steps_per_epoch, len(state.failed_s)), np.float32)
    begin = Snapshot(state, losses_ts, np.zeros(len(TIME_COSTS), np.float32))
    step, restored = checkpoints.restore(begin, earlier=[state]) or (0, begin)
    if isinstance(restored, RunState):  # the numbers of these checkpoints are of epochs
        return step * steps_per_epoch, begin.replace(run=restored)
    return step, restored


def note_beginning(workdir: Path, over: str, rows: Mapping[str, TaskRows]) -> None:
    """Writes down how a run that begins trains its seeds, and on what.

    `begun_over_seeds` and `check_rows` read it.
    """
    write_json(_beginning(workdir), {"over_seeds": over, "rows_sha256": _checksum(rows)})


def begun_over_seeds(workdir: Path) -> str | None:
    """Returns how the run whose checkpoints are in the folder trains its seeds; None: no such run.

    Its checkpoints have this form, and only so it comes to the same bits.
    """
    if not _has_checkpoints(workdir):
        return None
    return (read_json_or_none(_beginning(workdir)) or {}).get("over_seeds")


def check_rows(workdir: Path, rows: Mapping[str, TaskRows]) -> None:
    """Raises ValueError where the run whose checkpoints are in the folder began with others."""
    there = read_json_or_none(_beginning(workdir)) if _has_checkpoints(workdir) else None
    if (there or {}).get("rows_sha256", "") not in ("", _checksum(rows)):
        raise ValueError(
            f"{workdir}: got other examples, or other pieces of them, than its run began with: "
            "config.data or the model's tokenizer has changed since; put back what was there, or "
            "choose another --workdir"
        )


def _has_checkpoints(workdir):
    return any((workdir / "checkpoints" / "checksums").glob("*.json"))


def _checksum(rows):
    """Returns the sha256 of what is learned from, and of what chooses the best epoch."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for ids, labels in zip(rows[split].ids, rows[split].labels, strict=True):
            for numbers in ([len(ids), len(labels)], ids, labels):
                digest.update(np.asarray(numbers, "<i4").tobytes())
    return digest.hexdigest()


def collect_losses(losses: Sequence[Sequence[jax.Array]]) -> np.ndarray:
    """Returns float32 losses_ts from those of each step and group."""
    return np.stack([np.concatenate(each) for each in jax.device_get(losses)])


def _beginning(workdir: Path) -> Path:
    return workdir / "over_seeds.json"
