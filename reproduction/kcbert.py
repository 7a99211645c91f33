# SPDX-License-Identifier: Apache-2.0
"""The Distil-KcBERT thesis's tables 4 to 6: nine students of a Korean BERT, small to large.

    4  parameters and prediction time of the nine        (the teacher's in front)
    5  accuracy of the nine after each epoch of fine-tuning
    6  accuracy and time of the teacher, of other models and of the nine

Each student is distilled by the triple loss and fine-tuned on three-class sentiment, both as cells.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edad_jax.distillation.evaluate import measure_speed
from edad_jax.export import formats
from edad_jax.models.exbert import ExBert
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.models.precision import resolve_precision
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.result import show_interval
from reproduction.cells import Cell, finite_seeds, make_cell, read_summary, tell_failed
from reproduction.table import Options, Plan, Report, TableRun

TITLES = {
    4: "Nine students: parameters and prediction time",
    5: "Nine students: accuracy by epoch",
    6: "Accuracy and time of each model",
}
# Student, layers x feed-forward -> parameters, seconds of prediction; the thesis's Table 4.
PUBLISHED = {
    "1 x 192": (26_555_376, 128),
    "1 x 768": (27_440_688, 136),
    "1 x 3072": (30_981_936, 177),
    "3 x 192": (31_878_000, 292),
    "3 x 768": (34_533_936, 330),
    "3 x 3072": (45_157_680, 475),
    "6 x 192": (39_861_936, 548),
    "6 x 768": (45_173_808, 649),
    "6 x 3072": (66_421_296, 882),
}
FIRST = "1 x 192"
# The thesis's Table 6: accuracy in percent, minutes in all, of 5,000 news items of its own.
PUBLISHED_MODELS = {
    "KoBERT": (96.9, 36.25),
    "KcBERT": (96.7, 36.33),
    "multilingual BERT": (94.3, 42.5),
    "Distil-KcBERT": (92.4, 5.5),
    "ALBERT": (89.2, 10.0),
}
ITEMS = 5_000  # news items that the thesis's times are for
TEACHER = "teacher"

_SMALL_ROWS = ("rows.max_length=64", "rows.buckets=()")
SCALES = {
    "paper": Options(),
    "small": Options(
        rows=_SMALL_ROWS,
        train=(
            *_SMALL_ROWS,
            "batch_size=32",
            "accumulate_steps=1",
            "max_steps=40",
            "masking.max_predictions_per_seq=10",
            "triple.positions=masked",  # logits at all positions cost more than the rest
            "optimizer.student_learning_rate=3e-4",
            "heldout.max_rows=128",
            "heldout.every_steps=20",
        ),
        tune=(
            "max_train=800",
            "max_length=64",
            "batch_size=16",
            "epochs=3",
            "optimizer.learning_rate=1e-4",
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class KcPlan(Plan):
    """Which cells belong to which model."""

    models: Mapping[str, str]  # name -> folder or hub id of the model before fine-tuning
    tunings: Mapping[str, Cell]  # name -> its fine-tuning
    lengths: Sequence[int]  # pieces of the rows that are timed


def plan(run: TableRun) -> KcPlan:
    """Returns the cells of a table, kcbert-4 to -6.

    Raises:
      ValueError: the teacher is not there, or cannot read rows as long as --lengths.
    """
    number, scale = int(run.table.removeprefix("kcbert-")), SCALES[run.scale]
    folder = local_folder(run.teacher, option="--teacher=FOLDER")
    positions = read_model_json(folder / "config.json")["max_position_embeddings"]
    lengths = _lengths(run, positions)
    begun = f"teacher.checkpoint={run.teacher}"
    text = f"corpus.files={run.corpus}"
    cells = [make_cell("prepare", "kcbert-rows", "distilkcbert", begun, text, *scale.rows)]
    models = {TEACHER: run.teacher} | (run.named_models if number == 6 else {})
    for student in PUBLISHED:
        layers, feed_forward = student.split(" x ")
        name = f"kcbert-{layers}x{feed_forward}"
        cell = make_cell(
            "train",
            name,
            "distilkcbert",
            begun,
            f"prepared={run.folder}/kcbert-rows",
            f"student.num_hidden_layers={layers}",
            f"student.intermediate_size={feed_forward}",
            f"student.max_position_embeddings={positions}",
            *scale.train,
            *run.train,
        )
        cells.append(cell)
        models[student] = f"{run.folder}/{name}/student"
    tunings = {}
    for name, model in models.items() if number != 4 else ():
        if name == TEACHER and number == 5:
            continue
        place = Path(model).parent.name if model.startswith(str(run.folder)) else f"kcbert-{name}"
        tunings[name] = make_cell(
            "finetune",
            f"{place}.{Path(run.sentiment).name.split('.')[0]}",
            "sentiment",
            f"model={model}",
            f"data={run.sentiment}",
            *scale.tune,
            *run.tune,
        )
    return KcPlan(
        f"table-kcbert-{number}",
        f"Table {number} of Distil-KcBERT: {TITLES[number]}",
        [*cells, *tunings.values()],
        models,
        tunings,
        {4: lengths, 5: [], 6: lengths[:1]}[number],
    )


def _lengths(run: TableRun, longest: int) -> list[int]:
    """Returns the lengths of --lengths; checked, since they are read when hours have passed."""
    if not run.lengths or not all(
        each.isdecimal() and 0 < int(each) <= longest for each in run.lengths
    ):
        raise ValueError(
            f"got --lengths={','.join(run.lengths)}, expected numbers from 1 to {longest}, the "
            "teacher's positions, comma-separated"
        )
    return [int(each) for each in run.lengths]


def report(run: TableRun, plan: KcPlan) -> Report:
    """Returns the table, from the cells.

    Prediction is timed here, all models in turn on the same rows, without classifier, in the
    precision that config.dtype="auto" stands for.
    """
    number = int(run.table.removeprefix("kcbert-"))
    seconds = _time(plan)
    summaries = {name: read_summary(run.folder, cell.name) for name, cell in plan.tunings.items()}
    curves = {name: _finite_curves(summary) for name, summary in summaries.items()}
    if number == 4:
        rows = _time_rows(run, plan, seconds)
        millions = {row["model"]: row["parameters"] / 1e6 for row in rows}
        draw = _draw_times(number, seconds, millions, "parameters (millions)")
    elif number == 5:
        rows = [_epoch_row(name, curves[name], summary) for name, summary in summaries.items()]
        draw = _draw_epochs(curves)
    else:
        (times,) = seconds.values()
        rows = [accuracy_row(name, each, times[name]) for name, each in summaries.items()]
        percent = {row["model"]: float(row["accuracy"].split()[0]) for row in rows}
        draw = _draw_times(number, seconds, percent, "accuracy (%), test split")
    table = {"scale": run.scale, "teacher": Path(run.teacher).name}
    if number != 4:
        table["data"] = Path(run.sentiment).name
    table |= {"rows": rows, "by_epoch": curves}
    lines = [
        "Students are called layers x feed-forward width; all are 768 wide and begin with layers "
        f"of the teacher, {table['teacher']}. Prediction of {ITEMS:,} rows is timed with "
        f"products in {resolve_precision('auto').matmul_dtype.name}, eight rows at a time, all "
        "models in turn; accuracy is in percent.",
        "",
        markdown_table(rows, list(rows[0])),
        "",
        f"![{TITLES[number]}]({plan.name}.png)",
        *tell_order(seconds),
        *tell_failed(summaries),
    ]
    if number == 6:
        published = [
            {"model": model, "accuracy": accuracy, "minutes in all": minutes}
            for model, (accuracy, minutes) in PUBLISHED_MODELS.items()
        ]
        lines += ["", "## The thesis's figures", "", "Its own 5,000 news items, one RTX 2080 Ti."]
        lines += ["", markdown_table(published, list(published[0]))]
    return Report(table, lines, draw)


def time_row(
    name: str, seconds: Mapping[int, float], first: Mapping[int, float], parameters: int
) -> dict[str, Any]:
    """Returns a row of table 4, with the thesis's figures beside.

    Args:
      name: of the model.
      seconds: that it takes for ITEMS rows, by their length.
      first: that the smallest student takes, likewise.
      parameters: of the model.
    """
    published = PUBLISHED.get(name)
    row = {"model": name, "parameters": parameters}
    for length in seconds:
        row[f"{length} pieces: s"] = round(seconds[length], 1)
        row[f"{length} pieces: times the first"] = round(seconds[length] / first[length], 2)
    return row | {
        "thesis: parameters": published and published[0],
        "thesis: s": published and published[1],
        "thesis: times its first": published and round(published[1] / PUBLISHED[FIRST][1], 2),
    }


def out_of_order(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the pairs (slower, faster) of students whose order the thesis has the other way.

    Args:
      seconds: by name of the student; other models are left out.
    """
    by_thesis = sorted(PUBLISHED.keys() & seconds.keys(), key=lambda name: PUBLISHED[name][1])
    pairs = itertools.combinations(by_thesis, 2)
    return [(before, after) for before, after in pairs if seconds[before] > seconds[after]]


def accuracy_row(name: str, summary: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Returns a row of table 6.

    Args:
      name: of the model.
      summary: of its fine-tuning.
      seconds: of prediction, for ITEMS rows.
    """
    tuning = summary["time_cost"]["train/seconds"] / len(summary["seeds"])
    return {
        "model": name,
        "accuracy": show_interval(summary["means"]["test/accuracy"]),
        "macro F1": show_interval(summary["means"]["test/macro_f1"]),
        "fine-tuning (s)": round(tuning, 1),
        f"prediction of {ITEMS:,} (s)": round(seconds, 1),
        "in all (s)": round(tuning + seconds, 1),
    }


def _finite_curves(summary: Mapping[str, Any]) -> list[list[float]]:
    """Returns validation scores by epoch and seed, without the seeds whose loss was not finite."""
    kept = finite_seeds(summary)
    return [list(itertools.compress(scores, kept)) for scores in summary["validation_by_epoch"]]


def _time(plan: KcPlan) -> dict[int, dict[str, float]]:
    """Returns for each length the seconds that each model takes for ITEMS rows."""
    if not plan.lengths:
        return {}
    precision = resolve_precision("auto")
    nets = {}
    for name, source in plan.models.items():
        model = formats.load(source)
        nets[name] = (ExBert(model.config, *precision), model.params)
    seconds = {}
    for length in plan.lengths:
        speeds = measure_speed(nets, length=length)
        seconds[length] = {name: ITEMS / speed for name, speed in speeds.items()}
    return seconds


def tell_order(seconds: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Returns lines of markdown: whether the students' times are in the thesis's order."""
    lines = []
    for length, by_name in seconds.items():
        wrong = "; ".join(f"{slow} is slower than {fast}" for slow, fast in out_of_order(by_name))
        found = (
            f"in the thesis's order, but for these: {wrong}" if wrong else "in the thesis's order"
        )
        lines += ["", f"Rows of {length} pieces: the students' times are {found}."]
    return lines


def _time_rows(
    run: TableRun, plan: KcPlan, seconds: Mapping[int, Mapping[str, float]]
) -> list[dict[str, Any]]:
    parameters = {}
    for name in PUBLISHED:
        nets = read_summary(run.folder, Path(plan.models[name]).parent.name)["nets"]
        parameters |= {name: nets["student"]["parameters"], TEACHER: nets["teacher"]["parameters"]}
    by_name = {name: {n: times[name] for n, times in seconds.items()} for name in plan.models}
    first = by_name[FIRST]
    return [time_row(name, each, first, parameters[name]) for name, each in by_name.items()]


def _epoch_row(name: str, curve: Sequence[Sequence[float]], summary: Mapping) -> dict[str, str]:
    means = enumerate((sum(scores) / len(scores) for scores in curve), start=1)
    return (
        {"model": name}
        | {f"epoch {epoch}": f"{100 * mean:.1f}" for epoch, mean in means}
        | {"test": f"{100 * summary['means']['test/accuracy']['mean']:.1f}"}
    )


def _draw_times(
    number: int, seconds: Mapping[int, Mapping[str, float]], scores: Mapping[str, float], label: str
) -> Callable[[Path], Path]:
    """Returns what draws scores over the time that models take for rows of the first length."""
    length, times = next(iter(seconds.items()))
    points = [
        {"name": name, "score": score, "half": None, "cost": times[name]}
        for name, score in scores.items()
    ]
    cost = f"prediction of {ITEMS:,} rows of {length} pieces (s)"
    return lambda path: figures.plot_costs(path, points, TITLES[number], cost, label)


def _draw_epochs(curves: Mapping[str, Sequence[Sequence[float]]]) -> Callable[[Path], Path]:
    means = {
        name: [[sum(scores) / len(scores) for scores in curve]] for name, curve in curves.items()
    }
    epochs = range(1, 1 + max(len(each[0]) for each in means.values()))
    return lambda path: figures.plot_seeds(path, epochs, means, ylabel="accuracy, validation split")
