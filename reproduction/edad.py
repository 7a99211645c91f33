# SPDX-License-Identifier: Apache-2.0
"""The paper's four tables: the rows, how they are read from the cells, and how they are shown.

Rows share cells: EDAD with the linear schedule is in tables 2, 3 and 4, and is trained once.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edad_jax.machine import describe_machine, name_machine
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.data.tagged import read_tagged
from edad_jax.tasks.result import show_interval
from edad_jax.tasks.scores import mean_interval
from edad_jax.training.schedules import ALPHA_SCHEDULES
from reproduction.cells import Cell, make_cell, read_summary, show_command, tell_failed
from reproduction.edad_trainings import SCALES, plan_trainings
from reproduction.table import Plan, Report, TableRun

DATASETS = {
    "BC5CDR": "BC5CDR-IOB",
    "BioNLP09": "BioNLP09-IOB",
    "NCBI-disease": "NCBI-disease-IOB",
}
TITLES = {
    1: "BERT, three ways to adapt it, and a student distilled from each",
    2: "Two stages against a single pass",
    3: "EDAD against models pretrained on large domain text",
    4: "The schedule of alpha",
}
METRICS = {"f1": "entity F1", "paper_metric": "the paper's metric"}
COLUMNS = (*DATASETS, "average")


class Row(NamedTuple):
    """One line of a table."""

    name: str
    kind: str  # teacher | student
    trained_by: tuple[str, ...] = ()  # trainings that make up the time cost; the last has the model
    note: str = ""  # why it cannot run, or what sets it apart
    begun_by: str = "teacher"  # the flag that gives the model where nothing is trained
    teacher_cell: str = ""  # cell whose teacher, fine-tuned on the same data, gives soft labels
    is_cost_known: bool = True  # False where others have trained the model before
    model: str = ""  # folder or hub id of what is fine-tuned; "" where it cannot run

    @property
    def cell(self) -> str:
        """Returns what its fine-tuning runs are called: rows with the same model share them."""
        name = self.trained_by[-1] if self.trained_by else self.name
        return f"{name}.soft" if self.teacher_cell else name


_RANDOM = "student as in the paper: narrower, begun from random weights"
_OTHERS = "without its own pretraining"
ROWS = {
    1: (
        Row("BERT", "teacher"),
        Row("oiBioBERT", "teacher", ("adaptation-all-weights",)),
        Row("oiSciBERT", "teacher", ("adaptation-from-scratch",)),
        Row("exBERT", "teacher", ("adaptation",)),
        Row("BERT_GD", "student", ("distillation-bert",)),
        Row("oiBioBERT_GD", "student", ("adaptation-all-weights", "distillation-all-weights")),
        Row("oiSciBERT_GD", "student", ("adaptation-from-scratch", "distillation-from-scratch")),
        Row("exBERT_GD", "student", ("adaptation", "distillation")),
    ),
    2: (
        Row("BERT", "teacher", (), "the teacher before adaptation"),
        Row("exBERT", "teacher", ("adaptation",), "the adapted teacher"),
        Row("exBERT_GD", "student", ("adaptation", "distillation"), "two stages"),
        Row("EDAD", "student", ("edad-linear",), "single pass"),
        Row(
            "EDAD_TD",
            "student",
            ("edad-linear",),
            "single pass; tuned with soft labels of the adapted teacher, which it trains too",
            teacher_cell="adaptation",
        ),
        Row(
            "exBERT_GD_random",
            "student",
            ("adaptation", "distillation-random"),
            f"two stages; {_RANDOM}",
        ),
        Row("EDAD_random", "student", ("edad-linear-random",), f"single pass; {_RANDOM}"),
    ),
    3: (
        Row("BioBERT", "teacher", (), _OTHERS, "biobert", is_cost_known=False),
        Row("SciBERT", "teacher", (), _OTHERS, "scibert", is_cost_known=False),
        *(
            Row(f"{name}_GD", "student", (f"distillation-{flag}",), _OTHERS, flag, "", False)
            for name, flag in (("BioBERT", "biobert"), ("SciBERT", "scibert"))
        ),
        Row("EDAD", "student", ("edad-linear",)),
    ),
    4: tuple(Row(alpha, "student", (f"edad-{alpha}",)) for alpha in ALPHA_SCHEDULES),
}

# Piece-level macro F1 with O (see `tasks.scores.paper_metric`), mean and half-width of the 95%
# interval of five seeds, and hours on four RTX 3090. In table 4 the paper writes alpha = 1 and 2
# beside its first two rows; by its Eq. 6 they are alpha = 0 (adaptation only) and 1 (distillation
# only).
_COLUMNS = ("model", *COLUMNS, "parameters", "time cost (h)")
_FIGURES = """
BERT              | 85.18 ± 0.31 | 89.38 ± 0.08 | 91.06 ± 0.13 | 88.54 ± 0.17 | 110M | -
oiBioBERT         | 85.53 ± 0.37 | 90.09 ± 0.10 | 91.18 ± 0.20 | 88.93 ± 0.22 | 110M | 9.7
oiSciBERT         | 85.90 ± 0.04 | 90.39 ± 0.07 | 91.65 ± 0.11 | 89.32 ± 0.07 | 111M | 10.6
exBERT            | 86.13 ± 0.16 | 91.41 ± 0.09 | 91.83 ± 0.19 | 89.79 ± 0.15 | 152M | 14.1
BERT_GD           | 83.27 ± 0.10 | 87.54 ± 0.08 | 90.20 ± 0.13 | 87.01 ± 0.10 | 15M  | 4.6
oiBioBERT_GD      | 83.53 ± 0.09 | 88.47 ± 0.06 | 90.49 ± 0.06 | 87.50 ± 0.07 | 15M  | 14.3
oiSciBERT_GD      | 83.72 ± 0.11 | 89.18 ± 0.07 | 90.21 ± 0.10 | 87.70 ± 0.09 | 15M  | 15.5
exBERT_GD         | 83.74 ± 0.16 | 90.05 ± 0.13 | 90.60 ± 0.07 | 88.13 ± 0.12 | 22M  | 21.6
EDAD              | 84.15 ± 0.06 | 90.26 ± 0.06 | 90.68 ± 0.14 | 88.36 ± 0.09 | 22M  | 17.4
BioBERT           | 88.54 ± 0.21 | 91.76 ± 0.20 | 92.95 ± 0.12 | 91.09 ± 0.18 | 109M | 1104
SciBERT           | 88.32 ± 0.15 | 92.03 ± 0.16 | 93.03 ± 0.15 | 91.13 ± 0.15 | 111M | 672
BioBERT_GD        | 83.95 ± 0.09 | 88.62 ± 0.07 | 90.05 ± 0.08 | 87.54 ± 0.08 | 14M  | 1108.1
SciBERT_GD        | 84.56 ± 0.10 | 89.75 ± 0.05 | 90.89 ± 0.07 | 88.40 ± 0.07 | 15M  | 676.3
only_adaptation   | 82.20 ± 0.10 | 89.39 ± 0.06 | 89.51 ± 0.05 | 87.03 ± 0.07 | 22M  |
only_distillation | 84.17 ± 0.19 | 89.90 ± 0.10 | 89.98 ± 0.09 | 88.02 ± 0.13 | 22M  |
same              | 84.04 ± 0.10 | 89.85 ± 0.14 | 90.06 ± 0.02 | 87.98 ± 0.11 | 22M  |
linear            | 84.15 ± 0.06 | 90.26 ± 0.06 | 90.68 ± 0.14 | 88.36 ± 0.09 | 22M  |
linear_reverse    | 84.07 ± 0.17 | 89.91 ± 0.06 | 90.25 ± 0.16 | 88.08 ± 0.13 | 22M  |
cosine            | 84.14 ± 0.08 | 89.88 ± 0.05 | 90.35 ± 0.10 | 88.12 ± 0.08 | 22M  |
cosine_reverse    | 83.76 ± 0.08 | 89.84 ± 0.06 | 90.34 ± 0.10 | 87.98 ± 0.08 | 22M  |
"""
PUBLISHED = {
    row[0]: dict(zip(_COLUMNS, row, strict=True))
    for row in ([*map(str.strip, line.split("|"))] for line in _FIGURES.strip().splitlines())
}


@dataclasses.dataclass(frozen=True)
class EdadPlan(Plan):
    """Which cells belong to which row."""

    rows: Sequence[Row]
    trainings: Sequence[Cell]
    tunings: Mapping[str, Mapping[str, Cell]]  # name of a row that can run -> data set -> its cell


def plan(run: TableRun) -> EdadPlan:
    """Returns the rows of a table, 1 to 4, and the cells that they need.

    Raises:
      ValueError: no such row or data set; or, where cells are to run, data that cannot be read.
    """
    if unknown := sorted(set(run.datasets) - set(DATASETS)):
        raise ValueError(f"--datasets: got {unknown}, expected out of {list(DATASETS)}")
    number, by_name = int(run.table), plan_trainings(run)
    planned = table_rows(number, run)
    rows = _choose_rows(planned, run.rows)
    every, needed = (
        dict.fromkeys(cell for row in each for name in row.trained_by for cell in by_name[name])
        for each in (planned, rows)
    )
    trainings = [cell for cell in every if cell in needed]
    tunings = {
        row.name: {dataset: tuning_cell(row, dataset, run) for dataset in DATASETS}
        for row in rows
        if row.model
    }
    if not run.only_report:
        check_data(run.ner, run.datasets)
    # One data set after the other, so that half a table can be compared.
    tuned = [each[dataset] for dataset in run.datasets for each in tunings.values()]
    return EdadPlan(
        f"table-{number}",
        f"Table {number}: {TITLES[number]}",
        list(dict.fromkeys([*trainings, *tuned])),
        rows,
        trainings,
        tunings,
        others=[cell for each in tunings.values() for cell in each.values() if cell not in tuned],
        preface=(f"Begun with a {Path(run.teacher).name} as TEACHER.", ""),
    )


def tuning_cell(row: Row, dataset: str, run: TableRun) -> Cell:
    """Returns the fine-tuning of a row's model on one data set, with all its seeds."""
    scale = SCALES[run.scale]
    soft = row.teacher_cell and f"teacher={run.folder}/{row.teacher_cell}.{dataset}/model"
    return make_cell(
        "finetune",
        f"{row.cell}.{dataset}",
        "ner",
        f"model={row.model}",
        f"data={run.ner}/{DATASETS[dataset]}",
        f"num_seeds={scale.seeds}",
        *(scale.tune_teacher if row.kind == "teacher" else scale.tune_student),
        *filter(None, [soft]),
        *run.tune,
    )


def table_rows(number: int, run: TableRun) -> list[Row]:
    """Returns the rows of a table, with their models; what is not at hand is said in the note."""
    rows = []
    for row in ROWS[number]:
        if row.name.endswith("_random") and not SCALES[run.scale].student:
            continue  # all students begin so
        given = getattr(run, row.begun_by)
        if not given:
            name = row.name.removesuffix("_GD")
            note = f"not run: no {name} at hand, give --{row.begun_by}=DIR_OR_HUB_ID"
            row = Row(row.name, row.kind, note=note)
        elif row.trained_by:
            row = row._replace(model=f"{run.folder}/{row.trained_by[-1]}/{row.kind}")
        else:
            row = row._replace(model=given)
        rows.append(row)
    return rows


def _choose_rows(rows: Sequence[Row], names: Sequence[str]) -> Sequence[Row]:
    """Returns the named rows, and those whose models give them soft labels; no name: all."""
    if not names:
        return rows
    known = [row.name for row in rows]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"--rows: got {unknown}, expected out of {known}")
    teachers = {row.teacher_cell for row in rows if row.name in names}
    return [row for row in rows if row.name in names or row.cell in teachers]


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


def report(run: TableRun, plan: EdadPlan) -> Report:
    """Returns the scores and costs of a table's rows, as far as cells have run."""
    number = int(run.table)
    cells = [*plan.trainings, *(cell for each in plan.tunings.values() for cell in each.values())]
    done = {
        cell.name: read_summary(run.folder, cell.name)
        for cell in cells
        if (run.folder / cell.name / "summary.json").is_file()
    }
    rows = []
    for row in plan.rows:
        tuned = plan.tunings.get(row.name, {}).items()
        runs = {dataset: done[cell.name] for dataset, cell in tuned if cell.name in done}
        rows.append(_read_row(row, runs, [done.get(name) for name in row.trained_by]))
    table = {
        "table": number,
        "scale": run.scale,
        "teacher": Path(run.teacher).name,
        "machine": describe_machine(),
        "rows": rows,
        "cells": {
            cell.name: _read_training(done[cell.name], show_command(cell, run.folder, run.places))
            for cell in plan.trainings
            if cell.name in done
        },
    }
    return Report(table, _show(table), _picture(number, run.scale, rows))


def _read_row(
    row: Row, runs: Mapping[str, Mapping], trainings: Sequence[Mapping | None]
) -> dict[str, Any]:
    """Returns the scores and costs of one row.

    Scores are of the test split: mean and 95% interval over the seeds; their average over the
    data sets is taken seed by seed first.

    Args:
      row: of the table.
      runs: data set -> summary of the fine-tuning, of those that have run.
      trainings: summaries of what makes up the time cost; None for one that has not run.
    """
    kept = ("seeds", "time_cost", "examples", "epochs", "notes")
    result = {
        "name": row.name,
        "kind": row.kind,
        "note": row.note,
        "runs": {dataset: {key: run[key] for key in kept} for dataset, run in runs.items()},
        "model": Path(row.model).name,
        "is_cost_known": row.is_cost_known,
    }
    by_dataset = {
        dataset: {seed: each["test"] for seed, each in run["seeds"].items() if not each["failed"]}
        for dataset, run in runs.items()
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
    if row.model and None not in trainings:
        costs = [training["time_cost"] for training in trainings]
        result["seconds"] = sum(cost["train/seconds"] for cost in costs)
        result["cpu_seconds"] = sum(cost["train/cpu_seconds"] for cost in costs)
        if trainings:
            result["parameters"] = trainings[-1]["nets"][row.kind]["parameters"]
    return result


def _read_training(summary: Mapping[str, Any], command: str) -> dict[str, Any]:
    return {
        "command": command,
        "steps": summary["steps"],
        "time_cost": summary["time_cost"],
        "heldout": {
            name.removeprefix("heldout/"): value
            for name, value in summary["heldout"]["end"].items()
            if name.startswith("heldout/")
        },
    }


def _picture(number: int, scale: str, rows: Sequence[Mapping]) -> Callable[[Path], Any] | None:
    """Returns what draws the averages, or, before all data sets have run, what most models have.

    Models that others have trained before have no place on a cost axis.
    """
    # max takes the first of equals, so the average where all rows have it
    column = max(("average", *DATASETS), key=lambda name: sum(name in row["f1"] for row in rows))
    key = SCALES[scale].cost
    points = [
        {
            "name": row["name"],
            "score": 100 * row["f1"][column]["mean"],
            "half": None if (half := row["f1"][column]["half"]) is None else 100 * half,
            "cost": row.get(key, 0.0) / 60,
        }
        for row in rows
        if column in row["f1"] and (number == 4 or row["is_cost_known"])
    ]
    if not points:
        return None
    score = f"entity F1 (%), {column.replace('average', 'average of three data sets')}"
    if number == 4:
        return lambda path: figures.plot_bars(path, points, TITLES[4], score)
    clock = {"seconds": "minutes", "cpu_seconds": "minutes of all cores"}[key]
    cost = f"training before the task ({clock})"
    return lambda path: figures.plot_costs(path, points, TITLES[number], cost, score)


def _show(table: Mapping[str, Any]) -> list[str]:
    rows = table["rows"]
    seeds = {len(run["seeds"]) for row in rows for run in row["runs"].values()}
    lines = [
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
                for column in COLUMNS
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
        lines += ["", f"![scores](table-{table['table']}.png)"]
    papers = [PUBLISHED[row["name"]] for row in rows if row["name"] in PUBLISHED]
    if papers:
        lines += ["", "## The paper's figures", ""]
        lines += ["Its metric, its sizes: BERT-base, 500M tokens, four RTX 3090, five seeds.", ""]
        lines += [markdown_table(papers, list(papers[0]))]
    return lines


def _minutes(row, key):
    return f"{row[key] / 60:.1f}" if key in row else None
