# SPDX-License-Identifier: Apache-2.0
"""Where the time of an update goes: the profiler's operations, by net and by part of the net."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from benchmarks.step import WARM_UP, Case, Loop

# Of an operation's path of scopes, the words that say what it is for; the first rule that fits.
_PARTS = (
    ("MLM head and loss", {"mlm", "mlm_loss"}),
    ("NSP head and loss", {"nsp", "pooler", "nsp_loss"}),
    ("imitation", {"imitation"}),
    ("optimiser", {"optimizer"}),
    ("norms", {"attention_norm", "output_norm", "norm"}),
)
_ATTENTION_LAYERS = {"query", "key", "value", "output"}
_FEED_FORWARD = {"intermediate", "output"}
# Operations that only hold others, which are counted themselves.
_HOLDERS = ("while", "conditional", "call")
_HLO_LINE = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = .*?metadata=\{[^}]*op_name="([^"]*)"')


def time_operations(case: Case, *, repeats: int) -> dict:
    """Returns what `profile_loop` finds of a case's step."""
    return profile_loop(Loop(case), repeats=repeats)


def profile_loop(loop: Loop, *, repeats: int) -> dict:
    """Returns where the time of an update goes.

    Args:
      loop: a step, compiled.
      repeats: updates that the profiler watches.

    Returns:
      "seconds" (median of an update while it is watched), "operation_seconds" (an update's
      operations, over all threads or streams), "rows": a list of {"part", "net", "direction",
      "seconds", "share"}, the longest first (what XLA fused counts where the operation belongs
      that it named the whole by), and the machine: "device", "devices", "dtype", "batch".

    Raises:
      ValueError: the profiler saw no operation (a backend whose trace has another form).
    """
    for _ in range(WARM_UP):
        loop.update()
    with tempfile.TemporaryDirectory(prefix="edad-jax-profile-") as folder:
        with jax.profiler.trace(folder):
            seconds = [loop.update() for _ in range(repeats)]
        traces = sorted(Path(folder).rglob("*.xplane.pb"))
        spent = _spent(map(str, traces))
    if not spent:
        raise ValueError(
            f"profile: the profiler saw no operation on {jax.default_backend()}, expected events "
            "with an hlo_op; look at a trace by hand (jax.profiler.trace)"
        )
    whole = sum(spent.values())
    rows = [
        {
            "part": part,
            "net": net,
            "direction": direction,
            "seconds": value / repeats,
            "share": value / whole,
        }
        for (part, net, direction), value in _by_place(spent, scopes(loop.program_text())).items()
    ]
    return {
        "seconds": float(np.median(seconds)),
        "operation_seconds": whole / repeats,
        "rows": sorted(rows, key=lambda row: -row["seconds"]),
        **loop.machine(),
    }


def scopes(program: str) -> dict[str, str]:
    """Returns {operation: its path of scopes} of a compiled program's text."""
    found = map(_HLO_LINE.match, program.splitlines())
    return {match[1]: match[2] for match in found if match}


def place(scope: str) -> tuple[str, str, str]:
    """Returns (part, net, direction) of a path of scopes; "" where it has none of a kind.

    As in "jit(step)/transpose(jvp(teacher))/ExBert/base.block/layers_3/attention/query/dot".
    """
    words = set(re.split(r"[/()]", scope))
    net = next((net for net in ("teacher", "student") if net in words), "")
    direction = "" if not {"jvp", "teacher"} & words else "forward"
    if "transpose(" in scope:  # of a gradient; the operation of that name has no parenthesis
        direction = "backward"
    for part, marks in _PARTS:
        if words & marks:
            return part, net, direction
    in_block = any(word.startswith("layers_") for word in words)
    if "attention" in words:
        is_linear = words & _ATTENTION_LAYERS
        return "linear layers of attention" if is_linear else "attention", net, direction
    if in_block and words & _FEED_FORWARD:
        return "feed-forward", net, direction
    if net:
        return "GELU, residuals, gate" if in_block else "embeddings and the rest", net, direction
    return "other", net, direction


def _spent(traces: Iterable[str]) -> dict[str, float]:
    """Returns {operation: seconds} of all that the traces have."""
    spent = defaultdict(float)
    for trace in traces:
        for plane in jax.profiler.ProfileData.from_file(trace).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None and not str(name).startswith(_HOLDERS):
                        spent[str(name)] += event.duration_ns / 1e9
    return dict(spent)


def _by_place(spent: Mapping[str, float], named: Mapping[str, str]):
    """Returns {(part, net, direction): seconds}; operations without a scope are "other"."""
    places = defaultdict(float)
    for name, seconds in spent.items():
        places[place(named.get(name, ""))] += seconds
    return places
