# SPDX-License-Identifier: Apache-2.0
"""How all pictures look (palette, axes, saving), and the pictures of scores.

`panels` has what the pictures of logs are made of: `training` draws one run, `comparison` several.
Every function that draws returns the path of its picture, which ends with .png, .svg or .pdf and is
written beside it and renamed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from edad_jax.files import path_beside

# Okabe and Ito's colours, which people with any colour vision tell apart; the pale ones, which
# names are hard to read in, come last.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#6B6B6B", "#000000", "#E69F00", "#56B4E9")
BLUE, VERMILION, GREEN, PURPLE, GREY = _COLOURS[:5]
THICK = {"linewidth": 2.0}
THIN = {"linewidth": 0.8, "alpha": 0.4}  # beside a thick one: each seed, the raw values
NAME_SIZE = 9.5  # points, of names beside what they name


def new_figure(
    size: tuple[float, float],
    count: int = 1,
    *,
    columns: int = 1,
    margin: float = 0.0,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its axes, row by row.

    Args:
      size: width and height of one panel, in inches.
      count: of panels.
      columns: panels beside each other.
      margin: inches above and below all panels, for a legend or the label of a shared axis.
      sharex: whether all have one horizontal axis.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * size[0], margin + rows * size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    axes = figure.subplots(rows, columns, sharex=sharex, squeeze=False).flatten()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, list(axes[:count])


def style_axes(axes: Axes, title: str, *, grid: str = "y") -> None:
    """Gives axes the title, the lines and the grid (x, y or both) that all pictures have."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def colours(count: int) -> list[Any]:
    """Returns as many colours; up to eight are told apart by all readers, up to twenty by most."""
    palette = _COLOURS if count <= len(_COLOURS) else colormaps["tab20"].colors
    return list(islice(cycle(palette), count))


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Returns the path when the picture is there; makes its folder if that is missing.

    Raises:
      ValueError: if the path has no ending of a picture.
      OSError: if it cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{path}: got the ending {path.suffix!r}, expected .png, .svg or .pdf")
    with path_beside(path) as beside:
        figure.savefig(beside, dpi=130)
    return path


def plot_confusion(
    path: str | os.PathLike[str],
    confusion: Sequence[Sequence[int]],
    labels: Sequence[str],
    title: str = "",
) -> Path:
    """Draws a confusion matrix: in each cell the count and its share of the row.

    Args:
      path: the picture to write.
      confusion: counts, a row for each gold label and a column for each predicted one.
      labels: names of rows and columns.
      title: stands above.

    Raises:
      ValueError: if the matrix has not as many rows and columns as there are labels.
    """
    counts = np.array(confusion)
    if not labels or counts.shape != (len(labels), len(labels)):
        raise ValueError(
            f"confusion: got the shape {counts.shape}, expected {(len(labels), len(labels))} for "
            f"{len(labels)} labels"
        )
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    figure, [axes] = new_figure((2.6 + 0.85 * len(labels), 1.8 + 0.7 * len(labels)))
    style_axes(axes, title)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        share = f"\n{shares[row, column]:.1%}" if totals[row] else ""
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}{share}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    is_long = max(map(len, labels)) > 9
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=40 if is_long else 0,
        ha="right" if is_long else "center",
        rotation_mode="anchor" if is_long else "default",
    )
    axes.set_yticks(
        range(len(labels)),
        [f"{label} ({total:,})" for label, total in zip(labels, totals, strict=True)],
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold (all)")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return save_figure(figure, path)


def plot_seeds(
    path: str | os.PathLike[str],
    epochs: Sequence[int],
    scores: Mapping[str, Sequence[Sequence[float]]],
    ylabel: str,
) -> Path:
    """Draws a score over the epochs: a thin curve for each seed and a thick one for their mean.

    Args:
      path: the picture to write.
      epochs: what the scores were measured after.
      scores: name -> one sequence for each seed, with a score for each epoch.
      ylabel: what the scores are.

    Raises:
      ValueError: if there is nothing to draw, or a seed has not a score for each epoch.
    """
    figure, [axes] = new_figure((7.5, 4.6))
    style_axes(axes, "")
    many = len(scores) > 4  # then the legend says once what its figures are
    for (name, seeds), colour in zip(scores.items(), colours(len(scores)), strict=True):
        if not len(seeds) or any(len(seed) != len(epochs) for seed in seeds):
            raise ValueError(
                f"{name}: got {[len(seed) for seed in seeds]} scores of {len(seeds)} seeds, "
                f"expected {len(epochs)} of each, one for each epoch"
            )
        values = np.array(seeds, dtype=np.float64)
        for seed in values:
            axes.plot(epochs, seed, color=colour, **THIN)
        mean = values.mean(axis=0)
        said = f"after the last epoch, mean of {_seed_count(len(seeds))}"
        label = f"{name}: {mean[-1]:.3f}" + ("" if many else f" {said}")
        axes.plot(epochs, mean, "o-", markersize=4, color=colour, label=label, **THICK)
    if not axes.lines:
        raise ValueError("got no scores to draw, expected some")
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    figure.legend(
        loc="outside upper left",
        frameon=False,
        fontsize=NAME_SIZE,
        ncols=3 if many else 1,
        title=said if many else None,
        title_fontsize=NAME_SIZE,
        alignment="left",
    )
    return save_figure(figure, path)


def plot_costs(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    title: str,
    cost_label: str = "training (minutes)",
    score_label: str = "entity F1",
) -> Path:
    """Draws scores against what they cost: a named point with its error bar for each row.

    Args:
      path: the picture to write.
      rows: {"name", "cost", "score", "half"}; half is half an interval, None for no error bar.
      title: stands above.
      cost_label: what the cost is, with its unit.
      score_label: what the score is.

    Raises:
      ValueError: if there is no row.
    """
    figure, axes = _row_axes(rows, (7.5, 4.8), title, grid="y")
    axes.set_xlabel(cost_label)
    axes.set_ylabel(score_label)
    axes.margins(x=0.12, y=0.15)
    bars = [
        axes.errorbar(row["cost"], row["score"], yerr=row["half"], **_point(colour))
        for row, colour in zip(rows, colours(len(rows)), strict=True)
    ]
    figure.draw_without_rendering()  # only now the pixels of points are known
    taken = [
        part.get_window_extent().padded(3)
        for dot, caps, lines in bars
        for part in (dot, *caps, *lines)
    ]
    for row, colour in zip(rows, colours(len(rows)), strict=True):
        taken.append(_name_point(axes, row, colour, taken))
    return save_figure(figure, path)


def plot_bars(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], title: str, score_label: str
) -> Path:
    """Draws a dot with its error bar for each row, the first on top, and the numbers beside.

    Args:
      path: the picture to write.
      rows: {"name", "score", "half"}; half is half an interval, None for no error bar.
      title: stands above.
      score_label: what the score is.

    Raises:
      ValueError: if there is no row.
    """
    figure, axes = _row_axes(rows, (7.5, 1.3 + 0.42 * len(rows)), title, grid="both")
    decimals = 3 if max(abs(row["score"]) for row in rows) <= 1 else 2  # shares or percent
    for place, row in enumerate(rows):
        axes.errorbar(row["score"], place, xerr=row["half"], **_point(BLUE))
        half = "" if row["half"] is None else f" ± {row['half']:.{decimals}f}"
        axes.annotate(
            f"{row['score']:.{decimals}f}{half}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(score_label)
    return save_figure(figure, path)


def _name_point(axes: Axes, row: Mapping[str, Any], colour: Any, taken: list[Bbox]) -> Bbox:
    """Writes a point's name where it overlaps least; returns the box that it takes."""
    choices = [(9, 0), (-9, 0), (9, 11), (9, -11), (-9, 11), (-9, -11), (0, 16), (0, -16)]
    choices += [(9, 24), (9, -24), (-9, 24), (-9, -24)]
    panel = axes.get_window_extent()

    def write(right: int, up: int) -> Annotation:
        return axes.annotate(
            row["name"],
            (row["cost"], row["score"]),
            (right, up),
            textcoords="offset points",
            ha="left" if right > 0 else "right" if right else "center",
            va="center",
            color=colour,
            fontsize=NAME_SIZE,
            annotation_clip=False,
        )

    def badness(choice: tuple[int, int]) -> float:
        text = write(*choice)
        box = text.get_window_extent()
        text.remove()
        overlaps = (Bbox.intersection(box, other) for other in taken)
        shared = sum((1 + both.width) * (1 + both.height) for both in overlaps if both is not None)
        inside = Bbox.intersection(box, panel)
        hidden = box.width * box.height - (inside.width * inside.height if inside else 0)
        return shared + hidden

    return write(*min(choices, key=badness)).get_window_extent()


def _point(colour: Any) -> dict[str, Any]:
    return {"fmt": "o", "markersize": 6, "capsize": 3, "linewidth": 1.5, "color": colour}


def _seed_count(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _row_axes(
    rows: Sequence, size: tuple[float, float], title: str, *, grid: str
) -> tuple[Figure, Axes]:
    if not rows:
        raise ValueError(f"{title!r}: got no rows to draw, expected one or more")
    figure, [axes] = new_figure(size)
    style_axes(axes, title, grid=grid)
    return figure, axes
