# SPDX-License-Identifier: Apache-2.0
"""Docstrings of packages as documents, without importing the packages."""

import subprocess
import sys

import pytest

from edad_jax.data.text.docstrings import clean_docstring, read_docstrings
from edad_jax.data.text.reading import ReadReport

LONG = "The hippocampus is a part of the brain that takes part in memory.\n    It is folded. " * 5


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "toy_package"
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (root / "b.py").write_text(
        f'"""Module b. {LONG}"""\nclass A:\n    """Class A. {LONG}"""\n'
        f'    def f(self):\n        """Function f. {LONG}"""\n'
    )
    (root / "a.py").write_text(f'"""Module a. {LONG}"""\nadd_newdoc("x", """Added. {LONG}""")\n')
    (root / "copy.py").write_text(f'"""Module b. {LONG}"""\ndef g():\n    """Too short."""\n')
    (root / "broken.py").write_text("def broken(:\n")
    (root / "nul.py").write_bytes(b'"""\0"""')
    (root / "tests" / "test_b.py").write_text(f'"""A test. {LONG}"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    return "toy_package"


def test_docstrings_come_once_in_order_and_without_import(package):
    report = ReadReport()
    documents = list(read_docstrings([package], report=report))
    assert [text.split(". ")[0] for text in documents] == [
        "Module a",
        "Added",
        "Module b",
        "Class A",
        "Function f",
    ]
    assert report.documents == 5
    assert package not in sys.modules


def test_source_that_cannot_be_parsed_is_counted(package):
    report = ReadReport()
    list(read_docstrings([package], report=report))
    assert report.problems == {"source file skipped": 2}
    assert any("broken.py: source file skipped" in message for message in report.messages)


def test_package_that_is_not_installed_is_an_error():
    with pytest.raises(ValueError, match="'no_such_package', which is not installed"):
        list(read_docstrings(["no_such_package"], report=ReadReport()))


def test_paragraphs_become_lines_and_markup_goes():
    text = """Sum of an
    array over axes.

    Parameters
    ----------
    a : array
        What to sum, see :func:`~numpy.sum` and ``axis``.

    >>> total([1, 2])
    3
    >>> total([])
    """
    assert clean_docstring(text).split("\n") == [
        "Sum of an array over axes.",
        "Parameters",
        "a : array What to sum, see numpy.sum and axis.",
        "total([1, 2]) 3",
        "total([])",
    ]


def test_real_package_gives_the_same_text_twice_and_is_not_imported():
    program = (
        "import hashlib, sys\n"
        "from edad_jax.data.text.docstrings import read_docstrings\n"
        "from edad_jax.data.text.reading import ReadReport\n"
        "text = '\\n\\n'.join(read_docstrings(['optax'], report=ReadReport()))\n"
        "assert len(text) > 100_000 and 'optax' not in sys.modules and 'jax' not in sys.modules\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    run = [sys.executable, "-c", program]
    first, second = (subprocess.run(run, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
