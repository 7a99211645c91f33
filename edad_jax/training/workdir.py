# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: its resolved configuration, and stages that are done once.

workdir/
  config.json     the configuration with every default and override in place
  vocabulary/     tokenizer with the added words       (stage)
  rows/           train/ and heldout/, fixed length    (stage)
  checkpoints/    see `checkpoint`
  metrics.jsonl   see `metrics`
  teacher/, student/, summary.json, training.png       the result
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edad_jax.data.stages import differences
from edad_jax.files import RemotePath, as_path, held_folder, write_json

# A run may be resumed on other devices, or with other habits of logging and saving.
MAY_CHANGE = (
    "parallel",
    "checkpoint",
    "log_every_steps",
    "progress",
    "rows.workers",
    "batch_size_per_device",
    "memory_gb",  # how batch_size came about, which must be the same
    "remat",
    "attention",  # the same numbers but for rounding, as on other devices
)

LEFT_BY_TRAINING = ("checkpoints", "metrics.jsonl")


def open_workdir(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Returns the absolute path of a folder that belongs to this configuration.

    Writes config.json into a new folder. In one where a run has begun, all but MAY_CHANGE must
    agree. Before that a mistake may still be mended: text and rows are guarded by `run_stage`.

    Raises:
      ValueError: the folder belongs to another configuration (names the keys), its config.json
        is damaged, or the folder cannot be written.
    """
    workdir = local_workdir(workdir)
    config = json.loads(json.dumps(config))  # tuples become lists, as they will be read back
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_json(path, config)
            return workdir
        if not os.access(workdir, os.W_OK):
            raise PermissionError(13, "not writable")
        there = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"--workdir={workdir}: got {error.strerror}, expected a folder that can be written; "
            "choose another"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: got damaged JSON ({error.msg}), expected a run's "
            "configuration; choose another --workdir, or put the file back"
        ) from error
    differing = differences(there, config, may_change=MAY_CHANGE)
    if differing and not has_begun(workdir):
        write_json(path, config)
    elif differing:
        raise ValueError(
            f"{workdir} belongs to a run with another configuration; choose another --workdir, or "
            "give back these values:\n  "
            + "\n  ".join(
                f"config.{key}: got {new!r}, the run has {old!r}" for key, old, new in differing
            )
        )
    return workdir


@contextlib.contextmanager
def hold_workdir(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run's folder: two programs at work in one would write over each other's files.

    Of several processes of one run the first alone holds it.

    Raises:
      ValueError: another program holds it.
    """
    folder = local_workdir(workdir)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # `open_workdir` says what is wrong with it
            folder.mkdir(parents=True, exist_ok=True)
        try:
            held.enter_context(held_folder(folder))
        except BlockingIOError as error:
            raise ValueError(
                f"--workdir={workdir}: another program is at work there; wait until it has ended, "
                "or choose another folder"
            ) from error
        yield


def local_workdir(workdir: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a folder on this machine; ValueError of a URL."""
    if isinstance(as_path(workdir), RemotePath):
        raise ValueError(
            f"--workdir={workdir}: got a URL, expected a folder on this machine (launch/train.py "
            "copies checkpoints and metrics to --config.checkpoint.directory=URL)"
        )
    return Path(workdir).expanduser().resolve()


def has_begun(workdir: Path) -> bool:
    """Returns whether a run has trained here, and so keeps its configuration."""
    return any((workdir / name).exists() for name in LEFT_BY_TRAINING)


def recorded_batch_size(workdir: str | os.PathLike[str]) -> int | None:
    """Returns the batch size in a folder's config.json; None where it has none to be read."""
    path = Path(workdir).expanduser() / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("batch_size")
    except (OSError, ValueError):  # `open_workdir` says what is wrong with it
        return None


def check_remembered(workdir: Path, name: str, value: str, *, meaning: str) -> None:
    """Writes a value into the folder the first time, and compares it every time after.

    Raises:
      ValueError: the value is another one than at first; `meaning` says what that means.
    """
    path = workdir / f"{name}.json"
    if not path.exists():
        write_json(path, {name: value})
        return
    there = json.loads(path.read_text(encoding="utf-8"))[name]
    if there != value:
        raise ValueError(f"{path}: got {name} {value}, the run began with {there}: {meaning}")
