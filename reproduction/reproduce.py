# SPDX-License-Identifier: Apache-2.0
"""Runs a table of the paper cell by cell, and writes down what came out.

Each cell is a command of launch/ in a process of its own, with a folder of its own: what is
finished is not run again, and what was killed goes on where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edad_jax.files import open_beside, write_json
from edad_jax.machine import describe_machine, name_machine
from edad_jax.models.config_json import bert_config
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.data.tagged import read_tagged
from edad_jax.tasks.result import show_interval
from edad_jax.tasks.scores import mean_interval
from reproduction.cells import (
    Cell,
    check_command,
    folders_read,
    run_cells,
    show_command,
    show_commands,
    tell_failed,
)
from reproduction.edad import (
    DATASETS,
    TITLES,
    Inputs,
    Plan,
    Row,
    Scale,
    plan_table,
    published_rows,
    tuning_cell,
)
from reproduction.output import keep_other, read_table

METRICS = {"f1": "entity F1", "paper_metric": "the paper's metric"}


def reproduce(
    number: int,
    scale_name: str,
    scale: Scale,
    inputs: Inputs,
    *,
    root: Path,
    workdir: Path,
    out: Path,
    train: Sequence[str] = (),
    tune: Sequence[str] = (),
    datasets: Sequence[str] = tuple(DATASETS),
    only_rows: Sequence[str] = (),
    jobs: int = 1,
    only_report: bool = False,
) -> list[dict]:
    """Returns the rows of a table, after running what had not been run.

    Writes out/table-N.md, table-N.json with every seed of every run, and table-N.png. A table of
    another scale or teacher, or with more rows, that is there is kept as table-N-SCALE-TEACHER.*.

    Args:
      number: of the table, 1 to 4.
      scale_name: "small" or "paper", for the title.
      scale: what the runs are like.
      inputs: what only the user has.
      root: folder of the project, which has launch/ and configs/.
      workdir: where the cells are.
      out: where the table goes.
      train: more flags for every training run.
      tune: more flags for every fine-tuning run.
      datasets: which ones to fine-tune on, out of DATASETS; the others' columns show what ran.
      only_rows: names of the rows to run and to show; empty: all.
      jobs: cells at once.
      only_report: write down what there is, and run nothing.

    Raises:
      ValueError: a cell failed; says which, and its command. Or no such row or data set.
    """
    if unknown := sorted(set(datasets) - set(DATASETS)):
        raise ValueError(f"--datasets: got {unknown}, expected out of {list(DATASETS)}")
    cells_folder = workdir / scale_name / "cells"
    plan = plan_table(number, scale, inputs, str(cells_folder))
    plan = choose_rows(plan, only_rows, cells_folder)
    training = [cell._replace(words=(*cell.words, *train)) for cell in plan.cells.values()]
    cells = list(training)
    by_row = {
        row.name: {
            dataset: tuning_cell(row, dataset, scale, inputs, str(cells_folder), tune)
            for dataset in DATASETS
        }
        for row in plan.rows
        if row.model
    }
    for dataset in datasets:  # one after the other, so that half a table can be compared
        for tuning in by_row.values():
            if tuning[dataset] not in cells:
                cells.append(tuning[dataset])
    if not only_report:
        check_data(inputs.ner, datasets)
        run_cells(cells, cells_folder, root, jobs)
    begun = [tuning[dataset] for tuning in by_row.values() for dataset in DATASETS]
    cells += [cell for cell in begun if cell not in cells and check_command(cell, cells_folder)]
    for cell in cells:
        check_command(cell, cells_folder)

    rows = [read_row(row, by_row.get(row.name, {}), cells_folder) for row in plan.rows]
    places = {str(cells_folder): "CELLS"} | {
        path: name.upper() for name, path in inputs.paths().items()
    }
    table = {
        "table": number,
        "scale": scale_name,
        "teacher": Path(inputs.teacher).name,
        "machine": describe_machine(),
        "rows": rows,
        "cells": _read_training(training, cells_folder, places),
    }
    out.mkdir(parents=True, exist_ok=True)
    name = f"table-{number}"
    before, now = (
        {row["name"] for row in each["rows"]} for each in (read_table(out, name) or table, table)
    )
    told = {key: table[key] for key in ("scale", "teacher")}
    keep_other(out, name, told, replaces=not now < before)
    write_json(out / f"{name}.json", table)
    _draw(number, scale, rows, out / f"table-{number}.png")
    text = _markdown(table, cells, cells_folder, places)
    with open_beside(out / f"table-{number}.md") as file:
        file.write(text)
    return rows


def choose_rows(plan: Plan, names: Sequence[str], cells_folder: Path) -> Plan:
    """Returns the plan of the named rows, and of the cells that they need; no name: all.

    A row with soft labels brings the row of the model that gives them.

    Raises:
      ValueError: a name that no row has.
    """
    if not names:
        return plan
    known = [row.name for row in plan.rows]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"--rows: got {unknown}, expected out of {known}")
    teachers = {row.teacher_cell for row in plan.rows if row.name in names}
    rows = [row for row in plan.rows if row.name in names or row.cell in teachers]
    needed, found = set(), {cell for row in rows for cell in row.trained_by}
    while found:
        needed |= found
        read = (folders_read(plan.cells[name], cells_folder) for name in found)
        found = set().union(*read) - needed
    return Plan(rows, {name: cell for name, cell in plan.cells.items() if name in needed})


def check_data(folder: str, datasets: Sequence[str]) -> None:
    """Raises ValueError where a data set cannot be read and scored, before hours of training."""
    names = [DATASETS[dataset] for dataset in datasets]
    for name in names:
        try:
            splits, _ = read_tagged(f"{folder}/{name}")
            if "test" not in splits:  # which a fine-tuning run can do without, and a table cannot
                raise ValueError(f"{folder}/{name}: got no test split, expected one to score")
        except ValueError as error:
            raise ValueError(f"{error}; give --ner=FOLDER that has {', '.join(names)}") from error


def read_sizes(models: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns the width and feed-forward width of each model: a folder or a hub id; "" is none.

    Raises:
      ValueError: a model is not there, or is no BERT.
    """
    sizes = {}
    for model in filter(None, models):
        folder = local_folder(model, option="--teacher, --biobert or --scibert")
        config = bert_config(read_model_json(folder / "config.json"))
        sizes[model] = (config.hidden_size, config.intermediate_size)
    return sizes


def read_row(row: Row, tuning: Mapping[str, Cell], cells_folder: Path) -> dict[str, Any]:
    """Returns the scores and costs of one row, from its cells' summaries; None where none are.

    Scores are of the test split: mean and 95% interval over the seeds; their average over the
    data sets is taken seed by seed first.
    """
    result = {"name": row.name, "kind": row.kind, "note": row.note, "runs": {}}
    result |= {"model": Path(row.model).name, "is_cost_known": row.is_cost_known}
    by_dataset = {}
    for dataset, cell in tuning.items():
        summary = _read(cells_folder / cell.name / "summary.json")
        if summary is None:
            continue
        result["runs"][dataset] = {
            key: summary[key] for key in ("seeds", "time_cost", "examples", "epochs", "notes")
        }
        by_dataset[dataset] = {
            seed: values["test"]
            for seed, values in summary["seeds"].items()
            if not values["failed"]
        }
    for metric in METRICS:
        columns = {
            dataset: [scores[metric] for scores in seeds.values()]
            for dataset, seeds in by_dataset.items()
        }
        if len(columns) == len(DATASETS):
            shared = set.intersection(*(set(seeds) for seeds in by_dataset.values()))
            columns["average"] = [
                sum(by_dataset[dataset][seed][metric] for dataset in DATASETS) / len(DATASETS)
                for seed in sorted(shared)
            ]
        result[metric] = {
            name: mean_interval(values)._asdict() for name, values in columns.items() if values
        }
    costs = [_read(cells_folder / name / "summary.json") for name in row.trained_by]
    if row.model and all(cost is not None for cost in costs):
        result["seconds"] = sum(cost["time_cost"]["train/seconds"] for cost in costs)
        result["cpu_seconds"] = sum(cost["time_cost"]["train/cpu_seconds"] for cost in costs)
        if costs:
            result["parameters"] = costs[-1]["nets"][row.kind]["parameters"]
    return result


def _read_training(
    cells: Sequence[Cell], cells_folder: Path, places: Mapping[str, str]
) -> dict[str, dict]:
    """Returns command, cost and result of each training that has run, by the cell's name."""
    read = {cell: _read(cells_folder / cell.name / "summary.json") for cell in cells}
    return {
        cell.name: {
            "command": show_command(cell, cells_folder, places),
            "steps": summary["steps"],
            "time_cost": summary["time_cost"],
            "heldout": {
                name.removeprefix("heldout/"): value
                for name, value in summary["heldout"]["end"].items()
                if name.startswith("heldout/")
            },
        }
        for cell, summary in read.items()
        if summary is not None
    }


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _draw(number: int, scale: Scale, rows: Sequence[Mapping], path: Path) -> None:
    """Draws the averages, or, before all data sets have run, the one that most models have.

    Models that others have trained before have no place on a cost axis.
    """
    path.unlink(missing_ok=True)
    # max takes the first of equals, so the average where all rows have it
    column = max(("average", *DATASETS), key=lambda name: sum(name in row["f1"] for row in rows))
    if not any(column in row["f1"] for row in rows):
        return
    points = [
        {
            "name": row["name"],
            "score": 100 * row["f1"][column]["mean"],
            "half": None if (half := row["f1"][column]["half"]) is None else 100 * half,
            "cost": row.get(scale.cost, 0.0) / 60,
        }
        for row in rows
        if column in row["f1"] and (number == 4 or row["is_cost_known"])
    ]
    score = f"entity F1 (%), {column.replace('average', 'average of three data sets')}"
    if number == 4:
        figures.plot_bars(path, points, TITLES[4], score)
    elif points:
        clock = {"seconds": "minutes", "cpu_seconds": "minutes of all cores"}[scale.cost]
        cost = f"training before the task ({clock})"
        figures.plot_costs(path, points, TITLES[number], cost, score)


def _markdown(
    table: Mapping, cells: Sequence[Cell], cells_folder: Path, places: Mapping[str, str]
) -> str:
    number, rows = table["table"], table["rows"]
    lines = [f"# Table {number}: {TITLES[number]} ({table['scale']})", ""]
    seeds = {len(run["seeds"]) for row in rows for run in row["runs"].values()}
    lines += [
        "Test scores in percent: mean ± half the 95% interval (Student's t) over "
        f"{', '.join(map(str, sorted(seeds))) or 'no'} fine-tuning seeds. Time cost is training "
        "before fine-tuning, steps only: wall minutes, and minutes of all cores together, which "
        "other work on the machine hardly changes.",
        "",
        f"Written on {name_machine(table['machine'])}.",
    ]
    for metric, title in METRICS.items():
        shown = [
            {
                "model": row["name"],
                "parameters": f"{row['parameters'] / 1e6:.1f}M" if "parameters" in row else None,
                "minutes": _minutes(row, "seconds"),
                "CPU minutes": _minutes(row, "cpu_seconds"),
            }
            | {
                column: show_interval(row[metric][column]) if column in row[metric] else None
                for column in (*DATASETS, "average")
            }
            | {"": row["note"] or " "}
            for row in rows
        ]
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        lines += [markdown_table(shown, list(shown[0]))]
    lines += tell_failed(
        {f"{row['name']}, {dataset}": run for row in rows for dataset, run in row["runs"].items()}
    )
    if any(row["f1"] for row in rows):
        lines += ["", f"![scores](table-{number}.png)"]
    papers = published_rows([row["name"] for row in rows])
    if papers:
        lines += ["", "## The paper's figures", ""]
        lines += ["Its metric, its sizes: BERT-base, 500M tokens, four RTX 3090, five seeds.", ""]
        lines += [markdown_table(papers, list(papers[0]))]
    lines += ["", "## Every command", "", f"Begun with a {table['teacher']} as TEACHER.", ""]
    return "\n".join([*lines, *show_commands(cells, cells_folder, places), ""])


def _minutes(row, key):
    return f"{row[key] / 60:.1f}" if key in row else None
