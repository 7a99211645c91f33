# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings: `make docs` builds the site into runs/docs, with warnings as errors."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import edad_jax  # noqa: E402

project = "edad-jax"
author = "the edad-jax authors"
project_copyright = author
version = release = edad_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["notebooks/*.ipynb"]
myst_heading_anchors = 3
# Links to files outside of docs/ (configs/edad.py, LICENSE) are for readers of the repository.
suppress_warnings = ["myst.xref_missing"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"edad-jax {version}"
html_static_path = []
html_show_sphinx = False
html_theme_options = {"source_directory": "docs/"}


def _to_plain_rst(app, what, name, obj, options, lines):
    """Our docstrings are plain text: indented figures become literal blocks, backticks code."""
    for number, line in enumerate(lines):
        lines[number] = line.replace("*", "\\*") if not line.startswith(":") else line


def setup(app):
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", _to_plain_rst)
