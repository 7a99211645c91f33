# SPDX-License-Identifier: Apache-2.0
"""The figures of a run as an object: a dict for programs, a table and a picture in a notebook."""

import base64
import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Summary(dict):
    """What summary.json holds, and how a notebook shows it.

    Attributes:
      workdir: the folder of the run.
      text: the lines that the command prints: paragraphs and Markdown tables.
      pictures: .png files to show below them; those that are missing are left out.
    """

    def __init__(self, values: Mapping[str, Any], workdir: Path, text: str, *pictures: Path):
        super().__init__(values)
        self.workdir, self.text, self.pictures = Path(workdir), text, pictures

    def _repr_html_(self) -> str:
        return "\n".join([*_as_html(self.text), *map(_as_image, self.pictures)])


def _as_html(text: str) -> Iterator[str]:
    """Yields the text's tables and lines as HTML."""
    rows: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [html.escape(cell.strip()) for cell in line.strip("| ").split(" | ")]
            if line.startswith("| ---") or set(line) <= set("|-: "):
                continue
            kind = "td" if rows else "th"
            rows.append("".join(f"<{kind}>{cell}</{kind}>" for cell in cells))
            continue
        if rows:
            yield "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
            rows = []
        if line.strip():
            yield f"<p>{html.escape(line)}</p>"


def _as_image(path: Path) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
