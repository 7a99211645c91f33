# SPDX-License-Identifier: Apache-2.0
"""Times the single pass against the two stages that it replaces, on this machine.

    python launch/benchmark.py --config configs/edad.py --out runs/benchmark.json
    python launch/benchmark.py --config configs/edad_small.py --teacher=12,384,12,1536

Random weights and full rows: no data and no checkpoint are needed. Model GFLOP are those of the
matrix products that the maths asks for (edad_jax/flops.py); MFU is their share of what the device
could do in that time.
"""

import json

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration.", lock_config=True)
TEACHER = flags.DEFINE_list(
    "teacher", ["12", "768", "12", "3072"], "Teacher's layers, width, heads, feed-forward width."
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed updates of each method.", lower_bound=1)
PEAK = flags.DEFINE_float(
    "peak_tflops",
    None,
    "What one device can do, for MFU; None: by its kind, if known.",
    lower_bound=0,
)
OUT = flags.DEFINE_string("out", None, "Where to write the figures as JSON.")


def main():
    from edad_jax.benchmark import benchmark_steps
    from edad_jax.markdown import markdown_table

    result = benchmark_steps(
        CONFIG.value,
        [int(size) for size in TEACHER.value],
        repeats=REPEATS.value,
        peak_tflops=PEAK.value,
    )
    rows = [
        {
            "step": method,
            "seconds": f"{row['seconds']:.3f}",
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "model GFLOP": f"{row['model_gflop']:,.0f}",
            "TFLOP/s": f"{row['tflops']:,.2f}",
            "MFU": None if row["mfu"] is None else f"{row['mfu']:.1%}",
            "XLA GFLOP": f"{row['xla_gflop']:,.0f}",
            "memory (GB)": f"{row['program_gb']:.1f}",
            "compiling (s)": f"{row['compile_seconds']:.0f}",
        }
        for method, row in result["steps"].items()
    ]
    print(markdown_table(rows, list(rows[0])))
    ratio = result["two_stages_over_one_pass"]
    print(
        f"two stages / one pass: {ratio['seconds']:.2f} in time, {ratio['model_gflop']:.2f} in "
        f"model FLOPs, {ratio['xla_gflop']:.2f} in XLA's (the paper: 21.6 h / 17.4 h = 1.24), on "
        f"{result['devices']} x {result['device']}, {result['dtype']}, batch {result['batch']}"
    )
    if OUT.value:
        with open(OUT.value, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    run_command(main, required=["config"])
