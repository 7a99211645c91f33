# SPDX-License-Identifier: Apache-2.0
"""What an update will take, as JSON, as Markdown and as a picture."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.roofline import BANDWIDTH_SHARE, LAUNCH_SECONDS, PEAK_SHARE
from edad_jax.files import open_beside, write_json
from edad_jax.report import figures as pictures
from edad_jax.report.tables import markdown_table

_COLUMNS = (
    *(f"{net} {way}" for net in ("teacher", "student") for way in ("forward", "backward")),
    "neither",
)


def write_report(figures: Mapping[str, Any], out: Path) -> None:
    """Writes compile.json, compile.md and compile.png."""
    write_json(out / "compile.json", figures)
    with open_beside(out / "compile.md") as file:
        file.write(markdown_report(figures))
    figure, (left, right) = pictures.new_figure((7, 4.2), 2, columns=2)
    _draw_places(left, figures)
    _draw_memory(right, figures)
    pictures.save_figure(figure, out / "compile.png")


def markdown_report(figures: Mapping[str, Any]) -> str:
    """Returns the whole report."""
    teacher, student = (" x ".join(map(str, figures[net])) for net in ("teacher", "student"))
    rows, length = figures["batch"]
    lines = [
        f"# What an update will take on {figures['target']}",
        "",
        f"{figures['devices']} x {figures['device']}, {figures['method']}, {figures['dtype']}, "
        f"batch {rows} x {length} pieces, teacher {teacher}, student {student} (layers, width, "
        "heads, feed-forward) and extensions. **Predicted from the compiled program; nothing of "
        "this was run.** Compiled in "
        f"{figures['trace_seconds'] + figures['compile_seconds']:.0f} s.",
    ]
    for title, describe in _SECTIONS:
        if told := describe(figures):
            lines += ["", f"## {title}", "", *told]
    return "\n".join([*lines, "", "![the same as a picture](compile.png)"]) + "\n"


def _describe_update(figures):
    row = {
        "ms": f"{figures['milliseconds']:.1f}",
        "tokens/s": f"{figures['tokens_per_second']:,.0f}",
        "MFU": f"{figures['mfu']:.1%}",
        "GB moved": f"{figures['gb_moved']:.1f}",
        "kernels": figures["kernels"],
        "at the floor": (
            f"{figures['floor_kernels']:,} ({figures['floor_milliseconds']:.1f} ms)"
            if figures["floor_kernels"]
            else None
        ),
        "float32 products": figures["float32_products"],
        "peak GB": f"{figures['memory']['peak']:.2f} of {figures['memory']['device']:g}",
    }
    lines = [markdown_table([row], list(row))]
    if measured := figures.get("measured"):
        predicted, got = figures["milliseconds"], 1e3 * measured["seconds"]
        beside = {
            "": "of predicted",
            "ms": f"{got:.1f} measured, {predicted:.1f} predicted ({got / predicted:.2f})",
            "tokens/s": f"{measured['tokens_per_second']:,.0f}",
            "MFU": None if measured["mfu"] is None else f"{measured['mfu']:.1%}",
            "peak GB": f"{measured['peak_gb']:.2f} measured, {figures['memory']['peak']:.2f} "
            "predicted",
        }
        lines += ["", "Measured here, on such devices:", "", markdown_table([beside], list(beside))]
    return lines


def _describe_corpus(figures):
    if not (corpus := figures.get("corpus")):
        return []
    cost = "" if corpus["cost"] is None else f", {corpus['cost']:,.2f} at the price given"
    return [
        f"{corpus['tokens']:,.0f} tokens, {corpus['epochs']:g} epochs: "
        f"**{corpus['hours']:,.1f} hours**{cost}, without evaluation and start."
    ]


def _describe_memory(figures):
    memory, largest = figures["memory"], figures["largest_batch"]
    row = {name: f"{memory[name]:.2f}" for name in ("arguments", "temporaries", "peak", "device")}
    how = {
        "one program": "by a straight line from this program alone, as if all but its arguments "
        "grew with the rows; --fit compiles half of the batch too",
        "two programs": "by a straight line through the peaks of this batch and of half of it",
    }[largest["from"]]
    return [
        markdown_table([{"GB of a device": ""} | row], ["GB of a device", *row]),
        "",
        f"The largest batch that fits {largest['share_of_memory']:.0%} of the memory: about "
        f"{largest['rows']:,} rows, {how}: {largest['gb_fixed']:.2f} GB and "
        f"{1e3 * largest['gb_a_row']:.1f} MB a row of the batch.",
    ]


def _describe_places(figures):
    spent = defaultdict(lambda: defaultdict(float))  # part -> column -> ms
    moved = defaultdict(float)
    for row in figures["rows"]:
        column = f"{row['net']} {row['direction']}".strip() if row["net"] else "neither"
        for part in (row["part"], "all"):
            moved[part] += row["gb"]
            for each in (column, "all"):
                spent[part][each] += 1e3 * row["seconds"]
    whole = spent.pop("all")
    ordered = sorted(spent.items(), key=lambda item: -item[1]["all"])
    rows = [
        {"part (ms)": part}
        | {column: _milliseconds(by.get(column)) for column in [*_COLUMNS, "all"]}
        | {"GB": f"{moved[part]:.1f}"}
        for part, by in [*ordered, ("all", whole)]
    ]
    return [
        markdown_table(rows, list(rows[0])),
        "",
        "What XLA fuses counts where its last operation belongs.",
    ]


def _describe_products(figures):
    rows = [
        {
            "products": name,
            "count": row["count"],
            "TFLOP": f"{row['tflop']:.3f}",
            "ms": _milliseconds(row["milliseconds"]),
        }
        for name, row in figures["products"].items()
    ]
    return [markdown_table(rows, list(rows[0]))]


def _describe_longest(figures):
    rows = [
        {
            "ms": f"{row['ms']:.2f}",
            "count": row["count"],
            "MB each": f"{1e3 * row['gb'] / row['count']:.1f}",
            "kernel": row["kernel"],
            "result": row["result"],
            "scope": row["scope"],
        }
        for row in figures["longest"]
    ]
    return [markdown_table(rows, list(rows[0]))]


def _describe_collectives(figures):
    sums = figures["collectives"]
    if figures["devices"] == 1 or not sums:
        return []
    rows = [
        {
            "kind": row["kind"],
            "times": row["times"],
            "arrays in it": row["arrays"],
            "MB": f"{row['megabytes']:.1f}",
            "ms": _milliseconds(1e3 * row["seconds"]),
            "hidden by work (ms)": _milliseconds(1e3 * row["hidden_seconds"]),
        }
        for row in sums
    ]
    total = sum(row["megabytes"] for row in sums)
    exposed = 1e3 * sum(row["seconds"] - row["hidden_seconds"] for row in sums)
    return [
        markdown_table(rows, list(rows[0])),
        "",
        f"{len(sums)} in all, {total:,.1f} MB; the devices wait {exposed:.2f} ms for them.",
    ]


def _describe_frozen(figures):
    found = figures["frozen_gradients"]
    if not found:
        return ["No product and no sum makes a gradient of a frozen weight."]
    return [f"**{len(found)} operation(s) make gradients of frozen weights:**", ""] + [
        f"- {line}" for line in found
    ]


def _describe_assumptions(figures):
    common = [
        "- Kernels run one after the other; copies between memories of a device, and sums over "
        "devices with work between their start and their end, cost nothing as far as that work "
        f"lasts. Sums: a ring, at {BANDWIDTH_SHARE:.0%} of a device's links.",
        "- MFU: model FLOPs (benchmarks/flops.py) over the maker's dense bfloat16 peak.",
    ]
    if figures["device"].startswith("TPU"):
        return [
            "- Time: the static cycles that the TPU's compiler estimates for each operation, at "
            "the clock at which the matrix units make the maker's peak.",
            "- GB moved: operands and results that lie in HBM, in full tiles, and copies to and "
            "from the chip's own memory.",
            *common,
        ]
    return [
        f"- A kernel takes the longest of: its bytes at {BANDWIDTH_SHARE:.0%} of the memory's "
        f"bandwidth; its FLOPs at {PEAK_SHARE:.0%} of the peak of their type; "
        f"{1e6 * LAUNCH_SECONDS:.0f} microseconds (the floor).",
        "- Products of float32 run as TF32, XLA's default on GPUs, at half of bfloat16's peak; "
        "those that ask for the highest precision without matrix units.",
        "- cuDNN's attention: 4 x rows x heads x length^2 x width of a head FLOPs forward, 2.5 "
        "times that backward. Kernels of Triton or Pallas: their operands and results, no FLOPs.",
        "- Bytes: every operand is read from memory once, whatever the caches hold; of slices, "
        "gathers and updates in place, the part.",
        "- Nothing is autotuned: there is no GPU to try kernels on.",
        *common,
    ]


_SECTIONS = (
    ("An update", _describe_update),
    ("A corpus", _describe_corpus),
    ("Memory", _describe_memory),
    ("Where the time goes", _describe_places),
    ("Products", _describe_products),
    ("The longest kernels", _describe_longest),
    ("Sums over devices", _describe_collectives),
    ("Frozen weights", _describe_frozen),
    ("Assumptions", _describe_assumptions),
)


def _draw_places(axes, figures):
    spent = defaultdict(lambda: defaultdict(float))
    for row in figures["rows"]:
        spent[row["part"]][row["net"] or "neither"] += 1e3 * row["seconds"]
    parts = sorted(spent, key=lambda part: -sum(spent[part].values()))
    pictures.style_axes(axes, f"Milliseconds: {figures['milliseconds']:.1f}", grid="x")
    left = [0.0] * len(parts)
    nets = ("teacher", "student", "neither")
    for net, colour in zip(nets, (pictures.BLUE, pictures.VERMILION, pictures.GREY), strict=True):
        widths = [spent[part][net] for part in parts]
        axes.barh(range(len(parts)), widths, left=left, color=colour, label=net)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(parts)), parts)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("ms of an update, predicted")
    axes.legend(frameon=False, fontsize=pictures.NAME_SIZE, loc="lower right")


def _draw_memory(axes, figures):
    memory = figures["memory"]
    rest = memory["peak"] - memory["arguments"]
    pictures.style_axes(axes, f"Memory of a device: {memory['peak']:.1f} GB", grid="x")
    axes.barh(0, memory["arguments"], color=pictures.BLUE, label="weights, moments, batch")
    axes.barh(0, rest, left=memory["arguments"], color=pictures.VERMILION, label="temporaries")
    axes.axvline(memory["device"], color=pictures.GREY, linestyle="--", label="what it has")
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    axes.set_xlim(left=0)
    axes.set_xlabel("GB at the peak")
    axes.legend(frameon=False, fontsize=pictures.NAME_SIZE, loc="upper center")


def _milliseconds(value):
    return None if value is None else f"{value:.2f}"
