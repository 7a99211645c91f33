# SPDX-License-Identifier: Apache-2.0
"""All that a run has left, as checksums: two runs that came to the same end have the same digest.

Numbers that measure time are left out, and nothing else of what the commands write as JSON or in a
model's card: a run that was stopped has another wall time. Of checkpoints, whose files have random
names, the arrays are compared.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from edad_jax.files import is_whole, unsealed
from edad_jax.training.checkpoint import Checkpointer, find_faults
from edad_jax.training.metrics import FILE_NAME, read_metrics
from edad_jax.training.progress import TIME_COSTS

TIMES = ("time", "seconds", "tokens_per_second", "rows_per_second", "time_cost", *TIME_COSTS)
LEFT_OUT = {
    "measured time": f"keys of JSON files, metrics and model cards: {', '.join(TIMES)}; and the "
    "array `costs` of a fine-tuning checkpoint",
    "*.png": "pictures have wall time on an axis; their being there is compared",
    "metrics.previous.jsonl": "the log of a run that was killed before its first checkpoint, kept",
    "checkpoints/": "names of files, which orbax draws at random; the arrays are compared, which "
    "steps are there, and that every file has its checksum",
}
_CHECKPOINTS = "checkpoints"


def digest_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns {what: {"sha256", "bytes"}} of all files of a run and all arrays of checkpoints."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.endswith("metrics.previous.jsonl"):
            continue
        if path.parent.name == _CHECKPOINTS or _CHECKPOINTS in path.relative_to(folder).parts:
            continue
        content = path.read_bytes()
        if path.name == FILE_NAME:
            content = json.dumps([_timeless(line) for line in read_metrics(path)]).encode()
        elif path.suffix == ".json":
            value = json.loads(content)
            if isinstance(value, dict):  # a seal is of the times too
                value = unsealed(value) | ({} if is_whole(value) else {"is": "damaged"})
            content = json.dumps(_timeless(value)).encode()
        elif path.name == "README.md":
            content = "\n".join(filter(_is_timeless, content.decode().splitlines())).encode()
        elif path.suffix == ".png":
            content = b""
        digests[name] = _digest(content)
    for checkpoints in sorted(folder.rglob(_CHECKPOINTS)):
        digests |= _digest_checkpoints(checkpoints, checkpoints.relative_to(folder).as_posix())
    return digests


def differences(got: dict[str, dict], expected: dict[str, dict]) -> list[str]:
    """Returns one sentence for everything in which two digests differ."""
    found = [f"{name}: is missing" for name in sorted(expected.keys() - got.keys())]
    found += [f"{name}: is left over" for name in sorted(got.keys() - expected.keys())]
    for name in sorted(expected.keys() & got.keys()):
        if got[name] != expected[name]:
            found.append(f"{name}: got {got[name]}, expected {expected[name]}")
    return found


def _digest_checkpoints(folder: Path, prefix: str) -> dict[str, dict[str, Any]]:
    digests = {}
    for path in (*folder.iterdir(), *(folder / "checksums").iterdir()):
        if not (path.name.isdecimal() or path.name == "checksums"):
            digests[f"{prefix}/{path.relative_to(folder)}"] = _digest(b"")
    with Checkpointer(folder, keep=1) as checkpoints:
        for path in folder.iterdir():
            if not path.name.isdecimal():
                continue
            step = int(path.name)
            if faults := find_faults(folder, step):
                digests[f"{prefix}/{step} is broken"] = _digest("\n".join(faults).encode())
                continue
            for name, array in checkpoints.read(step).items():
                if name != "costs":
                    digests[f"{prefix}/{step}/{name}"] = _digest_array(array)
    return digests


def _digest_array(array: np.ndarray) -> dict[str, Any]:
    found = _digest(array.tobytes())
    return found | {"form": f"{array.dtype}{list(array.shape)}"}


def _digest(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _timeless(value: Any) -> Any:
    """Returns a JSON value without what measures time."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _is_timeless(line: str) -> bool:
    """Whether a line of a model's card is no figure of time."""
    name = line.removeprefix("| ").split(" | ")[0].rpartition(".")[2]
    return not (line.startswith("| ") and name in TIMES)
