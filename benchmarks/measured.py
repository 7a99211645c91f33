# SPDX-License-Identifier: Apache-2.0
"""The same step on a device that is here, to be put beside its forecast."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.job import run_job
from benchmarks.step import Case
from benchmarks.targets import Target

_NODES = {"gpu": ("/dev/nvidia[0-9]*",), "tpu": ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")}
REPEATS = 10  # timed updates


def is_present(platform: str, root: Path = Path("/")) -> bool:
    """Returns whether Linux names a device of the platform; asks no driver."""
    return any(any(root.glob(pattern.lstrip("/"))) for pattern in _NODES[platform])


def measure(case: Case, target: Target, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns what `step.time_step` measured in a process of its own; None without such devices.

    Args:
      case: which step.
      target: where it is to run: devices of this kind, and as many.
      environment: of that process; that of this one keeps jax to the CPU.
    """
    if not is_present(target.platform):
        return None
    job = {
        "config": case.config.to_dict(),
        "teacher": list(case.teacher),
        "method": case.method,
        "devices": target.devices,
        "repeats": REPEATS,
        "peak_tflops": None,
    }
    with _replaced(environment):
        measured = run_job("step", job, {})
    return measured if _is_target(measured, target) else None


@contextlib.contextmanager
def _replaced(environment: Mapping[str, str]) -> Iterator[None]:
    own = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        yield
    finally:
        os.environ.clear()
        os.environ.update(own)


def _is_target(measured: Mapping[str, Any], target: Target) -> bool:
    kind, devices = measured["device"], measured["devices"]
    return kind.startswith(target.device) and devices == target.devices
