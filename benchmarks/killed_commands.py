# SPDX-License-Identifier: Apache-2.0
"""Commands of launch/ as processes that are killed: when, in the middle of what, and what is left.

Each is a fork of this process, in which the packages are imported but no device of jax is open: a
command then begins with its own work, and a kill seldom falls into seconds of imports. From there
on it is the real script with its real arguments. An audit hook of Python notes every file of the
campaign that is opened, renamed or removed, for the report; and it can end the process itself,
with SIGKILL, at one of them. What compiled code does to files (tensorstore) it does not see: there
kills come by the clock, which is CPU time, since other work on the machine makes a run longer.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import runpy
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
LOOK_SECONDS = 0.002
ORPHAN_SECONDS = 20.0  # that processes of a killed command may take to notice
_EVENTS = {
    "open": "open",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.mkdir": "make",
    "os.truncate": "truncate",
    "shutil.rmtree": "remove",
    "shutil.copyfile": "copy",
}
_HEAD = struct.Struct("qdi")  # events so far, time of the last, length of its text


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # -9: killed
    wall_seconds: float
    cpu_seconds: float  # of its own, without its workers; as it was last looked at
    events: int  # files opened, renamed, removed in the campaign's folder
    last: str  # the last of these events, or the one that the kill came before
    left_running: int  # processes that outlived it


class Process:
    """A command under way."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        *,
        kill_before_event: int | None = None,
        keep_programs: bool = False,
    ) -> None:
        """Starts it.

        Args:
          arguments: the script of launch/, and what follows it.
          folder: of the campaign; its files are the ones that are noted.
          log: gets what it prints.
          kill_before_event: SIGKILL comes before this event, counted from 1.
          keep_programs: whether what XLA compiles goes into the cache of the campaign. Never of
            one that is killed: jax writes entries in place, and half an entry crashes its reader.
        """
        self._shared = mmap.mmap(-1, 4096)
        self.started = time.perf_counter()
        self.pid = fork(
            lambda: _run(arguments, folder, self._shared, kill_before_event, keep_programs), log
        )

    def wait(
        self,
        *,
        kill_at_cpu: float | None = None,
        terminate_at_cpu: float | None = None,
        timeout: float = 600.0,
    ) -> Ended:
        """Returns how it ended: by itself, or by SIGKILL or SIGTERM at so much CPU time.

        Raises:
          TimeoutError: it did not end; it is killed.
        """
        cpu = 0.0
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                break
            cpu = max(cpu, _cpu_seconds(self.pid))
            if terminate_at_cpu is not None and cpu >= terminate_at_cpu:
                os.kill(self.pid, signal.SIGTERM)
                terminate_at_cpu = None
            seconds = time.perf_counter() - self.started
            if seconds > timeout or (kill_at_cpu is not None and cpu >= kill_at_cpu):
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                if seconds > timeout:
                    _end_session(self.pid)
                    raise TimeoutError(f"process {self.pid} did not end within {timeout:.0f} s")
                break
            time.sleep(LOOK_SECONDS)
        wall = time.perf_counter() - self.started
        count, _, length = _HEAD.unpack_from(self._shared)
        last = bytes(self._shared[_HEAD.size : _HEAD.size + length]).decode("utf-8", "replace")
        return Ended(
            os.waitstatus_to_exitcode(status),
            wall,
            cpu,
            count,
            last,
            _end_session(self.pid),
        )


def fork(work: Callable[[], Any], log: Path) -> int:
    """Returns the number of a new process that calls work() and ends, in a session of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def call(work: Callable[[], Any], log: Path) -> None:
    """Returns when work() is done, in another process: this one opens no device of jax.

    Raises:
      RuntimeError: it failed; the log says why.
    """
    _, status = os.waitpid(fork(work, log), 0)
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"a process of the campaign ended with {code}:\n{_end_of(log)}")


def import_packages() -> None:
    """Imports what the commands import, so that their forks need not."""
    import importlib

    import transformers

    for name in ("AutoTokenizer", "BertTokenizer", "PreTrainedTokenizerFast"):
        getattr(transformers, name)
    for name in (
        "edad_jax.distillation.train",
        "edad_jax.tasks.finetune",
        "edad_jax.export.formats",
        "matplotlib.pyplot",
        "ml_collections.config_flags",
        "tests.tiny_run",
        "tests.tiny_tasks",
    ):
        importlib.import_module(name)


def _run(arguments, folder, shared, kill_before_event, keep_programs):
    import jax

    if not keep_programs:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    sys.argv = [str(ROOT / "launch" / arguments[0]), *arguments[1:]]
    sys.addaudithook(_Noter(folder, shared, kill_before_event))
    runpy.run_path(sys.argv[0], run_name="__main__")


class _Noter:
    """The audit hook: writes each event where the campaign sees it, also after a kill."""

    def __init__(self, folder: Path, shared: mmap.mmap, kill_before_event: int | None) -> None:
        self._folder = f"{folder}{os.sep}"
        self._shared, self._kill_before = shared, kill_before_event
        self._count, self._started, self._pid = 0, time.perf_counter(), os.getpid()

    def __call__(self, event: str, arguments: tuple) -> None:
        said = _EVENTS.get(event)
        if said is None or not arguments or os.getpid() != self._pid:
            return
        path = arguments[0]
        if isinstance(path, bytes | os.PathLike):
            path = os.fsdecode(path)
        if not isinstance(path, str) or not path.startswith(self._folder):
            return
        if event == "open":
            mode = arguments[1] or ""
            said = "write" if any(letter in mode for letter in "wax+") else "read"
        self._count += 1
        text = f"{said} {path.removeprefix(self._folder)}".encode()[:1000]
        seconds = time.perf_counter() - self._started
        self._shared[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._shared, 0, self._count, seconds, len(text))
        if self._count == self._kill_before:
            os.kill(self._pid, signal.SIGKILL)


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, of all its threads."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    fields = said.rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _end_session(session: int) -> int:
    """Returns how many processes of a session are alive long after its first; ends them."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := _session_of(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _session_of(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != b"Z":
            found.append(int(path.parent.name))
    return found


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
