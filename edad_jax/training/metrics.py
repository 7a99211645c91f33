# SPDX-License-Identifier: Apache-2.0
"""Numbers of a run: one JSON line each time, and what else `trackers` is asked for.

    {"step": 100, "time": 1795197600.25, "loss": 7.3125, "alpha": 0.9, "student/mlm": "NaN"}

JSON has no NaN and no infinity: they are the strings "NaN", "Infinity" and "-Infinity", which
`read_metrics` turns back into floats. Step is updates completed, time is seconds since 1970.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import logging

from edad_jax.files import write_file
from edad_jax.training.trackers import Trackers

FILE_NAME = "metrics.jsonl"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsWriter:
    """Appends to `workdir/metrics.jsonl`; used in a `with` block. Silent but on process 0."""

    def __init__(self, workdir: str | os.PathLike[str], *, resume_step: int | None = None):
        """Opens the log, so that it reads as if the run had never been interrupted.

        Args:
          workdir: an existing directory.
          resume_step: the step of the restored checkpoint: later lines are cut away, since they
            will be written again. None begins a new log and keeps an old one beside it.

        Raises:
          ValueError: if a line of an old log cannot be read, with file and line; or as `Trackers`.
          OSError: if the log cannot be written.
        """
        self._file = self._trackers = None
        self._has_failed = False
        self.last_values: dict[str, float] = {}  # the newest of each, also of the run resumed
        if jax.process_index() != 0:
            return
        self._trackers = Trackers(Path(workdir), resume_step)
        path = Path(workdir) / FILE_NAME
        if resume_step is None and path.exists():
            previous = path.with_name("metrics.previous.jsonl")
            os.replace(path, previous)
            logging.info("A new run begins: the old %s is now %s.", path, previous)
        elif path.exists():
            for line in _cut(path, resume_step):
                self.last_values |= line
        self._file = open(path, "ab", buffering=0)  # one write call for one line, at once on disk

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception_info) -> None:
        if self._file is not None:
            self._file.close()
        if self._trackers is not None:
            self._trackers.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Returns when the line is in the file; a full disk costs the line, not the run."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in values.items()}
        self.last_values |= values
        line = {"step": int(step), "time": time.time()} | {
            name: value if math.isfinite(value) else _name_of(value)
            for name, value in values.items()
        }
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError("the disk took only part of a line")
        except OSError as error:
            self._file.truncate(end)
            if not self._has_failed:
                logging.error(
                    "Metrics of step %d are not in %s: %s. Training goes on; free some space "
                    "there to have the later ones.",
                    *(step, self._file.name, error),
                )
            self._has_failed = True
        self._trackers.write(
            step, {name: value for name, value in values.items() if math.isfinite(value)}
        )


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Returns the lines of a metrics file in order; a half-written last line is left out.

    Raises:
      ValueError: if another line is not a JSON object with a step, with file and line.
    """
    return [values for values, _ in _read_lines(Path(path))]


def _read_lines(path: Path) -> list[tuple[dict[str, float], bytes]]:
    lines = []
    with open(path, "rb") as file:
        for number, data in enumerate(file, start=1):
            try:
                values = json.loads(data)
                lines.append(({k: _NOT_FINITE.get(v, v) for k, v in values.items()}, data))
                int(values["step"])
            except (ValueError, AttributeError, KeyError, TypeError) as error:
                if not data.endswith(b"\n"):  # only a last line has no end
                    logging.warning("%s:%d: half a line left by a kill, dropped", path, number)
                    break
                raise ValueError(
                    f'{path}:{number}: got {data[:80]!r}, expected {{"step": ..., ...}}; remove '
                    "the line"
                ) from error
    return lines


def _cut(path: Path, resume_step: int) -> list[dict[str, float]]:
    """Returns the lines up to `resume_step`; only they stay, written beside and renamed."""
    lines = _read_lines(path)
    kept = [(values, data) for values, data in lines if values["step"] <= resume_step]
    if dropped := len(lines) - len(kept):
        logging.info("%s: %d lines after step %d are cut away.", path, dropped, resume_step)
    write_file(path, b"".join(data.rstrip(b"\n") + b"\n" for _, data in kept))
    return [values for values, _ in kept]


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
