# SPDX-License-Identifier: Apache-2.0
"""The checksums of a checkpoint: how they are written, and what they find.

`checkpoint` says where they are, and when a step counts as whole.
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from edad_jax.files import file_checksum, flush_file, write_json

_HASHERS = 2  # threads that make checksums
_CHUNK = 1 << 20  # bytes that are read at a time: they stay in a core's cache while they are summed


def quick_checksum(path: str | os.PathLike[str]) -> str:
    """Returns the XXH3 of a local file, of 128 bits, in hexadecimal.

    It finds damage as surely as a sha256, at about the cost of reading the file. It is no proof
    against someone who makes another file of the same sum: what people download has a sha256.
    """
    digest, buffer = xxhash.xxh3_128(), bytearray(_CHUNK)
    with open(path, "rb", buffering=0) as file:
        while length := file.readinto(buffer):
            digest.update(memoryview(buffer)[:length])
    return digest.hexdigest()


_KIND = "xxh3_128"  # of what is written: a sha256 took a quarter of a save's CPU time
_KINDS = {_KIND: quick_checksum, "sha256": file_checksum}  # which earlier versions wrote


def write_manifest(directory: Path, step: int) -> None:
    """Returns when the checksums of a committed step, and the step itself, are safe on disk.

    Raises:
      OSError: if a file cannot be read or the manifest cannot be written.
    """
    there = _list_files(directory / str(step))
    # Flushed, so that a power cut after `_remove_old` cannot take both old and new. Meanwhile the
    # checksums are made, of what the system has in memory: they hardly make a save longer.
    with ThreadPoolExecutor(1) as flusher, ThreadPoolExecutor(_HASHERS) as hashers:
        flushed = [flusher.submit(flush_file, path) for path in there.values()]
        sums = hashers.map(_KINDS[_KIND], there.values())
        files = {
            name: {"bytes": path.stat().st_size, _KIND: checksum}
            for (name, path), checksum in zip(there.items(), sums, strict=True)
        }
        for each in flushed:
            each.result()
    if not files:
        raise FileNotFoundError(f"{directory / str(step)}: got no files, expected a checkpoint")
    write_json(manifest_path(directory, step), {"step": step, "files": files})


def find_faults(directory: Path, step: int) -> list[str]:
    """Returns one sentence per file of `step` that is not as it was written; empty if good."""
    step_directory, listed = directory / str(step), manifest_path(directory, step)
    try:
        manifest = json.loads(listed.read_text(encoding="utf-8"))
        if manifest["step"] != step:
            return [f"{listed}: got checksums of step {manifest['step']}, expected {step}"]
        expected = {
            name: (int(entry["bytes"]), *_sum_of(entry))
            for name, entry in manifest["files"].items()
        }
        files = _list_files(step_directory)
    except FileNotFoundError as error:
        return [f"{step_directory}: got no {error.filename}, expected one (killed while saving?)"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{listed}: got {error!r}, expected the checksums of step {step}"]
    missing, extra = expected.keys() - files.keys(), files.keys() - expected.keys()
    faults = [f"{step_directory / name}: got no file, expected one" for name in sorted(missing)]
    faults += [f"{step_directory / name}: got a file, expected none" for name in sorted(extra)]
    for name in sorted(expected.keys() & files.keys()):
        path, (size, kind, checksum) = files[name], expected[name]
        try:
            got_size = path.stat().st_size
            if got_size != size:
                faults.append(f"{path}: got {got_size} bytes, expected {size}")
            elif (got := _KINDS[kind](path)) != checksum:
                faults.append(f"{path}: got {kind} {got}, expected {checksum}")
        except OSError as error:
            faults.append(f"{path}: got {error.strerror}, expected a readable file")
    return faults


def differs(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Returns how a file is another than its entry of a manifest says; None where it is that one.

    Raises:
      OSError: it cannot be read.
      ValueError: the entry has no checksum that is known here.
    """
    kind, expected = _sum_of(entry)
    got = _KINDS[kind](path)
    return None if got == expected else f"got {kind} {got}, expected {expected}"


def manifest_path(directory: Path, step: int) -> Path:
    """Returns where the checksums of a step are."""
    return directory / "checksums" / f"{step}.json"


def saving_path(directory: Path, step: int) -> Path:
    """Returns the file that is there from before a save until the step has its checksums."""
    return directory / "checksums" / f"{step}.saving"


def list_steps(directory: Path) -> list[int]:
    """Returns the steps in a folder of checkpoints, good or not."""
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())


def _sum_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    for kind in _KINDS:
        if kind in entry:
            return kind, str(entry[kind])
    raise ValueError(f"no checksum among {', '.join(entry)}, expected one of {', '.join(_KINDS)}")


def _list_files(directory: Path) -> dict[str, Path]:
    paths = sorted(path for path in directory.rglob("*") if not path.is_dir())
    return {path.relative_to(directory).as_posix(): path for path in paths}
