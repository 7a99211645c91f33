# SPDX-License-Identifier: Apache-2.0
"""Figures as SVG within a page: its colours and letters, and no name twice."""

import html
import io
import re

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from edad_jax.report import figures

# The page has these as CSS variables, with other values where it is dark.
COLOURS = {
    figures.BLUE: "blue",
    figures.VERMILION: "vermilion",
    figures.GREEN: "green",
    figures.PURPLE: "purple",
    figures.GREY: "grey",
    "0.9": "grid",
    "black": "ink",
}
_PREAMBLE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"')
_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_UNSTYLED_TEXT = re.compile(r'(<text style=")')


def inline_svg(figure: Figure, name: str, told: str) -> str:
    """Returns a figure as an <svg> element that takes the width it is given.

    Letters stay letters, in the page's colours; the background is the page's own.

    Args:
      figure: is drawn without a background.
      name: stands before every id in it, so that several figures may be in one page.
      told: what it shows, for those who do not see it.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    file = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = _METADATA.sub("", _PREAMBLE.sub("", file.getvalue()))
    opening, bracket, rest = svg.partition(">")
    label = html.escape(told, quote=True)
    opening = f'{_SIZE.sub("", opening)} role="img" aria-label="{label}"'
    svg = _IDS.sub(rf"\g<1>{name}-", opening + bracket + rest)
    for colour, variable in COLOURS.items():
        svg = re.sub(re.escape(to_hex(colour)), f"var(--{variable})", svg, flags=re.IGNORECASE)
    # Letters that have no colour of their own are black to SVG, whatever the page is.
    return _UNSTYLED_TEXT.sub(r"\g<1>fill: var(--ink); ", svg).strip()
