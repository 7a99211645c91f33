# SPDX-License-Identifier: Apache-2.0
"""Cells: commands of launch/, each in a process of its own and with a folder of its own.

What is finished is not run again, and what was killed goes on where it stopped.
"""

import fcntl
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, NamedTuple

from edad_jax.files import read_json, write_json

LOG = logging.getLogger(__name__)


class Cell(NamedTuple):
    """One command. It is done when `marker` is in its folder."""

    name: str
    words: tuple[str, ...]  # script and flags, without the folder
    folder_flag: str = "--workdir"
    marker: str = "summary.json"


def make_cell(script: str, name: str, config: str, *options: str) -> Cell:
    """Returns the cell of a command.

    Args:
      script: of launch/: "prepare", "train" or "finetune".
      name: of the cell, and of its folder.
      config: file of configs/, without ending.
      options: "key=value" of the configuration; or whole flags, which begin with "-".
    """
    flags = (each if each.startswith("-") else f"--config.{each}" for each in options)
    words = (f"launch/{script}.py", f"--config=configs/{config}.py", *flags)
    return Cell(name, words, *(("--out", "rows.stage.json") if script == "prepare" else ()))


def run_cells(cells: Sequence[Cell], cells_folder: Path, root: Path, jobs: int = 1) -> None:
    """Runs the commands that have not been finished before; their output goes to the terminal.

    A cell begins when those are finished whose folders its command names. Where one fails, the
    others that do not need it go on. Two programs may work on one folder of cells: each leaves
    alone what the other is at. A signal that stops this program stops the cells first, which
    save what they have.

    Args:
      cells: in the order to begin them.
      cells_folder: has a folder, a lock and a command file of each.
      root: the project's folder, where the commands run.
      jobs: cells at once, each on its share of the CPU's cores.

    Raises:
      ValueError: some failed, or were made by another command before.
    """
    cells_folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        check_command(cell, cells_folder)
    processes, shares = [], _share_cores(jobs)

    def work(cell: Cell, lock: IO) -> int:
        """Returns the status of the process, which has a thread of its own to wait for it."""
        label, words = (
            f"[{cells.index(cell) + 1}/{len(cells)}] {cell.name}",
            command(cell, cells_folder),
        )
        with lock:
            if _is_finished(cell, cells_folder):
                LOG.info("%s: finished before", label)
                return 0
            LOG.info("%s: python %s", label, shlex.join(words))
            write_json(_command_file(cell, cells_folder), words)
            # The process has the lock too, and keeps it should this program be killed.
            process = subprocess.Popen(
                [sys.executable, *words], cwd=root, pass_fds=(lock.fileno(),)
            )
            processes.append(process)
            return process.wait()

    def take_cores() -> None:  # a thread's, and so its processes'
        if shares:
            os.sched_setaffinity(0, shares.pop())

    by_name = {cell.name: cell for cell in cells}
    graph = TopologicalSorter(
        {cell.name: folders_read(cell, cells_folder) & set(by_name) for cell in cells}
    )
    graph.prepare()
    ready, running, failed = [], {}, []
    before = signal.signal(signal.SIGTERM, _interrupt)
    with ThreadPoolExecutor(jobs, initializer=take_cores) as pool:
        try:
            while graph.is_active():
                ready = sorted((*ready, *map(by_name.get, graph.get_ready())), key=cells.index)
                is_free = len(running) < jobs
                if is_free and (locked := _lock_first(ready, cells_folder)):
                    ready.remove(locked[0])
                    running[pool.submit(work, *locked)] = locked[0]
                elif running:
                    # Where another program is at what is ready, look again.
                    ended, _ = wait(running, 1 if ready and is_free else None, FIRST_COMPLETED)
                    for future in ended:
                        cell = running.pop(future)
                        if future.result() or not _is_finished(cell, cells_folder):
                            failed.append((cell, future.result()))
                        else:
                            graph.done(cell.name)
                elif ready:
                    time.sleep(1)
                else:
                    break  # what is left needs what failed
        finally:
            while wait(running, 0.1).not_done:
                while processes:
                    processes.pop().terminate()
            signal.signal(signal.SIGTERM, before)
    if failed:
        lines = [
            f"{cell.name} {_end(status)}; by hand: python {shlex.join(command(cell, cells_folder))}"
            for cell, status in failed
        ]
        raise ValueError(
            "\n".join(lines) + "\nWhat they said stands above. The same command goes on from here"
        )


def folders_read(cell: Cell, cells_folder: str | Path) -> set[str]:
    """Returns the cells whose folders stand in a command, alone or in a list with commas."""
    place = re.compile(rf"(?:[=,]|^){re.escape(str(cells_folder))}/([^/,]+)")
    return {name for word in cell.words for name in place.findall(word)}


def _lock_first(cells, cells_folder):
    """Returns the first cell that no other program has, and its lock; None where there is none."""
    for cell in cells:
        lock = open(cells_folder / f"{cell.name}.lock", "w")  # noqa: SIM115, closed with the cell
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return cell, lock
    return None


def _is_finished(cell, cells_folder):
    return (cells_folder / cell.name / cell.marker).exists()


def _share_cores(jobs):
    """Returns the cores of each job; none for one job, or where the system has too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [cores[job::jobs] for job in range(jobs)] if 1 < jobs <= len(cores) else []


def _end(status):
    """Returns how a process ended, in words."""
    if status == -signal.SIGKILL:
        return "was killed, by the system where memory ran out (fewer --jobs, smaller batches)"
    return f"ended with status {status}"


def _interrupt(*_):
    raise KeyboardInterrupt


def check_command(cell: Cell, cells_folder: Path) -> bool:
    """Returns whether the cell has been begun.

    Raises:
      ValueError: it has, by another command.
    """
    path = _command_file(cell, cells_folder)
    if not path.exists():
        return (cells_folder / cell.name).exists()
    before = read_json(path, expected="the words of a command; remove the cell, or mend it")
    now = command(cell, cells_folder)
    if before != now:
        raise ValueError(
            f"{cells_folder / cell.name} was made by another command; got "
            f"{[word for word in now if word not in before]}, it had "
            f"{[word for word in before if word not in now]}. Give the same flags, or another "
            "--workdir"
        )
    return True


def read_summary(cells_folder: Path, name: str) -> dict:
    """Returns what the training or fine-tuning cell of this name says of itself.

    Raises:
      ValueError: it has not run to its end.
    """
    path = cells_folder / name / "summary.json"
    return read_json(path, expected="that the cell has run to its end")


def finite_seeds(summary: Mapping) -> list[bool]:
    """Returns for each seed of a fine-tuning cell's summary whether its loss stayed finite."""
    return [not values["failed"] for values in summary["seeds"].values()]


def tell_failed(summaries: Mapping[str, Mapping]) -> list[str]:
    """Returns Markdown lines that name the seeds which are in no mean; none if there is none.

    Args:
      summaries: what a run is called -> its summary.
    """
    failed = [
        f"{name}, seed {seed}"
        for name, summary in summaries.items()
        for seed, is_finite in zip(summary["seeds"], finite_seeds(summary), strict=True)
        if not is_finite
    ]
    told = f"Not in the means, since their loss was not finite: {'; '.join(failed)}."
    return ["", told] if failed else []


def _command_file(cell, cells_folder):
    return cells_folder / f"{cell.name}.command.json"


def command(cell: Cell, cells_folder: Path) -> list[str]:
    """Returns the words of a cell's command, after `python`."""
    return [*cell.words, cell.folder_flag, str(cells_folder / cell.name)]


def show_command(cell: Cell, cells_folder: Path, places: Mapping[str, str]) -> str:
    """Returns a cell's command as one line for a shell.

    Args:
      cell: whose command it is.
      cells_folder: where the cells are.
      places: paths and ids of the user's -> the words that stand for them.
    """
    words = ["python", *command(cell, cells_folder)]
    for path in sorted(places, key=len, reverse=True):  # one may lie in another
        words = [word.replace(path, places[path]) for word in words]
    return shlex.join(words)
