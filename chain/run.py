# SPDX-License-Identifier: Apache-2.0
"""Runs the stages one after the other: what is done is skipped, what was killed goes on."""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chain import record
from chain.stages import ROOT, Stage
from chain.view import View, last_bar

_LAST_LINES = 12  # of a failed stage's log that are shown
_TICK = 0.5  # seconds between looks at the running stage


def run_stages(
    stages: Sequence[Stage],
    workdir: Path,
    inputs: Mapping[str, Any],
    view: View,
    *,
    redo: bool = False,
) -> None:
    """Runs what is not done; each stage is a process that writes to its own log.

    A signal that stops this program stops the stage first, which saves what it has.

    Args:
      stages: in the order of their work.
      workdir: has a folder of each.
      inputs: what tells the user's files from others.
      view: shows how far it is.
      redo: whether stages whose settings changed are thrown away with all that reads them; an
        error otherwise.

    Raises:
      ValueError: a stage was begun with other settings, or failed; or another program is at it.
      SystemExit: a signal stopped this program.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with _locked(workdir) as lock:
        changed = record.changed_settings(stages, workdir, inputs)
        again = record.read_what_changed(stages, workdir, changed)
        if changed and not redo:
            raise ValueError(_tell_changed(changed, again, workdir))
        for stage in again:
            record.forget(stage, workdir)
        for number, stage in enumerate(stages):
            if record.is_done(stage, workdir):
                view.skip(number, record.seconds_of(stage, workdir))
        for number, stage in enumerate(stages):
            if not record.is_done(stage, workdir):
                try:
                    _run(number, stage, workdir, inputs, view, lock)
                except KeyboardInterrupt:
                    raise SystemExit(
                        f"stopped in {stage.name} ({stage.title}); what is done is kept, and the "
                        "same command goes on from here"
                    ) from None


def _run(number, stage, workdir, inputs, view, lock):
    words = record.begin(stage, workdir, inputs)
    log, start = workdir / f"{stage.name}.log", time.monotonic()
    view.begin(number)
    with open(log, "ab") as out, _stopped_with_us() as started:
        out.write(f"$ python {shlex.join(words)}\n".encode())
        out.flush()
        begun_at = out.tell()
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            pass_fds=(lock,),  # which it keeps should this program be killed
        )
        started.append(process)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK)
                    break
                view.update(number, time.monotonic() - start, last_bar(log, begun_at))
        except BaseException:
            record.interrupt(stage, workdir, time.monotonic() - start)
            raise
    seconds = time.monotonic() - start
    if process.returncode or not (workdir / stage.name / stage.cell.marker).exists():
        record.interrupt(stage, workdir, seconds)
        raise ValueError(_tell_failed(stage, process.returncode, words, log))
    record.end(stage, workdir, seconds)
    view.end(number, record.seconds_of(stage, workdir))


@contextlib.contextmanager
def _stopped_with_us() -> Iterator[list[subprocess.Popen]]:
    """Yields a list; a process in it is told to stop, and waited for, where the block is left."""
    started: list[subprocess.Popen] = []

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[int]:
    """Holds the folder, and yields what holds it; ValueError where another program does."""
    with open(workdir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"--workdir={workdir}: another program runs this pipeline, or a stage of one that "
                "was killed still runs; wait for it, or choose another folder"
            ) from error
        yield lock.fileno()


def _tell_changed(changed, again, workdir):
    lines = [f"{workdir} has stages that were made with other settings:"]
    for name, differing in changed.items():
        lines += [f"  {name}: {each}" for each in differing]
    names = ", ".join(stage.name for stage in again)
    lines.append(
        "Give back these values, choose another --workdir, or give --redo: it throws away what "
        f"these stages and those that read them have made, and runs them again ({names})"
    )
    return "\n".join(lines)


def _tell_failed(stage, status, words, log):
    if status == -signal.SIGKILL:
        how = "was killed, by the system where memory ran out (smaller batches take less)"
    elif status:
        how = f"ended with status {status}"
    else:
        how = f"left no {stage.cell.marker}"
    tail = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    said = "\n".join(f"  {line}" for line in tail[-_LAST_LINES:])
    return (
        f"{stage.name} ({stage.title}) {how}; its last lines, of {log}:\n{said}\n"
        f"By hand: python {shlex.join(words)}\nThe same command goes on from here"
    )
