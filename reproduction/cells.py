# SPDX-License-Identifier: Apache-2.0
"""Cells: commands of launch/, each in a process of its own and with a folder of its own.

What is finished is not run again, and what was killed goes on where it stopped.
"""

import fcntl
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from edad_jax.files import write_json

LOG = logging.getLogger(__name__)


class Cell(NamedTuple):
    """One command. It is done when `marker` is in its folder."""

    name: str
    words: tuple[str, ...]  # script and flags, without the folder
    folder_flag: str
    marker: str


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
    names = {cell.name for cell in cells}
    needed = {cell.name: folders_read(cell, cells_folder) & names for cell in cells}
    place = {cell.name: f"[{number}/{len(cells)}]" for number, cell in enumerate(cells, start=1)}
    for cell in cells:
        check_command(cell, cells_folder)
    waiting, finished, failed = list(cells), set(), {}
    running: list[_Running] = []
    cores = _share_cores(jobs)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                run.lock.close()
                if run.process.returncode or not _is_finished(run.cell, cells_folder):
                    failed[run.cell.name] = run
                else:
                    finished.add(run.cell.name)
            lost = set(failed) | (names - finished - {cell.name for cell in waiting})
            lost -= {run.cell.name for run in running}
            waiting = [cell for cell in waiting if not needed[cell.name] & lost]
            ready = (cell for cell in waiting if needed[cell.name] <= finished)
            free = sorted(set(range(jobs)) - {run.slot for run in running})
            locked = _lock_first(ready, cells_folder) if free else None
            if locked is None:
                time.sleep(0.2)
                continue
            cell, lock = locked
            waiting.remove(cell)
            if _is_finished(cell, cells_folder):
                LOG.info("%s %s: finished before", place[cell.name], cell.name)
                finished.add(cell.name)
                lock.close()
                continue
            words = command(cell, cells_folder)
            LOG.info("%s %s: python %s", place[cell.name], cell.name, shlex.join(words))
            write_json(_command_file(cell, cells_folder), words)
            # The process has the lock too, and keeps it should this program be killed.
            process = subprocess.Popen(
                [sys.executable, *words], cwd=root, pass_fds=(lock.fileno(),)
            )
            running.append(_Running(cell, process, lock, free[0]))
            if cores:
                os.sched_setaffinity(process.pid, cores[free[0]])
    finally:
        for run in running:
            run.process.terminate()
        for run in running:
            run.process.wait()
            run.lock.close()
        signal.signal(signal.SIGTERM, before)
    if failed:
        lines = [
            f"{name} {_end(run.process.returncode)}; by hand: python "
            f"{shlex.join(command(run.cell, cells_folder))}"
            for name, run in failed.items()
        ]
        raise ValueError(
            "\n".join(lines) + "\nWhat they said stands above. The same command goes on from here"
        )


class _Running(NamedTuple):
    """A cell under way."""

    cell: Cell
    process: subprocess.Popen
    lock: IO
    slot: int


def folders_read(cell: Cell, cells_folder: str | Path) -> set[str]:
    """Returns the cells whose folders stand in a command."""
    values = [word.partition("=")[2] for word in cell.words]
    return {
        Path(value).relative_to(cells_folder).parts[0]
        for value in values
        if value.startswith(f"{cells_folder}/")
    }


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
    """Returns the cores of each job; empty for one job, or where the system has too few."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return [cores[slot::jobs] for slot in range(jobs)] if len(cores) >= jobs else []


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
    before, now = json.loads(path.read_text(encoding="utf-8")), command(cell, cells_folder)
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
    if not path.is_file():
        raise ValueError(f"{path}: got no such file, expected that the cell has run")
    return json.loads(path.read_text(encoding="utf-8"))


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


def show_commands(
    cells: Sequence[Cell], cells_folder: Path, places: Mapping[str, str]
) -> list[str]:
    """Returns Markdown lines with every cell's command.

    Args:
      cells: in the order they are shown.
      cells_folder: where they are.
      places: paths and ids of the user's -> the words that stand for them.
    """
    return ["```", *(show_command(cell, cells_folder, places) for cell in cells), "```"]


def show_command(cell: Cell, cells_folder: Path, places: Mapping[str, str]) -> str:
    """Returns a cell's command as one line; arguments are those of `show_commands`."""
    words = " ".join(["python", *command(cell, cells_folder)])
    for path, short in places.items():
        words = words.replace(path, short) if path else words
    return words
