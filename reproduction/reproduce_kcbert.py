# SPDX-License-Identifier: Apache-2.0
"""Runs a table of the Distil-KcBERT thesis cell by cell, and writes down what came out."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edad_jax.distillation.evaluate import measure_speed
from edad_jax.export import formats
from edad_jax.files import open_beside, write_json
from edad_jax.models.exbert import ExBert
from edad_jax.models.precision import resolve_precision
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from reproduction.cells import (
    check_command,
    finite_seeds,
    read_summary,
    run_cells,
    show_commands,
    tell_failed,
)
from reproduction.kcbert import (
    ITEMS,
    LENGTHS,
    PUBLISHED_MODELS,
    TEACHER,
    TITLES,
    KcInputs,
    KcPlan,
    KcScale,
    accuracy_row,
    out_of_order,
    plan_kcbert,
    student_name,
    time_row,
)
from reproduction.output import keep_other


def reproduce_kcbert(
    number: int,
    scale_name: str,
    scale: KcScale,
    inputs: KcInputs,
    *,
    root: Path,
    workdir: Path,
    out: Path,
    train: Sequence[str] = (),
    tune: Sequence[str] = (),
    lengths: Sequence[int] = LENGTHS,
    jobs: int = 1,
    only_report: bool = False,
) -> Path:
    """Returns the table's file, after running what had not been run.

    Writes out/table-kcbert-N.md, .json and .png. Prediction is timed here, all models in turn on
    the same rows, without classifier, in the precision that config.dtype="auto" stands for.

    Args:
      number: of the table, 4 to 6.
      scale_name: "small" or "paper", for the title.
      scale: what the runs are like.
      inputs: what only the user has.
      root: folder of the project.
      workdir: where the cells are.
      out: where the table goes.
      train: more flags for every distillation.
      tune: more flags for every fine-tuning.
      lengths: of the rows that are timed, in pieces; table 6 has the first.
      jobs: cells at once.
      only_report: write down what there is, and run nothing.

    Raises:
      ValueError: a cell failed, or with only_report has not been run; says which.
    """
    folder = workdir / scale_name / "cells"
    plan = plan_kcbert(number, scale, inputs, str(folder), train=train, tune=tune)
    if not only_report:
        run_cells(plan.cells, folder, root, jobs)
    for cell in plan.cells:
        check_command(cell, folder)
    seconds = {} if number == 5 else _time(plan, lengths if number == 4 else lengths[:1])
    rows = _rows(number, plan, folder, seconds)
    out.mkdir(parents=True, exist_ok=True)
    name = f"table-kcbert-{number}"
    summaries = {model: read_summary(folder, cell.name) for model, cell in plan.tunings.items()}
    curves = {model: _finite_curves(summary) for model, summary in summaries.items()}
    told = {"scale": scale_name, "teacher": Path(inputs.teacher).name}
    if number != 4:
        told["data"] = Path(inputs.sentiment).name
    keep_other(out, name, told)
    write_json(out / f"{name}.json", told | {"rows": rows, "by_epoch": curves})
    _draw(number, rows, curves, seconds, out / f"{name}.png")
    with open_beside(out / f"{name}.md") as file:
        notes = [*_tell_order(seconds), *tell_failed(summaries)]
        file.write(_markdown(number, scale_name, rows, notes, plan, folder, inputs))
    return out / f"{name}.md"


def _finite_curves(summary: Mapping[str, Any]) -> list[list[float]]:
    """Returns validation scores by epoch and seed, without the seeds whose loss was not finite."""
    kept = finite_seeds(summary)
    return [list(itertools.compress(scores, kept)) for scores in summary["validation_by_epoch"]]


def _time(plan: KcPlan, lengths: Sequence[int]) -> dict[int, dict[str, float]]:
    """Returns for each length the seconds that each model takes for ITEMS rows."""
    precision = resolve_precision("auto")
    nets = {}
    for name, source in plan.models.items():
        model = formats.load(source)
        nets[name] = (ExBert(model.config, *precision), model.params)
    seconds = {}
    for length in lengths:
        speeds = measure_speed(nets, length=length)
        seconds[length] = {name: ITEMS / speed for name, speed in speeds.items()}
    return seconds


def _tell_order(seconds: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Returns lines of markdown: whether the students' times are in the thesis's order."""
    lines = []
    for length, by_name in seconds.items():
        wrong = "; ".join(f"{slow} is slower than {fast}" for slow, fast in out_of_order(by_name))
        found = (
            f"in the thesis's order, but for these: {wrong}" if wrong else "in the thesis's order"
        )
        lines += ["", f"Rows of {length} pieces: the students' times are {found}."]
    return lines


def _rows(number, plan, folder, seconds) -> list[dict[str, Any]]:
    if number == 4:
        counts = {}
        for name, source in plan.models.items():
            if name != TEACHER:
                summary = read_summary(folder, Path(source).parent.name)
                counts[name] = summary["nets"]["student"]["parameters"]
                counts[TEACHER] = summary["nets"]["teacher"]["parameters"]
        by_name = {name: {n: times[name] for n, times in seconds.items()} for name in plan.models}
        first = by_name[student_name(1, 192)]
        return [time_row(name, by_name[name], first, counts[name]) for name in plan.models]
    if number == 6:
        (times,) = seconds.values()
        return [
            accuracy_row(name, read_summary(folder, cell.name), times[name])
            for name, cell in plan.tunings.items()
        ]
    rows = []
    for name, cell in plan.tunings.items():
        summary = read_summary(folder, cell.name)
        by_epoch = [sum(scores) / len(scores) for scores in _finite_curves(summary)]
        rows.append(
            {"model": name}
            | {f"epoch {epoch}": f"{100 * score:.1f}" for epoch, score in enumerate(by_epoch, 1)}
            | {"test": f"{100 * summary['means']['test/accuracy']['mean']:.1f}"}
        )
    return rows


def _draw(
    number: int, rows: Sequence[Mapping], curves: Mapping, seconds: Mapping, path: Path
) -> None:
    if number == 5:
        means = {
            name: [[sum(scores) / len(scores) for scores in by_epoch]]
            for name, by_epoch in curves.items()
        }
        epochs = range(1, 1 + max(len(each[0]) for each in means.values()))
        figures.plot_seeds(path, epochs, means, ylabel="accuracy, validation split")
        return
    length, times = next(iter(seconds.items()))
    points = [
        {
            "name": row["model"],
            "score": row["parameters"] / 1e6 if number == 4 else _first_number(row["accuracy"]),
            "half": None,
            "cost": times[row["model"]],
        }
        for row in rows
    ]
    score = "parameters (millions)" if number == 4 else "accuracy (%), test split"
    cost = f"prediction of {ITEMS:,} rows of {length} pieces (s)"
    figures.plot_costs(path, points, TITLES[number], cost, score)


def _first_number(text: str) -> float:
    return float(text.split()[0])


def _markdown(number, scale_name, rows, notes, plan, folder, inputs: KcInputs) -> str:
    name = f"table-kcbert-{number}"
    lines = [f"# Table {number} of Distil-KcBERT: {TITLES[number]} ({scale_name})", ""]
    lines += [
        "Students are called layers x feed-forward width; all are 768 wide and begin with layers "
        f"of the teacher, {Path(inputs.teacher).name}. Prediction of {ITEMS:,} rows is timed with "
        f"products in {resolve_precision('auto').products.name}, eight rows at a time, all models "
        "in turn; accuracy is in percent.",
        "",
        markdown_table(rows, list(rows[0])),
        "",
        f"![{TITLES[number]}]({name}.png)",
    ]
    lines += notes
    if number == 6:
        published = [
            {"model": model, "accuracy": accuracy, "minutes in all": minutes}
            for model, (accuracy, minutes) in PUBLISHED_MODELS.items()
        ]
        lines += ["", "## The thesis's figures", "", "Its own 5,000 news items, one RTX 2080 Ti."]
        lines += ["", markdown_table(published, list(published[0]))]
    places = {str(folder): "CELLS", inputs.teacher: "TEACHER", inputs.corpus: "CORPUS"}
    places |= {inputs.sentiment: "SENTIMENT"}
    places |= {path: name.upper() for name, path in inputs.others.items()}
    commands = show_commands(plan.cells, folder, places)
    return "\n".join([*lines, "", "## Every command", "", *commands, ""])
