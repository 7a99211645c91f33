# SPDX-License-Identifier: Apache-2.0
"""Core tests on the device: does it compute what float32, torch and an uninterrupted run say?

The tests' own conftest keeps jax to the CPU, so this asks the same questions again, here:

    torch's golden files     losses and gradients' norms of two updates in float32
    attention                cuDNN's against the explicit form in float32, with its gradients
    attention distance       by Gram matrices against all scores, with its gradients
    bfloat16                 losses and gradients of EDAD's step against float32's
    resume                   a run that was stopped ends in the same bits as one that ran through

Each is {"ok", "worst": the largest relative error, "bound", ...}. Ends with 1 where one is not.
"""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.field_part import (
    ROOT,
    Figures,
    base_words,
    paper_config,
    read_place,
    teacher_sizes,
    with_flags,
)

# bfloat16 has 8 bits: one product is off by some thousandths, a deep net by some hundredths.
BOUNDS = {
    "golden losses": 1e-4,
    "golden gradients": 1e-3,
    "attention": 2e-2,
    "distance float32": 1e-3,
    "distance bfloat16": 2e-2,
    "step float32": 1e-3,
    "step bfloat16": 4e-2,
}
_SIZES = (4, 192, 6, 384)  # of the teacher of which bfloat16 is compared
# Layers, width and so on of the paper, but few: what is compared is the arithmetic.
_SMALLER = {
    "batch_size": 16,
    "vocabulary__size": 500,
    "student__num_hidden_layers": 2,
    "student__hidden_size": 156,  # heads of 26
    "student__num_attention_heads": 6,
    "student__intermediate_size": 300,
    "student__extension__num_attention_heads": 6,
    "student__extension__hidden_size": 48,
    "student__extension__intermediate_size": 100,
    "teacher__extension__hidden_size": 126,  # heads of 21
    "teacher__extension__num_attention_heads": 6,
    "teacher__extension__intermediate_size": 200,
    "alpha": "same",  # both halves of the loss
}
_NO_DROPOUT = {
    f"{net}__{kind}_dropout_prob": 0.0
    for net in ("teacher", "student")
    for kind in ("hidden", "attention_probs")
}


def main() -> None:
    """Asks all questions; the two processes of the last one run beside the others."""
    if sys.argv[1:2] == ["--resume-in"]:
        run_and_resume(Path(sys.argv[2]))
        return
    place = read_place(__doc__)
    figures = Figures(place.out)
    resume = _start_resume(place)
    figures.put("device", {"kind": jax.devices()[0].device_kind, "backend": jax.default_backend()})
    tests = {
        "attention, cuDNN against explicit": lambda: compare_attention(place.is_rehearsal),
        "attention distance, Gram against scores": compare_distances,
        "torch's golden files, float32": compare_with_golden,
        **compare_types(place.is_rehearsal),
        "resume, bit for bit": lambda: _read_resume(resume, place),
    }
    try:
        for name, test in tests.items():
            figures.attempt(name, test)
    finally:
        resume.kill()
    wrong = [name for name in tests if not figures.get(name).get("ok")]
    if wrong:
        sys.exit(f"not as expected: {'; '.join(wrong)}")


def relative_error(ours, expected) -> float:
    """Returns the norm of the difference over that of what is expected, of whole trees."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True))
    square = lambda x: float(np.sum(np.square(np.asarray(x, np.float64))))  # noqa: E731
    off = sum(
        square(np.asarray(one, np.float64) - np.asarray(other, np.float64)) for one, other in pairs
    )
    value = (off / max(sum(square(other) for _, other in pairs), 1e-30)) ** 0.5
    return value if np.isfinite(value) else float("inf")


def compare_attention(is_rehearsal: bool) -> dict:
    """Compares fused attention in bfloat16 with the explicit form in float32; heads of 3 widths."""
    from edad_jax.models import attention

    def explicit(query, key, value, mask):
        weights = attention.attention_weights(attention.raw_scores(query, key), mask)
        return attention.weigh_values(weights, value)

    errors, random = {}, np.random.default_rng(0)
    for width in (64, 21, 26):
        shape = (4, 64, 12, width) if is_rehearsal else (16, 128, 12, width)
        inputs = [jnp.asarray(random.standard_normal(shape), jnp.bfloat16) for _ in range(3)]
        lengths_b = np.linspace(shape[1] // 3, shape[1], shape[0]).astype(int)
        mask_bt = np.arange(shape[1])[None] < lengths_b[:, None]
        target = random.standard_normal(shape) * mask_bt[:, :, None, None]

        def compute(form, inputs, mask=mask_bt, target=target):
            def loss(*inputs):
                context = form(*inputs, mask)
                real = jnp.where(mask[:, :, None, None], context.astype(jnp.float32), 0.0)
                return (real * target).sum(), real

            # Inputs of one type give what both forms read; the products' types differ.
            run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
            (_, context), gradients = run(*inputs)
            return context, gradients

        with jax.default_matmul_precision("highest"):
            expected = compute(explicit, [x.astype(jnp.float32) for x in inputs])
        ours = compute(attention.fused_attention, inputs)
        errors[f"heads of {width}, context"] = relative_error(ours[0], expected[0])
        errors[f"heads of {width}, gradients"] = relative_error(ours[1], expected[1])
    chosen = attention.choose_implementation(
        jax.default_backend(), jnp.dtype("bfloat16"), head_size=64, length=128
    )
    return judge(errors, BOUNDS["attention"]) | {"implementation": chosen}


def compare_distances() -> dict:
    """Compares the Gram form of the attention distance with all scores, as in the paper."""
    from edad_jax.distillation.gram_distance import gram_distance

    random = np.random.default_rng(0)
    mask_bt = np.arange(64)[None] < np.array([64, 40, 9])[:, None]

    def by_scores(query, key, target_query, target_key):
        one, other = (
            jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
            for q, k in ((query, key), (target_query, target_key))
        )
        real_b1ts = (mask_bt[:, :, None] & mask_bt[:, None, :])[:, None]
        return jnp.where(real_b1ts, jnp.square(one - other), 0.0).sum()

    def by_grams(*vectors):
        return gram_distance(*vectors, mask_bt).sum()

    worst = {}
    for name in ("float32", "bfloat16"):
        vectors = [
            jnp.asarray(random.standard_normal((3, 64, 12, width)), name)
            for width in (26, 26, 64, 64)
        ]
        with jax.default_matmul_precision("highest"):
            exact = [x.astype(jnp.float32) for x in vectors]
            expected = jax.jit(jax.value_and_grad(by_scores, argnums=(0, 1)))(*exact)
            ours = jax.jit(jax.value_and_grad(by_grams, argnums=(0, 1)))(*vectors)
        worst[name] = {
            "loss": relative_error(ours[0], expected[0]),
            "gradients": relative_error(ours[1], expected[1]),
        }
    judged = {name: judge(errors, BOUNDS[f"distance {name}"]) for name, errors in worst.items()}
    return _join(judged)


def compare_with_golden() -> dict:
    """Compares two updates of the fused step, in float32, with what torch computed."""
    from tests import golden_step

    golden = golden_step.load_step_golden()
    golden_step.check_inputs(golden.numbers["inputs"])
    losses, norms = {}, {}
    for case in (golden_step.Case("edad", 0.5, rows) for rows in golden_step.ROWS):
        ours = golden_step.our_updates(case)
        for update, expected in enumerate(golden.losses(case)):
            got = [ours.losses[update][name] for name in expected]
            losses[f"{case.rows} {update}"] = relative_error(got, list(expected.values()))
        for net in ours.parameters:
            norms[f"{case.rows} {net}"] = relative_error(ours.norms(net), golden.norms(case, net))
    return _join(
        {
            "losses": judge(losses, BOUNDS["golden losses"]),
            "gradients": judge(norms, BOUNDS["golden gradients"]),
        }
    )


def compare_types(is_rehearsal: bool) -> dict:
    """Returns tests that compare EDAD's step with itself in float32 with explicit attention."""
    expected = []

    def test(dtype, attention):
        if not expected:
            expected.append(losses_and_gradients("float32", "explicit", is_rehearsal))
        ours = losses_and_gradients(dtype, attention, is_rehearsal)
        errors = {
            f"gradients of the {net}": relative_error(ours[1][net], expected[0][1][net])
            for net in ours[1]
        }
        errors |= {
            name: relative_error(value, expected[0][0][name]) for name, value in ours[0].items()
        }
        return judge(errors, BOUNDS[f"step {dtype}"])

    kinds = [("bfloat16", "explicit"), ("bfloat16", "fused"), ("float32", "fused")]
    return {
        f"EDAD's step in {dtype}, {attention} attention, against float32": (
            lambda dtype=dtype, attention=attention: test(dtype, attention)
        )
        for dtype, attention in (kinds[1:2] if is_rehearsal else kinds)
    }


def losses_and_gradients(dtype: str, attention: str, is_rehearsal: bool) -> tuple[dict, dict]:
    """Returns the losses of an update of EDAD, and net -> gradients, before any optimiser."""
    import dataclasses

    from benchmarks.step import random_rows, random_run
    from edad_jax.distillation.methods import METHODS
    from edad_jax.training import state
    from edad_jax.training.parallel import Parallel

    sizes = {} if is_rehearsal else _SMALLER
    config = paper_config(is_rehearsal, dtype=dtype, attention=attention, **sizes, **_NO_DROPOUT)
    teacher, words = (teacher_sizes(True) if is_rehearsal else _SIZES), base_words(True)
    run = random_run(config, "edad", teacher, words=words)
    keep = optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda gradients, old, params=None: (
            jax.tree.map(jnp.zeros_like, gradients),
            gradients,
        ),
    )
    settings = dataclasses.replace(run.settings, optimizers=dict.fromkeys(run.trained, keep))
    parallel = Parallel("auto", jax.devices()[:1])
    step = parallel.compile(
        METHODS["edad"].make_step(run.nets, settings), replicated_arguments=2, donate=False
    )
    batch = parallel.shard_batch(
        random_rows(config.batch_size, config.rows.max_length, words=words)
    )
    begun = parallel.replicate(state.begin(run.trained, settings.optimizers))
    ended, metrics = step(begun, parallel.replicate(run.frozen_as_read), batch)
    losses = {
        name: float(value)
        for name, value in metrics.items()
        if name.split("/")[-1] in ("mlm", "nsp", "attention", "hidden")
    }
    return losses, jax.tree.map(np.asarray, state.unpack(ended.opt_state))


def judge(errors: dict, bound: float) -> dict:
    """Returns whether all errors are within a bound, and which is the largest."""
    worst = max(errors, key=errors.get)
    return {
        "ok": errors[worst] <= bound,
        "worst": errors[worst],
        "where": worst,
        "bound": bound,
        "errors": errors,
    }


def _join(judged: dict) -> dict:
    """Returns several judgements as one: the worst by its bound stands for all."""
    worst = max(judged, key=lambda name: judged[name]["worst"] / judged[name]["bound"])
    one = judged[worst]
    return one | {
        "ok": all(each["ok"] for each in judged.values()),
        "where": f"{worst}: {one['where']}",
        "errors": {name: each["errors"] for name, each in judged.items()},
    }


def _start_resume(place):
    """Starts the process that trains, stops and goes on, with operations that always sum alike."""
    flags = "" if jax.default_backend() == "cpu" else "--xla_gpu_deterministic_ops=true"
    folder = place.work / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    with open(place.work / "resume.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.field_core", "--resume-in", str(folder)],
            cwd=ROOT,
            env=with_flags(flags),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _read_resume(process, place):
    status = process.wait()
    said = (place.work / "resume.log").read_text(encoding="utf-8", errors="replace").strip()
    if status:
        return {"ok": False, "reason": said[-1_000:]}
    return {"ok": True, "worst": 0.0, "bound": 0.0, "where": said.splitlines()[-1]}


def run_and_resume(folder: Path) -> None:
    """Trains a tiny run twice, once with a stop; ends with an error where the two differ."""
    from edad_jax.distillation.train import train
    from tests import tiny_run

    inputs = tiny_run.make_inputs(folder / "inputs")
    config = tiny_run.tiny_config(inputs)
    train(config, str(folder / "through"))
    middle = tiny_run.STEPS // 2 + 1
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    from edad_jax.distillation import train as module

    make = module.make_batch_at
    tiny_run.call_before_step(types.SimpleNamespace(setattr=setattr), middle, stop)
    try:
        train(config, str(folder / "stopped"))
        sys.exit("the run that was to be stopped ran through")
    except SystemExit as stopped:
        if "stopped by a signal" not in str(stopped):
            raise
    finally:
        module.make_batch_at = make
    train(config, str(folder / "stopped"))
    for net in ("teacher", "student"):
        one, other = (
            (folder / name / net / "model.safetensors").read_bytes()
            for name in ("through", "stopped")
        )
        if one != other:
            sys.exit(f"the {net} of the run that was stopped at step {middle} has other bits")
    print(f"teacher and student after {tiny_run.STEPS} updates, stopped after {middle}")


if __name__ == "__main__":
    main()
