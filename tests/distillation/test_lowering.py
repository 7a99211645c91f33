# SPDX-License-Identifier: Apache-2.0
"""Every step, lowered for GPUs and TPUs on a machine that has neither: what it traces to there.

`jax.export` needs no device and no plugin, so what a backend chooses for itself (attention, types
of products) is traced here before a run meets it. Whether it is fast is `launch/compile.py`'s.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from edad_jax.distillation.imitation import ImitationSettings
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.minilm import MiniLmSettings
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.phases import WHOLE, Phase
from edad_jax.distillation.triple import TripleSettings
from edad_jax.machine import compiling_for
from edad_jax.models.config import Execution
from edad_jax.models.heads import WidthProjection
from edad_jax.training import state
from edad_jax.training.parallel import Parallel
from tests.tiny_steps import NO_DROPOUT, tiny_nets, tiny_params, tiny_rows, tiny_settings

# Custom calls that jax promises nothing about from one version to the next.
CUDNNS = [
    jax.export.DisabledSafetyCheck.custom_call(f"__cudnn$fmhaSoftmax{direction}")
    for direction in ("", "Backward")
]
PLAIN = Execution()
PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}
OWN = {
    "triple": TripleSettings(),
    "triple_adaptation": TripleSettings(),
    "minilm": MiniLmSettings(relation_heads=2),
}


@pytest.fixture(autouse=True)
def cudnn(monkeypatch):
    """Answers what jax asks for while tracing, where no NVIDIA library is installed."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


def lower(
    backend,
    method="edad",
    *,
    dtype=jnp.bfloat16,
    execution=PLAIN,
    phase=WHOLE,
    accumulate_steps=1,
    devices=1,
    same_size=False,
    **sizes,
):
    """Returns the program of a step, in StableHLO."""
    sizes = sizes or {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    nets = tiny_nets(teacher_layers=1, **sizes)
    if same_size:  # the triple loss compares hidden states of one width
        projection = WidthProjection(24, nets.teacher.config.base, jnp.float32)
        nets = Nets(nets.teacher, nets.teacher, projection)
    nets = dataclasses.replace(
        nets,
        teacher=nets.teacher.clone(dtype=dtype, execution=execution),
        student=nets.student.clone(dtype=dtype, execution=execution),
        projection=nets.projection.clone(dtype=dtype),
    )
    trained, frozen = tiny_params(nets)
    if "teacher" not in METHODS[method].trained_nets:
        frozen = {"teacher": frozen["teacher"] | trained["teacher"]}
    trained = {net: trained[net] for net in METHODS[method].trained_nets}
    own = OWN.get(method, ImitationSettings())
    settings = tiny_settings(nets, accumulate_steps=accumulate_steps, phase=phase, own=own)
    parallel = Parallel("shard_map", jax.devices()[:devices])
    with compiling_for(backend):
        step = parallel.compile(
            METHODS[method].make_step(nets, settings), replicated_arguments=2, donate=True
        )
        exported = jax.export.export(step, platforms=[PLATFORMS[backend]], disabled_checks=CUDNNS)(
            state.begin(trained, settings.optimizers), frozen, tiny_rows()
        )
    return exported.mlir_module()


@pytest.mark.parametrize(("method", "backend"), list(itertools.product(METHODS, PLATFORMS)))
def test_every_method_lowers(method, backend):
    program = lower(backend, method, same_size=method.startswith("triple"))
    assert "bf16" in program


@pytest.mark.parametrize("backend", PLATFORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"execution": Execution(remat="blocks")},
        {"execution": Execution(remat="blocks", attention="fused"), **NO_DROPOUT},
        {"accumulate_steps": 2, "devices": 2},
        {"phase": Phase(teacher_learns=False)},
        {"phase": Phase(teacher_learns=False, imitates=False)},
        {"hidden_act": "gelu_new", "shares_layers": True, "embedding_size": 16},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_every_option_of_the_fused_step_lowers(options, backend):
    assert "stablehlo" in lower(backend, **options)


def test_on_a_gpu_fused_attention_is_cudnns_in_every_layer_and_no_scores_are_made():
    program = lower("gpu", execution=Execution(attention="fused"), **NO_DROPOUT)
    # Teacher and student have a block and an extension's; forward and backward.
    assert program.count("custom_call @__cudnn$fmha") == 2 * 2 * 2
    assert "18x18x" not in program
    explicit = lower("gpu", **NO_DROPOUT)
    assert "__cudnn" not in explicit
    assert "x18x18xf32" in explicit


@pytest.mark.parametrize("backend", PLATFORMS)
def test_products_are_bfloat16_but_for_the_gates(backend):
    """What is multiplied as float32 costs an accelerator many times as much."""
    program = lower(backend, execution=Execution(attention="fused"), **NO_DROPOUT)
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    wide = [line for line in products if "xf32>, tensor" in line]
    # Width 1: the gates, which are float32 by choice.
    assert [line for line in wide if "x1xf32" not in line] == []
    assert len(products) > 50


@pytest.mark.parametrize("backend", PLATFORMS)
def test_products_of_float32_are_exact_on_an_accelerator(backend):
    """By default they would be TF32 or one pass of bfloat16."""
    program = lower(backend, dtype=jnp.float32)
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
