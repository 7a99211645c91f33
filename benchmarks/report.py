# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of training came to, as JSON, as Markdown and as a picture."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from edad_jax.files import open_beside, write_json
from edad_jax.machine import name_machine
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table

_PAPER = "the paper: 21.6 h / 17.4 h = 1.24"


def write_report(result: Mapping[str, Any], out: Path) -> None:
    """Writes benchmark.json, benchmark.md and benchmark.png of what was measured so far."""
    write_json(out / "benchmark.json", result)
    with open_beside(out / "benchmark.md") as file:
        file.write(markdown_report(result))
    panels = [draw for name, draw in _PANELS.items() if result.get(name)]
    path = out / "benchmark.png"
    path.unlink(missing_ok=True)
    if panels:
        figure, all_axes = figures.new_figure((8, 3.2), len(panels), margin=0.4)
        for axes, draw in zip(all_axes, panels, strict=True):
            draw(axes, result)
        figures.save_figure(figure, path)


def markdown_report(result: Mapping[str, Any]) -> str:
    """Returns the whole report; parts that were not measured are not in it."""
    of_teacher = " x ".join(map(str, result["teacher"]))
    lines = [
        "# What an update costs",
        "",
        f"{result.get('devices', '?')} x {result.get('device', '?')}, {result.get('dtype', '?')}, "
        f"batch {_by(result['batch'])} pieces, teacher {of_teacher} (layers, width, heads, "
        f"feed-forward) and extension; {name_machine(result['machine'])}. Random weights and full "
        "rows; each figure from a process of its own.",
    ]
    for name, title, describe in _SECTIONS:
        if result.get(name):
            lines += ["", f"## {title}", "", *describe(result)]
    if result["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in result["notes"])]
    if any(result.get(name) for name in _PANELS):
        lines += ["", "![the same as a picture](benchmark.png)"]
    return "\n".join(lines) + "\n"


def _describe_steps(result):
    steps = result["steps"]
    rows = [
        {
            "step": method,
            "median (s)": _short(row["seconds"]),
            "p10-p90 (s)": f"{_short(row['seconds_p10'])}-{_short(row['seconds_p90'])}",
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "model GFLOP": _count(row["model_gflop"]),
            "TFLOP/s": f"{row['tflops']:,.2f}",
            "MFU": None if row["mfu"] is None else f"{row['mfu']:.1%}",
            "XLA GFLOP": _count(row["xla_gflop"]),
            "program (GB)": f"{row['program_gb']:.2f}",
            "peak (GB)": f"{row['peak_gb']:.2f}",
        }
        for method, row in steps.items()
    ]
    of_device = all(row["peak_of"] == "device" for row in steps.values())
    whose = "of a device" if of_device else "of the process, its compiler included"
    lines = [markdown_table(rows, list(rows[0])), ""]
    if ratio := result.get("two_stages_over_one_pass"):
        counted = f", {ratio['xla_gflop']:.2f} in XLA's" if "xla_gflop" in ratio else ""
        lines += [
            f"Two stages over one pass: {ratio['seconds']:.2f} in time, {ratio['model_gflop']:.2f} "
            f"in model FLOPs{counted} ({_PAPER}).",
            "",
        ]
    repeats = len(next(iter(steps.values()))["seconds_all"])
    return [*lines, f"{repeats} updates each. Peak memory is that {whose}."]


def _describe_profile(result):
    profile = result["profile"]
    columns = [
        *(f"{net} {way}" for net in ("teacher", "student") for way in ("forward", "backward")),
        "neither",
    ]
    shares = defaultdict(lambda: defaultdict(float))  # part -> column -> share
    for row in profile["rows"]:
        column = f"{row['net']} {row['direction']}" if row["net"] else "neither"
        for part in (row["part"], "all"):
            for each in (column, "all"):
                shares[part][each] += row["share"]
    whole = shares.pop("all")
    ordered = sorted(shares.items(), key=lambda item: -item[1]["all"])
    rows = [
        {"part": part} | {column: _percent(by_column.get(column)) for column in [*columns, "all"]}
        for part, by_column in [*ordered, ("all", whole)]
    ]
    return [
        markdown_table(rows, list(rows[0])),
        "",
        f"Shares of the {_short(profile['operation_seconds'])} s that an update's operations take, "
        "all threads or streams together, as the profiler saw them (an update then takes "
        f"{_short(profile['seconds'])} s). What XLA fuses counts where its last operation belongs.",
    ]


def _percent(share):
    return None if share is None else f"{share:.1%}"


def _describe_phases(result):
    rows = [
        {
            "update": row["phase"],
            "median (s)": _short(row["seconds"]),
            "of the whole": f"{row['share_of_whole']:.0%}",
            "model GFLOP": _count(row["model_gflop"]),
        }
        for row in result["phases"]
    ]
    return [markdown_table(rows, list(rows[0])), "", "What config.phases lets updates leave out."]


def _describe_torch(result):
    mine, peer = result.get("steps", {}), result["torch"]
    rows = []
    for mode, steps in peer["steps"].items():
        for method, row in steps.items():
            ratio = result["ours_over_torch"].get(mode, {}).get(method)
            rows.append(
                {
                    "step": method,
                    "torch": mode,
                    "torch, median (s)": _short(row["seconds"]),
                    "torch, tokens/s": f"{row['tokens_per_second']:,.0f}",
                    "torch, peak (GB)": _gigabytes(row.get("peak_gb")),
                    "ours, tokens/s": (
                        f"{mine[method]['tokens_per_second']:,.0f}" if method in mine else None
                    ),
                    "ours / torch": None if ratio is None else f"{ratio:.2f}",
                }
            )
    compiled = ", tuned by torch.compile" if peer.get("compiled") else ""
    told = f"torch {peer['torch']}{compiled}, {peer['device']}, batch {_by(peer['batch'])} pieces"
    if peer.get("threads"):
        told += f", {peer['threads']} threads"
    return [markdown_table(rows, list(rows[0])), "", f"{told}; in the same run, after ours."]


def _describe_compile(result):
    rows = [
        {
            "EDAD step": kind,
            "tracing (s)": f"{row['trace_seconds']:.1f}",
            "compiling (s)": f"{row['compile_seconds']:.1f}",
            "first update done (s)": f"{row['first_step_seconds']:.1f}",
        }
        for kind, row in result["compile"].items()
    ]
    return [
        markdown_table(rows, list(rows[0])),
        "",
        "Cold: an empty compilation cache. Warm: from the cache on disk, in a new process. The "
        "last column counts from the start of the process, weights and rows included.",
    ]


def _describe_scaling(result):
    kept = {"both": "one device", "batch": "same batch", "device": "same batch per device"}
    rows = [
        {
            "devices": row["devices"],
            "what": kept[row["per"]],
            "batch": row["batch"][0],
            "median (s)": _short(row["seconds"]),
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "efficiency": f"{row['efficiency']:.0%}",
        }
        for row in result["scaling"]
    ]
    return [
        markdown_table(rows, list(rows[0])),
        "",
        "Efficiency: tokens/s over those of one device times the number of devices.",
    ]


def _describe_input(result):
    row = result["input"]
    share = row.get("share_of_step")
    of_step = "" if share is None else f", {share:.2%} of the EDAD step's time"
    return [
        f"{row['rows']:,} rows on disk ({row['megabytes']:,.0f} MB): "
        f"{row['batches_per_second']:,.0f} batches a second, {1e3 * row['seconds']:.2f} ms "
        f"each{of_step}. A run that goes on at example {row['resumed_at']:,} has its rows open and "
        f"its batch made after {row['resumed_seconds']:.3f} s.",
    ]


def _describe_checkpoint(result):
    row = result["checkpoint"]
    return [
        f"{row['state_gb']:.2f} GB. A save holds the loop up for {row['hold_up_seconds']:.2f} s; "
        f"the files are on disk {row['background_seconds']:.1f} s later, and what the loop does "
        f"meanwhile takes {row['slower_seconds']:.2f} s longer than it would. Every 60 s that is "
        f"{row['share_of_a_minute']:.1%} of the time (an update: {_short(row['step_seconds'])} s).",
    ]


_SECTIONS = (
    ("steps", "Steps", _describe_steps),
    ("torch", "Against torch", _describe_torch),
    ("profile", "Where the time goes", _describe_profile),
    ("phases", "Phases", _describe_phases),
    ("compile", "Compiling", _describe_compile),
    ("scaling", "Devices", _describe_scaling),
    ("input", "Input", _describe_input),
    ("checkpoint", "Checkpoints", _describe_checkpoint),
)


def _draw_speed(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draws tokens a second of each step: ours, and torch's below."""
    figures.style_axes(axes, "Tokens a second", grid="x")
    sources = {"ours": result["steps"]}
    for mode, steps in result.get("torch", {}).get("steps", {}).items():
        sources[f"torch, {mode}"] = steps
    bars = [
        (method, name, steps[method]["tokens_per_second"], colour)
        for method in result["steps"]
        for (name, steps), colour in zip(
            sources.items(), figures.colours(len(sources)), strict=True
        )
        if method in steps
    ]
    for place, (_, name, speed, colour) in enumerate(bars):
        axes.barh(place, speed, color=colour)
        label = f"{speed:,.0f}" if len(sources) == 1 else f"{name}: {speed:,.0f}"
        axes.annotate(
            label,
            (speed, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=figures.NAME_SIZE,
        )
    axes.set_yticks(range(len(bars)), [method for method, *_ in bars])
    _finish_bars(axes)


def _draw_stages(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draws the one pass against the sum of the two stages."""
    steps = result["steps"]
    ratio = result["two_stages_over_one_pass"]["seconds"]
    figures.style_axes(axes, f"One pass against two stages: {ratio:.2f} in time", grid="x")
    start = 0.0
    axes.barh(0, steps["edad"]["seconds"], color=figures.BLUE)
    for method, colour in (("adaptation", figures.VERMILION), ("distillation", figures.GREEN)):
        axes.barh(1, steps[method]["seconds"], left=start, color=colour)
        axes.annotate(
            method,
            (start + steps[method]["seconds"] / 2, 1),
            ha="center",
            va="center",
            color="white",
            fontsize=figures.NAME_SIZE,
        )
        start += steps[method]["seconds"]
    axes.set_yticks([0, 1], ["EDAD", "two stages"])
    axes.set_xlabel("seconds for one batch")
    _finish_bars(axes)


def _draw_scaling(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draws tokens a second over the number of devices, beside a line of efficiency 1."""
    figures.style_axes(axes, "Devices")
    rows = result["scaling"]
    alone = rows[0]["tokens_per_second"]
    counts = sorted({row["devices"] for row in rows})
    ideal = [alone * count for count in counts]
    axes.plot(counts, ideal, "--", color=figures.GREY, label="efficiency 1")
    for per, label, colour in (
        ("batch", "same batch", figures.BLUE),
        ("device", "same batch per device", figures.VERMILION),
    ):
        points = [row for row in rows if row["per"] in (per, "both")]
        axes.plot(
            [row["devices"] for row in points],
            [row["tokens_per_second"] for row in points],
            "o-",
            color=colour,
            label=label,
            **figures.THICK,
        )
    axes.set_xticks(counts)
    axes.set_xlabel("devices")
    axes.set_ylabel("tokens a second")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=figures.NAME_SIZE)


_PANELS = {
    "steps": _draw_speed,
    "two_stages_over_one_pass": _draw_stages,
    "scaling": _draw_scaling,
}


def _finish_bars(axes):
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)


def _by(batch):
    return f"{batch[0]} x {batch[1]}"


def _short(seconds):
    decimals = 4 if seconds < 0.1 else 3 if seconds < 10 else 1
    return f"{seconds:.{decimals}f}"


def _count(value):
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _gigabytes(value):
    return None if value is None else f"{value:.2f}"
