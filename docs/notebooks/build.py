# SPDX-License-Identifier: Apache-2.0
"""Writes each notebook of this folder from its .py file (jupytext's percent format).

    python docs/notebooks/build.py            # after a change of a .py file
    python docs/notebooks/build.py --check    # fails where a notebook is not what its .py file says

The .py files are what is edited, reviewed and tested; a notebook has no output, and the same bytes
each time. Nothing but Python is needed.
"""

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def sources() -> list[Path]:
    """Returns the notebooks' .py files."""
    return [path for path in sorted(FOLDER.glob("*.py")) if path.name != Path(__file__).name]


def read_cells(text: str) -> list[tuple[str, str]]:
    """Returns ("markdown" or "code", source) of each cell; what stands before the first is none."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    cells = []
    for kind, source in zip(parts[::2], parts[1::2], strict=True):
        source = source.strip("\n")
        if "[markdown]" in kind:
            lines = [re.sub(r"^# ?", "", line) for line in source.splitlines()]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", source))
    return cells


def notebook(text: str) -> str:
    """Returns the notebook, as JSON of nbformat 4.5."""
    cells = []
    for number, (kind, source) in enumerate(read_cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell | {"source": source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    values = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes the notebooks, or compares them."""
    check = "--check" in sys.argv[1:]
    for path in sources():
        text, target = notebook(path.read_text(encoding="utf-8")), path.with_suffix(".ipynb")
        if check and (not target.exists() or target.read_text(encoding="utf-8") != text):
            sys.exit(f"{target.name} is not what {path.name} says; run docs/notebooks/build.py")
        if not check:
            target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
