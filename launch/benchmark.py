# SPDX-License-Identifier: Apache-2.0
"""Times the single pass against the two stages that it replaces, on this machine.

    python launch/benchmark.py --config configs/edad.py --out runs/benchmark.json
    python launch/benchmark.py --config configs/edad_small.py --teacher=12,384,12,1536

Random weights and full rows: no data and no checkpoint are needed.
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
OUT = flags.DEFINE_string("out", None, "Where to write the figures as JSON.")


def main():
    from edad_jax.benchmark import benchmark_steps
    from edad_jax.markdown import markdown_table

    result = benchmark_steps(
        CONFIG.value, [int(size) for size in TEACHER.value], repeats=REPEATS.value
    )
    rows = [
        {
            "step": method,
            "seconds": f"{row['seconds']:.3f}",
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "XLA GFLOP": f"{row['xla_gflop']:,.0f}",
            "compiling (s)": f"{row['compile_seconds']:.0f}",
        }
        for method, row in result["steps"].items()
    ]
    print(markdown_table(rows, list(rows[0])))
    ratio = result["two_stages_over_one_pass"]
    print(
        f"two stages / one pass: {ratio['seconds']:.2f} in time, {ratio['xla_gflop']:.2f} in "
        f"XLA's FLOPs (the paper: 21.6 h / 17.4 h = 1.24), on {result['devices']} x "
        f"{result['device']}, {result['dtype']}, batch {result['batch']}"
    )
    if OUT.value:
        with open(OUT.value, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    run_command(main, required=["config"])
