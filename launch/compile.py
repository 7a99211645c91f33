# SPDX-License-Identifier: Apache-2.0
r"""Compiles the train step for an accelerator that is not here, and says what it would take.

    python launch/compile.py --target=h100x1 --config configs/edad.py --out runs/compile
    python launch/compile.py --target=v5e-8 --config configs/edad.py --tokens=5e8 \
        --price_per_hour=1.2
    python launch/compile.py --target=h100x1 --config configs/edad.py --config.batch_size=256 --fit

XLA's compilers for GPUs and TPUs are packages and run on a CPU: pip install -e '.[aot-gpu]' or
'.[aot-tpu]'. Random weights, no data, nothing is run: minutes, and 4 GB of memory for a GPU, 10 GB
for a TPU. Targets:

    h100x1  h100x8  h200x1  a100x8     NVIDIA H100 80GB, H200, A100 80GB, all SXM
    v5e-1  v5e-8  v5e-16  v6e-1        TPU slices of so many chips

Writes compile.md, compile.json and compile.png: time by a roofline, by net and part; memory
against what a device has; products by type (those in float32 are the thing to look for); kernels;
sums over devices; whether frozen weights are left without gradients. docs/performance.md says what
the columns mean. Where such devices are present, the step runs too and stands beside its forecast.

    --check    ends with 1 where a figure is over benchmarks/budgets.json (make budgets)
    --renew    writes that budget
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration.", lock_config=True)
TARGET = flags.DEFINE_string("target", None, "What to compile for: h100x1, v5e-8 and so on.")
METHOD = flags.DEFINE_enum(
    "method", None, ["edad", "adaptation", "distillation"], "None: the configuration's."
)
TEACHER = flags.DEFINE_list(
    "teacher", ["12", "768", "12", "3072"], "Teacher's layers, width, heads, feed-forward width."
)
WORDS = flags.DEFINE_integer("words", 30_522, "Of the original BERT.", lower_bound=1_000)
TOKENS = flags.DEFINE_float(
    "tokens", None, "Of a corpus: tells hours and cost of config.epochs.", lower_bound=0
)
PRICE = flags.DEFINE_float("price_per_hour", None, "Of one device, in any currency.", lower_bound=0)
FIT = flags.DEFINE_bool(
    "fit", False, "Compile half of the batch too, for the largest batch that fits."
)
QUICK = flags.DEFINE_bool(
    "quick", False, "Have the compiler try less hard: a TPU's is some four times as fast then."
)
CHECK = flags.DEFINE_bool("check", False, "Compare with the committed budget.")
RENEW = flags.DEFINE_bool("renew", False, "Write the budget.")
OUT = flags.DEFINE_string("out", None, "Folder; None: runs/compile-TARGET-METHOD.")
PROGRAM = flags.DEFINE_bool("program", False, "Also write the compiled program, program.txt.")


def main():
    from benchmarks.aot_environment import prepare_environment
    from benchmarks.targets import find_target

    target = find_target(TARGET.value)
    environment = prepare_environment(target, quick=QUICK.value)
    # From here on jax may be imported.
    from benchmarks import budgets, forecast, measured
    from benchmarks.forecast_report import write_report
    from benchmarks.step import Case
    from benchmarks.training import config_overrides

    config = CONFIG.value
    teacher = [int(size) for size in TEACHER.value]
    case = Case(config, teacher, METHOD.value or config.method, words=WORDS.value)
    figures, program = forecast.forecast(case, TARGET.value, fits=FIT.value)
    figures["config"] = Path(config_flags.get_config_filename(flags.FLAGS["config"])).name
    figures["quick"] = QUICK.value
    figures["overrides"] = sorted(config_overrides(sys.argv[1:]))
    if TOKENS.value is not None:
        figures["corpus"] = forecast.corpus_cost(
            figures, tokens=TOKENS.value, epochs=config.epochs, price_per_hour=PRICE.value
        )
    figures["measured"] = measured.measure(case, target, environment)
    out = Path(OUT.value or f"runs/compile-{TARGET.value}-{case.method}").expanduser()
    write_report(figures, out)
    if PROGRAM.value:
        (out / "program.txt").write_text(program, encoding="utf-8")
    print((out / "compile.md").read_text(encoding="utf-8"))
    if RENEW.value:
        budgets.renew(figures)
    if found := figures["frozen_gradients"]:
        sys.exit("\n".join(["Frozen weights have gradients:", *found]))
    if CHECK.value and (over := budgets.check(figures)):
        sys.exit("\n".join(["Over the budget (--renew, if it has to be so):", *over]))


if __name__ == "__main__":
    run_command(main, required=["config", "target"])
