# SPDX-License-Identifier: Apache-2.0
"""Runs a table cell by cell, and writes down what came out: the same for every paper.

A paper's file has `plan(run) -> Plan`, its cells, and `report(run, plan) -> Report`, which reads
what they left and says how it is shown.
"""

import dataclasses
import importlib
import os
from pathlib import Path

from reproduction.cells import check_command, run_cells, show_command
from reproduction.output import write_table
from reproduction.table import TableRun

# Table -> the paper's file, and the flags that it needs.
TABLES = {
    **dict.fromkeys("1234", ("edad", ("teacher", "corpus", "ner"))),
    "kcbert-4": ("kcbert", ("teacher", "corpus")),
    **dict.fromkeys(("kcbert-5", "kcbert-6"), ("kcbert", ("teacher", "corpus", "sentiment"))),
    "pi-2": ("raspberry_pi", ("squad",)),
    "triple": ("triple_loss", ("teacher", "corpus")),
    "claims": ("claims", ("teacher", "corpus", "ner")),
}
_MEANINGS = {
    "teacher": "the model to begin with",
    "corpus": "text",
    "ner": "the folder of the three data sets",
    "sentiment": "labelled texts",
    "squad": "questions and their contexts",
}
ROOT = Path(__file__).resolve().parents[1]


def reproduce(run: TableRun) -> Path:
    """Returns the table's Markdown file, after running what had not been run.

    Raises:
      ValueError: a flag is missing or wrong; or a cell failed, was made by another command, or,
        where only the report is asked for, has not been run. Says which.
    """
    paper, needed = TABLES[run.table]
    for flag in needed:
        if not getattr(run, flag):
            raise ValueError(
                f"--{flag} is empty, expected {_MEANINGS[flag]} for table {run.table}: "
                f"give --{flag}=..."
            )
    run = _resolve(run, needed)
    module = importlib.import_module(f"reproduction.{paper}")
    plan = module.plan(run)
    if not run.only_report:
        run_cells(plan.cells, run.folder, ROOT, run.jobs)
    for cell in plan.cells:
        check_command(cell, run.folder)
    cells = [*plan.cells, *(cell for cell in plan.others if check_command(cell, run.folder))]
    report = module.report(run, plan)
    lines = [f"# {plan.title} ({run.scale})", "", *report.lines]
    if cells:
        commands = [show_command(cell, run.folder, run.places) for cell in cells]
        lines += ["", "## Every command", "", *plan.preface, "```", *commands, "```"]
    return write_table(run.out, plan.name, report, "\n".join([*lines, ""]))


def _resolve(run: TableRun, needed: tuple[str, ...]) -> TableRun:
    """Returns the run with paths from the root, since the cells run elsewhere; hub ids stay."""
    labelled = {flag: _data(run, flag) for flag in ("sentiment", "squad") if flag in needed}
    return dataclasses.replace(
        run,
        workdir=Path(run.workdir).expanduser().resolve(),
        out=Path(run.out).expanduser().resolve(),
        teacher=_path(run.teacher),
        biobert=_path(run.biobert),
        scibert=_path(run.scibert),
        corpus=",".join(_absolute(part) for part in run.corpus.split(",") if part.strip()),
        ner=run.ner and _absolute(run.ner),
        models=[f"{name}={_path(model)}" for name, model in run.named_models.items()],
        **labelled,
    )


def _path(name: str) -> str:
    return _absolute(name) if os.path.exists(os.path.expanduser(name)) else name


def _data(run: TableRun, flag: str) -> str:
    """Returns the path or hub id of labelled data; a path at which nothing is fails at once."""
    from edad_jax.tasks.data.splits import is_dataset

    try:
        is_dataset(getattr(run, flag))
    except ValueError as error:
        raise ValueError(str(error).replace("--config.data", f"--{flag}")) from error
    return _path(getattr(run, flag))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path.strip()))
