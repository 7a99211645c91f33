# SPDX-License-Identifier: Apache-2.0
"""Stages that are done once: what they made, and from what, lies beside it."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from edad_jax.files import RemotePath, is_whole, read_json, seal, write_json

_EXPECTED = "the record of a finished stage; delete it and its folder"


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
    record = _record_path(folder)
    fingerprint = json.loads(json.dumps(fingerprint))
    if is_done(folder):
        done = _read_record(record)
        differing = differences(done["fingerprint"], fingerprint)
        if not differing:
            return done["facts"]
        raise ValueError(
            f"{folder} was made from something else; delete it, or choose another --workdir. "
            "What differs:\n  "
            + "\n  ".join(f"{key}: got {new!r}, then {old!r}" for key, old, new in differing)
        )
    facts = build(folder)
    write_json(record, seal({"fingerprint": fingerprint, "facts": facts}))
    return facts


def is_done(folder: Path | RemotePath) -> bool:
    """Returns whether an earlier run has made `folder`, of whatever it was."""
    return _record_path(folder).exists() and folder.exists()


def recorded_facts(folder: Path) -> dict:
    """Returns the facts about what an earlier run made in `folder`.

    Raises:
      ValueError: there is no record of it, or a damaged one.
    """
    return _read_record(_record_path(folder))["facts"]


def _read_record(path):
    record = read_json(path, expected=_EXPECTED)
    if not is_whole(record) or not {"fingerprint", "facts"} <= record.keys():
        raise ValueError(f"{path} is damaged: its checksum is another; expected {_EXPECTED}")
    return record


def _record_path(folder):
    return folder.with_name(folder.name + ".stage.json")


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, may_change: Collection[str] = ()
) -> list[tuple[str, Any, Any]]:
    """Returns (dotted key, old value, new value) where two nested dicts differ.

    Args:
      old: JSON values.
      new: likewise.
      may_change: dotted keys that do not count, with all that is below them.
    """
    old, new = _flatten(old), _flatten(new)
    return [
        (key, *_unlike(old.get(key), new.get(key)))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == name or key.startswith(name + ".") for name in may_change)
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
