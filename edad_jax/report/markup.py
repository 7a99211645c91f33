# SPDX-License-Identifier: Apache-2.0
"""Pieces of a page: text made safe, tables, figures, facts."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from edad_jax.report.svg import inline_svg


def safe(value: Any) -> str:
    """Returns a value as text that means nothing to HTML."""
    return html.escape(str(value), quote=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], caption: str) -> str:
    """Returns a table that can be scrolled sideways, by keyboard too.

    Args:
      rows: values by column; what a row does not have is a dash. Text is made safe.
      columns: in their order; those of which all values look like numbers stand to the right.
        The first one says what a row is about, and stays in its place.
      caption: what it shows.
    """
    numeric = {column for column in columns if all(_is_number(row.get(column)) for row in rows)}
    kind = {column: ' class="number"' if column in numeric else "" for column in columns}
    head = "".join(f'<th scope="col"{kind[each]}>{safe(each)}</th>' for each in columns)
    first, others = columns[0], columns[1:]
    body = "".join(
        f'<tr><th scope="row"{kind[first]}>{safe(_shown(row.get(first)))}</th>'
        + "".join(f"<td{kind[each]}>{safe(_shown(row.get(each)))}</td>" for each in others)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="group" aria-label="{safe(caption)}" tabindex="0"><table>'
        f"<caption><span>{safe(caption)}</span></caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(name: str, told: str, drawn: Figure) -> str:
    """Returns a figure, told in words to those who do not see it."""
    return f"<figure>{inline_svg(drawn, name, told)}</figure>"


def figures(parts: Iterable[str]) -> str:
    """Returns figures beside each other, where there is room."""
    return f'<div class="figures">{"".join(parts)}</div>'


def facts(values: Mapping[str, tuple[str, str]]) -> str:
    """Returns boxes of one number each: {what it is: (number, words below)}."""
    boxes = (
        f"<div><dt>{safe(name)}</dt><dd><strong>{safe(number)}</strong> {safe(words)}</dd></div>"
        for name, (number, words) in values.items()
    )
    return f'<dl class="facts">{"".join(boxes)}</dl>'


def section(name: str, title: str, *parts: str) -> str:
    """Returns a part of the page that the navigation leads to."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{safe(title)}'
        f"</h2>{''.join(parts)}</section>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Returns a paragraph, of a class of the style if that is given."""
    return f'<p class="{kind}">{safe(text)}</p>' if kind else f"<p>{safe(text)}</p>"


def folded(title: str, content: str) -> str:
    """Returns what is shown on demand."""
    return f"<details><summary>{safe(title)}</summary>{content}</details>"


def folds(parts: Iterable[str]) -> str:
    """Returns what `folded` gave, one below the other."""
    return f'<div class="folds">{"".join(parts)}</div>'


def definitions(words: Mapping[str, str]) -> str:
    """Returns words and what they mean."""
    pairs = (f"<dt>{safe(word)}</dt><dd>{safe(text)}</dd>" for word, text in words.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return str(value)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or str(value)[:1] in "+-−0123456789"
