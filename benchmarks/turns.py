# SPDX-License-Identifier: Apache-2.0
"""Models timed in turn, each in a process of its own that waits while another one computes.

A machine's speed drifts (heat, clocks, neighbours). Models that are timed one after the other meet
different machines; in turns of a second or less they meet the same one, and their ratio holds.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.command import TUNABLES


class Candidate(NamedTuple):
    """A model to time."""

    name: str
    kind: str  # onnx | torch
    source: str  # folder; in torch also a key of benchmarks.timing.TORCH_SIZES
    longest: int  # positions it has


class Cases(NamedTuple):
    """What is timed of each model: every batch with every length."""

    batches: Sequence[int]  # rows of a call
    lengths: Sequence[int]  # pieces of a row
    seconds: float  # how long to time each case of each model, all its turns together
    turns: int  # how often each model's turn comes, for each case


def time_in_turn(
    candidates: Sequence[Candidate], cases: Cases, *, threads: int
) -> list[dict[str, Any]]:
    """Returns what was measured of each candidate, in their order.

    Each has `cold_start` (seconds from the start of its process to its first answer), `memory_mb`
    (largest resident size until then), `peak_memory_mb` (until the end), and `cells`: for each
    batch and length that it has positions for, `turn_ms`, the median of each turn, `median_ms`, the
    median of these, `p95_ms` of all calls, their number `calls`, and `rows_per_second`.

    All of them are in memory at once.

    Args:
      candidates: the models.
      cases: what to time of them.
      threads: of each model.

    Raises:
      ValueError: a candidate's process failed; says what it said.
    """
    with contextlib.ExitStack() as stack:
        processes = [TimedModel(candidate, threads, stack) for candidate in candidates]
        results = [process.ready | {"cells": []} for process in processes]
        for batch in cases.batches:
            for length in cases.lengths:
                case = {"batch": batch, "length": length}
                fit = [n for n, each in enumerate(candidates) if length <= each.longest]
                calls = {number: [] for number in fit}
                for turn in range(cases.turns):
                    job = case | {"seconds": cases.seconds / cases.turns, "is_first": turn == 0}
                    for number in fit:
                        answer = processes[number].ask(job)
                        calls[number].append(answer["times_ms"])
                        results[number]["peak_memory_mb"] = answer["peak_memory_mb"]
                for number, times in calls.items():
                    results[number]["cells"].append(case | _summarise(times, batch))
    return results


def ratios(first: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
    """Returns how many times as fast as `first` `other` is, in each turn.

    Args:
      first: a cell of `time_in_turn`.
      other: the same case of another model, measured in the same turns.
    """
    return np.array(first["turn_ms"]) / np.array(other["turn_ms"])


def _summarise(turns: Sequence[Sequence[float]], batch: int) -> dict[str, Any]:
    calls = np.concatenate(turns)
    medians = [float(np.median(turn)) for turn in turns]
    # Not of all calls: a turn takes some time, and so a fast one has more of them.
    median = float(np.median(medians))
    return {
        "median_ms": median,
        "p95_ms": float(np.percentile(calls, 95)),
        "rows_per_second": 1e3 * batch / median,
        "calls": len(calls),
        "turn_ms": medians,
    }


class TimedModel:
    """`python -m benchmarks.timing` with one model; ends with the stack.

    Attributes:
      ready: what it measured when it had its first answer.
      process: what was started.
    """

    def __init__(self, candidate, threads, stack):
        self.name = candidate.name
        is_folder = os.path.isdir(candidate.source)
        source = os.path.abspath(candidate.source) if is_folder else candidate.source
        job = {
            "kind": candidate.kind,
            "source": source,
            "threads": threads,
            "started": time.time(),
        }
        # What it says goes to a file: a pipe that nobody reads would fill and stop it.
        self.said = stack.enter_context(tempfile.TemporaryFile("w+"))
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.timing", json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
                text=True,
                cwd=Path(__file__).parents[1],
                # The memory pages of training (see `edad_jax.command`) are not what serves.
                env={name: value for name, value in os.environ.items() if name != TUNABLES},
            )
        )
        stack.callback(self.process.kill)
        self.ready = self._line()  # before the next one starts: it would slow this one's start

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Returns its answer to one job; it does nothing before and after."""
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it has ended, and reading from it says why
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()  # else the stack's end would try to write the rest
        return self._line()

    def _line(self):
        while line := self.process.stdout.readline():
            if line.startswith("{"):  # a model's own code may print too
                return json.loads(line)
        status = self.process.wait()
        self.said.seek(0)
        raise ValueError(
            f"{self.name}: timing it failed (status {status}):\n{self.said.read().strip()[-2_000:]}"
        )
