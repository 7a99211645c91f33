# SPDX-License-Identifier: Apache-2.0
r"""Every reader against damaged files: no trace, no hang, bounded memory, nothing lost unsaid.

    pip install 'edad-jax[fuzz]'
    python benchmarks/fuzz_campaign.py --seconds=3600 --seed=0 --out report.json

Hypothesis damages a small real file of each kind (benchmarks/fuzz_kinds.py): bits, bytes, words
that formats know, parts cut out, doubled, moved, put in from another kind, JSON values of another
type. Each reader must give what it can, or stop with an error of its own, in its memory and time;
Hypothesis makes what breaks that as small as it can. First come the bombs (benchmarks/
fuzz_bombs.py). Exit status 1: something broke.

Linux only (memory is bounded by RLIMIT_AS). Readers run in processes of their own, each with
so many examples of one kind.
"""

import argparse
import faulthandler
import importlib.util
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import fuzz_bombs, fuzz_kinds  # noqa: E402

ROOT = Path(__file__).parents[1]
MEMORY_BYTES = 2 << 30  # that a reader may take above what its process has after its imports
SECONDS_OF_ONE = 20  # that a reader of a few kilobytes may take, on a busy machine
EXAMPLES = 150  # of one kind in a process


def main() -> None:
    """Runs the campaign, or, with --kind, one turn of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file for the report")
    parser.add_argument(
        "--kinds", default="", help="which, by their names, with | between; empty: all"
    )
    parser.add_argument("--bomb_megabytes", type=int, default=10_000, help="unpacked; 0: no bombs")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of a kind in a process")
    options = parser.parse_args()
    if importlib.util.find_spec("hypothesis") is None:
        sys.exit(
            "got no hypothesis, which makes the files; install it: pip install 'edad-jax[fuzz]'"
        )
    if options.kind:
        run_turn(options.kind, options.seed, options.examples)
        return
    report = {"seed": options.seed, "python": platform.python_version(), "seconds": 0.0}
    report["bombs"] = fuzz_bombs.run_all(options.bomb_megabytes) if options.bomb_megabytes else []
    run_turns(options, report)
    broken = [bomb for bomb in report["bombs"] if bomb["outcome"] != "bounded and named"]
    print(
        f"{report['examples']:,} damaged files of {len(report['kinds'])} kinds and "
        f"{len(report['bombs'])} bombs in {report['seconds']:,.0f} s: "
        f"{len(report['failures'])} failures, {len(broken)} bombs that were not bounded"
    )
    for failure in report["failures"]:
        print(f"  {failure['kind']}: {failure['error']}")
    sys.exit(bool(report["failures"] or broken))


def run_turns(options: argparse.Namespace, report: dict) -> None:
    """Adds the counts of the kinds, and what broke, to the report; goes on until time is up.

    The report is written after each turn: whoever stops the campaign has what it found till then.
    """
    names = options.kinds.split("|") if options.kinds else fuzz_kinds.kind_names()
    chosen = random.Random(options.seed)
    report |= {"examples": 0, "kinds": {name: {} for name in names}, "failures": []}
    start = time.monotonic()
    while time.monotonic() - start < options.seconds:
        for name in names:
            counts, failure = _start_turn(name, chosen.randrange(1 << 30), options.examples)
            of_kind = report["kinds"][name]
            for outcome, count in counts.items():
                of_kind[outcome] = of_kind.get(outcome, 0) + count
                report["examples"] += count
            if failure and failure["error"] not in {each["error"] for each in report["failures"]}:
                report["failures"].append(failure)
                print(f"{name}: {failure['error']}", file=sys.stderr, flush=True)
            report["seconds"] = round(time.monotonic() - start, 1)
            if options.out:
                text = json.dumps(report, indent=1, ensure_ascii=False)
                Path(options.out).write_text(f"{text}\n", encoding="utf-8")
            if time.monotonic() - start >= options.seconds:
                break


def _start_turn(kind: str, seed: int, examples: int) -> tuple[dict[str, int], dict | None]:
    """Returns the counts of a turn in a process of its own, and what broke, as small as it got."""
    with tempfile.TemporaryDirectory(prefix="edad-jax-fuzz-") as folder:
        words = [sys.executable, __file__, f"--kind={kind}", f"--seed={seed}"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
        environment |= {"TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        # Arrow's own allocator asks for a gigabyte of addresses at once, whatever it needs.
        environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        process = subprocess.Popen(
            [*words, f"--examples={examples}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        try:
            said, errors = process.communicate(timeout=60 + examples * SECONDS_OF_ONE)
        except subprocess.TimeoutExpired:
            process.kill()
            said, errors = process.communicate()
        last = next((line for line in reversed(said.splitlines()) if line.startswith("{")), "")
        found = json.loads(last) if last else {"counts": {}, "failure": None}
        if process.returncode:
            current = Path(folder) / "current"
            files = {p.name: p.read_bytes().hex()[:20_000] for p in sorted(current.glob("*"))}
            tail = errors.strip().splitlines()[-12:]
            found["failure"] = {
                "error": f"the process ended with {process.returncode}: {' | '.join(tail)[-600:]}",
                "files": files,
            }
        failure = found["failure"]
        return found["counts"], failure and {"kind": kind, "seed": seed} | failure


def run_turn(name: str, seed: int, examples: int) -> None:
    """Damages a kind's files so many times and reads them; prints counts and the least failure."""
    import logging
    import warnings

    import hypothesis
    from hypothesis import strategies as st

    from benchmarks import fuzz_damage

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    kind = fuzz_kinds.make_kind(name)
    others = [fuzz_kinds.TEXT.encode(), fuzz_kinds.PUBMED.encode(), *kind.files.values()]
    folder = Path(os.environ["TMPDIR"]) / "current"
    if (said := _read(kind, folder, dict(kind.files), packed=False)) != "read":  # imports are done
        sys.exit(f"{name}: not read while it is whole: {said}")
    faulthandler.enable()
    _bound_memory()
    counts: dict[str, int] = {}
    failure: list[dict] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(st.sampled_from(kind.targets), fuzz_damage.plans(others))
    def bears_damage(target, plan):
        damaged = fuzz_damage.apply(kind.files[target], plan, others)
        files = kind.files | {target: kind.pack(damaged)}
        outcome = _read(kind, folder, files)
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome not in ("read", "refused"):
            failure[:] = [
                {"error": outcome, "target": target, "file": files[target].hex()[:40_000]}
            ]
            raise AssertionError(outcome)

    try:
        bears_damage()
    except BaseException as error:
        if not failure:
            failure = [{"error": f"the campaign itself: {error!r}"[:600]}]
    told = {"read": counts.pop("read", 0), "refused": counts.pop("refused", 0)}
    told["failed"] = sum(counts.values())
    print(json.dumps({"counts": told, "failure": failure[0] if failure else None}), flush=True)


def _read(kind, folder: Path, files: dict[str, bytes], *, packed: bool = True) -> str:
    """Returns "read", "refused" (an error of the project's own), or what broke."""
    if not packed:
        files = {name: kind.pack(content) for name, content in files.items()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.alarm(SECONDS_OF_ONE)
    try:
        kind.read(folder)
    except AssertionError as error:
        return f"broken promise: {error}"
    except ValueError as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        if Path(at.filename).is_relative_to(ROOT / "edad_jax") and str(error).strip():
            return "refused"
        return _describe(error)
    except (Exception, RecursionError) as error:
        return _describe(error)
    finally:
        signal.alarm(0)
    return "read"


class _TooLongError(Exception):
    pass


def _time_is_up(*_: object) -> None:
    raise _TooLongError(f"not done after {SECONDS_OF_ONE} s")


def _describe(error: BaseException) -> str:
    """Returns kind and place of an error: without values, so that one fault has one name."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "edad_jax")]
    places = [ours[-1]] if ours else []
    places += [frames[-1]] if frames[-1] not in places else []
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(places))
    return f"{type(error).__name__} at {where}"


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
