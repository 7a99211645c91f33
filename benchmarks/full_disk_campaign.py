# SPDX-License-Identifier: Apache-2.0
r"""The disk is full, or read-only, at every write: what is there stays whole, and a run goes on.

    sudo python benchmarks/full_disk_campaign.py --sizes=24 --out report.json

Makes rows, trains, fine-tunes and exports at tiny size on a disk of its own (tmpfs, which wants
root), once with room, then on disks of growing sizes up to a little more than that took: each must
end, or stop with one line that says what could not be written. Then the disk grows, and the same
call must go on and end in the same bits as the one with room: rows, weights, losses, scores. In
half of the trials the look at free space before the work (edad_jax/data/disk.py) is left out, as if
its estimate had been far too low. Last comes the read-only disk, new and half full. Exit status 1:
something broke.

All runs are in this process, so that each program is compiled once.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles in less time

ROOM = 64 << 20  # bytes of the disk with room
LOSSES = ("loss", "teacher/", "student/", "distill/", "heldout/", "validation/", "alpha")
SPOKEN = ("room", "space", "full", "Read-only", "free on its disk", "written")


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, default=24, help="disks for each command")
    parser.add_argument("--commands", default="", help="which, with commas; empty: all")
    parser.add_argument("--out", help="JSON file for the report")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="edad-jax-disk-") as folder:
        jobs = make_jobs(Path(folder))
        names = options.commands.split(",") if options.commands else list(jobs)
        trials = []
        for name in names:
            trials += try_command(name, jobs[name], Path(folder), options.sizes)
    report = {
        "trials": trials,
        "seconds": round(time.time() - started, 1),
        "python": platform.python_version(),
    }
    if options.out:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        Path(options.out).write_text(f"{text}\n", encoding="utf-8")
    broken = [trial for trial in trials if trial["faults"]]
    ended = sum(trial["first"] == "done" for trial in trials)
    print(
        f"{len(trials)} trials of {len(names)} commands in {report['seconds']:,.0f} s: {ended} "
        f"ended on the first disk, {len(trials) - ended} stopped with a line and went on, "
        f"{len(broken)} broke"
    )
    for trial in broken:
        print(f"  {trial}")
    sys.exit(bool(broken))


@contextlib.contextmanager
def disk_of(folder: Path, size: int) -> Iterator[Path]:
    """Yields a folder that is a disk of so many bytes, while the block lasts."""
    folder.mkdir(exist_ok=True)
    kind = ["-t", "tmpfs", "-o", f"size={max(size, 4096)}"]
    try:
        subprocess.run(["mount", *kind, "tmpfs", str(folder)], check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        sys.exit(f"cannot mount a disk at {folder} ({error}): run this as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def change_disk(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def try_command(name: str, job: Callable[[Path], object], folder: Path, sizes: int) -> list[dict]:
    """Returns what became of a command on disks of so many sizes, and on read-only ones."""
    with disk_of(folder / "disk", ROOM) as disk:
        job(disk / "out")
        expected = fingerprint(disk / "out")
        usage = os.statvfs(disk)
        used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    trials = []
    for number in range(sizes):
        size = int(used * (0.02 + 1.2 * number / max(1, sizes - 1)))
        with disk_of(folder / "disk", size) as disk, looking(number % 2 == 1):
            trial = {"command": name, "bytes": size, "needs": used, "looks": number % 2 == 1}
            trial["first"] = run(job, disk / "out")
            trial["faults"] = find_faults(trial["first"], disk)
            change_disk(disk, f"size={ROOM}")
            trials.append(end(trial, job, disk, expected))
    for state in ("new", "begun"):
        with disk_of(folder / "disk", ROOM) as disk:
            trial = {"command": name, "disk": f"read-only, {state}"}
            if state == "begun":
                change_disk(disk, f"size={used // 2}")
                with looking(False):
                    run(job, disk / "out")
            change_disk(disk, "ro")
            trial["first"] = run(job, disk / "out")
            trial["faults"] = find_faults(trial["first"], disk)
            if trial["first"] == "done":
                trial["faults"].append("done on a disk that takes nothing")
            change_disk(disk, f"rw,size={ROOM}")
            trials.append(end(trial, job, disk, expected))
    return trials


def end(trial: dict, job: Callable, disk: Path, expected: dict[str, str]) -> dict:
    """Returns the trial after the same call with room, which must give what is expected."""
    trial["then"] = run(job, disk / "out")
    if trial["then"] != "done":
        trial["faults"].append("does not go on once there is room")
    else:
        got = fingerprint(disk / "out")
        differ = sorted(key for key in expected | got if expected.get(key) != got.get(key))
        trial["faults"] += [f"differs: {key}" for key in differ]
    print(json.dumps(trial, ensure_ascii=False), file=sys.stderr, flush=True)
    return trial


def run(job: Callable[[Path], object], out: Path) -> str:
    """Returns "done", or the line that the command would end with; a trace is "broke: ..."."""
    try:
        with contextlib.redirect_stdout(None):
            job(out)
    except (ValueError, FloatingPointError, OSError) as error:  # what command.run_command tells
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"broke: {type(error).__name__}: {error}"
    return "done"


def find_faults(outcome: str, disk: Path) -> list[str]:
    """Returns what is wrong with how a call ended, and with what it left."""
    faults = []
    if outcome.startswith("broke"):
        faults.append("a trace")
    elif outcome != "done" and not any(word in outcome for word in SPOKEN):
        faults.append("does not say what is full")
    elif "\n" in outcome:
        faults.append("more than one line")
    left = [path.name for path in disk.rglob(".*") if ".partial" in path.name]
    return faults + [f"left {name}" for name in left]


@contextlib.contextmanager
def looking(looks: bool) -> Iterator[None]:
    """Leaves out the look at free space, unless `looks`."""
    from edad_jax.data import disk

    check = disk.check_free
    if not looks:
        disk.check_free = lambda *_, **__: None
    try:
        yield
    finally:
        disk.check_free = check


def fingerprint(out: Path) -> dict[str, str]:
    """Returns what must be the same in each run: checksums of files, and losses and scores."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.suffix in (".npy", ".safetensors", ".onnx", ".tsv") or path.name == "vocab.txt":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            kept = [{k: v for k, v in line.items() if k.startswith(LOSSES)} for line in lines]
            found[name] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    return {name: value for name, value in found.items() if not name.startswith("checkpoints/")}


def make_jobs(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Returns command -> call of it with the folder to fill; inputs lie on another disk."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    from edad_jax.data.prepare import prepare_folder
    from edad_jax.distillation.train import train
    from edad_jax.export import formats
    from edad_jax.tasks.finetune import finetune
    from tests.tiny_run import make_inputs, tiny_config
    from tests.tiny_tasks import tiny_tuning, write_exbert, write_tagging

    inputs = make_inputs(folder / "inputs")
    config = tiny_config(inputs)
    student = write_exbert(folder / "student")
    tuning = tiny_tuning("tagging", student, write_tagging(folder / "words"), epochs=2)
    rows = folder / "rows"
    prepare_folder(config, rows)
    on_rows = tiny_config(inputs, prepared=str(rows))

    def export(kind, out):
        formats.export(formats.load(str(student)), kind, out)

    return {
        "prepare": functools.partial(prepare_folder, config),
        "train": lambda out: train(on_rows, str(out)),
        "finetune": lambda out: finetune(tuning, str(out)),
        "export-hf": functools.partial(export, "hf"),
        "export-onnx-int8": functools.partial(export, "onnx-int8"),
    }


if __name__ == "__main__":
    main()
