# SPDX-License-Identifier: Apache-2.0
r"""Writes docs/results/gpu.md from what a field day left.

    python benchmarks/field_report.py runs/field
    python benchmarks/field_report.py runs/field --without=torch,finetune --out gpu.md

Every table has the device, the versions and the command of its figures. Where a part of the day
has no whole result, nothing is written and the part is named, with its reason: run it again
(field_day.sh --only), or leave it out with --without. A part with some figures but not all may be
taken as it is with --partial; what is missing then stands beside it. Figures of a rehearsal are
not written into docs/.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # instead of this folder

from benchmarks.field_day import PARTS, read_day  # noqa: E402
from benchmarks.field_part import ROOT  # noqa: E402
from benchmarks.field_tables import SECTIONS, reason_of  # noqa: E402
from edad_jax.files import open_beside  # noqa: E402
from edad_jax.machine import name_machine  # noqa: E402

OUT = ROOT / "docs" / "results" / "gpu.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the report, or says why not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("folder", type=Path, help="of day.json: --out of benchmarks/field_day.sh")
    for flag, meaning in (
        ("--without", "leave these parts out"),
        ("--partial", "take these as far as they have figures"),
    ):
        parser.add_argument(
            flag,
            type=lambda text: text.split(","),
            default=[],
            metavar="NAME,...",
            help=f"{meaning}: {', '.join(names)}",
        )
    parser.add_argument("--out", type=Path, default=OUT, help="default: docs/results/gpu.md")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.without, *given.partial} - set(names)):
        parser.error(f"got {', '.join(unknown)}, expected out of {', '.join(names)}")
    try:
        day = read_day(given.folder)
        if day["is_rehearsal"] and given.out.resolve().is_relative_to(ROOT / "docs"):
            raise ValueError("got a rehearsal's figures, expected a device's; give --out=FILE")
        text = make_report(day, without=given.without, partial=given.partial)
    except ValueError as error:
        sys.exit(f"ValueError: {error}")
    with open_beside(given.out) as file:
        file.write(text)
    print(given.out)


def make_report(
    day: Mapping[str, Any], *, without: Sequence[str] = (), partial: Sequence[str] = ()
) -> str:
    """Returns the report.

    Raises:
      ValueError: parts without a whole result that neither `without` nor `partial` names.
    """
    entries = {name: entry for name, entry in day["parts"].items() if name not in without}
    lacking = [
        f"{part.name}: {_why(day['parts'].get(part.name))}"
        for part in PARTS
        if part.name not in without
        and day["parts"].get(part.name, {}).get("status") != "done"
        and not (part.name in partial and entries.get(part.name, {}).get("figures"))
    ]
    if lacking:
        raise ValueError(
            "no whole result of\n  "
            + "\n  ".join(lacking)
            + "\nRun them again (benchmarks/field_day.sh --only=NAME), or give --without=NAME, or "
            "--partial=NAME where there are some figures"
        )
    lines = ["# On a GPU", "", *_head(day)]
    for part in PARTS:
        if part.name in entries:
            lines += ["", f"## {part.title[0].upper()}{part.title[1:]}", ""]
            lines += SECTIONS[part.name](entries[part.name]["figures"])
            lines += _tail(part.name, entries[part.name])
    if without:
        lines += ["", f"Left out: {', '.join(without)}."]
    return "\n".join([*lines, ""])


def _why(entry):
    if entry is None:
        return "it was not run"
    return f"{entry['status']}{': ' if entry.get('reason') else ''}{entry.get('reason', '')}"


def _head(day):
    versions = day["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions["packages"].items())
    note = " **A rehearsal: tiny sizes, no figure means anything.**" if day["is_rehearsal"] else ""
    return [
        f"Device: {versions['device'] or 'none'}. Machine: {name_machine(versions['machine'])}. "
        f"{packages}. All of it took {day['seconds']:.0f} s, one run each.{note} "
        "Written by `python benchmarks/field_report.py`; `benchmarks/field_day.sh` ran the parts.",
    ]


def _tail(name, entry):
    lines = [
        "",
        f"`benchmarks/field_day.sh --only={name}` (it runs `{entry['command']}`), "
        f"{entry['seconds']:.0f} s.",
    ]
    if entry["status"] != "done":
        lines.append(f"Not all of it: {entry['status']}, {entry['reason']}.")
    reasons = {key: value for key, value in entry["figures"].items() if reason_of(value)}
    lines += [f"- {key}: no figure, {reason_of(value)}" for key, value in reasons.items()]
    return lines


if __name__ == "__main__":
    main()
