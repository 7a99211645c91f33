# SPDX-License-Identifier: Apache-2.0
r"""Bits that flip and ends that are lost: each must be found and named, or change nothing.

    python benchmarks/corruption_campaign.py --trials=10000 --out corruption.json

Writes checkpoints, rows, a vocabulary and exported models as the commands do, at tiny size. A trial
flips one random bit of a random file of them, or cuts the file at a random place; reads as the
commands read; and puts the file back. It counts as

    named          an error of one line (ValueError, OSError) that names the file or its folder
    last good      of checkpoints: the broken one is named, the one before comes back bit for bit
    made again     of the counts beside a shard of rows: the shard is not trusted, and made anew
    no effect      what was read is the same, bit for bit

and everything else as a fault: other numbers without a word, an error that does not say which
file, another kind of exception. At the end: what checksums cost beside saving. Exit status 1 after
a fault.
"""

import argparse
import collections
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GOOD = ("named", "last good", "made again", "no effect")
TRUNCATED = 0.3  # of the trials; the others flip a bit
MEGABYTES = 256  # of the state whose saving is timed


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file for the report")
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="to time; 0: do not")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edad-jax-corruption-") as folder:
        report = campaign(Path(folder).resolve(), trials=options.trials, seed=options.seed)
        if options.megabytes:
            from benchmarks.checkpoints import time_checksums

            report["cost"] = time_checksums(Path(folder) / "timed", options.megabytes)
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(summary_of(report))
    sys.exit(1 if report["faults"] else 0)


def campaign(folder: Path, *, trials: int, seed: int) -> dict[str, Any]:
    """Returns the report; `folder` is empty."""
    from absl import logging

    from benchmarks.damaged_files import make_targets

    started = time.perf_counter()
    random_ = random.Random(seed)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # what is passed over is in the outcome
    outcomes: dict[str, collections.Counter] = {}
    by_fault: collections.Counter = collections.Counter()
    faults = []
    try:
        with make_targets(folder) as targets:
            left = trials
            for number, target in enumerate(targets):
                mine = round(left * target.share / sum(each.share for each in targets[number:]))
                left -= mine
                outcomes[target.name] = collections.Counter()
                for _ in range(mine):
                    fault = damage(target, random_)
                    by_fault[fault["fault"]] += 1
                    outcomes[target.name][fault["outcome"]] += 1
                    if fault["outcome"] not in GOOD:
                        faults.append({"target": target.name} | fault)
            files = {
                target.name: [path.relative_to(folder).as_posix() for path in target.files]
                for target in targets
            }
    finally:
        logging.set_verbosity(verbosity)
    return {
        "trials": trials,
        "seed": seed,
        "faults": len(faults),
        "by_kind": dict(by_fault),
        "outcomes": {name: dict(counts) for name, counts in outcomes.items()},
        "files": files,
        "found": faults[:100],
        "wall_seconds": time.perf_counter() - started,
    }


def damage(target: Any, random_: random.Random) -> dict[str, Any]:
    """Returns what became of one damaged file, which is whole again afterwards."""
    path = random_.choice([path for path in target.files if path.stat().st_size])
    content = path.read_bytes()
    if random_.random() < TRUNCATED:
        length = random_.randrange(len(content))
        fault, damaged = f"cut at byte {length:,} of {len(content):,}", content[:length]
    else:
        place, bit = random_.randrange(len(content)), random_.randrange(8)
        fault, damaged = f"bit {bit} of byte {place:,}", bytearray(content)
        damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        outcome = target.outcome(path)
    finally:
        path.write_bytes(content)
    kind = fault.split()[0]
    return {"fault": kind, "where": f"{path.name}: {fault}", "outcome": outcome}


def summary_of(report: dict[str, Any]) -> str:
    """Returns a table of a report."""
    lines = [f"| files | trials | {' | '.join(GOOD)} | faults |", "|---" * (len(GOOD) + 3) + "|"]
    for name, counts in report["outcomes"].items():
        good = [counts.get(outcome, 0) for outcome in GOOD]
        trials = sum(counts.values())
        cells = [name, f"{trials:,}", *(f"{count:,}" for count in good), str(trials - sum(good))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"{each['target']}: {each['where']}: {each['outcome']}" for each in report["found"]]
    lines.append(
        f"{report['trials']:,} trials ({report['by_kind']}), {report['faults']} faults, "
        f"{report['wall_seconds'] / 60:.1f} minutes"
    )
    if "cost" in report:
        cost = report["cost"]
        lines.append(
            f"checkpoint of {cost['megabytes']:,.0f} MB: the loop waits for "
            f"{cost['hold_up_seconds']:.3f} s of {cost['save_seconds']:.2f} s; after the commit "
            f"{cost['end_seconds']:.2f} s with checksums, {cost['flush_seconds']:.2f} s without: "
            f"{cost['share']:.1%} of a save; {cost['hash_cpu_seconds']:.2f} "
            f"of {cost['save_cpu_seconds']:.2f} s of CPU time"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
