# SPDX-License-Identifier: Apache-2.0
"""What a run came to: a picture of its training."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from edad_jax.report import figures
from edad_jax.report.figures import BLUE, GREEN, GREY, PURPLE, VERMILION
from edad_jax.report.panels import Curve, Panel, finish_panel, label_ends, logged_panels
from edad_jax.training import metrics

_SMOOTH_FROM = 150  # points from which a running mean is drawn over the pale raw line


def _losses(net: str, colour: str) -> tuple[Curve, ...]:
    return (
        Curve(f"{net}/mlm", "masked words", colour),
        Curve(f"{net}/nsp", "next sentence", GREY, dashed=True),
    )


# Teacher and student have the same colour in every panel.
PANELS = (
    Panel("Teacher: pretraining losses", "loss in nats", _losses("teacher", BLUE), "log"),
    Panel("Student: pretraining losses", "loss in nats", _losses("student", VERMILION), "log"),
    Panel(
        "Distillation: distance to the teacher",
        "mean squared error",
        (
            Curve("distill/attention", "attention scores", GREEN),
            Curve("distill/hidden", "hidden states", PURPLE),
        ),
        "log",
    ),
    Panel(
        "Triple loss: distance to the teacher",
        "nats, and 1 - cosine",
        (Curve("distill/soft", "soft targets", GREEN), Curve("distill/cosine", "cosine", PURPLE)),
        "log",
    ),
    Panel(
        "Relations: distance to the teacher",
        "nats",
        (
            Curve("distill/query", "queries", GREEN),
            Curve("distill/key", "keys", PURPLE),
            Curve("distill/value", "values", BLUE),
        ),
        "log",
    ),
    Panel(
        "Held-out text: masked words found",
        "accuracy",
        (
            Curve("heldout/teacher_mlm_accuracy", "teacher", BLUE),
            Curve("heldout/student_mlm_accuracy", "student", VERMILION),
            Curve("heldout/agreement", "agreement", GREY, dashed=True),
        ),
        "percent",
    ),
    Panel(
        "Weight of distillation in the student's loss",
        "alpha (share of 1)",
        (Curve("alpha", "alpha", GREEN),),
        "share",
    ),
    Panel(
        "Learning rate",
        "rate per update",
        (
            Curve("teacher/learning_rate", "teacher", BLUE),
            Curve("student/learning_rate", "student", VERMILION, dashed=True),
        ),
        "small",
    ),
)


def plot_training(workdir: str | os.PathLike[str]) -> Path:
    """Returns the path of `training.png`, drawn from `metrics.jsonl` of the same directory.

    A panel whose metrics are not in the log is left out.

    Raises:
      ValueError: if the log has no metric that this picture shows, or a line that cannot be read.
      OSError: if there is no log, or the picture cannot be written.
    """
    log_path = Path(workdir) / metrics.FILE_NAME
    lines = metrics.read_metrics(log_path)
    panels = logged_panels(PANELS, {name for line in lines for name in line}, log_path)
    figure, all_axes = figures.new_figure((6, 2.9), len(panels), columns=2, margin=0.5, sharex=True)
    for axes, panel in zip(all_axes, panels, strict=True):
        draw_panel(axes, panel, lines)
    for axes in all_axes[-2:]:
        axes.set_xlabel("step (updates completed)")
        axes.tick_params(labelbottom=True)
    figure.align_ylabels()
    return figures.save_figure(figure, Path(workdir) / "training.png")


def draw_panel(axes: Axes, panel: Panel, lines: list[dict[str, float]]) -> None:
    """Draws a panel's curves over the steps of a log, and names them where they end."""
    is_log = panel.scale == "log"
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    ends = []
    for curve in panel.curves:
        points = [(line["step"], line[curve.metric]) for line in lines if curve.metric in line]
        if not points:
            continue
        steps, values = np.array(points, dtype=np.float64).T
        values[~np.isfinite(values) | (is_log & (values <= 0))] = np.nan  # a gap
        if np.isnan(values).all():
            continue
        label = curve.label
        if panel.scale == "percent":
            axes.plot(steps[[0, -1]], values[[0, -1]], "o", markersize=7, color=curve.colour)
            label += f"\n{values[0]:.1%} → {values[-1]:.1%}"
        if is_log and len(values) >= _SMOOTH_FROM:
            axes.plot(steps, values, color=curve.colour, **figures.THIN)
            values = _running_mean(values, len(values) // 50)
        style = "--" if curve.dashed else "-"
        axes.plot(steps, values, style, color=curve.colour, **figures.THICK)
        ends.append((values[np.isfinite(values)][-1], label, curve.colour))
    finish_panel(axes, panel)
    if len(panel.curves) > 1:  # the title names a single one
        label_ends(axes, ends)


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mean of the finite values up to `reach` points to either side of each."""
    window = np.ones(2 * reach + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, "same")
    count = np.convolve(finite.astype(np.float64), window, "same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)
