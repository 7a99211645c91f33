# SPDX-License-Identifier: Apache-2.0
r"""A peer for launch/benchmark.py: the same updates in torch, timed on the same random models.

    pip install torch==2.13.0
    python benchmarks/torch_step.py --config configs/edad_small.py --teacher=12,384,12,1536 \
        --modes=tuned,plain --methods=edad,adaptation,distillation --repeats=3 --out torch.json

What the modes do differently stands in benchmarks/torch_update.py; that losses and gradients are
ours is shown by tests/distillation/test_torch_step.py. Sizes, dropout, clipping and learning rates
are the config's, config.dtype is not read (a mode has its own). Masking is done once, before the
clock starts; so are the schedules of alpha and of the learning rates.
"""

import gc
import time
from pathlib import Path

import torch
from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "As for launch/benchmark.py.", lock_config=True
)
TEACHER = flags.DEFINE_list(
    "teacher", ["12", "768", "12", "3072"], "Teacher's layers, width, heads, feed-forward width."
)
MODE_NAMES = flags.DEFINE_list("modes", ["tuned", "plain"], "Out of tuned and plain.")
METHODS = flags.DEFINE_list(
    "methods", ["edad", "adaptation", "distillation"], "Which steps, one after the other."
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed updates of each.", lower_bound=1)
WARM_UP = flags.DEFINE_integer("warm_up", 2, "Updates before them.", lower_bound=0)
DEVICE = flags.DEFINE_string("device", None, "cpu or cuda; None: cuda where there is one.")
COMPILE = flags.DEFINE_bool("compile", False, "torch.compile the loss of tuned.")
OUT = flags.DEFINE_string("out", None, "Where to write the figures as JSON.")


def main():
    import jax

    jax.config.update("jax_platforms", "cpu")  # it only draws parameters; the device is torch's
    from benchmarks.step import MEASURED
    from benchmarks.torch_update import MODES
    from edad_jax.files import write_json
    from edad_jax.report.tables import markdown_table

    config = CONFIG.value
    _check_names("modes", MODE_NAMES.value, MODES)
    _check_names("methods", METHODS.value, MEASURED)
    if config.accumulate_steps != 1:
        raise ValueError(
            f"got config.accumulate_steps={config.accumulate_steps}, expected 1: the torch peer "
            "has no micro-batches; set --config.accumulate_steps=1"
        )
    device = DEVICE.value or ("cuda" if torch.cuda.is_available() else "cpu")
    steps = {
        mode: {method: _time_updates(config, mode, method, device) for method in METHODS.value}
        for mode in MODE_NAMES.value
    }
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "compiled": COMPILE.value,
        "batch": [config.batch_size, config.rows.max_length],
        "steps": steps,
    }
    rows = [
        {
            "torch": mode,
            "step": method,
            "seconds": f"{row['seconds']:.3f}",
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "memory (GB)": None if row["peak_gb"] is None else f"{row['peak_gb']:.1f}",
        }
        for mode, methods in steps.items()
        for method, row in methods.items()
    ]
    print(markdown_table(rows, list(rows[0])))
    if OUT.value:
        write_json(Path(OUT.value), result)


def _check_names(flag, got, known):
    unknown = [name for name in got if name not in known]
    if unknown or not got:
        raise ValueError(f"got --{flag}={','.join(got)}, expected some of {', '.join(known)}")


def _time_updates(config, mode_name, method, device):
    """Returns what one method's updates take in one mode; its nets are gone afterwards."""
    from benchmarks.torch_update import MODES

    update, batch, schedules = _prepare(config, MODES[mode_name], method, device)
    tokens = config.batch_size * config.rows.max_length
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number, (alpha, rates) in enumerate(schedules):
        _wait(device)
        start = time.perf_counter()
        loss = update(batch, alpha, rates)
        _wait(device)
        took = time.perf_counter() - start
        timed = number >= WARM_UP.value
        print(
            f"torch {mode_name} {method}: update {number + 1} of {len(schedules)}, {took:.3f} s, "
            f"loss {loss.item():.3f}{'' if timed else ' (warm-up)'}",
            flush=True,
        )
        if timed:
            seconds.append(took)
    peak_gb = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    del update, batch
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    median = float(torch.tensor(seconds, dtype=torch.float64).quantile(0.5))
    return {
        "seconds": median,
        "seconds_all": seconds,
        "tokens_per_second": tokens / median,
        "peak_gb": peak_gb,
    }


def _prepare(config, mode, method, device):
    """Returns the update, its batch, and alpha and learning rates of every update."""
    import jax

    from benchmarks import torch_update
    from benchmarks.step import random_rows, random_run
    from edad_jax.data import masking

    run = random_run(config, method, [int(size) for size in TEACHER.value])
    rows = random_rows(config.batch_size, config.rows.max_length)
    masked = (
        masking.leave_unmasked(rows)
        if method == "distillation"
        else jax.jit(lambda rows: masking.mask_rows(rows, run.settings.masking))(rows)
    )
    torch.manual_seed(config.seed)  # of dropout
    # Products that autocast leaves in float32 may use TF32; `plain` keeps torch's own default.
    torch.set_float32_matmul_precision("high" if mode.autocasts else "highest")
    nets = torch_update.load_nets(run.nets, run.trained, run.frozen, mode, device=device)

    def loss_fn(batch, alpha):
        terms = torch_update.loss_terms(
            nets, run.nets, batch, method=method, mode=mode, with_nsp=run.settings.with_nsp
        )
        return torch_update.total_loss(terms, method, alpha)

    if COMPILE.value and mode.fuses:
        loss_fn = torch.compile(loss_fn)
    schedules = [
        (
            torch.tensor(float(run.settings.alpha(step)), device=device),
            {net: float(rate(step)) for net, rate in run.settings.learning_rate.items()},
        )
        for step in range(WARM_UP.value + REPEATS.value)
    ]
    update = torch_update.make_update(nets, loss_fn, config.optimizer, mode)
    return update, torch_update.torch_batch(masked, device=device), schedules


def _wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    run_command(main, required=["config"])
