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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

# A run may be resumed on other devices, or with other habits of logging and saving.
MAY_CHANGE = (
    "parallel", "checkpoint", "log_every_steps", "progress", "rows.workers",
    "batch_size_per_device", "memory_gb",  # how batch_size came about, which must be the same
    "remat", "attention",  # the same numbers but for rounding, as on other devices
)  # fmt: skip

LEFT_BY_TRAINING = ("checkpoints", "metrics.jsonl")


def open_workdir(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Returns the absolute path of a folder that belongs to this configuration.

    Writes config.json into a new folder. In one where a run has begun, all but MAY_CHANGE must
    agree. Before that a mistake may still be mended: text and rows are guarded by `run_stage`.

    Raises:
      ValueError: the folder belongs to another configuration (names the keys), its config.json
        is damaged, or the folder cannot be written.
    """
    workdir = Path(workdir).expanduser().resolve()
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
    differing = _differences(there, config)
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


def run_stage(folder: Path, fingerprint: Mapping[str, Any], build: Callable[[Path], dict]) -> dict:
    """Returns what build(folder) returned, now or in an earlier run with the same fingerprint.

    `folder`.stage.json is written when the stage is done. `build` must leave the folder whole
    or be able to take up its own work again.

    Args:
      folder: what the stage makes.
      fingerprint: all that the result depends on, as JSON values.
      build: makes it, and returns facts about it as JSON values.

    Raises:
      ValueError: the folder was made from something else (names what differs).
    """
    record = folder.with_name(folder.name + ".stage.json")
    fingerprint = json.loads(json.dumps(fingerprint))
    if record.exists() and folder.exists():
        done = json.loads(record.read_text(encoding="utf-8"))
        differing = _differences(done["fingerprint"], fingerprint)
        if not differing:
            return done["facts"]
        raise ValueError(
            f"{folder} was made from something else; delete it, or choose another --workdir. "
            "What differs:\n  "
            + "\n  ".join(f"{key}: got {new!r}, then {old!r}" for key, old, new in differing)
        )
    facts = build(folder)
    write_json(record, {"fingerprint": fingerprint, "facts": facts})
    return facts


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file; `path` is never half a file."""
    with open_beside(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


@contextlib.contextmanager
def open_beside(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Gives a text file that becomes `path` when it is whole, so that there is never half of it."""
    beside = Path(path).with_name(Path(path).name + ".new")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _differences(old, new):
    """Returns [(key, old value, new value)] of two nested dicts, less MAY_CHANGE."""
    old, new = _flatten(old), _flatten(new)
    return [
        (key, *_unlike(old.get(key), new.get(key)))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)
    ]


def _unlike(old, new, most=3):
    """Returns both values; of two long lists, such as a corpus's files, what sets them apart."""
    if not (isinstance(old, list) and isinstance(new, list) and len(old) + len(new) > 2 * most):
        return old, new
    lines_old, lines_new = ({json.dumps(each) for each in values} for values in (old, new))
    gone = [each for each in old if json.dumps(each) not in lines_new]
    added = [each for each in new if json.dumps(each) not in lines_old]
    return gone[:most], added[:most]


def _flatten(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.")
    return flat
