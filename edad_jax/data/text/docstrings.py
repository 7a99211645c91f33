# SPDX-License-Identifier: Apache-2.0
"""Docstrings of installed packages as documents: real technical text that every install brings.

The source files are parsed with `ast`; nothing of the packages is imported or run. The order is
that of the packages as given, then of the file names, then of the lines, so pinned versions give
everybody the same text.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from edad_jax.data.text.reading import ReadReport, finish_document

SHORTEST_CHARACTERS = 200  # of a docstring that counts as a document
_LEFT_OUT = frozenset({"tests", "test", "testing", "_vendor", "externals", "extern"})
_RULE = re.compile(r"[-=~^*+|_.\s]{3,}")  # a line of dashes: a heading's underline, a table's rule
_PROMPT = re.compile(r"(>>>|\.\.\.) ?")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :func:`~numpy.sum` -> numpy.sum


def read_docstrings(packages: Sequence[str], *, report: ReadReport) -> Iterator[str]:
    """Yields the docstrings of installed packages, each a document, none twice.

    Also taken are texts that a package hangs on compiled functions with `add_newdoc(...)`. Wrapped
    lines are joined to paragraphs, a paragraph a line.

    Args:
      packages: names as one would import them.
      report: counts what was read, and files that cannot be parsed.

    Raises:
      ValueError: a package that is not installed.
    """
    seen: set[str] = set()
    sizes = {path: path.stat().st_size for name in packages for path in list_source_files(name)}
    report.total_file_bytes += sum(sizes.values())
    for path, size in sizes.items():
        for line, docstring in _find_docstrings(path, report):
            text = clean_docstring(docstring)
            if len(text) < SHORTEST_CHARACTERS or text in seen:
                continue
            seen.add(text)
            yield from finish_document(text, f"{path}:{line}", report)
        report.file_bytes += size


def list_source_files(package: str) -> list[Path]:
    """Returns the source files of an installed package, sorted, without those of its tests.

    Raises:
      ValueError: it is not installed.
    """
    spec = importlib.util.find_spec(package) if "." not in package else None
    if spec is None:
        raise ValueError(
            f"got the package {package!r}, which is not installed, expected top-level packages; "
            "install it or leave it out"
        )
    if not spec.submodule_search_locations:
        return [Path(spec.origin)]
    return [
        path
        for root in spec.submodule_search_locations
        for path in sorted(Path(root).rglob("*.py"))
        if not _LEFT_OUT.intersection(path.relative_to(root).parts[:-1])
        and not path.name.startswith(("test_", "conftest"))
    ]


def _find_docstrings(path: Path, report: ReadReport) -> list[tuple[int, str]]:
    """Returns (line, text) of the docstrings of a file, in the order of its lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report.add_problem("source file skipped", str(path), error)
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node, clean=True):
                found.append((getattr(node, "lineno", 1), text))
        elif isinstance(node, ast.Call) and _called_name(node) in ("add_newdoc", "add_doc"):
            found.extend((node.lineno, inspect.cleandoc(text)) for text in _find_strings(node))
    return sorted(found, key=lambda item: item[0])


def _called_name(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def _find_strings(node: ast.Call) -> list[str]:
    constants = [part for value in node.args for part in ast.walk(value)]
    return [
        part.value
        for part in constants
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and "\n" in part.value
    ]


def clean_docstring(text: str) -> str:
    r"""Returns a docstring with a paragraph a line, without prompts, rules and markup of roles.

    Example:
      >>> clean_docstring("Sum of\nall.\n\nSee\n---\n:func:`~numpy.sum`")
      'Sum of all.\nSee\nnumpy.sum'
    """
    paragraphs: list[list[str]] = [[]]
    for raw in text.split("\n"):
        line = raw.strip()
        if not line or _RULE.fullmatch(line):
            paragraphs.append([])
            continue
        if prompt := _PROMPT.match(line):
            line = line[prompt.end() :]
            paragraphs.append([])
        paragraphs[-1].append(line)
    joined = (" ".join(lines) for lines in paragraphs if lines)
    return "\n".join(_ROLE.sub(r"\1", line).replace("``", "") for line in joined if line)
