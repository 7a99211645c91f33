# SPDX-License-Identifier: Apache-2.0
"""A measurement in a process of its own, so that neither heap nor device is shared with another.

    python -m benchmarks.job < job.json     prints one line of JSON

On a CPU, programs in one process break up each other's heap, and the largest temporaries are mapped
anew each time. On a GPU the first process takes most of the memory. So whoever starts jobs touches
no device itself.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks import checkpoints, input_pipeline, operations, rehearsal, step

_LAST_WORDS = 2_000  # characters of a failed process that are shown


def run_job(kind: str, job: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a process measured.

    Args:
      kind: "step", "profile", "checkpoint", "input" or "rehearsal".
      job: arguments of `step.time_step`, `operations.time_operations`, `checkpoints.time_saves`
        (these with the fields of a Case), `input_pipeline.time_input` or `rehearsal.rehearse`, as
        JSON values.
      environment: variables to change.

    Raises:
      ValueError: the process failed; says what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.job"],
        input=json.dumps({"kind": kind, "started": time.time(), **job}),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
    )
    if done.returncode:
        raise ValueError(f"{kind}: measuring it failed{last_words(done)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def last_words(done: subprocess.CompletedProcess) -> str:
    """Returns how a process ended and the end of what it said, to follow a sentence."""
    if done.returncode < 0:
        return f" (signal {-done.returncode} ended it: was memory short?)"
    return f":\n{done.stderr.strip()[-_LAST_WORDS:]}"


def main() -> None:
    """Reads the job and prints what was measured."""
    print(json.dumps(measure(json.loads(sys.stdin.read()))))


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what a job measures, here and now."""
    kind, started = job.pop("kind"), job.pop("started")
    if kind == "input":
        return input_pipeline.time_input(**job)
    if kind == "rehearsal":
        return rehearsal.rehearse(**job, started=started)
    fields = {name: job.pop(name) for name in step.Case._fields if name in job}
    case = step.Case(**fields | {"config": ConfigDict(fields["config"])})
    if kind == "checkpoint":
        return checkpoints.time_saves(case, **job)
    if kind == "profile":
        return operations.time_operations(case, **job)
    return step.time_step(case, started=started, **job)


if __name__ == "__main__":
    main()
