# SPDX-License-Identifier: Apache-2.0
"""Files beside the package: scripts, whose folder is the first where Python looks for modules."""

import sys

import pytest

from tests.test_floors import MODULES, imports_of
from tests.tiny_run import ROOT, run_command, write_corpus
from tests.tiny_text import write_tokenizer


@pytest.mark.parametrize("folder", ["benchmarks", "launch", "reproduction"])
def test_no_script_hides_a_module_of_the_standard_library(folder):
    names = {path.stem for path in (ROOT / folder).glob("*.py")}
    assert names and not names & sys.stdlib_module_names


@pytest.mark.parametrize("folder", ["benchmarks", "configs", "launch", "reproduction"])
def test_the_package_needs_nothing_that_stands_beside_it(folder):
    assert not [module for module, tree in MODULES.items() if imports_of(tree, folder)]


def test_preparing_rows_is_timed_against_the_bare_tokenizer(tmp_path):
    done = run_command(
        f"--files={write_corpus(tmp_path / 'corpus.txt', documents=20)}",
        f"--tokenizer={write_tokenizer(tmp_path / 'tokenizer')}",
        *("--megabytes=0.1", "--turns=1"),
        script="../benchmarks/prepare_rows.py",
    )
    assert done.returncode == 0, done.stderr
    *measured, ratio = done.stdout.splitlines()
    seconds = {}
    for line in measured:
        name, told = line.split(": ")
        seconds[name] = float(told.split("best of [")[1].removesuffix("])"))
    assert list(seconds) == ["bare tokenizer", "rows on disk"]
    assert ratio == f"rows / bare: {seconds['bare tokenizer'] / seconds['rows on disk']:.2f}"
