# SPDX-License-Identifier: Apache-2.0
"""What is written down of a stage: the command that began it, its inputs, and that it has ended.

NAME.command.json   the words of the command (as launch/reproduce.py's cells have it)
NAME.inputs.json    sizes and times of the user's files that it reads
NAME.done.json      when it ended, and how many seconds it ran
NAME.spent.json     seconds of turns that did not come to an end
NAME.log            what it said
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chain.stages import Stage, may_change
from edad_jax.data.stages import differences
from edad_jax.data.text.source import describe_source
from edad_jax.files import read_json, write_json
from reproduction.cells import command, folders_read

_EXPECTED = "what a pipeline wrote of a stage; give --redo, or remove it and the stage's folder"


def describe_inputs(config: ConfigDict) -> dict[str, Any]:
    """Returns what tells the user's files from others, by what they are for.

    Raises:
      ValueError: config.corpus names no text.
    """
    data = Path(config.data)
    files = sorted(data.iterdir()) if data.is_dir() else [data] if data.is_file() else []
    described = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    return {
        "corpus": describe_source(config.corpus),
        "data": {"name": config.data, "files": described},
        "packages": _versions(config),
    }


def _versions(config):
    """Returns what tells the packages that labels are made from; {} where there are none."""
    if not config.labels.packages:
        return {}
    corpus = config.corpus.copy_and_resolve_references()
    corpus.update({"files": "", "dataset": "", "packages": config.labels.packages})
    return describe_source(corpus)


def changed_settings(
    stages: Sequence[Stage], workdir: Path, inputs: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Returns {stage: lines that say what is otherwise than when it began}, of those begun."""
    changed = {}
    for stage in stages:
        path = workdir / f"{stage.name}.command.json"
        if not path.exists():
            continue
        before, now = read_json(path, expected=_EXPECTED), command(stage.cell, workdir)
        lines = _compare(before, now)
        record = workdir / f"{stage.name}.inputs.json"
        if record.exists():
            there = read_json(record, expected=_EXPECTED)
            lines += [
                f"{key}: got {new!r}, the stage had {old!r}"
                for key, old, new in differences(there, _inputs_of(stage, inputs))
            ]
        if lines:
            changed[stage.name] = lines
    return changed


def _compare(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Returns a line for each flag that has another value, was added or is gone."""
    old, new = (
        dict(word.partition("=")[::2] for word in words if not may_change(word))
        for words in (before, now)
    )
    missing = "its default"
    return [
        f"{name}: got {new.get(name, missing)}, the stage had {old.get(name, missing)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def read_what_changed(
    stages: Sequence[Stage], workdir: Path, changed: Mapping[str, Sequence[str]]
) -> list[Stage]:
    """Returns the stages that must run again: what changed, and all that reads it."""
    again = set(changed)
    for stage in stages:  # in order, so that what reads comes after what is read
        if folders_read(stage.cell, workdir) & again:
            again.add(stage.name)
    return [stage for stage in stages if stage.name in again]


def forget(stage: Stage, workdir: Path) -> None:
    """Removes what a stage made, and what is written of it."""
    (workdir / f"{stage.name}.done.json").unlink(missing_ok=True)
    for ending in ("command.json", "inputs.json", "spent.json", "log"):
        (workdir / f"{stage.name}.{ending}").unlink(missing_ok=True)
    shutil.rmtree(workdir / stage.name, ignore_errors=True)


def begin(stage: Stage, workdir: Path, inputs: Mapping[str, Any]) -> list[str]:
    """Returns the words of a stage's command, which are written down with its inputs."""
    words = command(stage.cell, workdir)
    write_json(workdir / f"{stage.name}.command.json", words)
    write_json(workdir / f"{stage.name}.inputs.json", _inputs_of(stage, inputs))
    return words


def is_done(stage: Stage, workdir: Path) -> bool:
    """Returns whether a stage has ended well, and what it made is still there."""
    marker = workdir / stage.name / stage.cell.marker
    return (workdir / f"{stage.name}.done.json").exists() and marker.exists()


def end(stage: Stage, workdir: Path, seconds: float) -> None:
    """Writes down that a stage has ended; seconds of earlier, interrupted turns are added."""
    write_json(
        workdir / f"{stage.name}.done.json",
        {"ended": time.time(), "seconds": seconds + _spent_before(stage, workdir)},
    )
    (workdir / f"{stage.name}.spent.json").unlink(missing_ok=True)


def interrupt(stage: Stage, workdir: Path, seconds: float) -> None:
    """Writes down the seconds of a turn that did not come to an end."""
    if os.access(workdir, os.W_OK):
        total = seconds + _spent_before(stage, workdir)
        write_json(workdir / f"{stage.name}.spent.json", {"seconds": total})


def seconds_of(stage: Stage, workdir: Path) -> float:
    """Returns how long a finished stage ran."""
    return read_json(workdir / f"{stage.name}.done.json", expected=_EXPECTED)["seconds"]


def _spent_before(stage, workdir):
    path = workdir / f"{stage.name}.spent.json"
    return read_json(path, expected=_EXPECTED)["seconds"] if path.exists() else 0.0


def _inputs_of(stage: Stage, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: inputs[name] for name in stage.reads}
