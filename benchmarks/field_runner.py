# SPDX-License-Identifier: Apache-2.0
"""Runs the parts of a field day: in order, each in a process with its own limit.

What a part has found is in OUT/day.json as soon as it is on disk, whatever becomes of the part.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.field_part import LOOK_SECONDS, ROOT
from benchmarks.field_versions import describe_versions
from edad_jax.files import read_json_or_none, write_json

GRACE_SECONDS = 5.0  # between asking a part to stop and stopping it
REHEARSAL_SLOWNESS = 4.0  # a CPU's few cores compile one program after the other


class Part(NamedTuple):
    """One part of the day."""

    name: str
    title: str
    seconds: float  # its limit
    command: tuple[str, ...]  # words after `python`; it also gets --out, --work and so on
    needs: tuple[str, ...] = ()  # folders of the pack
    least: float = 0.0  # seconds that parts before it must leave
    is_prepared_beside: bool = False  # starts with the part before it and waits, once prepared


def run_day(
    parts: Sequence[Part],
    *,
    out: Path,
    work: Path,
    pack: Path,
    seconds: float,
    is_rehearsal: bool = False,
    keeps_others: bool = False,
) -> dict[str, Any]:
    """Returns what OUT/day.json holds in the end.

    Args:
      parts: in order.
      out: folder for day.json and day.log.
      work: folder for what the parts leave, which nobody needs afterwards.
      pack: what travelled, unpacked.
      seconds: for all of them together.
      is_rehearsal: whether they run with tiny sizes on a CPU.
      keeps_others: whether what OUT/day.json has of other parts, from this device, stays in it.

    Returns:
      {"versions", "is_rehearsal", "seconds": in all, "budget", "parts": {name: {"title",
      "command", "status": "done", "failed", "out of time", "left out" or "running", "reason",
      "seconds", "limit", "figures"}}}
    """
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    day = _Day(parts, out.resolve(), work.resolve(), pack.resolve(), seconds, is_rehearsal)
    if keeps_others:
        day.keep(read_json_or_none(out / "day.json"))
    with open(out / "day.log", "a" if keeps_others else "w", encoding="utf-8") as log:
        return day.run(log)


class _Day:
    """The clock, and what has come of the parts so far."""

    def __init__(self, parts, out, work, pack, seconds, is_rehearsal):
        self._parts, self._work, self._pack = list(parts), work, pack
        self._begun, self._seconds, self._is_rehearsal = time.monotonic(), seconds, is_rehearsal
        self._slowness = REHEARSAL_SLOWNESS if is_rehearsal else 1.0
        self._path = out / "day.json"
        self._waiting: dict[str, subprocess.Popen] = {}
        self._stamps: dict[str, int] = {}
        self.result: dict[str, Any] = {
            "versions": describe_versions(),
            "is_rehearsal": is_rehearsal,
            "budget": seconds,
            "parts": {},
        }

    @property
    def left(self) -> float:
        return self._begun + self._seconds - time.monotonic()

    def keep(self, before: dict[str, Any] | None) -> None:
        """Takes over the parts of an earlier day that do not run now."""
        same = ("versions", "is_rehearsal")
        if before and all(before.get(key) == self.result[key] for key in same):
            names = {part.name for part in self._parts}
            kept = {name: entry for name, entry in before["parts"].items() if name not in names}
            self.result["parts"] |= kept

    def run(self, log) -> dict[str, Any]:
        try:
            for place, part in enumerate(self._parts):
                later = self._parts[place + 1 :]
                self._run_part(part, later, log)
        finally:
            for process in self._waiting.values():
                _stop(process)
            self._write()
        return self.result

    def _run_part(self, part, later, log):
        reserved = sum(other.least for other in later)
        limit = min(part.seconds * self._slowness, self.left - reserved)
        entry = self.result["parts"][part.name] = {
            "title": part.title,
            "command": " ".join(["python", *part.command]),
            "limit": round(limit, 1),
            "status": "running",
            "figures": {},
        }
        tell(f"{part.name}: {part.title} (limit {max(limit, 0):.0f} s, {self.left:.0f} s left)")
        if reason := self._missing(part, limit):
            self._end(part, "left out", reason, 0.0)
            return
        self._write()
        start = time.monotonic()
        process = self._waiting.pop(part.name, None) or self._start(part, limit, log)
        if later and later[0].is_prepared_beside and not self._missing(later[0], limit):
            self._waiting[later[0].name] = self._start(
                later[0], limit + later[0].seconds * self._slowness, log
            )
        self._go_file(part).write_text(f"{limit}")  # of which `Place.seconds_left` reads
        while process.poll() is None and time.monotonic() < start + limit:
            time.sleep(LOOK_SECONDS)
            if self._read_figures(part):
                self._write()
        is_late = process.poll() is None
        if is_late:
            _stop(process)
        self._read_figures(part)
        took = time.monotonic() - start
        if is_late:
            had = "what it had by then is kept" if entry["figures"] else "it had no figure by then"
            self._end(part, "out of time", f"stopped after {took:.0f} s; {had}", took)
        elif process.returncode:
            self._end(part, "failed", _ending(process.returncode, part, log.name), took)
        else:
            self._end(part, "done", "", took)

    def _missing(self, part, limit) -> str:
        """Returns why a part cannot run, or nothing."""
        if limit < 1:
            return f"no time: {self.left:.0f} s left, less what the parts after it need at least"
        absent = [name for name in part.needs if not (self._pack / name).is_dir()]
        if absent:
            return (
                f"got no {', '.join(absent)} in {self._pack}, expected what benchmarks/field_pack."
                "sh packs; bring it and run this part again with --only"
            )
        return ""

    def _start(self, part, limit, log):
        figures = self._figures(part)
        figures.unlink(missing_ok=True)
        self._go_file(part).unlink(missing_ok=True)
        words = [
            *(sys.executable, *part.command, f"--out={figures}", f"--work={self._work}"),
            *(f"--pack={self._pack}", f"--seconds={limit:.0f}"),
            *(["--rehearse"] if self._is_rehearsal else []),
        ]
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment(self._work, self._is_rehearsal, self._pack / "site"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it started is stopped with it
        )

    def _figures(self, part):
        return self._work / f"{part.name}.json"

    def _go_file(self, part):
        return self._work / f"{part.name}.go"

    def _read_figures(self, part) -> bool:
        """Takes a part's figures; returns whether there are new ones."""
        try:
            stamp = self._figures(part).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if stamp == self._stamps.get(part.name):
            return False
        self._stamps[part.name] = stamp
        figures = read_json_or_none(self._figures(part)) or {}
        self.result["parts"][part.name]["figures"] = figures
        return True

    def _end(self, part, status, reason, took):
        self.result["parts"][part.name] |= {
            "status": status,
            "reason": reason,
            "seconds": round(took, 1),
        }
        self._write()
        told = f"{part.name}: {status} after {took:.0f} s{f': {reason}' if reason else ''}"
        tell(f"{told}; {self.left:.0f} s left")

    def _write(self):
        self.result["seconds"] = round(time.monotonic() - self._begun, 1)
        write_json(self._path, self.result)


def environment(work: Path, is_rehearsal: bool, site: Path | None = None) -> dict[str, str]:
    """Returns a part's variables: packages that travelled, one cache of programs, XLA's flags."""
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_allow_excess_precision=false"]
    paths = [ROOT, site, os.environ.get("PYTHONPATH")]
    changes = {
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths))),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        # Each program is compiled once in a day, whichever part needs it first.
        "JAX_COMPILATION_CACHE_DIR": str(work.resolve() / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # Several processes are on the device at once: each takes what it needs.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
    }
    if is_rehearsal:
        changes["JAX_PLATFORMS"] = "cpu"
        flags.append("--xla_backend_optimization_level=0")
    return os.environ | changes | {"XLA_FLAGS": " ".join(flags).strip()}


def _stop(process: subprocess.Popen) -> None:
    """Ends a part and what it started: asks first, so that it can leave what it has."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue


def _ending(status: int, part: Part, log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        said = [line.strip() for line in file if line.strip()]
    how = f"signal {-status} ended it" if status < 0 else f"it ended with status {status}"
    return f"{how}; day.log ends: {said[-1][:500] if said else 'nothing was said'}"


def tell(line: str) -> None:
    """Prints a line with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)
