# SPDX-License-Identifier: Apache-2.0
"""What an update may take by its forecast: benchmarks/budgets.json, which CI holds it to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edad_jax.files import read_json, write_json

BUDGETS = Path(__file__).with_name("budgets.json")
# Which step an entry is of; all of them have to agree.
_KEY = (
    *("target", "quick", "method", "config", "overrides"),
    *("teacher", "words", "student", "batch", "dtype"),
)
# Figure -> by which share it may be over its budget: another version of XLA, or another machine,
# orders and fuses a little differently. A product in float32 is one too many.
_TOLERANCE = {
    "milliseconds": 0.03,
    "gb_moved": 0.03,
    "peak_gb": 0.03,
    "kernels": 0.05,
    "float32_products": 0.0,
}


def budget_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry that these figures make: which step it is, and what is held to."""
    entry = {name: figures[name] for name in _KEY}
    entry |= {name: figures[name] for name in _TOLERANCE if name != "peak_gb"}
    entry["peak_gb"] = figures["memory"]["peak"]
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in entry.items()
    }


def check(figures: Mapping[str, Any], path: Path = BUDGETS) -> list[str]:
    """Returns a line for every figure that is over its budget: what it got, and the budget.

    Raises:
      ValueError: there is no budget of this step.
    """
    got = budget_of(figures)
    budget = next((each for each in _read(path) if _is_same(each, got)), None)
    if budget is None:
        raise ValueError(
            f"{path}: has no budget of {_describe(got)}; make one with --renew instead of --check"
        )
    over = [
        f"{name}: got {got[name]:,}, the budget is {budget[name]:,} (+{tolerance:.0%})"
        for name, tolerance in _TOLERANCE.items()
        if got[name] > budget[name] * (1 + tolerance)
    ]
    return [f"{_describe(got)}: {line}" for line in over]


def renew(figures: Mapping[str, Any], path: Path = BUDGETS) -> None:
    """Writes the budget of this step, in place of an older one."""
    entry = budget_of(figures)
    others = [each for each in _read(path) if not _is_same(each, entry)]
    write_json(path, sorted([*others, entry], key=_describe))


def _read(path):
    if not path.exists():
        return []
    return read_json(path, expected="the budgets of launch/compile.py --renew")


def _is_same(one, other):
    return all(one.get(name) == other[name] for name in _KEY)


def _describe(entry):
    sizes = " and ".join(" x ".join(map(str, entry[net])) for net in ("teacher", "student"))
    rows, length = entry["batch"]
    options = " ".join(["", *entry["overrides"]])
    told = f"{entry['method']} of {entry['config']}{options} on {entry['target']}"
    return f"{told}, {sizes}, {rows} x {length} pieces"
