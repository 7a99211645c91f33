# SPDX-License-Identifier: Apache-2.0
"""Tables for Markdown, which are read on a terminal too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Returns a Markdown table with one line per row; what a row does not have is a dash.

    Columns of numbers are aligned to the right. Floats have four significant digits: pass a
    string where another form is wanted.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    is_number = [
        all(isinstance(row.get(column), int | float | np.number | None) for row in rows)
        for column in columns
    ]
    widths = [max(3, *map(len, texts)) for texts in zip(columns, *cells, strict=True)]
    rule = [
        "-" * (width - 1) + ":" if number else "-" * width
        for width, number in zip(widths, is_number, strict=True)
    ]
    aligned = [
        [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, is_number, strict=True)
        ]
        for line in (list(columns), *cells)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (aligned[0], rule, *aligned[1:]))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")
