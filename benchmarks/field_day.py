# SPDX-License-Identifier: Apache-2.0
r"""Minutes on a borrowed GPU, spent in order of worth: runs the parts and keeps what each found.

    benchmarks/field_pack.sh --teacher ... --rows ... --ner ...   # before: what travels
    benchmarks/field_day.sh --rehearse                            # before: on a CPU, tiny sizes
    benchmarks/field_day.sh --parts runs/parts --out runs/field   # on the borrowed machine
    python benchmarks/field_report.py runs/field                  # after: docs/results/gpu.md

--parts are checked against their manifest and unpacked into --pack before the first second is
spent; where they come one after the other, --arrive does only that, with each. Then the parts of
the day, each in a process with its own limit:

{parts}

A part that fails or runs out of time costs only itself: its reason and the figures that it had
stand in OUT/day.json, which is written anew after every figure. OUT/day.log has what all of them
printed. A limit shrinks where less time is left than the parts after it need at least (--seconds
is for all of them together). With --only, what day.json has of the other parts stays. Steps are
compiled beside the core tests, since compiling takes the processor, and timed after them, one
after the other. A pack of wheels alone is enough for --only=core,steps,torch,speed.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # instead of this folder

from benchmarks import field_pack  # noqa: E402
from benchmarks.field_part import ROOT  # noqa: E402
from benchmarks.field_runner import (  # noqa: E402
    REHEARSAL_SLOWNESS,
    Part,
    environment,
    run_day,
    tell,
)
from edad_jax.files import read_json  # noqa: E402


def _script(name: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.field_{name}")


PARTS = (
    Part(
        "core",
        "core tests on the device: against float32, torch's golden files, resume",
        75,
        _script("core"),
    ),
    Part(
        "steps",
        "EDAD and the two stages, batches, attention, forecast beside measured, a profile",
        110,
        _script("steps"),
        is_prepared_beside=True,
    ),
    Part("torch", "the tuned torch peer, the same updates", 40, _script("torch")),
    Part(
        "train",
        "EDAD and two stages on domain text in equal time",
        290,
        _script("train"),
        needs=("rows", "teacher"),
    ),
    Part(
        "finetune",
        "both students on named entities, five seeds at once",
        90,
        _script("finetune"),
        needs=("ner",),
        least=40,
    ),
    Part("speed", "the student's encoder, batches of 1 and 128", 30, _script("speed"), least=20),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the day; returns 1 where a part has no result."""
    given = _parse(arguments)
    try:
        missing = _arrive(given)
    except ValueError as error:
        sys.exit(f"ValueError: {error}")
    if given.arrive or missing:
        return 3 if missing else 0
    chosen = [part for part in PARTS if not given.only or part.name in given.only]
    day = run_day(
        chosen,
        out=given.out,
        work=given.work,
        pack=given.pack,
        seconds=given.seconds * (REHEARSAL_SLOWNESS if given.rehearse else 1.0),
        is_rehearsal=given.rehearse,
        keeps_others=bool(given.only),
    )
    return int(any(day["parts"][part.name]["status"] != "done" for part in chosen))


def _arrive(given) -> list[str]:
    """Returns the parts of the pack that have not come; tells of them."""
    if given.rehearse and given.parts is None:
        given.pack, given.parts = given.work / "pack", given.work / "parts"
        words = [sys.executable, "-m", "benchmarks.field_rehearsal", str(given.work.resolve())]
        subprocess.run(words, cwd=ROOT, env=environment(given.work, True), check=True)
    if given.parts is None:
        return []
    missing = field_pack.arrive(given.parts, given.pack)
    if missing:
        tell(field_pack.describe(missing, given.parts, given.pack))
    else:
        tell(f"all parts of the pack are in {given.pack}")
    return missing


def list_parts(parts: Sequence[Part] = PARTS) -> str:
    """Returns a line for every part."""
    return "\n".join(f"    {each.name:9} {each.seconds:4.0f} s  {each.title}" for each in parts)


def read_day(folder: Path) -> Mapping[str, Any]:
    """Returns what OUT/day.json holds.

    Raises:
      ValueError: there is none, or it is not whole.
    """
    return read_json(
        folder / "day.json", expected="what benchmarks/field_day.sh left; give its --out"
    )


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="benchmarks/field_day.sh",
        description=__doc__.format(parts=list_parts()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--out", type=Path, default=Path("runs/field"), help="for day.json, day.log"
    )
    parser.add_argument("--work", type=Path, help="for all else; default: OUT-work")
    parser.add_argument(
        "--parts", type=Path, help="what travelled, as benchmarks/field_pack.sh left it"
    )
    parser.add_argument("--arrive", action="store_true", help="check and unpack --parts, and stop")
    parser.add_argument("--pack", type=Path, default=Path("runs/pack"), help="where it is unpacked")
    parser.add_argument(
        "--seconds",
        type=float,
        default=560.0,
        help="for all parts together; a rehearsal's are more",
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,...",
        help=f"these parts: {', '.join(names)}",
    )
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny sizes")
    given = parser.parse_args(arguments)
    given.work = given.work or given.out.with_name(f"{given.out.name}-work")
    if unknown := sorted(set(given.only) - set(names)):
        parser.error(f"--only: got {', '.join(unknown)}, expected out of {', '.join(names)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
