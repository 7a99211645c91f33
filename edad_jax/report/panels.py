# SPDX-License-Identifier: Apache-2.0
"""Panels of a log: which metrics share one, what its axis says, and names where curves end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from edad_jax.report.figures import NAME_SIZE, style_axes


class Curve(NamedTuple):
    """A metric of a log, as a panel shows it."""

    metric: str  # one that ends with "-" is a family: one metric for each seed
    label: str = ""
    colour: str = ""  # empty where it is the run's
    dashed: bool = False


class Panel(NamedTuple):
    """A part of a picture: curves of one unit."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    scale: str = "linear"  # log | percent (of 1) | share (0 to 1) | small (from 0) | linear


def logged_names(metric: str, logged: Collection[str]) -> list[str]:
    """Returns the logged metrics that a curve's metric stands for."""
    if metric.endswith("-"):
        return sorted(name for name in logged if name.startswith(metric))
    return [metric] if metric in logged else []


def logged_panels(panels: Sequence[Panel], logged: Collection[str], source: object) -> list[Panel]:
    """Returns the panels that have a curve among the metrics that `source` has logged.

    Raises:
      ValueError: none has.
    """
    found = [
        panel
        for panel in panels
        if any(logged_names(curve.metric, logged) for curve in panel.curves)
    ]
    if not found:
        expected = ", ".join(curve.metric for panel in panels for curve in panel.curves)
        raise ValueError(f"{source}: got no metric to draw, expected one of {expected}")
    return found


def finish_panel(axes: Axes, panel: Panel) -> None:
    """Gives axes a panel's title, unit and scale; its curves are drawn, and decide on the ticks."""
    style_axes(axes, panel.title)
    axes.set_ylabel(panel.unit)
    match panel.scale:
        case "log":
            axes.set_ylabel(f"{panel.unit} (log scale)")
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            few = MaxNLocator(nbins=6, steps=(1, 2, 2.5, 5, 10)) if high < 8 * low else None
            axes.yaxis.set_major_locator(
                few or LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,))
            )
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        case "percent":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        case "share":
            axes.set_ylim(-0.03, 1.03)
        case "small":
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes (last value, name, colour) right of each curve, moved apart where two would overlap.

    To be called when the scale is final.
    """
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
            fontsize=NAME_SIZE,
            va="center",
            annotation_clip=False,
        )
