# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: their curves over training time in one picture, and a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from edad_jax.report.figures import colours, save_figure, style_axes
from edad_jax.report.tables import markdown_table
from edad_jax.training import metrics

_MOST_POINTS = 60  # of one curve: more are averaged with their neighbours
# Fine-tuning logs one metric for each seed; which score depends on the task.
_SEEDS_LOSS = "loss/seed-"
_SEEDS_SCORES = {
    "validation F1": "validation/f1/seed-",
    "validation accuracy": "validation/accuracy/seed-",
}


class _Panel(NamedTuple):
    title: str
    unit: str
    metric: str  # one that ends with "-" is a family: one metric for each seed
    dashed: str | None = None
    is_log: bool = False
    is_percent: bool = False


class _Run(NamedTuple):
    lines: list[dict[str, float]]  # of its log, without the seeds that failed
    failed: int  # how many those are


_PANELS = (
    _Panel("Teacher: masked words", "loss (nats, log scale)", "teacher/mlm", is_log=True),
    _Panel("Student: masked words", "loss (nats, log scale)", "student/mlm", is_log=True),
    _Panel(
        "Distillation: attention scores",
        "mean squared error (log scale)",
        "distill/attention",
        is_log=True,
    ),
    _Panel(
        "Distillation: hidden states",
        "mean squared error (log scale)",
        "distill/hidden",
        is_log=True,
    ),
    _Panel("Distillation: soft targets", "nats (log scale)", "distill/soft", is_log=True),
    _Panel("Distillation: cosine", "1 - cosine (log scale)", "distill/cosine", is_log=True),
    _Panel("Distillation: relations of values", "nats (log scale)", "distill/value", is_log=True),
    _Panel("Weight of distillation in the student's loss", "alpha (share of 1)", "alpha"),
    _Panel(
        "Held-out text: masked words found (teacher dashed)",
        "accuracy",
        "heldout/student_mlm_accuracy",
        dashed="heldout/teacher_mlm_accuracy",
        is_percent=True,
    ),
    _Panel(
        "Fine-tuning: loss (seeds thin, mean thick)",
        "loss (nats, log scale)",
        _SEEDS_LOSS,
        is_log=True,
    ),
    *(
        _Panel(f"Fine-tuning: {score} (seeds thin, mean thick)", score, metric)
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
    panels = [panel for panel in _PANELS if _names(panel.metric, logged) or panel.dashed in logged]
    if not panels:
        raise ValueError(
            f"{', '.join(map(str, workdirs))}: got no metric to draw, expected one of "
            + ", ".join(panel.metric for panel in _PANELS)
        )
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.2 * columns, 0.8 + 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    run_colours = colours(len(runs))
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(all_axes, panels, strict=False):
        style_axes(axes, panel.title)
        axes.set_xlabel("training (minutes)")
        axes.set_ylabel(panel.unit)
        for run, colour in zip(runs.values(), run_colours, strict=True):
            _draw_run(axes, panel, run.lines, colour)
        _scale(axes, panel)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    longest = max(map(len, runs))  # in letters, each some 0.09 inches wide
    figure.legend(
        handles=[Line2D([], [], color=colour, linewidth=2.4) for colour in run_colours],
        labels=list(runs),
        loc="outside upper left",
        ncols=max(1, min(len(runs), int(figure.get_figwidth() / (0.7 + 0.09 * longest)))),
        frameon=False,
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    figure.align_ylabels()
    return save_figure(figure, path)


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
                if (seeds := _names(metric, line))
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
        for name in _names(_SEEDS_LOSS, line)
        if not math.isfinite(line[name])
    }
    gone = {family + seed for family in (_SEEDS_LOSS, *_SEEDS_SCORES.values()) for seed in failed}
    kept = [{name: line[name] for name in line if name not in gone} for line in lines]
    return _Run(kept, len(failed))


def _method(path: Path) -> str | None:
    """Returns the method or the task of a run's configuration; None if it has neither."""
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: got damaged JSON ({error.msg}), expected a configuration"
        ) from error
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


def _names(metric: str, logged: Collection[str]) -> list[str]:
    """Returns the logged metrics that a name stands for; one with "-" at its end is a family."""
    if metric.endswith("-"):
        return sorted(name for name in logged if name.startswith(metric))
    return [metric] if metric in logged else []


def _draw_run(axes: Axes, panel: _Panel, lines: list[dict[str, float]], colour: Any) -> None:
    minutes = _minutes(lines)
    logged = {name for line in lines for name in line}
    names = _names(panel.metric, logged)
    curves = [([name], {"linewidth": 0.8, "alpha": 0.4}) for name in names if len(names) > 1]
    curves += [(names, {"linewidth": 2})] if names else []
    if panel.dashed in logged:
        curves.append(([panel.dashed], {"linewidth": 1.5, "linestyle": "--"}))
    for of_mean, look in curves:
        points = []
        for minute, line in zip(minutes, lines, strict=True):
            values = [line[name] for name in of_mean if math.isfinite(line.get(name, math.nan))]
            if values and (np.mean(values) > 0 or not panel.is_log):
                points.append((minute, np.mean(values)))
        groups = np.array_split(points, min(len(points), _MOST_POINTS)) if len(points) else []
        if groups:
            x, y = np.array([group.mean(axis=0) for group in groups]).T
            marker = "o" if len(x) < 25 and "alpha" not in look else None
            axes.plot(x, y, marker=marker, markersize=3.5, color=colour, **look)


def _scale(axes: Axes, panel: _Panel) -> None:
    axes.set_xlim(left=0)
    if panel.is_log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        few = MaxNLocator(nbins=5) if high < 8 * low else None
        axes.yaxis.set_major_locator(
            few or LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,))
        )
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.is_percent:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    elif panel.metric == "alpha":
        axes.set_ylim(-0.03, 1.03)
