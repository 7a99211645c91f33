# SPDX-License-Identifier: Apache-2.0
r"""Times training on this machine: steps, compiling, devices, input, checkpoints, and a torch peer.

    python launch/benchmark.py --config configs/edad.py --out runs/benchmark
    python launch/benchmark.py --config configs/edad_small.py --teacher=12,384,12,1536 \
        --parts=steps,compile --torch=tuned,plain

Random weights and full rows: no data and no checkpoint are needed. Writes benchmark.json,
benchmark.md and benchmark.png; docs/performance.md says what the columns mean. Parts:

    steps        the single pass against the two stages that it replaces
    profile      where the time of the single pass goes (only if asked for)
    phases       updates that leave out what config.phases allows (only if asked for)
    compile      compiling cold and from the cache on disk, and the time to the first update
    devices      1, 2 and 4 devices, as far as there are so many
    input        batches from rows on disk, and the start of a resumed run
    checkpoint   what a save every 60 s costs
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

PEER = Path(__file__).parents[1] / "benchmarks" / "torch_step.py"

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration.", lock_config=True)
TEACHER = flags.DEFINE_list(
    "teacher", ["12", "768", "12", "3072"], "Teacher's layers, width, heads, feed-forward width."
)
PARTS = flags.DEFINE_list(
    "parts", ["steps", "compile", "devices", "input", "checkpoint"], "What to measure."
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed updates of each step.", lower_bound=1)
PEAK = flags.DEFINE_float(
    "peak_tflops",
    None,
    "What one device can do, for MFU; None: by its kind, if known.",
    lower_bound=0,
)
VIRTUAL = flags.DEFINE_integer(
    "virtual_devices", 0, "For the part devices: so many out of the CPU's cores.", lower_bound=0
)
ROWS = flags.DEFINE_integer("rows", 200_000, "On disk, for the part input.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "How long to time the input.", lower_bound=0)
TORCH = flags.DEFINE_list("torch", [], "Also the torch peer, in these modes: tuned, plain.")
TORCH_COMPILE = flags.DEFINE_bool(
    "torch_compile", False, "The peer's tuned mode through torch.compile (needs a C++ compiler)."
)
OUT = flags.DEFINE_string("out", "runs/benchmark", "Folder for the figures.")


def main():
    from benchmarks.training import Plan, benchmark

    out = Path(OUT.value).expanduser()
    plan = Plan(
        config=CONFIG.value,
        teacher=[int(size) for size in TEACHER.value],
        parts=PARTS.value,
        repeats=REPEATS.value,
        peak_tflops=PEAK.value,
        virtual_devices=VIRTUAL.value,
        rows=ROWS.value,
        seconds=SECONDS.value,
        torch_command=_torch_command() if TORCH.value else [],
    )
    benchmark(plan, out)
    print((out / "benchmark.md").read_text(encoding="utf-8"))


def _torch_command():
    """Returns the peer's command, with the same configuration; --out is still to be added."""
    from benchmarks.training import config_overrides

    return [
        sys.executable,
        str(PEER),
        "--config",
        config_flags.get_config_filename(flags.FLAGS["config"]),
        f"--teacher={','.join(TEACHER.value)}",
        f"--modes={','.join(TORCH.value)}",
        "--methods=edad,adaptation,distillation",
        f"--repeats={REPEATS.value}",
        f"--compile={str(TORCH_COMPILE.value).lower()}",
        *config_overrides(sys.argv[1:]),
    ]


if __name__ == "__main__":
    run_command(main, required=["config"])
