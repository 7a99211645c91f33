# SPDX-License-Identifier: Apache-2.0
"""A table of other runs that lies where a new one is written: it is kept, under a longer name."""

import json
from collections.abc import Mapping
from pathlib import Path

from edad_jax.files import open_beside

SUFFIXES = ("md", "png", "json")


def read_table(out: Path, name: str) -> dict | None:
    """Returns what out/NAME.json holds, None where there is none."""
    path = out / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def keep_other(out: Path, name: str, told: Mapping[str, str], *, replaces: bool = True) -> None:
    """Renames out/NAME.* to NAME-SCALE-TEACHER.*, unless the new table stands for it.

    Args:
      out: the tables' folder.
      name: of the new table, without ending.
      told: what the new table says of itself, such as its scale and teacher. A table whose .json
        says otherwise is another one, and what it says is its longer name.
      replaces: False where the new table has less than the old one, which is kept then too.
    """
    there = read_table(out, name)
    if there is None or (replaces and all(there.get(key) == told[key] for key in told)):
        return
    kept = "-".join([name, *([there[key] for key in told if there.get(key)] or ["before"])])
    for suffix in SUFFIXES:
        path = out / f"{name}.{suffix}"
        if path.exists():
            path.rename(out / f"{kept}.{suffix}")
    markdown = out / f"{kept}.md"
    if markdown.exists():
        text = markdown.read_text(encoding="utf-8")
        with open_beside(markdown) as file:
            file.write(text.replace(f"]({name}.png)", f"]({kept}.png)"))
