# SPDX-License-Identifier: Apache-2.0
"""What a run came to: a picture of its training."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from edad_jax.report.figures import save_figure
from edad_jax.training import metrics

# Okabe and Ito's colours, which people with any colour vision tell apart. Teacher and student
# have the same colour in every panel.
_BLUE, _VERMILION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#6B6B6B"
_SMOOTH_FROM = 150  # points from which a running mean is drawn over the pale raw line


class _Curve(NamedTuple):
    metric: str
    label: str
    colour: str
    dashed: bool = False


class _Panel(NamedTuple):
    title: str
    unit: str
    curves: tuple[_Curve, ...]
    is_log: bool = False
    is_percent: bool = False
    marks_ends: bool = False


_PANELS = (
    _Panel(
        "Teacher: pretraining losses",
        "loss (nats, log scale)",
        (
            _Curve("teacher/mlm", "masked words", _BLUE),
            _Curve("teacher/nsp", "next sentence", _GREY, dashed=True),
        ),
        is_log=True,
    ),
    _Panel(
        "Student: pretraining losses",
        "loss (nats, log scale)",
        (
            _Curve("student/mlm", "masked words", _VERMILION),
            _Curve("student/nsp", "next sentence", _GREY, dashed=True),
        ),
        is_log=True,
    ),
    _Panel(
        "Distillation: distance to the teacher",
        "mean squared error (log scale)",
        (
            _Curve("distill/attention", "attention scores", _GREEN),
            _Curve("distill/hidden", "hidden states", _PURPLE),
        ),
        is_log=True,
    ),
    _Panel(
        "Triple loss: distance to the teacher",
        "nats, and 1 - cosine (log scale)",
        (
            _Curve("distill/soft", "soft targets", _GREEN),
            _Curve("distill/cosine", "cosine", _PURPLE),
        ),
        is_log=True,
    ),
    _Panel(
        "Relations: distance to the teacher",
        "nats (log scale)",
        (
            _Curve("distill/query", "queries", _GREEN),
            _Curve("distill/key", "keys", _PURPLE),
            _Curve("distill/value", "values", _BLUE),
        ),
        is_log=True,
    ),
    _Panel(
        "Held-out text: masked words found",
        "accuracy",
        (
            _Curve("heldout/teacher_mlm_accuracy", "teacher", _BLUE),
            _Curve("heldout/student_mlm_accuracy", "student", _VERMILION),
            _Curve("heldout/agreement", "agreement", _GREY, dashed=True),
        ),
        is_percent=True,
        marks_ends=True,
    ),
    _Panel(
        "Weight of distillation in the student's loss",
        "alpha (share of 1)",
        (_Curve("alpha", "alpha", _GREEN),),
    ),
    _Panel(
        "Learning rate",
        "rate per update",
        (
            _Curve("teacher/learning_rate", "teacher", _BLUE),
            _Curve("student/learning_rate", "student", _VERMILION, dashed=True),
        ),
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
    logged = {name for line in lines for name in line}
    panels = [panel for panel in _PANELS if logged & {curve.metric for curve in panel.curves}]
    if not panels:
        names = ", ".join(curve.metric for panel in _PANELS for curve in panel.curves)
        raise ValueError(f"{log_path}: got no metric to draw, expected one of {names}")
    figure = Figure(figsize=(12, 0.5 + 2.9 * math.ceil(len(panels) / 2)), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(math.ceil(len(panels) / 2), 2, sharex=True, squeeze=False).flatten()
    for axes, panel in zip(all_axes, panels, strict=False):
        _draw_panel(axes, panel, lines)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    for axes in all_axes[max(0, len(panels) - 2) : len(panels)]:
        axes.set_xlabel("step (updates completed)")
        axes.tick_params(labelbottom=True)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    figure.align_ylabels()
    return save_figure(figure, Path(workdir) / "training.png")


def _draw_panel(axes: Axes, panel: _Panel, lines: list[dict[str, float]]) -> None:
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    axes.set_ylabel(panel.unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    ends = []
    for curve in panel.curves:
        points = [(line["step"], line[curve.metric]) for line in lines if curve.metric in line]
        if not points:
            continue
        steps, values = np.array(points, dtype=np.float64).T
        values[~np.isfinite(values) | (panel.is_log & (values <= 0))] = np.nan  # a gap
        if np.isnan(values).all():
            continue
        label = curve.label
        if panel.marks_ends:
            axes.plot(steps[[0, -1]], values[[0, -1]], "o", markersize=7, color=curve.colour)
            label += f"\n{values[0]:.1%} before, {values[-1]:.1%} after"
        if panel.is_log and len(values) >= _SMOOTH_FROM:
            axes.plot(steps, values, linewidth=0.7, alpha=0.3, color=curve.colour)
            values = _running_mean(values, len(values) // 50)
        style = "--" if curve.dashed else "-"
        axes.plot(steps, values, style, linewidth=1.8, color=curve.colour)
        ends.append((values[np.isfinite(values)][-1], label, curve.colour))
    if panel.is_log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.is_percent:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    elif panel.unit.startswith("alpha"):
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if len(panel.curves) > 1:  # the title names a single one
        _label_ends(axes, ends)


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mean of the finite values up to `reach` points to either side of each."""
    window = np.ones(2 * reach + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, "same")
    count = np.convolve(finite.astype(np.float64), window, "same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes each curve's name right of its end, moved apart where two would overlap."""
    to_share = axes.transAxes.inverted()
    heights = [to_share.transform(axes.transData.transform((0, end)))[1] for end, _, _ in ends]
    order = np.argsort(heights)
    half = 0.052 * np.array([len(label.split("\n")) for _, label, _ in ends])
    heights = np.maximum(heights, half - 0.05)
    for lower, upper in pairwise(order):  # upwards from the lowest,
        heights[upper] = max(heights[upper], heights[lower] + half[lower] + half[upper])
    ceiling = 1.0
    for index in order[::-1]:  # and down again from the top of the panel
        heights[index] = min(heights[index], ceiling - half[index])
        ceiling = heights[index] - half[index]
    for height, (_, label, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            label,
            (1.015, height),
            xycoords="axes fraction",
            color=colour,
            fontsize=9.5,
            va="center",
            annotation_clip=False,
        )
