# SPDX-License-Identifier: Apache-2.0
"""The plan of the tiny run beside what that run made; and samples, advice and commands."""

import gzip
import re
import shlex
import tempfile
import time

import pytest

from benchmarks.rehearsal import rehearse
from chain.pipeline import plan_pipeline
from edad_jax.data.batches import Rows
from edad_jax.data.prepare import prepare_folder
from planning import report
from planning.plan import Plan, Updates, largest_batch, make_plan
from planning.sample import take_sample
from planning.text import Text
from planning.vocabulary_curve import Point, plot_curve
from tests.tiny_pipeline import tiny_pipeline
from tests.tiny_run import (
    ROOT,
    STEPS,
    make_inputs,
    run_command,
    tiny_config,
    write_config_file,
)
from tests.tiny_tasks import write_tagging
from tests.tiny_text import make_documents

CPU = "cpu_seconds"
CURVE = [Point(0, 1.4), Point(1_000, 1.2), Point(2_000, 1.15), Point(4_000, 1.147)]
TEXT = Text(
    characters=8_000_000,
    share=0.04,
    asked_words=2_000,
    added_words=2_000,
    curve=CURVE,
    train_rows=100_000,
    heldout_rows=900,
    pieces=12_000_000,
    added_share=0.25,
    batch_length=128.0,
    rows_bytes=26_000_000,
    vocabulary_bytes=1_000_000,
    seconds={"vocabulary": 30.0, "rows": 90.0},
    cpu_seconds={"vocabulary": 30.0, "rows": 180.0},
)
UPDATES = Updates(
    count=800,
    batch_size=32,
    epochs=0.256,
    seconds={"compiling": 80.0, "updates": 4_000.0},
    cpu_seconds={"compiling": 80.0, "updates": 8_000.0},
    update_seconds=5.0,
    memory_gb=4.2,
    memory_of="process",
    budget_gb=21.6,
    largest_batch=210,
    disk_bytes=900_000_000,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.usefixtures("figures")  # laid out, as that of the finished run
def test_the_plan_of_a_run_is_what_the_run_came_to(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = files_of(finished.inputs)
    plan = make_plan(
        tiny_config(finished.inputs),
        with_updates=True,
        # Here and now, and without a second program to compile; a command has a process for it.
        rehearse=lambda job: rehearse(**job | {"fit": False}, started=time.time()),
    )
    train = Rows(finished.workdir / "rows" / "train")
    assert plan.train_rows == len(train)
    assert plan.text.heldout_rows == len(Rows(finished.workdir / "rows" / "heldout"))
    assert plan.text.pieces == finished.summary["data"]["rows"]["train"]["tokens"]
    assert (plan.updates.count, plan.updates.batch_size) == (STEPS, 8)
    made = sum(path.stat().st_size for path in finished.workdir.rglob("*") if path.is_file())
    assert plan.disk_bytes == pytest.approx(made, rel=0.1)
    learned = finished.summary["data"]["vocabulary"]
    points = dict(plan.text.curve)
    assert points[0] == learned["pieces_per_word_before"]
    assert points[learned["added"]] == learned["pieces_per_word_after"]
    parts = plan.part_seconds()
    assert all(seconds >= 0 for seconds in parts.values())
    assert parts["updates"] == pytest.approx(STEPS * plan.updates.update_seconds)
    assert plan.seconds == pytest.approx(sum(parts.values()))
    # Nothing is left: neither beside the text, nor in the temporary folder.
    assert files_of(finished.inputs) == before
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def prepared(inputs, tmp_path_factory):
    """Returns a folder with rows of the text, and facts about them."""
    folder = tmp_path_factory.mktemp("prepared") / "rows"
    return folder, prepare_folder(tiny_config(inputs), folder)["rows"]


def test_prepare_plans_without_a_folder_and_writes_nothing(inputs, prepared, tmp_path):
    config = write_config_file(tmp_path / "tiny.py", inputs)
    before = files_of(inputs), files_of(tmp_path)
    done = run_command("--config", str(config), "--plan", script="prepare.py", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (files_of(inputs), files_of(tmp_path)) == before
    rows = prepared[1]
    said = f"rows: {rows['train']['rows']} of 32 pieces to train on, {rows['heldout']['rows']} held"
    assert said in done.stdout


def test_rows_that_are_there_are_planned_on_and_parts_are_multiplied(inputs, prepared, monkeypatch):
    folder, rows = prepared
    monkeypatch.chdir(folder.parent)
    jobs = []

    def rehearse(job):
        jobs.append(job)
        seconds = {"start": 1.0, "build": 2.0, "heldout": 0.5, "compile_heldout": 4.0}
        seconds |= {"first_update": 12.0, "update": 2.0, "first_save": 3.0, "save": 1.0}
        facts = {"steps": 8, "batch_size": 8, "heldout_batches": 1, "checkpoint_bytes": 100}
        facts |= {"nets_bytes": 50, "devices": 1, "budget_gb": None, "program_gb": [[8, 1.0]]}
        memory = {"peak_gb": 1.0, "peak_of": "process"}
        return facts | memory | {name: seconds | {"result": 6.0} for name in ("seconds", CPU)}

    config = tiny_config(inputs, prepared="rows")
    plan = make_plan(config, with_updates=True, rehearse=rehearse)
    assert (plan.text, plan.train_rows) == (None, rows["train"]["rows"])
    assert jobs[0]["config"]["prepared"] == str(folder)  # the process works in another folder
    assert plan.part_seconds() == {
        "start and nets": 3.0,
        "compiling": 4.0 + 10.0,
        "updates": 16.0,
        "held-out figures": 0.5 * 3 * 3,  # after 0, 4 and 8 updates, 20 rows in batches of 8
        "checkpoints": 3.0 + 3 * 1.0,  # after 2, 4, 6 and 8
        "result": 6.0,
    }
    assert plan.cpu_seconds == plan.seconds
    assert plan.disk_bytes == 50 + 2 * 100  # two are kept
    assert plan.updates.largest_batch is None
    assert "largest batch" not in report.describe(config, plan)


def test_how_much_text_there_is_is_told_from_some_of_every_file(tmp_path):
    documents = make_documents(4_000, seed=0, sentences=12)
    half = len(documents) // 2
    (tmp_path / "one.txt").write_text("\n\n".join(documents[:half]), encoding="utf-8")
    with gzip.open(tmp_path / "two.txt.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        file.write("\n\n".join(documents[half:]))
    corpus = tiny_config(tmp_path, corpus__files=str(tmp_path)).corpus
    whole = take_sample(corpus, 1e9)
    assert (whole.share, whole.characters) == (1.0, sum(map(len, documents)))
    sample = take_sample(corpus, 1e5)
    assert sample.characters < whole.characters / 4
    assert sample.share == pytest.approx(sample.characters / whole.characters, rel=0.15)
    assert {documents[0], documents[half]} <= set(sample.documents)


def test_a_plan_says_what_it_takes_and_what_to_do(tmp_path):
    config = tiny_config(tmp_path, rows__max_length=128, max_steps=800, batch_size=32)
    said = report.describe(config, Plan(TEXT, 100_000, UPDATES))
    for words in (
        "read: 8.0 million characters, 4.00% of the text",
        "rows: about 100,000 of 128 pieces to train on, 900 held out",
        "updates: 800 of 32 rows, 0.26 epochs",
        "memory: 4.20 GB at the peak of the process",
        "largest batch: about 210 rows, in 21.6 GB",
        "time: 70.0 min on this machine, as busy as it is now; 2.3 h of its cores' time",
        "disk: 927.0 MB at the end",
        "advice: 2,000 words (--config.vocabulary.size=2000)",
        "the updates read each added word 384 times on average, 58 times as a gap",
        "the updates read 25.6% of the rows; all of them once: --config.max_steps=3125",
        "a batch of up to 210 rows would fit",
    ):
        assert words in said
    tight = UPDATES._replace(budget_gb=4.0, largest_batch=28, count=40, epochs=0.0128)
    said = report.describe(config, Plan(TEXT, 100_000, tight))
    assert "more than the 4.0 GB that there are: --config.accumulate_steps=4" in said
    assert "3 times as a gap to fill; under 20" in said


@pytest.mark.parametrize(
    ("curve", "told"),
    [
        (CURVE, "2,000 words"),
        (CURVE[:3], "up to 2,000 words, twice as many shorten the text by 1% or more"),
        ([Point(0, 1.3), Point(500, 1.1), Point(1_000, 1.095)], "500 words"),
    ],
)
def test_words_are_advised_up_to_where_more_save_little(curve, told):
    (advice,) = report.advise_words(curve)
    assert advice.startswith(told)


def test_the_largest_batch_lies_on_the_line_through_the_measured_peak():
    found = {"program_gb": [[16, 2.0], [32, 3.6]], "peak_gb": 4.2, "budget_gb": 9.0, "devices": 2}
    assert largest_batch(found, unit=4, most=1_000) == 80  # 0.1 GB a row: 32 + 48
    assert largest_batch(found, unit=4, most=50) == 48
    assert largest_batch(found | {"budget_gb": 1.0}, unit=1, most=50) == 0
    assert largest_batch(found | {"budget_gb": None}, unit=1, most=50) is None
    assert largest_batch(found | {"program_gb": [[32, 3.6]]}, unit=1, most=50) is None


def test_the_command_for_an_accelerator_has_flags_that_it_knows(inputs):
    config = tiny_config(inputs)
    plan = Plan(TEXT, 100_000, UPDATES)
    command = report.compile_command(config, plan, "configs/edad.py", ["--config.batch_size=32"])
    words = shlex.split(command)
    assert words[:2] == ["python", "launch/compile.py"]
    assert {"--teacher=2,24,3,40", "--config.batch_size=32"} <= set(words)
    assert f"--tokens={800 * 32 * config.rows.max_length}" in words
    source = (ROOT / "launch" / "compile.py").read_text(encoding="utf-8")
    known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
    given = {word.lstrip("-").partition("=")[0] for word in words if word.startswith("--")}
    assert {name for name in given if not name.startswith("config.")} <= known


def test_a_pipeline_plans_its_other_stages_too(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "make_plan", lambda config, **_: Plan(TEXT, 100_000, UPDATES))
    config = tiny_pipeline(inputs, data=str(write_tagging(tmp_path / "tagged")))
    given = {"config_file": "configs/pipeline.py", "overrides": []}
    picture = tmp_path / "curve.png"
    said = plan_pipeline(config, picture=str(picture), **given)
    times = r" +[\d.]+ \w+ +[\d.]+ \w+\n  "
    assert re.search(f"tune-base{times}tune-teacher{times}tune-student{times}exports and", said)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    config.method = "triple"  # which adapts no teacher
    said = plan_pipeline(config, picture="", **given)
    assert "tune-base" in said and "tune-teacher" not in said
    config.data = ""
    with pytest.raises(ValueError, match="config.data"):
        plan_pipeline(config, picture="", **given)


def test_the_curve_is_drawn_with_its_axes_named(tmp_path, figures):
    plot_curve(tmp_path / "curve.svg", CURVE)
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "added words"
    assert axes.lines[0].get_xydata().tolist() == [list(point) for point in CURVE]


def test_several_processes_no_text_and_text_of_unknown_length_are_told_at_once(
    tmp_path, monkeypatch
):
    with pytest.raises(ValueError, match="process_count=2, expected 1"):
        make_plan(tiny_config(tmp_path, parallel__process_count=2), with_updates=True)
    with pytest.raises(ValueError, match="names no text; expected one of --config.corpus.files="):
        make_plan(tiny_config(tmp_path, corpus__files=""), with_updates=True)
    corpus = tiny_config(tmp_path, corpus__files="", corpus__dataset="x").corpus
    monkeypatch.setattr("planning.sample.read_text", lambda *_: iter(["some words"] * 9))
    with pytest.raises(ValueError, match="does not tell how many"):
        take_sample(corpus, 50)
