# SPDX-License-Identifier: Apache-2.0
"""Several models on one machine, each in a process of its own: speed, size, memory, cold start."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Candidate, Cases, ratios, time_in_turn
from edad_jax.files import open_beside, write_json
from edad_jax.machine import core_count, describe_machine, name_machine
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table


def benchmark_edge(
    candidates: Sequence[Candidate], cases: Cases, *, out: Path, threads: int
) -> list[dict[str, Any]]:
    """Returns what was measured of each candidate; writes out/edge.json, edge.md and edge.png.

    Args:
      candidates: the first one is what the others are compared with.
      cases: what to time of them.
      out: folder for the three files.
      threads: of each model; 0 for as many as there are cores.

    Raises:
      ValueError: a candidate's process failed; says what it said. Or sizes that no model has.
    """
    if min(*cases.batches, *cases.lengths) < 1:
        raise ValueError(
            f"got batches {list(cases.batches)} and lengths {list(cases.lengths)}, expected 1 or "
            "more"
        )
    cores = threads or core_count()
    for candidate in candidates:
        if min(cases.lengths) > candidate.longest:
            raise ValueError(
                f"{candidate.name} has {candidate.longest} positions, got lengths "
                f"{list(cases.lengths)}; give a shorter one"
            )
    names = ", ".join(candidate.name for candidate in candidates)
    print(f"{names}, in turn ...", file=sys.stderr, flush=True)
    measured = time_in_turn(candidates, cases, threads=cores)
    print("the same, one thread each ...", file=sys.stderr, flush=True)
    length = min(128, *(candidate.longest for candidate in candidates))
    alone = Cases([32], [length], cases.seconds, turns=1)  # one turn: this is not compared
    single = time_in_turn(candidates, alone, threads=1)
    rows = [
        {
            "name": candidate.name,
            "kind": candidate.kind,
            "file_mb": _size(candidate),
            **result,
            "rows_per_second_per_core": by_core["cells"][0]["rows_per_second"],
        }
        for candidate, result, by_core in zip(candidates, measured, single, strict=True)
    ]
    machine = describe_machine(cores)
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "edge.json",
        cases._asdict() | {"machine": machine, "one_core_length": length, "models": rows},
    )
    _draw(rows, out / "edge.png")
    with open_beside(out / "edge.md") as file:
        file.write(_markdown(rows, machine, length, cases.turns))
    return rows


def _size(candidate):
    """Returns MB of the model's file; None where it has none."""
    folder = Path(candidate.source)
    sizes = [
        path.stat().st_size
        for name in ("model.onnx", "model.safetensors")
        if (path := folder / name).is_file()
    ]
    return sizes[0] / 1e6 if sizes else None


def _case(row: Mapping, batch: int, length: int) -> Mapping | None:
    return next((c for c in row["cells"] if (c["batch"], c["length"]) == (batch, length)), None)


def _show_ratios(turns: np.ndarray) -> str:
    return f"{np.median(turns):.1f} ({turns.min():.1f} to {turns.max():.1f})"


def _markdown(rows, machine, length, turns):
    first = _case(rows[0], 1, 128)
    summary = []
    for row in rows:
        case = _case(row, 1, 128)
        summary.append(
            {
                "model": row["name"],
                "file (MB)": f"{row['file_mb']:.1f}" if row["file_mb"] else None,
                "cold start (s)": f"{row['cold_start']:.2f}",
                "memory (MB)": f"{row['memory_mb']:.0f}",
                "peak (MB)": f"{row['peak_memory_mb']:.0f}",
                "1 x 128, median (ms)": f"{case['median_ms']:.1f}" if case else None,
                "p95 (ms)": f"{case['p95_ms']:.1f}" if case else None,
                f"times as fast as {rows[0]['name']}": (
                    _show_ratios(ratios(first, case)) if first and case else None
                ),
                f"rows/s and core (32 x {length})": f"{row['rows_per_second_per_core']:.1f}",
            }
        )
    cells = [
        {
            "model": row["name"],
            "batch": cell["batch"],
            "length": cell["length"],
            "median (ms)": f"{cell['median_ms']:.1f}",
            "p95 (ms)": f"{cell['p95_ms']:.1f}",
            "rows/s": f"{cell['rows_per_second']:.1f}",
            "calls": cell["calls"],
        }
        for row in rows
        for cell in row["cells"]
    ]
    return "\n".join(
        [
            "# Models on a small machine",
            "",
            f"{name_machine(machine)}. Random rows without padding; cold start "
            "is the time from the start of the process until the model has read its "
            "first sentence, memory the largest resident size until then, peak that after all "
            f"cases. The models took turns, {turns} for each case: how many times as fast is the "
            "median of the turns (lowest to highest).",
            "",
            markdown_table(summary, list(summary[0])),
            "",
            "![latency against file size](edge.png)",
            "",
            "## Every case",
            "",
            markdown_table(cells, list(cells[0])),
            "",
        ]
    )


def _draw(rows, path):
    points = [
        {
            "name": row["name"],
            "score": 1e3 / case["median_ms"],
            "half": None,
        }
        for row in rows
        if (case := _case(row, 1, 128))
    ]
    path.unlink(missing_ok=True)
    if points:
        figures.plot_bars(path, points, "One row of 128 pieces at a time", "rows a second")
