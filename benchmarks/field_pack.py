# SPDX-License-Identifier: Apache-2.0
r"""Packs what travels to a borrowed machine without network, and unpacks it there.

    python launch/prepare.py --config configs/edad.py --config.teacher.checkpoint=/models/bert \
        --config.corpus.files='/data/medicine/*.txt' --out runs/rows
    benchmarks/field_pack.sh --teacher /models/bert --rows runs/rows --ner /data/ner --to runs/parts
    benchmarks/field_day.sh --parts runs/parts        # there

Writes part-0.tar, part-1.tar and so on, each below --limit megabytes, and manifest.json with the
checksum of every part and every file. They may arrive one after the other: each is checked and
unpacked when it is there (field_day.sh --parts DIR --arrive), and the day starts once all are.

The teacher's matrices travel in eight bits, with a scale for every row, and are float32 again
after arrival. Wheels are made for the packages that such a machine lacks (--wheels). Without
--teacher, --rows and --ner these alone are packed, a few kilobytes: all parts of the day but train
and finetune run with them.
"""

import argparse
import gzip
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # instead of this folder

from benchmarks.field_part import ROOT  # noqa: E402
from edad_jax.files import (  # noqa: E402
    file_checksum,
    path_beside,
    read_json,
    read_json_or_none,
    replaced_folder,
    write_json,
)

MANIFEST = "manifest.json"
WHEELS = ("ml_collections", "seqeval")
SETS = ("BC5CDR-IOB", "BioNLP09-IOB", "NCBI-disease-IOB")
_WEIGHTS, _SCALE = "eight-bits", ".scale"
_SHARD_BYTES = 24_000_000  # of weights in one file, so that parts can be filled
_ROWS = ("vocabulary", "rows", "vocabulary.stage.json", "rows.stage.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Packs what the command line names."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/field_pack.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--teacher", type=Path, help="BERT in Hugging Face layout")
    parser.add_argument("--rows", type=Path, help="what launch/prepare.py filled")
    parser.add_argument("--ner", type=Path, help=f"has {', '.join(SETS)}")
    parser.add_argument("--to", type=Path, default=Path("runs/parts"), help="folder for the parts")
    parser.add_argument("--limit", type=float, default=58.0, help="megabytes of a part")
    parser.add_argument(
        "--wheels", default=",".join(WHEELS), help="packages to bring along; empty: none"
    )
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="field-pack-") as folder:
            stage = Path(folder)
            gather(given.teacher, given.rows, given.ner, stage)
            make_wheels(list(filter(None, given.wheels.split(","))), stage / "wheels")
            manifest = pack(stage, given.to, limit=int(given.limit * 1e6))
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    for name, part in manifest["parts"].items():
        print(f"{given.to / name}: {part['bytes'] / 1e6:.1f} MB, {len(part['files'])} files")
    print(f"{given.to / MANIFEST}: goes with every part")


def gather(teacher: Path | None, rows: Path | None, ner: Path | None, stage: Path) -> None:
    """Lays out what travels: teacher/, rows/ and ner/ in `stage`; what is None is left out.

    Raises:
      ValueError: one of the three is not what it has to be; says what is missing.
    """
    if rows and not (rows / "rows" / "manifest.json").exists():
        raise ValueError(
            f"--rows: got no finished rows in {rows}, expected a folder that launch/prepare.py has "
            "filled"
        )
    absent = [name for name in SETS if ner and not (ner / name).is_dir()]
    if absent:
        raise ValueError(f"--ner: got no {', '.join(absent)} in {ner}, expected {', '.join(SETS)}")
    if teacher and not (teacher / "model.safetensors").is_file():
        raise ValueError(f"--teacher: got no model.safetensors in {teacher}, expected a BERT")
    for name in _ROWS if rows else ():
        _copy(rows / name, stage / "rows" / name)
    for name in SETS if ner else ():
        _copy(ner / name, stage / "ner" / name)
    if teacher:
        for path in teacher.iterdir():
            if path.suffix in (".json", ".txt") and ".index." not in path.name:
                _copy(path, stage / "teacher" / path.name)
        to_eight_bits(teacher / "model.safetensors", stage / "teacher" / _WEIGHTS)


def _copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)


def make_wheels(names: Sequence[str], folder: Path) -> None:
    """Builds wheels of the packages alone, in the versions of constraints.txt.

    Raises:
      ValueError: pip could not; says what it said.
    """
    if not names:
        return
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    done = subprocess.run(
        [*words, "-c", str(ROOT / "constraints.txt"), *names], capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(
            f"--wheels: pip could not build {', '.join(names)}: {done.stderr[-1_000:]}"
        )
    if alien := [path.name for path in folder.iterdir() if not path.name.endswith("-any.whl")]:
        raise ValueError(
            f"--wheels: got {', '.join(alien)}, expected wheels for any machine; name packages "
            "without compiled parts"
        )


def to_eight_bits(path: Path, folder: Path) -> None:
    """Writes the tensors of a file into a few: matrices as int8 with a scale for every row."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    shards: list[dict[str, np.ndarray]] = [{}]
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118, no dict
            tensor = file.get_tensor(name)
            tensors = {name: tensor}
            if tensor.ndim == 2 and tensor.dtype == np.float32:
                scale = np.maximum(np.abs(tensor).max(axis=1, keepdims=True), 1e-12) / 127
                tensors = {
                    name: np.rint(tensor / scale).astype(np.int8),
                    f"{name}{_SCALE}": scale,
                }
            if sum(each.nbytes for each in shards[-1].values()) > _SHARD_BYTES:
                shards.append({})
            shards[-1] |= tensors
    for number, tensors in enumerate(shards):
        save_file(tensors, folder / f"{number:03d}.safetensors")


def to_float32(folder: Path, path: Path) -> None:
    """Writes the tensors of `to_eight_bits` into one file again."""
    from safetensors.numpy import load_file, save_file

    stored = {}
    for shard in sorted(folder.glob("*.safetensors")):
        stored |= load_file(shard)
    tensors = {
        name: tensor.astype(np.float32) * stored[f"{name}{_SCALE}"]
        if f"{name}{_SCALE}" in stored
        else tensor
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }
    with path_beside(path) as beside:
        save_file(tensors, beside)


def pack(stage: Path, folder: Path, *, limit: int) -> dict[str, Any]:
    """Returns the manifest, when the parts are in `folder`, in place of what was there.

    Raises:
      ValueError: a file that is too large for a part, even compressed.
    """
    sizes, packed = {}, {}
    for path in sorted(path for path in stage.rglob("*") if path.is_file()):
        name = path.relative_to(stage).as_posix()
        packed[name] = gzip.compress(path.read_bytes(), 6, mtime=0)
        # A tar has 512 bytes before each file, and fills up to the next 512.
        sizes[name] = len(packed[name]) + 1_024
        if sizes[name] > limit - 10_240:
            raise ValueError(
                f"got {name} of {sizes[name] / 1e6:.1f} MB, expected less than a part of "
                f"{limit / 1e6:.1f}: pack less, or give a larger --limit"
            )
    parts: list[list[str]] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fits = (part for part in parts if sum(map(sizes.get, part)) + sizes[name] <= limit - 10_240)
        part = next(fits, None)
        if part is None:
            parts.append(part := [])
        part.append(name)
    manifest: dict[str, Any] = {"parts": {}, "files": {}}
    with replaced_folder(folder) as beside:
        for number, names in enumerate(parts):
            path = beside / f"part-{number}.tar"
            with tarfile.open(path, "w") as tar:
                for name in names:
                    member = tarfile.TarInfo(f"{name}.gz")
                    member.size = len(packed[name])
                    tar.addfile(member, io.BytesIO(packed[name]))
            manifest["parts"][path.name] = {
                "bytes": path.stat().st_size,
                "sha256": file_checksum(path),
                "files": sorted(names),
            }
        manifest["files"] = {name: file_checksum(stage / name) for name in sorted(packed)}
        write_json(beside / MANIFEST, manifest)
    return manifest


def arrive(source: Path, place: Path) -> list[str]:
    """Returns the parts that have not arrived yet, after unpacking those that have.

    Once the last is there, PLACE has rows/, teacher/, ner/ and site/ (the packages). Parts that
    were unpacked before need not be in `source` again.

    Raises:
      ValueError: no manifest, or a part or a file with another checksum than the manifest's.
    """
    manifest = read_json(
        source / MANIFEST, expected="what benchmarks/field_pack.sh writes beside the parts"
    )
    arrived = read_json_or_none(place / "arrived.json") or {}
    place.mkdir(parents=True, exist_ok=True)
    for name, part in manifest["parts"].items():
        if arrived.get(name) == part["sha256"] or not (source / name).exists():
            continue
        _check(source / name, part["sha256"])
        _unpack(source / name, place, manifest["files"])
        arrived[name] = part["sha256"]
        write_json(place / "arrived.json", arrived)
    missing = [
        name for name, part in manifest["parts"].items() if arrived.get(name) != part["sha256"]
    ]
    if not missing:
        _finish(place, manifest)
    return missing


def _unpack(part: Path, place: Path, checksums: Mapping[str, str]) -> None:
    for name, content in _members(part):
        if name not in checksums:
            raise ValueError(f"{part}: got a file {name}, which {MANIFEST} does not name")
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        _check(target, checksums[name])


def _members(part: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(part) as tar:
        for member in tar:
            yield member.name.removesuffix(".gz"), gzip.decompress(tar.extractfile(member).read())


def _check(path: Path, expected: str) -> None:
    got = file_checksum(path)
    if got != expected:
        raise ValueError(
            f"{path}: got sha256 {got[:16]}, expected {expected[:16]} ({MANIFEST}): it was damaged "
            "on its way or belongs to another pack; bring this part and the manifest again"
        )


def _finish(place: Path, manifest: Mapping[str, Any]) -> None:
    """Makes float32 weights and installs the wheels; does nothing if that was done."""
    done = {"files": manifest["files"]}
    if read_json_or_none(place / "ready.json") == done:
        return
    if (place / "teacher" / _WEIGHTS).is_dir():
        to_float32(place / "teacher" / _WEIGHTS, place / "teacher" / "model.safetensors")
    wheels = sorted(map(str, (place / "wheels").glob("*.whl")))
    if wheels:
        words = "--quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *words.split(), str(place / "site"), *wheels],
            check=True,
        )
    write_json(place / "ready.json", done)


def describe(missing: Sequence[str], source: Path, place: Path) -> str:
    """Returns what is to be done about parts that have not arrived."""
    had = sorted(read_json_or_none(place / "arrived.json") or {})
    return (
        f"got {', '.join(had) or 'no part'}, expected {', '.join(missing)} too: bring them into "
        f"{source} and give the same command again; what has arrived stays in {place}"
    )


if __name__ == "__main__":
    main()
