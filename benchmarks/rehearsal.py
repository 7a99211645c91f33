# SPDX-License-Identifier: Apache-2.0
"""A training run of five updates, part by part: what each part takes in time, memory and disk.

It goes the way of `edad_jax.distillation.train`, with the parts that that is made of, and the
program is the one that the whole run compiles.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.step import peak_memory
from edad_jax.data import disk
from edad_jax.data.batches import make_batch_at
from edad_jax.data.prepare import prepare
from edad_jax.distillation.build import (
    build_run,
    count_steps,
    largest_batch,
    make_step_at,
)
from edad_jax.distillation.evaluate import make_heldout
from edad_jax.distillation.result import leave_result
from edad_jax.distillation.settings import check_settings, resolve_config
from edad_jax.machine import memory_bytes
from edad_jax.training import batch_size, state
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import MetricsWriter
from edad_jax.training.parallel import Parallel, program_bytes

SAVED = "checkpoints"
WARM_UP = 2  # updates that are not timed: the first one compiles
TIMED = 3


class Clock:
    """Wall time, and time of all cores of this process and its children, of parts by name.

    Attributes:
      parts: name -> (wall seconds, CPU seconds).
    """

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start, cpu = time.perf_counter(), sum(os.times()[:4])
        yield
        self.parts[name] = time.perf_counter() - start, sum(os.times()[:4]) - cpu


def rehearse(
    config: dict[str, Any], *, rows: int, folder: str, fit: bool, started: float
) -> dict[str, Any]:
    """Returns what the parts of a run take.

    Args:
      config: of the run, with the rows of a sample in `prepared`.
      rows: that the whole run will have to train on.
      folder: for what a run leaves; empty.
      fit: whether to compile half of the batch too, to see how the memory grows with it.
      started: when the process was started, by `time.time`.

    Returns:
      "seconds" and "cpu_seconds": {"start" (of the process), "build" (the nets), "heldout" (one
      measurement), "compile_heldout", "first_update", "update" (median of three), "first_save",
      "save" (until it is on disk), "result"}; "steps" of the whole run and its "batch_size";
      "heldout_batches" that "heldout" has; "peak_gb", "peak_of"; "checkpoint_bytes" of one,
      "nets_bytes" of what the run leaves; "devices"; "budget_gb" of a device, or of this machine,
      None where neither tells; "program_gb": [[rows of all devices, GB of one's program]] of half
      of the batch, with `fit` and if it can be, and of all of it.

    Raises:
      ValueError: as `edad_jax.distillation.train.train`.
    """
    clock = Clock()
    clock.parts["start"] = time.time() - started, sum(os.times()[:2])
    config, workdir = ConfigDict(config), Path(folder)
    settings = check_settings(config)
    config = resolve_config(config, settings)
    parallel = Parallel(config.parallel.engine)
    config, is_settled = batch_size.settle(config, parallel, None)
    with clock.measure("build"):
        prepared = prepare(config, workdir)
        if not is_settled:
            config.batch_size = largest_batch(config, settings, parallel, prepared)
        steps = count_steps(config, rows)
        run = build_run(
            config, settings, prepared.vocabulary, total_steps=steps, rows=prepared.train
        )
    step = make_step_at(run, settings, parallel, steps)(0)
    train_state, shapes, whole = _update(config, parallel, prepared, run, step, workdir, clock)
    before = _bytes_beside(workdir)
    with clock.measure("result"), open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere):
            leave_result(config, settings.method, workdir, prepared, run, train_state)
    memory = peak_memory(jax.devices()[0])
    programs = [whole]
    if fit and (half := _half(config, parallel)):
        batch = jax.tree.map(lambda x: x[:half], _make_batch_at(config, prepared)(0))
        compiled = step.lower(*shapes, parallel.batch_shapes(batch)).compile()
        programs.insert(0, [half, program_bytes(compiled) / 1e9])
    seconds, cpu_seconds = ({name: each[i] for name, each in clock.parts.items()} for i in (0, 1))
    return memory | {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "steps": steps,
        "batch_size": config.batch_size,
        "heldout_batches": _heldout_batches(config, len(prepared.heldout)),
        "checkpoint_bytes": disk.written_bytes(workdir / SAVED / str(WARM_UP + TIMED)),
        "nets_bytes": _bytes_beside(workdir) - before,
        "devices": parallel.device_count,
        "budget_gb": _budget_gb(config),
        "program_gb": programs,
    }


def _update(config, parallel, prepared, run, step, workdir, clock):
    """Returns the state after all updates, shapes of what a step reads, and [rows, GB] of it."""
    batch_at = _make_batch_at(config, prepared)
    frozen = parallel.replicate(run.frozen_as_read)
    train_state = parallel.replicate(state.begin(run.trained, run.settings.optimizers))
    shapes = jax.eval_shape(lambda *trees: trees, train_state, frozen)
    measure_heldout = make_heldout(
        run,
        prepared.heldout,
        parallel,
        frozen,
        batch_size=config.batch_size,
        max_rows=config.heldout.max_rows,
    )
    with MetricsWriter(workdir) as writer:
        with clock.measure("compile_heldout"):
            writer.write(0, measure_heldout(train_state.params))
        for number in range(WARM_UP + TIMED):
            with clock.measure(f"update {number}"):
                batch = parallel.shard_batch(batch_at(number))
                if not number:
                    step = step.lower(train_state, frozen, batch).compile()
                train_state, metrics = step(train_state, frozen, batch)
                metrics = jax.device_get(metrics)
            writer.write(number + 1, metrics)
        with clock.measure("heldout"):
            writer.write(WARM_UP + TIMED, measure_heldout(train_state.params))
    updates = [clock.parts.pop(f"update {number}") for number in range(WARM_UP + TIMED)]
    clock.parts["first_update"] = updates[0]
    clock.parts["update"] = tuple(np.median(updates[WARM_UP:], axis=0).tolist())
    compiling = np.subtract(clock.parts["compile_heldout"], clock.parts["heldout"])
    clock.parts["compile_heldout"] = tuple(np.maximum(0.0, compiling).tolist())
    with Checkpointer(workdir / SAVED, keep=1) as checkpoints:
        unpack = jax.jit(state.unpack)
        for step_number, name in ((WARM_UP, "first_save"), (WARM_UP + TIMED, "save")):
            with clock.measure(name):
                checkpoints.save(step_number, unpack(parallel.to_save(train_state)))
                checkpoints.wait()
        if checkpoints.last_error is not None:
            raise OSError(f"the checkpoint could not be saved: {checkpoints.last_error}")
    return train_state, shapes, [config.batch_size, program_bytes(step) / 1e9]


def _bytes_beside(workdir):
    """Returns the bytes of all but checkpoints, of which orbax removes old ones when it likes."""
    return disk.written_bytes(workdir) - disk.written_bytes(workdir / SAVED)


def _make_batch_at(config, prepared):
    """Returns batches of the full length: what buckets save is told from the rows' lengths."""
    return make_batch_at(prepared.train, batch_size=config.batch_size, seed=config.seed)


def _heldout_batches(config, rows):
    """Returns how many batches a held-out measurement reads."""
    return -(-min(config.heldout.max_rows, rows) // config.batch_size)


def _half(config, parallel):
    """Returns half of the batch, which splits over devices and micro-batches; 0: no such."""
    unit = parallel.device_count * config.accumulate_steps
    return config.batch_size // 2 // unit * unit


def _budget_gb(config):
    """Returns what an update may take on a device, or the process on a CPU; None: nothing tells."""
    device = jax.local_devices()[0]
    if config.memory_gb or "bytes_limit" in (device.memory_stats() or {}):
        return batch_size.memory_budget(config.memory_gb, device) / 1e9
    there = memory_bytes()
    return None if there is None else batch_size.SHARE * there / 1e9
