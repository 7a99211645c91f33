# SPDX-License-Identifier: Apache-2.0
r"""Commands killed at random instants and given again: all must end in the same bits.

    python benchmarks/crash_campaign.py --kills=200 --out crash.json

Makes rows (launch/prepare.py), trains (launch/train.py), fine-tunes two seeds (launch/finetune.py)
and exports (launch/export.py) at tiny size: each once undisturbed, then again and again in new
folders, killed several times on its way (kill -9) and given again with the same words until it
ends. Every second kill comes at a random moment of the run, in CPU time; the others before a
random one of the files that it reads, writes, renames or removes. At each end all files, metrics,
weights and the optimiser are compared with those of the run that was not killed. Exit status 1:
something differed.

Linux only (it reads /proc). What a process is, is told in benchmarks/killed_commands.py.
"""

import argparse
import collections
import functools
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import killed_commands as processes  # noqa: E402
from benchmarks.killed_jobs import Job, all_jobs, make_inputs  # noqa: E402

SHARES = {"prepare": 60, "train": 40, "finetune": 50, "export-onnx-int8": 25, "export-hf": 25}
KILLS_OF_A_RUN = 5
_COMPILES = ("train", "finetune")
GOES_ON_WITHIN = 0.6  # of the time of a whole run: later kills come within this share of it


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file for the report")
    parser.add_argument("--commands", default=",".join(SHARES), help="which of them")
    parser.add_argument("--programs", help="folder of the programs that an earlier one compiled")
    options = parser.parse_args()
    if unknown := set(options.commands.split(",")) - SHARES.keys():
        parser.error(f"--commands has {sorted(unknown)}, expected some of {', '.join(SHARES)}")
    shares = {name: SHARES[name] for name in options.commands.split(",")}
    with tempfile.TemporaryDirectory(prefix="edad-jax-crash-") as folder:
        folder = Path(folder).resolve()
        _prepare_environment(options.programs or str(folder / "programs"))
        report = campaign(folder, shares, kills=options.kills, seed=options.seed)
    text = json.dumps(report, indent=1)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")
    print(summary_of(report))
    sys.exit(1 if report["differences"] or report["failures"] else 0)


def campaign(folder: Path, shares: dict[str, int], *, kills: int, seed: int) -> dict[str, Any]:
    """Returns the report."""
    started = time.perf_counter()
    processes.import_packages()
    from benchmarks.run_digest import LEFT_OUT

    inputs = folder / "inputs"
    processes.call(functools.partial(make_inputs, inputs, set(shares)), folder / "inputs.log")
    random_ = random.Random(seed)
    results = {}
    left = kills
    for number, (name, share) in enumerate(shares.items()):
        rest = sum(list(shares.values())[number:])
        mine = round(left * share / rest)
        left -= mine
        job = next(job for job in all_jobs(inputs) if job.name == name)
        results[name] = _disturb(job, folder, mine, random_)
    kinds = collections.Counter(
        kill["kind"] for result in results.values() for kill in result["kills"]
    )
    return {
        "kills": sum(len(result["kills"]) for result in results.values()),
        "kinds": dict(kinds),
        "runs": sum(len(result["runs"]) for result in results.values()),
        "compared": {
            unit: sum(
                run["compared"][unit] for result in results.values() for run in result["runs"]
            )
            for unit in ("files", "bytes")
        },
        "differences": sum(
            len(run["differences"]) for result in results.values() for run in result["runs"]
        ),
        "failures": sum(len(result["failures"]) for result in results.values()),
        "wall_seconds": time.perf_counter() - started,
        "seed": seed,
        "versions": _versions(),
        "not_compared": LEFT_OUT,
        "commands": results,
    }


def summary_of(report: dict[str, Any]) -> str:
    """Returns a table of a report."""
    lines = ["| command | kills | ends compared | files | bytes | differences | minutes |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, result in report["commands"].items():
        files, size = (sum(r["compared"][u] for r in result["runs"]) for u in ("files", "bytes"))
        differing = sum(len(run["differences"]) for run in result["runs"])
        lines.append(
            f"| {name} | {len(result['kills'])} | {len(result['runs'])} | {files:,} | {size:,} | "
            f"{differing} | {result['wall_seconds'] / 60:.1f} |"
        )
        lines += [f"{name}: {each}" for each in result["failures"]]
        lines += [f"{name}: {each}" for run in result["runs"] for each in run["differences"][:10]]
    lines.append(
        f"{report['kills']} kills ({report['kinds']}), {report['runs']} ends, "
        f"{report['differences']} differences, {report['failures']} failures, "
        f"{report['wall_seconds'] / 60:.1f} minutes"
    )
    return "\n".join(lines)


def _disturb(job: Job, folder: Path, kills: int, random_: random.Random) -> dict[str, Any]:
    """Returns what became of so many kills of a command."""
    started = time.perf_counter()
    place = folder / job.name
    usual, expected = _undisturbed(job, folder, place)
    _warm_up(job, folder, place, usual)
    from benchmarks.run_digest import differences

    done, runs, failures, unkilled = [], [], [], 0
    while len(done) < kills and len(failures) < 5:
        number = len(runs) + len(failures) + unkilled
        out, log = place / f"run-{number}" / "out", place / f"run-{number}.log"
        mine: list[dict] = []
        while True:
            aim = {}
            if len(mine) < KILLS_OF_A_RUN and len(done) < kills:
                within = GOES_ON_WITHIN if mine else 1.0
                aim = _aim(usual, random_, within, by_event=len(done) % 2 == 1)
            ended = _run(job, folder, out, log, aim)
            if ended.left_running:
                failures.append(f"run {number}: {ended.left_running} processes outlived a kill")
            if ended.code != -9:
                break
            kill = {
                "run": number,
                "kind": "by the clock" if "kill_at_cpu" in aim else "before a file operation",
                "wall_seconds": round(ended.wall_seconds, 3),
                "cpu_seconds": round(ended.cpu_seconds, 3),
                "phase": _phase(ended.last),
                "last": ended.last,
            }
            mine.append(kill)
            done.append(kill)
        if ended.code != 0:
            failures.append(f"run {number}: exit status {ended.code}: {_tail(log)}")
            continue
        if not mine:  # it ended before the kill came
            shutil.rmtree(out.parent)
            unkilled += 1
            continue
        found = _digest(folder, out)
        runs.append(
            {
                "kills": len(mine),
                "compared": _size(expected),
                "differences": differences(found, expected),
            }
        )
        if not runs[-1]["differences"]:
            shutil.rmtree(out.parent)
        told = f"{job.name}: {len(done)} of {kills} kills, {len(runs)} ends"
        print(f"{told}, {sum(len(run['differences']) for run in runs)} differences", flush=True)
    return {
        "undisturbed": {
            "wall_seconds": usual.wall_seconds,
            "cpu_seconds": usual.cpu_seconds,
            "file_operations": usual.events,
        },
        "phases": dict(collections.Counter(kill["phase"] for kill in done).most_common()),
        "kills": done,
        "runs": runs,
        "failures": failures,
        "wall_seconds": time.perf_counter() - started,
    }


def _undisturbed(job: Job, folder: Path, place: Path) -> tuple[processes.Ended, dict]:
    """Returns how the command ends by itself, with its programs compiled, and its digest."""
    place.mkdir()
    for name in ("compiling",) * (job.name in _COMPILES) + ("undisturbed",):
        out, log = place / name / "out", place / f"{name}.log"
        ended = _run(job, folder, out, log, {"keep_programs": True})
        if ended.code:
            raise RuntimeError(f"{job.name} ended with {ended.code}: {_tail(log)}")
    return ended, _digest(folder, out)


def _warm_up(job: Job, folder: Path, place: Path, usual: processes.Ended) -> None:
    """Compiles what a run needs only when it goes on from a checkpoint: stops one by SIGTERM."""
    if job.name not in _COMPILES:
        return
    out, log = place / "resumed" / "out", place / "resumed.log"
    for share in (0.6, None):
        aim = {"keep_programs": True}
        if share is not None:
            aim["terminate_at_cpu"] = share * usual.cpu_seconds
        _run(job, folder, out, log, aim)


def _aim(
    usual: processes.Ended, random_: random.Random, within: float, *, by_event: bool
) -> dict[str, Any]:
    if by_event:
        return {"kill_before_event": random_.randint(1, max(1, round(within * usual.events)))}
    return {"kill_at_cpu": random_.uniform(0.0, within * usual.cpu_seconds)}


def _run(job: Job, folder: Path, out: Path, log: Path, aim: dict[str, Any]) -> processes.Ended:
    out.parent.mkdir(exist_ok=True)
    process = processes.Process(
        [each.replace("{out}", str(out)) for each in job.arguments],
        folder,
        log,
        kill_before_event=aim.get("kill_before_event"),
        keep_programs=aim.get("keep_programs", False),
    )
    return process.wait(
        kill_at_cpu=aim.get("kill_at_cpu"), terminate_at_cpu=aim.get("terminate_at_cpu")
    )


def _phase(last: str) -> str:
    """Returns what a process was at, from the last that it did to a file: "write checkpoints"."""
    what, _, path = last.partition(" ")
    parts = Path(path).parts
    if not parts:
        return "before its first file"
    if "out" not in parts:
        return f"{what} inputs"
    inside = parts[parts.index("out") + 1 :]
    return f"{what} {inside[0] if len(inside) > 1 else 'a file of the folder'}"


def _digest(folder: Path, out: Path) -> dict[str, dict]:
    """Returns the digest of a run, made in another process: it opens a device of jax."""
    path = folder / "digest.json"

    def work():
        from benchmarks.run_digest import digest_folder

        path.write_text(json.dumps(digest_folder(out)), encoding="utf-8")

    processes.call(work, folder / "digest.log")
    return json.loads(path.read_text(encoding="utf-8"))


def _size(digest: dict[str, dict]) -> dict[str, int]:
    return {"files": len(digest), "bytes": sum(each["bytes"] for each in digest.values())}


def _prepare_environment(programs: str) -> None:
    """Sets, before jax is imported: CPU, quick compiling, one cache of programs, no hub."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": programs,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "TOKENIZERS_PARALLELISM": "false",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),  # no restart for large pages
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version()} | {
        name: version(name) for name in ("jax", "orbax-checkpoint", "numpy")
    }


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:])


if __name__ == "__main__":
    main()
