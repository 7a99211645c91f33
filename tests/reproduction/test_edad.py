# SPDX-License-Identifier: Apache-2.0
import ast
import importlib
import json
from pathlib import Path

import pytest

from edad_jax.machine import describe_machine, name_machine
from reproduction import edad, reproduce
from reproduction.cells import Cell, run_cells
from reproduction.edad import PAPER, SCALES, Inputs, plan_table
from tests.tiny_tasks import tiny_sentences, write_tagged

ROOT = Path(__file__).parents[2]
SIZES = {"/models/bert": (96, 200), "/bio": (96, 200), "/sci": (48, 100)}
INPUTS = Inputs(teacher="/models/bert", corpus="/data/*.txt", ner="/data/ner", sizes=SIZES)
ALL_INPUTS = Inputs("/models/bert", "/c", "/n", "/bio", "/sci", SIZES)


def config_keys(text):
    from configs import edad, ner

    config = (ner if "finetune" in text else edad).get_config()
    return set(flatten(config.to_dict()))


def flatten(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        yield f"{prefix}{key}"


def all_cells(number, scale_name, inputs=INPUTS):
    scale = SCALES[scale_name]
    plan = plan_table(number, scale, inputs, "/cells")
    cells = list(plan.cells.values())
    for row in plan.rows:
        if row.model:
            cells += [
                edad.tuning_cell(row, dataset, scale, inputs, "/cells", ())
                for dataset in edad.DATASETS
            ]
    return plan, cells


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("number", edad.TITLES)
def test_every_flag_of_every_cell_is_a_key_of_its_configuration(number, scale):
    _, cells = all_cells(number, scale, ALL_INPUTS)
    for cell in cells:
        script, config, *flags = cell.words
        assert (ROOT / script).is_file()
        assert (ROOT / config.removeprefix("--config=")).is_file()
        for flag in flags:
            key, _, value = flag.removeprefix("--config.").partition("=")
            assert key in config_keys(script), flag
            assert value, flag


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("number", edad.TITLES)
def test_what_a_cell_reads_was_made_by_a_cell_before_it(number, scale):
    plan, cells = all_cells(number, scale)
    made = set()
    for cell in cells:
        for word in cell.words:
            path = word.partition("=")[2]
            if path.startswith("/cells/"):
                assert path.split("/")[2] in made, (cell.name, word)
        made.add(cell.name)
    for row in plan.rows:
        assert set(row.trained_by) <= made
    assert len({(row.name, row.kind) for row in plan.rows}) == len(plan.rows)


def test_table_4_has_the_seven_schedules_and_shares_edad_with_table_2():
    plan, cells = all_cells(4, "small")
    assert len(plan.rows) == 7
    shared = {cell for cell in cells if cell.name.split(".")[0] == "edad-linear"}
    assert len(shared) == 1 + len(edad.DATASETS)
    assert shared <= set(all_cells(2, "small")[1])


def test_chosen_rows_bring_the_cells_that_they_need_and_no_others():
    plan = plan_table(2, SCALES["small"], INPUTS, "/cells")
    assert reproduce.choose_rows(plan, (), Path("/cells")) == plan
    single = reproduce.choose_rows(plan, ["EDAD"], Path("/cells"))
    assert [row.name for row in single.rows] == ["EDAD"]
    assert list(single.cells) == ["rows", "edad-linear"]
    two = reproduce.choose_rows(plan, ["exBERT_GD"], Path("/cells"))
    assert list(two.cells) == ["rows", "adaptation", "distillation"]
    soft = reproduce.choose_rows(plan, ["EDAD_TD"], Path("/cells"))
    assert [row.name for row in soft.rows] == ["exBERT", "EDAD_TD"]  # whose soft labels it learns
    with pytest.raises(ValueError, match=r"--rows: got \['ExBERT'\], expected out of \['BERT'"):
        reproduce.choose_rows(plan, ["ExBERT"], Path("/cells"))


@pytest.mark.parametrize("scale", SCALES)
def test_a_vocabulary_from_scratch_has_about_as_many_pieces_as_berts(scale):
    words = plan_table(1, SCALES[scale], INPUTS, "/cells").cells["rows-new"].words
    [size] = [w.partition("=")[2] for w in words if w.startswith("--config.vocabulary.size=")]
    assert 28_000 < int(size) < 31_000


def test_a_row_without_its_checkpoint_says_what_to_give():
    plan, _ = all_cells(3, "paper")
    notes = {row.name: row.note for row in plan.rows}
    assert notes["BioBERT"] == "not run: no BioBERT at hand, give --biobert=DIR_OR_HUB_ID"
    assert notes["EDAD"] == ""


def test_every_row_of_the_paper_is_planned():
    planned = {row.name for number in edad.TITLES for row in all_cells(number, "paper")[0].rows}
    assert planned == set(PAPER) | {"EDAD_TD"}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def finish(cells_folder, name, f1):
    """Writes what a fine-tuning run with two seeds would leave; the second one failed."""
    seeds = {
        "0": {"failed": False, "test": {"f1": f1, "paper_metric": f1 + 0.1}},
        "1": {"failed": False, "test": {"f1": f1 + 0.02, "paper_metric": f1 + 0.1}},
        "2": {"failed": True},
    }
    summary = {"seeds": seeds, "time_cost": {}, "examples": {}, "epochs": 1, "notes": {}}
    write(cells_folder / name / "summary.json", summary)


def test_a_table_is_written_from_what_is_there_and_adds_up_the_stages(tmp_path):
    cells = tmp_path / "small" / "cells"
    for number, dataset in enumerate(edad.DATASETS):
        finish(cells, f"distillation.{dataset}", 0.5 + number / 10)
    for name, seconds in (("adaptation", 600.0), ("distillation", 300.0)):
        costs = {"train/seconds": seconds, "train/cpu_seconds": 2 * seconds}
        nets = {"teacher": {"parameters": 9_000_000}, "student": {"parameters": 4_000_000}}
        end = {"step": 120, "time": 1.5e9, "heldout/student_mlm_accuracy": seconds / 1e3}
        summary = {"time_cost": costs, "nets": nets, "steps": 120, "heldout": {"end": end}}
        write(cells / name / "summary.json", summary)
    rows = reproduce.reproduce(
        2,
        "small",
        SCALES["small"],
        INPUTS,
        root=ROOT,
        workdir=tmp_path,
        out=tmp_path / "out",
        only_report=True,
    )
    row = next(row for row in rows if row["name"] == "exBERT_GD")
    assert row["seconds"] == 900.0 and row["cpu_seconds"] == 1800.0
    assert row["f1"]["average"]["mean"] == pytest.approx(0.61)
    assert row["f1"]["average"]["half"] == pytest.approx(12.706 * 0.01, rel=1e-3)
    text = (tmp_path / "out" / "table-2.md").read_text(encoding="utf-8")
    assert "| exBERT_GD " in text and "4.0M" in text and "61.00 ± 12.71" in text
    assert "exBERT_GD, BC5CDR, seed 2" in text  # named among the failed
    assert "88.36 ± 0.09" in text  # the paper's EDAD
    assert "--config.method=distillation" in text
    table = json.loads((tmp_path / "out" / "table-2.json").read_text())
    assert table["rows"] and table["teacher"] == "bert"
    assert table["machine"] == describe_machine() and name_machine(table["machine"]) in text
    assert set(table["cells"]) == {"adaptation", "distillation"}  # of those that train, what ran
    cell = table["cells"]["distillation"]
    assert cell["command"] in text and "--config.method=distillation" in cell["command"]
    assert cell["steps"] == 120 and cell["heldout"] == {"student_mlm_accuracy": 0.3}
    assert cell["time_cost"] == {"train/seconds": 300.0, "train/cpu_seconds": 600.0}
    assert (tmp_path / "out" / "table-2.png").stat().st_size > 5_000


def test_a_cell_of_another_command_is_not_taken_for_this_one(tmp_path):
    scale = SCALES["small"]
    report = {"root": ROOT, "workdir": tmp_path, "out": tmp_path / "out", "only_report": True}
    words = ["launch/prepare.py", "--config=other.py", "--out", str(tmp_path / "small/cells/rows")]
    write(tmp_path / "small" / "cells" / "rows.command.json", words)
    with pytest.raises(ValueError, match="rows was made by another command.*--config=other.py"):
        reproduce.reproduce(2, "small", scale, INPUTS, **report)


@pytest.fixture
def report_table_4(tmp_path):
    """Returns a function that reports table 4, with a picture, and returns the folder."""
    for scale in SCALES:
        finish(tmp_path / scale / "cells", "edad-linear.NCBI-disease", 0.5)

    def report(scale, teacher, rows=()):
        inputs = Inputs(teacher, "/c", "/n", sizes={teacher: (96, 200)})
        reproduce.reproduce(
            4,
            scale,
            SCALES[scale],
            inputs,
            root=ROOT,
            workdir=tmp_path,
            out=tmp_path / "out",
            only_rows=rows,
            only_report=True,
        )
        return tmp_path / "out"

    return report


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (("paper", "/models/bert"), ("small", "/models/bert"), "table-4-paper-bert"),
        (("small", "/models/bert"), ("small", "/e5-v1.1"), "table-4-small-bert"),
        (("small", "lab/e5-v1.1"), ("small", "/models/bert"), "table-4-small-e5-v1.1"),
        (("small", "/e5"), ("small", "/e5", ["linear", "same"]), "table-4-small-e5"),
    ],
    ids=["scale", "teacher", "hub-id", "fewer-rows"],
)
def test_a_table_that_the_new_one_does_not_stand_for_is_kept_with_its_picture(
    report_table_4, first, second, kept
):
    out = report_table_4(*first)
    before = (out / "table-4.md").read_text(encoding="utf-8")
    assert "![scores](table-4.png)" in before
    report_table_4(*second)
    after = (out / f"{kept}.md").read_text(encoding="utf-8")
    assert after == before.replace("](table-4.png)", f"]({kept}.png)")
    names = [f"{name}{suffix}" for name in ("table-4", kept) for suffix in (".md", ".png", ".json")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert json.loads((out / "table-4.json").read_text())["scale"] == second[0]


def test_a_table_of_the_same_scale_and_teacher_takes_the_place_of_the_one_before(report_table_4):
    report_table_4("small", "/e5", ["linear"])
    out = report_table_4("small", "/e5")
    assert len(list(out.iterdir())) == 3
    path = out / "table-4.json"
    table = json.loads(path.read_text())
    del table["teacher"]  # as tables were written before
    path.write_text(json.dumps(table))
    report_table_4("small", "/e5")
    assert "](table-4-small.png)" in (out / "table-4-small.md").read_text(encoding="utf-8")


def test_an_unknown_data_set_is_named_also_where_nothing_runs(tmp_path):
    places = {"root": ROOT, "workdir": tmp_path, "out": tmp_path / "out"}
    for only_report in (True, False):
        with pytest.raises(ValueError, match="got .'NCBI'., expected out of .'BC5CDR', 'BioNLP09'"):
            reproduce.reproduce(
                2,
                "small",
                SCALES["small"],
                INPUTS,
                datasets=["NCBI"],
                only_report=only_report,
                **places,
            )
    assert not (tmp_path / "out").exists()


def test_data_are_checked_by_their_reader_before_anything_runs(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(reproduce, "run_cells", lambda *_: runs.append(1))
    inputs = Inputs("/models/bert", "/c", str(tmp_path / "ner"), sizes=SIZES)

    def run():
        reproduce.reproduce(
            4,
            "small",
            SCALES["small"],
            inputs,
            root=ROOT,
            workdir=tmp_path,
            out=tmp_path / "out",
            datasets=["NCBI-disease"],
        )

    folder = tmp_path / "ner" / "NCBI-disease-IOB"
    with pytest.raises(ValueError, match="got no such file.*--ner=FOLDER that has NCBI-disease"):
        run()
    write_tagged(folder / "test.conll", tiny_sentences(9))
    with pytest.raises(ValueError, match=r"got test\.conll, expected a training split"):
        run()
    write_tagged(folder / "train.conll", tiny_sentences(9))
    (folder / "test.conll").rename(folder / "dev.conll")
    with pytest.raises(ValueError, match="IOB: got no test split, expected one to score; give"):
        run()
    assert not runs
    write_tagged(folder / "test.conll", tiny_sentences(9))
    run()
    assert runs


def test_a_small_student_is_as_wide_as_the_teacher_that_gives_it_layers(tmp_path):
    sizes = {"hidden_size": 96, "intermediate_size": 200, "vocab_size": 9, "num_hidden_layers": 1}
    write(
        tmp_path / "config.json", sizes | {"num_attention_heads": 2, "max_position_embeddings": 8}
    )
    folder = str(tmp_path)
    read = reproduce.read_sizes([folder, ""])
    assert read == {folder: (96, 200)}
    cells = plan_table(2, SCALES["small"], Inputs(folder, "/c", "/n", sizes=read), "/cells").cells
    assert "--config.student.hidden_size=96" in cells["edad-linear"].words
    assert not any("config.student" in word for word in cells["edad-linear-random"].words[2:])
    _, cells = all_cells(3, "small", ALL_INPUTS)
    words = next(cell.words for cell in cells if cell.name == "distillation-scibert")
    assert "--config.student.hidden_size=48" in words


SCRIPT = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "runs", "a") as file: file.write("x")
if "--fail" in sys.argv: sys.exit(3)
if "--nothing" in sys.argv: sys.exit(0)
if "--killed" in sys.argv: os.kill(os.getpid(), 9)
if "--meet" in sys.argv:  # needs another cell to run at the same time
    (folder / "here").touch()
    limit = time.monotonic() + 30
    while len(list(folder.parent.glob("*/here"))) < 2:
        if time.monotonic() > limit: sys.exit(4)
        time.sleep(0.05)
(folder / "summary.json").write_text("{}")
"""


@pytest.fixture
def make_cell(tmp_path):
    """Returns a function that makes cells of a script which counts its runs."""
    (tmp_path / "count.py").write_text(SCRIPT)
    return lambda name, *words: Cell(name, ("count.py", *words), "--workdir", "summary.json")


def runs_of(tmp_path):
    return {path.parent.name: path.read_text() for path in (tmp_path / "cells").glob("*/runs")}


def test_a_finished_cell_is_not_run_again(tmp_path, make_cell):
    for _ in range(2):
        run_cells([make_cell("one")], tmp_path / "cells", tmp_path)
    assert runs_of(tmp_path) == {"one": "x"}


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


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("adapt_all_weights", "adaptation-all-weights"),
        ("adapt_from_scratch", "adaptation-from-scratch"),
        ("adapt_extension", "adaptation"),
        ("distil", "distillation"),
    ],
)
def test_the_baselines_configurations_are_what_table_1_runs_at_the_papers_size(name, cell):
    expected = importlib.import_module(f"configs.{name}").get_config()
    plan, _ = all_cells(1, "paper")
    config = importlib.import_module("configs.edad").get_config()
    prepared = next(w for w in plan.cells[cell].words if w.startswith("--config.prepared="))
    rows = plan.cells[prepared.rpartition("/")[2]]
    sizes = [flag for flag in rows.words if flag.startswith("--config.vocabulary.size=")]
    for flag in (*plan.cells[cell].words[2:], *sizes):
        key, _, value = flag.removeprefix("--config.").partition("=")
        if key in ("prepared", "teacher.checkpoint"):
            continue
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass
        config.update_from_flattened_dict({key: value})
    assert config.to_dict() == expected.to_dict()
