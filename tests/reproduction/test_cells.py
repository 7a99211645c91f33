# SPDX-License-Identifier: Apache-2.0
"""Cells run once, in order, beside each other, and go with the program that began them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from reproduction.cells import Cell, check_command, run_cells
from tests.reproduction.conftest import write_json
from tests.tiny_run import environment

SCRIPT = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "runs", "a") as file: file.write("x")
if "--fail" in sys.argv: sys.exit(3)
if "--nothing" in sys.argv: sys.exit(0)
if "--killed" in sys.argv: os.kill(os.getpid(), 9)
if hasattr(os, "sched_getaffinity"):
    (folder / "cores").write_text(" ".join(map(str, os.sched_getaffinity(0))))
if "--meet" in sys.argv:  # needs another cell to run at the same time
    (folder / "here").touch()
    limit = time.monotonic() + 60
    while len(list(folder.parent.glob("*/here"))) < 2:
        if time.monotonic() > limit: sys.exit(4)
        time.sleep(0.05)
if "--stay" in sys.argv:
    def stop(*_):
        (folder / "saved").touch()
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    (folder / "here").touch()
    time.sleep(300)
(folder / "summary.json").write_text("{}")
"""
PROGRAM = """
from pathlib import Path
from absl import flags
from edad_jax.command import run_command
flags.DEFINE_list("cells", [], "name+flag")
def main():
    from reproduction.cells import Cell, run_cells
    cells = [Cell(name, ("count.py", f"--{flag}"), "--workdir", "summary.json")
             for name, flag in (each.split("+") for each in flags.FLAGS.cells)]
    run_cells(cells, Path("cells").resolve(), Path.cwd())
run_command(main, required=["cells"])
"""


@pytest.fixture
def make_cell(tmp_path):
    """Returns a function that makes cells of a script which counts its runs."""
    (tmp_path / "count.py").write_text(SCRIPT)
    return lambda name, *words: Cell(name, ("count.py", *words), "--workdir", "summary.json")


@pytest.fixture
def begin_program(tmp_path, make_cell):
    """Returns a function that begins a program of its own with these cells, "NAME+FLAG"."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def begin(*cells):
        return subprocess.Popen(
            [sys.executable, "program.py", f"--cells={','.join(cells)}"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def runs_of(tmp_path):
    return {path.parent.name: path.read_text() for path in (tmp_path / "cells").glob("*/runs")}


def test_a_finished_cell_is_not_run_again(tmp_path, make_cell):
    for _ in range(2):
        run_cells([make_cell("one")], tmp_path / "cells", tmp_path)
    assert runs_of(tmp_path) == {"one": "x"}


def test_a_cell_of_another_command_is_not_taken_for_this_one(tmp_path, make_cell):
    cell, cells = make_cell("one", "--new"), tmp_path / "cells"
    assert not check_command(cell, cells)
    write_json(cells / "one.command.json", ["count.py", "--old", "--workdir", f"{cells}/one"])
    message = r"one was made by another command; got \['--new'\], it had \['--old'\]"
    with pytest.raises(ValueError, match=message):
        run_cells([make_cell("before"), cell], cells, tmp_path)
    assert not runs_of(tmp_path)


def test_a_failed_cell_stops_only_those_that_need_it(tmp_path, make_cell):
    cells = [
        make_cell("two", "--fail"),
        make_cell("three", f"--config.prepared={tmp_path}/cells/two/rows"),
        make_cell("five", f"--config.model={tmp_path}/cells/three/model"),
        make_cell("four"),
    ]
    with pytest.raises(ValueError, match="two ended with status 3; by hand: python count.py"):
        run_cells(cells, tmp_path / "cells", tmp_path)
    assert runs_of(tmp_path) == {"two": "x", "four": "x"}


def test_a_cell_that_leaves_no_result_has_failed(tmp_path, make_cell):
    with pytest.raises(ValueError, match="one ended with status 0"):
        run_cells([make_cell("one", "--nothing")], tmp_path / "cells", tmp_path)


def test_a_killed_cell_says_what_kills(tmp_path, make_cell):
    with pytest.raises(ValueError, match="one was killed, by the system where memory ran out"):
        run_cells([make_cell("one", "--killed")], tmp_path / "cells", tmp_path)


def test_two_jobs_run_at_once_and_one_waits_for_what_it_reads(tmp_path, make_cell):
    cells = [
        make_cell("last", f"--config.prepared={tmp_path}/cells/left/rows"),
        make_cell("left", "--meet"),
        make_cell("right", "--meet"),
    ]
    run_cells(cells, tmp_path / "cells", tmp_path, jobs=2)
    assert runs_of(tmp_path) == {"last": "x", "left": "x", "right": "x"}
    order = [
        (tmp_path / "cells" / name / "summary.json").stat().st_mtime_ns for name in ("left", "last")
    ]
    assert order == sorted(order)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="no two cores to share",
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_each_job_has_its_share_of_the_cores(tmp_path, make_cell, jobs):
    flags = ["--meet"] if jobs == 2 else []
    run_cells([make_cell(name, *flags) for name in "ab"], tmp_path / "cells", tmp_path, jobs=jobs)
    a, b = (set((tmp_path / "cells" / name / "cores").read_text().split()) for name in "ab")
    cores = set(map(str, os.sched_getaffinity(0)))
    assert a | b == cores and (a.isdisjoint(b) if jobs == 2 else a == b)


def test_two_programs_share_the_cells_of_a_folder_and_say_what_they_run(tmp_path, begin_program):
    cells = ("left+meet", "right+meet")
    told = [program.communicate()[1] for program in [begin_program(*cells), begin_program(*cells)]]
    assert runs_of(tmp_path) == {"left": "x", "right": "x"}
    for line in ("[1/2] left: python count.py --meet", "[2/2] right: finished before"):
        assert any(line in each for each in told), told


def test_a_program_that_is_stopped_stops_its_cell_which_saves(tmp_path, begin_program):
    program, folder = begin_program("one+stay"), tmp_path / "cells" / "one"
    while not (folder / "here").exists():
        assert program.poll() is None, program.communicate()[1]
        time.sleep(0.05)
    program.send_signal(signal.SIGTERM)
    assert program.communicate()[1].count("KeyboardInterrupt") and program.returncode
    assert (folder / "saved").exists() and not (folder / "summary.json").exists()
