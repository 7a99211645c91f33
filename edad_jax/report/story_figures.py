# SPDX-License-Identifier: Apache-2.0
"""The figures of a pipeline's page: curves of training, scores with intervals, speed and size."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from edad_jax.report import figures, training
from edad_jax.report.panels import logged_names

_WIDTH = 4.4  # inches: a telephone shows it a little larger, a desk two beside each other
_NAMES = {"base": "base model", "teacher": "adapted teacher", "student": "student", "int8": "int8"}


def name_of(model: str) -> str:
    """Returns what a model of a pipeline is called."""
    return _NAMES.get(model, model)


def training_figures(lines: Sequence[Mapping[str, float]]) -> list[tuple[str, Figure]]:
    """Returns (what it shows, figure) of every panel that a run's log has metrics for."""
    logged = {name for line in lines for name in line}
    found = []
    for panel in training.PANELS:
        if not any(logged_names(curve.metric, logged) for curve in panel.curves):
            continue
        figure, [axes] = figures.new_figure((_WIDTH, 2.9))
        training.draw_panel(axes, panel, list(lines))
        axes.set_xlabel("step (updates completed)")
        curves = [curve for curve in panel.curves if curve.metric in logged]
        found.append((_tell(panel.title, curves, lines), figure))
    return found


def _tell(title, curves, lines):
    """Returns a sentence with the first and the last value of each curve."""
    told = []
    for curve in curves:
        values = [line[curve.metric] for line in lines if curve.metric in line]
        told.append(f"{curve.label} from {values[0]:.3g} to {values[-1]:.3g}")
    return f"{title}: {', '.join(told)}"


def scores_figure(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, Figure]:
    """Returns entity F1 of each model with its interval; `scores` as `chain.scores` has them."""
    rows = [(name_of(name), each["f1"], each["low"], each["high"]) for name, each in scores.items()]
    figure, axes = _row_figure("Entity F1, 95% intervals", rows)
    for place, (_, score, low, high) in enumerate(rows):
        spread = [[score - low], [high - score]]
        axes.errorbar(
            score, place, xerr=spread, fmt="o", markersize=6, capsize=3, color=figures.BLUE
        )
        _write_beside(axes, place, f"{score:.1%}")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    told = ", ".join(f"{name} {f1:.1%} ({low:.1%} to {high:.1%})" for name, f1, low, high in rows)
    return f"Entity F1: {told}", figure


def bars_figure(
    title: str, values: Mapping[str, float], unit: str, decimals: int = 1
) -> tuple[str, Figure]:
    """Returns a bar for each model, with its number.

    Args:
      title: stands above.
      values: by model; all from 0.
      unit: of them.
      decimals: of the numbers beside.
    """
    rows = [(name_of(name), value) for name, value in values.items()]
    figure, axes = _row_figure(title, rows)
    for place, (_, value) in enumerate(rows):
        axes.barh(place, value, height=0.55, color=figures.BLUE)
        _write_beside(axes, place, f"{value:,.{decimals}f}")
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    told = ", ".join(f"{name} {value:,.{decimals}f} {unit}" for name, value in rows)
    return f"{title}: {told}", figure


def _row_figure(title: str, rows: Sequence) -> tuple[Figure, Axes]:
    figure, [axes] = figures.new_figure((_WIDTH, 1.2 + 0.36 * len(rows)))
    figures.style_axes(axes, title, grid="x")
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _write_beside(axes: Axes, place: int, text: str) -> None:
    axes.annotate(
        text, (1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
    )


def before_after_figure(title: str, before: float, after: float) -> tuple[str, Figure]:
    """Returns two bars, and a sentence that says the same."""
    told, figure = bars_figure(title, {"before": before, "after": after}, "pieces", decimals=3)
    return told, figure
