# SPDX-License-Identifier: Apache-2.0
"""Stages run once, in order; what changed is told, or runs again with all that reads it."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest

from chain import record
from chain.run import run_stages
from chain.stages import Stage
from chain.view import View
from edad_jax.files import read_json, write_json
from reproduction.cells import Cell, folders_read
from tests.tiny_run import environment

SCRIPT = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "runs", "a") as file: file.write("x")
print("edad:  34%|###   | 41/120 [01:20<02:40]", flush=True)
if "--wait" in sys.argv: time.sleep(0.7)
if "--fail" in sys.argv: sys.exit("what is wrong")
if "--nothing" in sys.argv: sys.exit(0)
if "--stay" in sys.argv:
    def stop(*_):
        (folder / "saved").touch()
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    (folder / "here").write_text(str(os.getpid()))
    time.sleep(300)
(folder / "summary.json").write_text("{}")
"""
INPUTS = {"corpus": {"files": [["a.txt", 10]]}}


@pytest.fixture
def make_stage(tmp_path):
    """Returns a function that makes stages of a script which counts its runs."""
    (tmp_path / "count.py").write_text(SCRIPT)

    def make(name, *words, reads=()):
        words = (str(tmp_path / "count.py"), *words)
        return Stage(Cell(name, words, "--workdir", "summary.json"), f"stage {name}", reads)

    return make


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def run(stages, workdir, *, inputs=INPUTS, **options):
    """Returns what the view told."""
    told = io.StringIO()
    view = View([stage.title for stage in stages], [1.0] * len(stages), told)
    run_stages(stages, workdir, inputs, view, **options)
    return told.getvalue()


def runs_of(workdir):
    return {path.parent.name: path.read_text() for path in sorted(workdir.glob("*/runs"))}


def make_chain(make_stage, workdir, *words):
    """Returns three stages, of which the last reads the first, which has these words."""
    return [
        make_stage("one", *words, reads=("corpus",)),
        make_stage("two"),
        make_stage("three", f"--models={workdir}/other,{workdir}/one/model"),
    ]


def test_a_finished_stage_is_skipped_and_said_to_be_done(make_stage, workdir):
    stages = [make_stage("one"), make_stage("two")]
    told = run(stages, workdir)
    assert told.index("[1/2] stage one: done (0:0") < told.index("[2/2] stage two: begins")
    assert run(stages, workdir) == ""
    assert runs_of(workdir) == {"one": "x", "two": "x"}


def test_a_stage_says_in_its_log_what_it_was_and_how_long_it_ran(make_stage, workdir):
    stage = make_stage("one", "--config.batch_size=4")
    run([stage], workdir)
    assert "count.py --config.batch_size=4 --workdir" in (workdir / "one.log").read_text()
    assert 0 < record.seconds_of(stage, workdir) < 60


def test_a_changed_setting_is_named_with_the_stages_that_it_concerns(make_stage, workdir):
    run(make_chain(make_stage, workdir, "--config.size=1"), workdir)
    message = r"one: --config.size: got 2, the stage had 1\n(?s:.*)--redo(?s:.*)\(one, three\)"
    with pytest.raises(ValueError, match=message):
        run(make_chain(make_stage, workdir, "--config.size=2"), workdir)
    with pytest.raises(ValueError, match="one: --config.size: got its default, the stage had 1"):
        run(make_chain(make_stage, workdir), workdir)
    assert runs_of(workdir) == {"one": "x", "two": "x", "three": "x"}


def test_redo_runs_what_changed_and_what_reads_it_and_nothing_else(make_stage, workdir):
    run(make_chain(make_stage, workdir, "--config.size=1"), workdir)
    (workdir / "two" / "runs").write_text("kept")
    for name in ("one", "three"):
        (workdir / name / "runs").write_text("old")
    run(make_chain(make_stage, workdir, "--config.size=2"), workdir, redo=True)
    assert runs_of(workdir) == {"one": "x", "two": "kept", "three": "x"}


def test_a_stage_that_runs_again_does_not_count_the_time_of_what_was_thrown_away(
    make_stage, workdir
):
    with pytest.raises(ValueError, match="ended with status 1"):
        run([make_stage("one", "--fail")], workdir)
    write_json(workdir / "one.spent.json", {"seconds": 5_000.0})
    run([make_stage("one")], workdir, redo=True)
    assert record.seconds_of(make_stage("one"), workdir) < 5_000


def test_a_stage_that_goes_on_is_not_shown_at_the_bar_of_its_killed_turn(make_stage, workdir):
    workdir.mkdir()
    (workdir / "one.log").write_text("edad:  99%|###| 119/120 [01:20<00:01]\n")
    shown = []
    view = View(["stage one"], [1.0], io.StringIO())
    view.update = lambda number, seconds, bar: shown.append(bar)
    run_stages([make_stage("one", "--wait")], workdir, INPUTS, view)
    assert shown and set(shown) <= {None, (0.34, 160.0)}


def test_other_files_of_the_users_are_a_change_too(make_stage, workdir):
    run(make_chain(make_stage, workdir), workdir)
    grown = {"corpus": {"files": [["a.txt", 11]]}}
    with pytest.raises(ValueError, match=r"one: corpus.files: got \[\['a.txt', 11\]\]"):
        run(make_chain(make_stage, workdir), workdir, inputs=grown)


def test_habits_of_logging_and_saving_may_change(make_stage, workdir):
    run([make_stage("one", "--config.checkpoint.every_steps=5")], workdir)
    run([make_stage("one", "--config.progress=False")], workdir)
    assert runs_of(workdir) == {"one": "x"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--fail", r"one \(stage one\) ended with status 1(?s:.*)what is wrong(?s:.*)By hand: py"),
        ("--nothing", r"one \(stage one\) left no summary.json"),
    ],
)
def test_a_stage_that_fails_says_its_last_words_and_stops_the_chain(
    make_stage, workdir, flag, message
):
    with pytest.raises(ValueError, match=message):
        run([make_stage("one", flag), make_stage("two")], workdir)
    assert runs_of(workdir) == {"one": "x"}
    with pytest.raises(ValueError, match=message):  # it is not taken for finished
        run([make_stage("one", flag), make_stage("two")], workdir)
    assert runs_of(workdir) == {"one": "xx"}
    assert read_json(workdir / "one.spent.json", expected="seconds")["seconds"] > 0


PROGRAM = """
import sys
from pathlib import Path
from chain.run import run_stages
from chain.stages import Stage
from chain.view import View
from reproduction.cells import Cell
stage = Stage(Cell("one", (sys.argv[1], "--stay"), "--workdir", "summary.json"), "one")
run_stages([stage], Path(sys.argv[2]), {}, View(["one"], [1.0]))
"""


def test_a_chain_that_is_stopped_stops_its_stage_which_saves(tmp_path, make_stage, workdir):
    make_stage("one")
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "count.py"), str(workdir)]
    program = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (workdir / "one" / "here").exists():
        assert program.poll() is None, program.communicate()[1]
        time.sleep(0.05)
    with pytest.raises(ValueError, match="another program runs this pipeline"):
        run([make_stage("one")], workdir)
    os.kill(program.pid, signal.SIGTERM)
    assert "stopped in one (one); what is done is kept" in program.communicate()[1]
    assert (workdir / "one" / "saved").exists() and not (workdir / "one.done.json").exists()


def test_a_stage_that_outlives_its_killed_chain_keeps_the_folder(tmp_path, make_stage, workdir):
    make_stage("one")
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "count.py"), str(workdir)]
    program = subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL)
    here = workdir / "one" / "here"
    while not here.exists() or not here.read_text():
        assert program.poll() is None
        time.sleep(0.05)
    program.kill()
    program.wait()
    stage = int(here.read_text())
    try:
        with pytest.raises(ValueError, match="a stage of one that was killed still runs"):
            run([make_stage("one")], workdir)
    finally:
        os.kill(stage, signal.SIGKILL)
    assert runs_of(workdir) == {"one": "x"}


def test_the_folders_in_a_command_are_found_wherever_they_stand(make_stage, workdir):
    stage = make_stage("x", f"--a={workdir}/one/model", f"--b={workdir}/two,{workdir}/three")
    assert folders_read(stage.cell, workdir) == {"one", "two", "three"}
