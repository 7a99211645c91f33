# SPDX-License-Identifier: Apache-2.0
"""Pieces per word against the number of added words: how many are worth their room."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.ticker import EngFormatter
from ml_collections import ConfigDict

from edad_jax.data.vocabulary import extend_vocabulary
from edad_jax.report import figures

LOG = logging.getLogger(__name__)
_PARTS = (0.25, 0.5, 2.0)  # of the words that are asked for


class Point(NamedTuple):
    """Added words, and the pieces per word of held-out text."""

    size: int
    pieces_per_word: float


def measure_curve(
    config: ConfigDict,
    documents: Sequence[str],
    folder: Path,
    learned: Mapping,
    asked: int,
) -> list[Point]:
    """Returns points of growing size, from none added; none where nothing could be measured.

    Args:
      config: names the tokenizer to extend.
      documents: a sample of the text.
      folder: to write tokenizers to.
      learned: facts about the tokenizer that `learn_vocabulary` made of these documents.
      asked: words that are to be added; sizes that the documents have no words for are left out.
    """
    if not learned["added"] or learned["pieces_per_word_before"] is None:
        return []
    points = {
        0: learned["pieces_per_word_before"],
        learned["added"]: learned["pieces_per_word_after"],
    }
    for size in (round(part * asked) for part in _PARTS):
        if size in points:
            continue
        LOG.info("Pieces per word with %d added words.", size)
        try:
            report = extend_vocabulary(
                config.vocabulary.base or config.teacher.checkpoint,
                iter(documents),
                size=size,
                out=folder / f"words-{size}",
                keep_base=not config.vocabulary.from_scratch,
                progress=False,
            )
        except ValueError:  # the sample has no more
            continue
        points[size] = report.pieces_per_word_after
    return [Point(size, points[size]) for size in sorted(points)]


def plot_curve(path: str | Path, curve: Sequence[Point]) -> Path:
    """Returns the path of a picture of the curve, which ends with .png, .svg or .pdf."""
    figure, [axes] = figures.new_figure((6.0, 3.4))
    figures.style_axes(axes, "Pieces per word against added words")
    sizes, values = zip(*curve, strict=True)
    axes.plot(sizes, values, "o-", color=figures.BLUE, **figures.THICK)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("added words")
    axes.set_ylabel("pieces per word (held-out text of the sample)")
    return figures.save_figure(figure, path)
