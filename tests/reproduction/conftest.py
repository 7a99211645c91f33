# SPDX-License-Identifier: Apache-2.0
"""Models whose sizes a plan reads, and cells that look as if they had run."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reproduction.cells import Cell, command
from reproduction.driver import TABLES
from reproduction.table import Plan, TableRun
from tests.tiny_run import write_teacher


@pytest.fixture(scope="package")
def models(tmp_path_factory) -> Path:
    """Returns a folder with a BERT, another one, and one that is narrower (sizes only)."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("bert", "bio"):
        write_teacher(folder / name)
    sizes = json.loads((folder / "bert" / "config.json").read_text())
    write_json(folder / "sci" / "config.json", sizes | {"hidden_size": 12})
    return folder


@pytest.fixture
def make_run(models, tmp_path) -> Callable[..., TableRun]:
    """Returns a function that asks for a table's report, with all inputs but BioBERT, SciBERT."""

    def make(table: str, **changes: Any) -> TableRun:
        given = {
            "workdir": tmp_path,
            "out": tmp_path / "out",
            "teacher": str(models / "bert"),
            "corpus": "/d/*.txt",
            "ner": "/n",
            "sentiment": "/d/s.csv",
            "squad": "/squad",
            "models": [f"big={models / 'bert'}", f"small={models / 'bio'}"],
            "lengths": ["16", "32"],
            "only_report": True,
        }
        return TableRun(table=table, **given | changes)

    return make


def plan_of(run: TableRun) -> Plan:
    """Returns the plan of a table."""
    return importlib.import_module(f"reproduction.{TABLES[run.table][0]}").plan(run)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def finish(cell: Cell, folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes what a cell would leave."""
    write_json(folder / f"{cell.name}.command.json", command(cell, folder))
    write_json(folder / cell.name / cell.marker, summary)
