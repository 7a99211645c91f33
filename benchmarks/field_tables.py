# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results/gpu.md: for each part of a field day, what shows its figures."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.targets import TARGETS
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.result import show_interval
from edad_jax.tasks.scores import mean_interval


def reason_of(value: Any) -> str:
    """Returns the end of why there is no figure, in one line; nothing where there is one."""
    reason = value.get("reason") if isinstance(value, Mapping) else None
    return " ".join(reason.split())[-300:] if reason else ""


def _measured(figures, *keys):
    """Returns the figures that have been measured; with keys, those that have them."""
    return {
        name: value
        for name, value in figures.items()
        if isinstance(value, Mapping)
        and not reason_of(value)
        and all(value.get(key) is not None for key in keys)
    }


def _core(figures):
    rows = [
        {
            "test": name,
            "holds": "yes" if value["ok"] else "**no**",
            "largest relative error": float(value["worst"]),
            "bound": float(value["bound"]),
            "where": value["where"],
        }
        for name, value in _measured(figures, "ok", "worst").items()
    ]
    return [_table(rows)]


def _steps(figures):
    steps = _measured(figures, "seconds")
    rows, largest = [], []
    for name, value in steps.items():
        forecast = value.get("forecast", {})
        rows.append(
            {
                "step": name,
                "batch": " x ".join(map(str, value["batch"])),
                "ms": f"{1e3 * value['seconds']:.1f}",
                "10% to 90%": f"{1e3 * value['seconds_p10']:.1f} to "
                f"{1e3 * value['seconds_p90']:.1f}",
                "in a row": f"{1e3 * value['seconds_in_a_row']:.1f}",
                "forecast": _number(forecast.get("milliseconds"), 1),
                "in a row / forecast": _ratio(
                    1e3 * value["seconds_in_a_row"], forecast.get("milliseconds")
                ),
                "tokens/s": f"{_tokens(value):,.0f}",
                "MFU": _percent(value["model_gflop"], value["seconds_in_a_row"], forecast),
                "peak GB": _number(value["peak_gb"], 1),
                "forecast GB": _number(forecast.get("memory", {}).get("peak"), 1),
                "compiled in s": _number(value["compile_seconds"], 0),
            }
        )
        if flags := value.get("xla_flags"):
            largest.append(f"{name}: compiled with `{flags}`.")
        if value.get("others_compiled_meanwhile"):
            largest.append(f"{name}: timed while other steps were still being compiled.")
        if reason := reason_of(forecast):
            largest.append(f"{name}: no forecast, {reason}.")
    lines = [
        "Milliseconds of an update: the median with the host waiting for each, and of updates in a "
        "row, as training runs them. The forecast is the roofline of `launch/compile.py`, of the "
        f"very program that ran ({_device(steps)}, {_dtype(steps)}).",
        "",
        _table(rows),
    ]
    if {"EDAD", "adaptation", "distillation"} <= set(steps):
        two = sum(steps[name]["seconds_in_a_row"] for name in ("adaptation", "distillation"))
        ratio = two / steps["EDAD"]["seconds_in_a_row"]
        lines += ["", f"Two stages take {ratio:.2f} times the single pass (the paper: 1.24)."]
    lines += ["", *largest] if largest else []
    for name, value in steps.items():
        if profile := value.get("profile"):
            lines += ["", f"### Where {name}'s time goes", "", *_profile(profile, value)]
    return lines


def _profile(profile, step):
    if reason := reason_of(profile):
        return [f"The profiler did not tell: {reason}."]
    modelled = {
        (row["part"], row["net"], row["direction"]): row["seconds"]
        for row in step.get("forecast", {}).get("rows", ())
    }
    rows = [
        {
            "part": row["part"],
            "net": row["net"] or None,
            "direction": row["direction"] or None,
            "ms": f"{1e3 * row['seconds']:.2f}",
            "share": f"{100 * row['share']:.1f}%",
            "forecast": _number(
                1e3 * modelled[key]
                if (key := (row["part"], row["net"], row["direction"])) in modelled
                else None,
                2,
            ),
        }
        for row in profile["rows"]
        if row["share"] >= 0.005
    ]
    return [_table(rows), "", "Parts below 0.5% are left out."]


def _torch(figures):
    rows = []
    for method, value in _measured(figures, "steps").items():
        for mode, methods in value["steps"].items():
            rows += [
                {
                    "torch": f"{value['torch']}, {mode}",
                    "step": step,
                    "ms": f"{1e3 * row['seconds']:.1f}",
                    "tokens/s": f"{row['tokens_per_second']:,.0f}",
                    "peak GB": _number(row["peak_gb"], 1),
                }
                for step, row in methods.items()
                if step == method
            ]
    return [
        "Without torch.compile; what is tuned stands in benchmarks/torch_update.py.",
        "",
        _table(rows),
    ]


def _train(figures):
    plan = figures["plan"]
    runs = _measured(figures, "pieces")
    rows = []
    for name, value in runs.items():
        end = value["heldout"]["end"]
        rows.append(
            {
                "training": name,
                "updates": value["updates"],
                "pieces": f"{value['pieces'] / 1e6:.1f}M",
                "s": f"{value['seconds']:.1f}",
                "tokens/s": f"{value['tokens_per_second']:,.0f}",
                "student: MLM accuracy": _share(end.get("heldout/student_mlm_accuracy")),
                "student: MLM loss": _number(end.get("heldout/student_mlm_loss"), 3),
                "teacher: MLM accuracy": _share(end.get("heldout/teacher_mlm_accuracy")),
                "agreement": _share(end.get("heldout/agreement")),
            }
        )
    lines = [
        f"Planned: {plan['seconds']:.0f} s of updates each way, "
        + ("by the steps measured above." if plan["measured"] else "by assumed times of a step."),
        "",
        _table(rows),
    ]
    if {"EDAD", "adaptation", "distillation"} <= set(runs):
        two = runs["adaptation"]["seconds"] + runs["distillation"]["seconds"]
        lines += [
            "",
            f"The single pass took {runs['EDAD']['seconds']:.1f} s for "
            f"{runs['EDAD']['pieces'] / 1e6:.1f}M pieces, the two stages {two:.1f} s for "
            f"{runs['distillation']['pieces'] / 1e6:.1f}M pieces, read twice.",
        ]
    return lines


def _finetune(figures):
    rows: dict[str, dict] = {}
    for name, value in _measured(figures, "seeds").items():
        student, data = name.rsplit(", ", 1)
        scores = [seed["test"]["f1"] for seed in value["seeds"].values() if not seed["failed"]]
        row = rows.setdefault(student, {"student": student})
        row[data] = show_interval(mean_interval(scores)._asdict()) if scores else "no finite seed"
    return [
        "Entity F1 of the test split, mean ± half the 95% interval over the seeds.",
        "",
        _table(list(rows.values())),
    ]


def _speed(figures):
    rows = [
        {
            "encoder, batch": name,
            "pieces": value["batch"][1],
            "ms, waited for": f"{1e3 * value['seconds']:.2f}",
            "ms, in a row": f"{1e3 * value['seconds_in_a_row']:.2f}",
            "rows/s": f"{value['rows_per_second']:,.0f}",
        }
        for name, value in _measured(figures, "rows_per_second").items()
    ]
    return [_table(rows)]


SECTIONS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "core": _core,
    "steps": _steps,
    "torch": _torch,
    "train": _train,
    "finetune": _finetune,
    "speed": _speed,
}


def _table(rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return markdown_table(rows, columns) if rows else "No figure."


def _tokens(value):
    return value["batch"][0] * value["batch"][1] / value["seconds_in_a_row"]


def _percent(gflop, seconds, forecast):
    target = TARGETS.get(forecast.get("target"))
    return None if target is None else f"{gflop / seconds / target.bfloat16_tflops / 10:.1f}%"


def _number(value, digits):
    return None if value is None else f"{value:.{digits}f}"


def _share(value):
    return None if value is None else f"{100 * value:.1f}%"


def _ratio(value, other):
    return None if not other else f"{value / other:.2f}"


def _device(steps):
    return next((value["device"] for value in steps.values()), "no device")


def _dtype(steps):
    return next((value["dtype"] for value in steps.values()), "no type")
