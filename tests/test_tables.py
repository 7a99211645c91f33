# SPDX-License-Identifier: Apache-2.0
import ast
import importlib
import json
from pathlib import Path

import pytest

from edad_jax import reproduce, tables
from edad_jax.published import PAPER
from edad_jax.tables import SCALES, Inputs, plan_table

ROOT = Path(__file__).parents[1]
INPUTS = Inputs(teacher="/models/bert", corpus="/data/*.txt", ner="/data/ner")


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
                tables.tuning_cell(row, dataset, scale, inputs, "/cells", ())
                for dataset in tables.DATASETS
            ]
    return plan, cells


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("number", tables.TITLES)
def test_every_flag_of_every_cell_is_a_key_of_its_configuration(number, scale):
    _, cells = all_cells(number, scale, Inputs("/m", "/c", "/n", "/bio", "/sci"))
    for cell in cells:
        script, config, *flags = cell.words
        assert (ROOT / script).is_file()
        assert (ROOT / config.removeprefix("--config=")).is_file()
        for flag in flags:
            key, _, value = flag.removeprefix("--config.").partition("=")
            assert key in config_keys(script), flag
            assert value, flag


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("number", tables.TITLES)
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
    assert len(shared) == 1 + len(tables.DATASETS)
    assert shared <= set(all_cells(2, "small")[1])


def test_a_row_without_its_checkpoint_says_what_to_give():
    plan, _ = all_cells(3, "paper")
    notes = {row.name: row.note for row in plan.rows}
    assert notes["BioBERT"] == "not run: no BioBERT at hand, give --biobert=DIR_OR_HUB_ID"
    assert notes["EDAD"] == ""


def test_every_row_of_the_paper_is_planned():
    planned = {row.name for number in tables.TITLES for row in all_cells(number, "paper")[0].rows}
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
    for number, dataset in enumerate(tables.DATASETS):
        finish(cells, f"distillation.{dataset}", 0.5 + number / 10)
    for name, seconds in (("adaptation", 600.0), ("distillation", 300.0)):
        costs = {"train/seconds": seconds, "train/cpu_seconds": 2 * seconds}
        nets = {"teacher": {"parameters": 9_000_000}, "student": {"parameters": 4_000_000}}
        write(cells / name / "summary.json", {"time_cost": costs, "nets": nets})
    rows = reproduce.reproduce(
        2, "small", SCALES["small"], INPUTS, root=ROOT, workdir=tmp_path,
        out=tmp_path / "out", only_report=True,
    )  # fmt: skip
    row = next(row for row in rows if row["name"] == "exBERT_GD")
    assert row["seconds"] == 900.0 and row["cpu_seconds"] == 1800.0
    assert row["f1"]["average"]["mean"] == pytest.approx(0.61)
    assert row["f1"]["average"]["half"] == pytest.approx(12.706 * 0.01, rel=1e-3)
    text = (tmp_path / "out" / "table-2.md").read_text(encoding="utf-8")
    assert "| exBERT_GD " in text and "4.0M" in text and "61.00 ± 12.71" in text
    assert "exBERT_GD, BC5CDR, seed 2" in text  # named among the failed
    assert "88.36 ± 0.09" in text  # the paper's EDAD
    assert "--config.method=distillation" in text
    assert json.loads((tmp_path / "out" / "table-2.json").read_text())["rows"]
    assert (tmp_path / "out" / "table-2.png").stat().st_size > 5_000


def test_a_cell_of_another_command_is_not_taken_for_this_one(tmp_path):
    scale = SCALES["small"]
    report = {"root": ROOT, "workdir": tmp_path, "out": tmp_path / "out", "only_report": True}
    words = ["launch/prepare.py", "--config=other.py", "--out", str(tmp_path / "small/cells/rows")]
    write(tmp_path / "small" / "cells" / "rows.command.json", words)
    with pytest.raises(ValueError, match="rows was made by another command.*--config=other.py"):
        reproduce.reproduce(2, "small", scale, INPUTS, **report)


def test_a_table_of_another_scale_is_kept_under_its_own_name(tmp_path):
    report = {"root": ROOT, "workdir": tmp_path, "out": tmp_path / "out", "only_report": True}
    reproduce.reproduce(4, "paper", SCALES["paper"], INPUTS, **report)
    reproduce.reproduce(4, "small", SCALES["small"], INPUTS, **report)
    assert "(paper)" in (tmp_path / "out" / "table-4-paper.md").read_text(encoding="utf-8")
    assert "(small)" in (tmp_path / "out" / "table-4.md").read_text(encoding="utf-8")


def test_a_missing_data_set_is_named_before_anything_runs(tmp_path):
    (tmp_path / "BC5CDR-IOB").mkdir()
    with pytest.raises(ValueError, match="got no train file in .*BC5CDR-IOB"):
        reproduce.check_data(str(tmp_path))


def test_a_student_as_wide_as_its_teacher_is_planned_where_the_width_is_known(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 96, "intermediate_size": 200}')
    plan = plan_table(2, SCALES["small"], Inputs(str(tmp_path), "/c", "/n"), "/cells")
    assert "--config.student.hidden_size=96" in plan.cells["edad-linear-init"].words
    assert "edad-linear-init" not in all_cells(2, "small")[0].cells


def test_a_finished_cell_is_not_run_again_and_a_failed_one_is_named(tmp_path):
    script = tmp_path / "count.py"
    script.write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[-1])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "with open(folder / 'runs', 'a') as file: file.write('x')\n"
        "if 'fail' in sys.argv: sys.exit(3)\n"
        "(folder / 'summary.json').write_text('{}')\n"
    )
    cell = tables.Cell("one", ("count.py",), "--workdir", "summary.json")
    for _ in range(2):
        reproduce.run_cell(cell, tmp_path / "cells", tmp_path, "1/1")
    assert (tmp_path / "cells" / "one" / "runs").read_text() == "x"
    with pytest.raises(ValueError, match="two ended with status 3.*By hand: python count.py fail"):
        reproduce.run_cell(
            cell._replace(name="two", words=("count.py", "fail")), tmp_path / "cells", tmp_path, ""
        )


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
