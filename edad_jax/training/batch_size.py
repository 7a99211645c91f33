# SPDX-License-Identifier: Apache-2.0
"""How many rows a device takes: given, or the most whose compiled step fits its memory.

config.batch_size_per_device is one text, "0", a number, or "auto", and not a number beside a flag:
so it cannot say two things at once, and `--config.batch_size_per_device=auto` is all there is to
type.
"""

import logging
import math
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from edad_jax.training.parallel import Parallel, program_bytes
from edad_jax.types import Batch

LOG = logging.getLogger(__name__)
AUTO = "auto"
SHARE = 0.9  # of what a device has; the rest is for the evaluation's program and the allocator
_FIRST = 8  # units that are tried first


def read_setting(text: str) -> int | None:
    """Returns the rows of a device; 0 where config.batch_size tells it, None for AUTO.

    Raises:
      ValueError: neither a number nor AUTO.
    """
    if text == AUTO:
        return None
    if not text.isdecimal():
        raise ValueError(
            f"config.batch_size_per_device={text!r}, expected a number of rows, {AUTO}, or 0 "
            "(config.batch_size is taken)"
        )
    return int(text)


def settle(config: ConfigDict, parallel: Parallel, recorded: int | None) -> tuple[ConfigDict, bool]:
    """Returns a copy that may be changed, and whether its batch_size is what the run will take.

    Args:
      config: of the run.
      parallel: the devices.
      recorded: what an AUTO run took when it began, which stays, on other devices too; None
        where none has begun.

    Raises:
      ValueError: the batch does not split over devices and micro-batches.
    """
    config = config.copy_and_resolve_references()
    rows = read_setting(config.batch_size_per_device)
    if rows:
        config.batch_size = rows * parallel.device_count
    elif rows is None:
        if recorded is None:
            return config, False
        config.batch_size = recorded
    parallel.check_batch_size(config.batch_size, config.accumulate_steps)
    return config, True


def memory_budget(memory_gb: float, device: jax.Device) -> float:
    """Returns the bytes that a step may take on a device.

    Args:
      memory_gb: config.memory_gb; 0: most of what the device has.
      device: is asked what it has.

    Raises:
      ValueError: it does not tell, as CPUs do not, and `memory_gb` is 0.
    """
    if memory_gb:
        return memory_gb * 1e9
    told = (device.memory_stats() or {}).get("bytes_limit")
    if not told:
        raise ValueError(
            f"config.batch_size_per_device={AUTO}: a {device.device_kind} does not tell how much "
            "memory it has; give what a step may take, --config.memory_gb=16"
        )
    return SHARE * told


def find_batch_size(
    bytes_of: Callable[[int], float], *, budget: float, unit: int, most: int
) -> int:
    """Returns the most rows that fit, `unit` times a power of two.

    Args:
      bytes_of: what a step with so many rows takes; infinite where it cannot even be compiled.
      budget: bytes that it may take.
      unit: rows that a batch is a multiple of.
      most: rows beyond which nothing is tried; below `unit`, one unit is tried.

    Raises:
      ValueError: not even one unit fits; says what it would take.
    """

    def fits(rows):
        needed = bytes_of(rows)
        LOG.info("%d rows a device take %.2f GB, of %.2f GB.", rows, needed / 1e9, budget / 1e9)
        return needed <= budget

    rows = unit
    while rows < _FIRST * unit and 2 * rows <= most:
        rows *= 2
    if fits(rows):
        while 2 * rows <= most and fits(2 * rows):
            rows *= 2
        return rows
    while rows > unit:
        rows //= 2
        if fits(rows):
            return rows
    raise ValueError(
        f"config.batch_size_per_device={AUTO}: {unit} row(s) take {bytes_of(unit) / 1e9:.2f} GB, "
        f"expected at most {budget / 1e9:.2f} GB (config.memory_gb, or {SHARE:.0%} of the "
        "device's memory); try --config.remat=blocks, or shorter rows"
    )


def step_bytes(
    step: Callable, train_state: dict, frozen: dict, *, rows: int, length: int, packed: bool = False
) -> float:
    """Returns what an update of one device takes by its compiled program, which is not run.

    On several devices each runs this program and a sum over them, whose buffers are among those
    counted here (and in what `memory_budget` leaves).

    Args:
      step: a per-device step, as `Parallel.compile` takes it.
      train_state: what it begins with; shapes are enough.
      frozen: likewise.
      rows: of the device.
      length: pieces of a row.
      packed: whether rows hold several documents.
    """
    parallel = Parallel("shard_map", jax.local_devices()[:1])
    row_b = jax.ShapeDtypeStruct((rows,), np.int32)
    ids_bt = jax.ShapeDtypeStruct((rows, length), np.int32)
    batch = Batch(ids_bt, *[row_b] * 5, documents_bt=ids_bt if packed else None)
    lowered = parallel.compile(step, replicated_arguments=2, donate=True).lower(
        train_state, frozen, batch
    )
    try:
        return program_bytes(lowered.compile())
    except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return math.inf
