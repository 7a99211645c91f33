# SPDX-License-Identifier: Apache-2.0
"""A table's files; one of other runs that lies in their place is kept, under a longer name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edad_jax.files import open_beside, read_json, write_json
from reproduction.table import Report

NAMED_BY = ("scale", "teacher", "data", "models")  # what sets tables of one name apart


def write_table(out: Path, name: str, report: Report, markdown: str) -> Path:
    """Returns the path of out/NAME.md, when it, NAME.json and NAME.png are written.

    A table there that says of itself another scale, teacher, data or models, or that has more
    rows, is kept as NAME-SCALE-TEACHER-....
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    if path.is_file():
        there = read_json(path, expected="a table; move it away")
        if _is_other(there, report.table):
            told = [there[key] for key in NAMED_BY if there.get(key)]
            _rename(out, name, "-".join([name, *(told or ["before"])]))
    write_json(path, report.table)
    for other, content in report.others.items():
        write_json(out / other, content)
    picture = out / f"{name}.png"
    report.draw(picture) if report.draw else picture.unlink(missing_ok=True)
    return _write_text(out / f"{name}.md", markdown)


def _is_other(there: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    """Returns whether a table is of other runs, or has rows that --rows leaves out of the new."""
    before, now = ({row.get("name") for row in each["rows"]} for each in (there, table))
    return now < before or any(there.get(key) != table.get(key) for key in NAMED_BY)


def _rename(out: Path, name: str, kept: str) -> None:
    for suffix in ("md", "png", "json"):
        path = out / f"{name}.{suffix}"
        if path.exists():
            path.rename(out / f"{kept}.{suffix}")
    markdown = out / f"{kept}.md"
    if markdown.exists():
        text = markdown.read_text(encoding="utf-8")
        _write_text(markdown, text.replace(f"]({name}.png)", f"]({kept}.png)"))


def _write_text(path: Path, text: str) -> Path:
    with open_beside(path) as file:
        file.write(text)
    return path
