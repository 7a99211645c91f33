# SPDX-License-Identifier: Apache-2.0
"""What a run would take, before it begins: rows, updates, time, memory, disk; nothing is kept.

A sample of the text becomes words and rows as in the run itself, and its counts are scaled by the
share of the text that it is. On these rows a run of five updates is rehearsed, in a process of its
own (`benchmarks.rehearsal`); what its parts take is multiplied by how often the run has them.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks.job import run_job
from benchmarks.rehearsal import TIMED, WARM_UP
from chain.stages import absolute
from edad_jax.data.batches import bucket_lengths
from edad_jax.data.prepare import prepare
from edad_jax.training.schedules import make_due
from planning.text import Text, plan_text

LOG = logging.getLogger(__name__)


class Updates(NamedTuple):
    """What training takes once the rows are there."""

    count: int
    batch_size: int
    epochs: float
    seconds: dict[str, float]  # of the run's parts, by name
    cpu_seconds: dict[str, float]  # of all cores
    update_seconds: float
    memory_gb: float  # at the peak
    memory_of: str  # "process", or one "device"
    budget_gb: float | None  # that there is
    largest_batch: int | None  # None where nothing tells what there is
    disk_bytes: int  # checkpoints and nets, at the end


class Plan(NamedTuple):
    """What a run would take."""

    text: Text | None  # None where the rows are there already
    train_rows: int
    updates: Updates | None  # None where only the text was asked for

    @property
    def seconds(self) -> float:
        return sum(self.part_seconds("seconds").values())

    @property
    def cpu_seconds(self) -> float:
        return sum(self.part_seconds("cpu_seconds").values())

    @property
    def disk_bytes(self) -> int:
        text = self.text.rows_bytes + self.text.vocabulary_bytes if self.text else 0
        return text + (self.updates.disk_bytes if self.updates else 0)

    def part_seconds(self, kind: str = "seconds") -> dict[str, float]:
        """Returns {part: seconds} of all parts; `kind` may be "cpu_seconds"."""
        parts = (getattr(each, kind) for each in (self.text, self.updates) if each is not None)
        return {name: value for part in parts for name, value in part.items()}


def run_apart(job: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the rehearsal of a run takes, in a process of its own."""
    return run_job("rehearsal", job, {})


def make_plan(
    config: ConfigDict,
    *,
    with_updates: bool,
    rehearse: Callable[[Mapping[str, Any]], dict[str, Any]] = run_apart,
) -> Plan:
    """Returns what a run would take; what is made for it is in the temporary folder, and goes.

    Args:
      config: of launch/train.py, launch/prepare.py or launch/pipeline.py.
      with_updates: whether training is planned too, or the text alone.
      rehearse: gives what `benchmarks.rehearsal.rehearse` does.

    Raises:
      ValueError: text, teacher or settings that a run could not use either; several processes.
    """
    if config.parallel.process_count != 1:
        raise ValueError(
            f"--plan: got config.parallel.process_count={config.parallel.process_count}, expected "
            "1: plan on one machine; launch/compile.py tells of many devices"
        )
    with tempfile.TemporaryDirectory(prefix="edad-jax-plan-") as temporary:
        folder = Path(temporary)
        text, sampled = None, absolute(config)
        sampled.progress = False
        if config.prepared:
            there = prepare(sampled, folder / "rows")
            train_rows, heldout_rows = len(there.train), len(there.heldout)
        else:
            text, sampled = plan_text(sampled, folder)
            train_rows, heldout_rows = text.train_rows, text.heldout_rows
        if not with_updates:
            return Plan(text, train_rows, None)
        LOG.info("Rehearsing %d updates, and compiling for two sizes of batch.", WARM_UP + TIMED)
        (folder / "run").mkdir()
        job = {"config": sampled.to_dict(), "rows": train_rows, "folder": str(folder / "run")}
        found = rehearse(job | {"fit": True})
    return Plan(text, train_rows, _updates(config, found, text, train_rows, heldout_rows))


def _updates(config, found, text, train_rows, heldout_rows):
    """Returns what training takes, from what the parts of a rehearsal took."""
    count, batch_size = found["steps"], found["batch_size"]
    is_measured = make_due(config.heldout.every_steps, count)
    measured = 1 + sum(map(is_measured, range(1, count + 1)))
    saved = sum(map(make_due(config.checkpoint.every_steps, count), range(1, count + 1)))
    batches = -(-min(config.heldout.max_rows, heldout_rows) // batch_size)
    length = text.batch_length if text else config.rows.max_length
    shorter = length / config.rows.max_length
    programs = len(bucket_lengths(config.rows.buckets, config.rows.max_length))

    def parts(each):
        """Returns the parts of the whole run, of either kind of seconds."""
        compiling = max(0.0, each["first_update"] - each["update"])
        return {
            "start and nets": each["start"] + each["build"],
            "compiling": each["compile_heldout"] + programs * compiling,
            "updates": count * each["update"] * shorter,
            "held-out figures": each["heldout"] * measured * batches / found["heldout_batches"],
            "checkpoints": each["first_save"] + (saved - 1) * each["save"],
            "result": each["result"],
        }

    return Updates(
        count=count,
        batch_size=batch_size,
        epochs=count * batch_size / train_rows,
        seconds=parts(found["seconds"]),
        cpu_seconds=parts(found["cpu_seconds"]),
        update_seconds=found["seconds"]["update"] * shorter,
        memory_gb=found["peak_gb"],
        memory_of=found["peak_of"],
        budget_gb=found["budget_gb"],
        largest_batch=largest_batch(found, unit=config.accumulate_steps, most=train_rows),
        disk_bytes=found["nets_bytes"]
        + found["checkpoint_bytes"] * min(saved, config.checkpoint.keep),
    )


def largest_batch(found: Mapping[str, Any], *, unit: int, most: int) -> int | None:
    """Returns about how many rows fit, of all devices; None where nothing tells.

    By a straight line: it has the slope of two compiled programs, and goes through the peak that
    was measured, which has what no program counts: what the process holds beside it.

    Args:
      found: of `benchmarks.rehearsal.rehearse`.
      unit: rows of a device that a batch is a multiple of.
      most: rows that there are.
    """
    if found["budget_gb"] is None or len(found["program_gb"]) < 2:
        return None
    (less, less_gb), (more, more_gb) = found["program_gb"]
    a_row = (more_gb - less_gb) / (more - less)
    if a_row <= 0:
        return None
    rows = more + (found["budget_gb"] - found["peak_gb"]) / a_row
    unit *= found["devices"]
    return max(0, int(min(rows, most) // unit)) * unit
