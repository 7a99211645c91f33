# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: their curves over training time in one picture, and a table."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from edad_jax.files import read_json
from edad_jax.report import figures
from edad_jax.report.panels import Curve, Panel, finish_panel, logged_names, logged_panels
from edad_jax.report.tables import markdown_table
from edad_jax.training import metrics

_MOST_POINTS = 60  # of one curve: more are averaged with their neighbours
# Fine-tuning logs one metric for each seed; which score depends on the task.
_SEEDS_LOSS = "loss/seed-"
_SEEDS_SCORES = {
    "validation F1": "validation/f1/seed-",
    "validation accuracy": "validation/accuracy/seed-",
}


class _Run(NamedTuple):
    lines: list[dict[str, float]]  # of its log, without the seeds that failed
    failed: int  # how many those are


_LOSSES = (
    ("Teacher: masked words", "loss in nats", "teacher/mlm"),
    ("Student: masked words", "loss in nats", "student/mlm"),
    ("Distillation: attention scores", "mean squared error", "distill/attention"),
    ("Distillation: hidden states", "mean squared error", "distill/hidden"),
    ("Distillation: soft targets", "nats", "distill/soft"),
    ("Distillation: cosine", "1 - cosine", "distill/cosine"),
    ("Distillation: relations of values", "nats", "distill/value"),
)
_SEEDS = "(seeds thin, mean thick)"
_PANELS = (
    *(Panel(title, unit, (Curve(metric),), "log") for title, unit, metric in _LOSSES),
    Panel(
        "Weight of distillation in the student's loss",
        "alpha (share of 1)",
        (Curve("alpha"),),
        "share",
    ),
    Panel(
        "Held-out text: masked words found (teacher dashed)",
        "accuracy",
        (
            Curve("heldout/student_mlm_accuracy"),
            Curve("heldout/teacher_mlm_accuracy", dashed=True),
        ),
        "percent",
    ),
    Panel(f"Fine-tuning: loss {_SEEDS}", "loss in nats", (Curve(_SEEDS_LOSS),), "log"),
    *(
        Panel(f"Fine-tuning: {score} {_SEEDS}", score, (Curve(metric),))
        for score, metric in _SEEDS_SCORES.items()
    ),
)


def plot_runs(path: str | os.PathLike[str], workdirs: Sequence[str | os.PathLike[str]]) -> Path:
    """Draws the curves of several runs over the minutes that they trained.

    Minutes are of "train/seconds" where a run has logged it, else since its first line. A panel
    that no run has numbers for is left out, and so are seeds whose loss stopped being finite.

    Args:
      path: the picture to write.
      workdirs: folders of runs, each with its metrics.jsonl.

    Returns:
      The path.

    Raises:
      ValueError: if there is no run, or none with a metric to draw, or a log cannot be read.
      OSError: if a run has no log, or the picture cannot be written.
    """
    runs = _read_runs(workdirs)
    logged = {name for run in runs.values() for line in run.lines for name in line}
    panels = logged_panels(_PANELS, logged, ", ".join(map(str, workdirs)))
    figure, all_axes = figures.new_figure(
        (6.2, 2.9), len(panels), columns=min(2, len(panels)), margin=0.8
    )
    run_colours = figures.colours(len(runs))
    for axes, panel in zip(all_axes, panels, strict=True):
        for run, colour in zip(runs.values(), run_colours, strict=True):
            _draw_run(axes, panel, run.lines, colour)
        finish_panel(axes, panel)
        axes.set_xlim(left=0)
        axes.set_xlabel("training (minutes)")
    longest = max(map(len, runs))  # in letters, each some 0.09 inches wide
    figure.legend(
        handles=[Line2D([], [], color=colour, **figures.THICK) for colour in run_colours],
        labels=list(runs),
        loc="outside upper left",
        ncols=max(1, min(len(runs), int(figure.get_figwidth() / (0.7 + 0.09 * longest)))),
        frameon=False,
    )
    figure.align_ylabels()
    return figures.save_figure(figure, path)


def runs_table(workdirs: Sequence[str | os.PathLike[str]]) -> str:
    """Returns a Markdown table with a line for each run: what it cost and what it came to.

    Method or task is read from config.json, the rest from metrics.jsonl. Validation scores are
    means over the seeds whose loss has stayed finite; how many others there are is in a column of
    its own. A column that no run has a value for is left out.

    Raises:
      ValueError: if there is no run, or a file of one cannot be read.
      OSError: if a run has no log.
    """
    rows = []
    for workdir, (name, run) in zip(workdirs, _read_runs(workdirs).items(), strict=True):
        last = {metric: value for line in run.lines for metric, value in line.items()}
        rows.append(
            {
                "run": name,
                "method": _method(Path(workdir) / "config.json"),
                "steps": int(last["step"]) if last else None,
                "training (min)": _minutes_of(last.get("train/seconds")),
                "CPU (min)": _minutes_of(last.get("train/cpu_seconds")),
                "student held-out": last.get("heldout/student_mlm_accuracy"),
                "teacher held-out": last.get("heldout/teacher_mlm_accuracy"),
                "seeds failed": run.failed or None,
            }
        )
        for score, metric in _SEEDS_SCORES.items():
            means = [
                np.mean([line[seed] for seed in seeds])
                for line in run.lines
                if (seeds := logged_names(metric, line))
            ]
            rows[-1][f"{score}, last"] = means[-1] if means else None
            rows[-1][f"{score}, best"] = max(means, default=None)
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return markdown_table(rows, columns)


def _read_runs(workdirs: Sequence[str | os.PathLike[str]]) -> dict[str, _Run]:
    """Returns what each run has logged, by its folder's name, or path where two are alike."""
    if not workdirs:
        raise ValueError("got no workdir, expected the folders of one or more runs")
    names = [Path(workdir).resolve().name for workdir in workdirs]
    if len(set(names)) < len(names):
        names = list(map(str, workdirs))
    runs = {
        name: _without_failed(metrics.read_metrics(Path(workdir) / metrics.FILE_NAME))
        for name, workdir in zip(names, workdirs, strict=True)
    }
    if len(runs) < len(names):
        raise ValueError(f"{', '.join(names)}: got a workdir twice, expected each once")
    return runs


def _without_failed(lines: list[dict[str, float]]) -> _Run:
    """Returns the lines without seeds whose loss was once not finite: `finetune` counts none."""
    failed = {
        name.removeprefix(_SEEDS_LOSS)
        for line in lines
        for name in logged_names(_SEEDS_LOSS, line)
        if not math.isfinite(line[name])
    }
    gone = {family + seed for family in (_SEEDS_LOSS, *_SEEDS_SCORES.values()) for seed in failed}
    kept = [{name: line[name] for name in line if name not in gone} for line in lines]
    return _Run(kept, len(failed))


def _method(path: Path) -> str | None:
    """Returns the method or the task of a run's configuration; None if it has neither."""
    if not path.exists():
        return None
    config = read_json(path, expected="a configuration")
    method = config.get("method") or config.get("task")
    return method if isinstance(method, str) else None


def _minutes_of(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


def _minutes(lines: list[dict[str, float]]) -> np.ndarray:
    """Returns for each line how long the run had trained then."""
    if not any("train/seconds" in line for line in lines):
        return np.array([line["time"] - lines[0]["time"] for line in lines]) / 60
    minutes, spent = [], 0.0
    for line in lines:
        spent = line.get("train/seconds", spent)  # held-out figures have lines of their own
        minutes.append(spent / 60)
    return np.array(minutes)


def _draw_run(axes: Axes, panel: Panel, lines: list[dict[str, float]], colour: Any) -> None:
    minutes = _minutes(lines)
    logged = {name for line in lines for name in line}
    for curve in panel.curves:
        names = logged_names(curve.metric, logged)
        style = {"color": colour, "linestyle": "--" if curve.dashed else "-"}
        for each in names if len(names) > 1 else ():
            points = _points(lines, minutes, [each], panel)
            if len(points):
                axes.plot(*points.T, **style, **figures.THIN)
        points = _points(lines, minutes, names, panel)
        if len(points):
            marker = "o" if len(points) < 25 else None
            axes.plot(*points.T, marker=marker, markersize=3.5, **style, **figures.THICK)


def _points(lines, minutes, names, panel):
    """Returns (minute, mean of the named metrics): at most _MOST_POINTS, [points, 2]."""
    points = []
    for minute, line in zip(minutes, lines, strict=True):
        values = [line[name] for name in names if math.isfinite(line.get(name, math.nan))]
        if values and (np.mean(values) > 0 or panel.scale != "log"):
            points.append((minute, np.mean(values)))
    groups = np.array_split(points, min(len(points), _MOST_POINTS)) if points else []
    return np.array([group.mean(axis=0) for group in groups])
