# SPDX-License-Identifier: Apache-2.0
"""What the tables share: what the user asked for, the runs of a table, and what comes of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from reproduction.cells import Cell


@dataclasses.dataclass(frozen=True)
class TableRun:
    """The flags of launch/reproduce.py, by name; their help says what each is.

    Paths and hub ids are "" where they are not given.
    """

    table: str
    workdir: Path
    out: Path
    scale: str = "small"
    teacher: str = ""
    corpus: str = ""
    ner: str = ""
    sentiment: str = ""
    squad: str = ""
    biobert: str = ""
    scibert: str = ""
    models: Sequence[str] = ()
    datasets: Sequence[str] = ("BC5CDR", "BioNLP09", "NCBI-disease")
    rows: Sequence[str] = ()
    lengths: Sequence[str] = ("64", "256")
    questions: int | None = None
    scoring: str = "squad"
    soft_labels_of: str = ""
    train: Sequence[str] = ()
    tune: Sequence[str] = ()
    pairs: int = 5
    jobs: int = 1
    only_report: bool = False

    @property
    def folder(self) -> Path:
        """Returns where the cells are."""
        return Path(self.workdir) / ("pi" if self.table == "pi-2" else self.scale) / "cells"

    @property
    def named_models(self) -> dict[str, str]:
        """Returns name -> folder or hub id.

        Raises:
          ValueError: a model without a name.
        """
        if any("=" not in each for each in self.models):
            raise ValueError(
                f"got --models={','.join(self.models)}, expected NAME=FOLDER_OR_HUB_ID"
            )
        return dict(each.split("=", 1) for each in self.models)

    @property
    def places(self) -> dict[str, str]:
        """Returns paths and hub ids of the user's -> the words that stand for them in a report."""
        names = ("teacher", "corpus", "ner", "biobert", "scibert", "sentiment", "squad")
        given = {getattr(self, name): name for name in names}
        given |= {model: name for name, model in self.named_models.items()}
        return {str(self.folder): "CELLS"} | {
            path: name.upper() for path, name in given.items() if path
        }


class Options(NamedTuple):
    """How large a table's runs are: options for every run of a kind."""

    rows: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    tune: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a table; each paper adds which of them belong to which row.

    Attributes:
      name: of the table's files, without ending.
      title: of the table.
      cells: what has to run, in the order to begin it.
      others: cells that are shown where a command before this one has begun them.
      preface: Markdown lines before the commands.
    """

    name: str
    title: str
    cells: Sequence[Cell]
    _: dataclasses.KW_ONLY
    others: Sequence[Cell] = ()
    preface: Sequence[str] = ()


class Report(NamedTuple):
    """What came of a table's runs."""

    table: dict[str, Any]  # for the JSON file
    lines: list[str]  # Markdown, between the title and the commands
    draw: Callable[[Path], Any] | None  # writes the picture; None: there is nothing to draw
    others: Mapping[str, Any] = MappingProxyType({})  # JSON files beside them: name -> content
