# SPDX-License-Identifier: Apache-2.0
"""FLOPs by formula, against figures worked out by hand and against XLA's count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from benchmarks import flops
from edad_jax.distillation.phases import Phase
from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.exbert import ExBert
from tests.tiny_models import tiny_exbert_config

BASE = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "num_attention_heads": 12,
}
TEACHER = ExBertConfig(
    BertConfig(hidden_size=768, num_hidden_layers=12, intermediate_size=3_072, **BASE),
    ExtensionConfig(252, 1_024, 12),
    17_658,
)
STUDENT = ExBertConfig(
    BertConfig(hidden_size=312, num_hidden_layers=4, intermediate_size=1_200, **BASE),
    ExtensionConfig(96, 400, 12),
    17_658,
)


def linear_mflop_a_token(method, slots):
    """Model MFLOP a token without attention's products, rows of 128."""
    attention = {
        net: flops.forward_passes(config, 128, 0).attention
        for net, config in (("teacher", TEACHER), ("student", STUDENT))
    }
    times = {"adaptation": (3, 0), "distillation": (1, 3), "edad": (3, 3)}[method]
    whole = flops.step_flops(method, TEACHER, STUDENT, rows=1, length=128, slots=slots)
    whole -= times[0] * attention["teacher"] + times[1] * attention["student"]
    return whole / 128 / 1e6


def test_the_papers_sizes_give_the_figures_worked_out_for_them():
    passes = flops.forward_passes(TEACHER, 128, 128)
    a_token = [each / 128 / 1e6 for each in passes]
    assert a_token[0] == pytest.approx(169.9, abs=0.05)
    assert a_token[1] == pytest.approx(56.3, abs=0.05)
    assert a_token[3] + a_token[4] + a_token[5] == pytest.approx(75.2, abs=0.05)
    two_stages = linear_mflop_a_token("adaptation", 20) + linear_mflop_a_token("distillation", 20)
    assert two_stages == pytest.approx(806, abs=1)
    assert linear_mflop_a_token("edad", 20) == pytest.approx(594, abs=1)
    everywhere = linear_mflop_a_token("adaptation", 128) + linear_mflop_a_token("distillation", 128)
    assert everywhere == pytest.approx(957, abs=1)
    assert linear_mflop_a_token("edad", 128) == pytest.approx(821, abs=1)


def test_a_forward_pass_is_little_less_than_what_xla_counts():
    config = tiny_exbert_config(hidden_size=96, intermediate_size=384, num_attention_heads=3)
    config = dataclasses.replace(config, extension=ExtensionConfig(48, 96, 3))
    model = ExBert(config, jnp.float32)
    ids_bt = jnp.ones((4, 16), jnp.int32)
    inputs = (ids_bt, jnp.zeros_like(ids_bt), ids_bt > 0)

    def encode(params, *inputs):
        return model.apply({"params": params}, *inputs, method="encode").last_hidden_btd

    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *inputs, method="encode")["params"]
    )
    analysis = jax.jit(encode).lower(params, *inputs).cost_analysis()
    counted = (analysis[0] if isinstance(analysis, list) else analysis)["flops"]
    ours = 4 * sum(flops.forward_passes(config, 16, 0))
    assert 0.85 * counted < ours <= counted


def test_what_is_frozen_costs_less_and_unknown_methods_are_an_error():
    sizes = {"rows": 8, "length": 128, "slots": 20}
    frozen = flops.step_flops("adaptation", TEACHER, STUDENT, **sizes)
    whole = flops.step_flops("adaptation", TEACHER, STUDENT, trains_base=True, **sizes)
    assert 1.2 < whole / frozen < 1.4
    with pytest.raises(ValueError, match="got method='triple', expected edad"):
        flops.step_flops("triple", TEACHER, STUDENT, **sizes)


def test_a_phase_costs_what_its_parts_cost():
    """A teacher that runs forward costs the second stage's; one that does not, nothing."""
    sizes = {"rows": 1, "length": 128, "slots": 20}

    def step(method="edad", **phase):
        return flops.step_flops(method, TEACHER, STUDENT, **sizes, phase=Phase(**phase))

    head = 3 * sum(flops.forward_passes(STUDENT, 128, 20)[3:])  # the second stage has no MLM head
    assert step(teacher_learns=False) == pytest.approx(step("distillation") + head)
    alone = step(teacher_learns=False, imitates=False)
    assert alone == pytest.approx(3 * sum(flops.forward_passes(STUDENT, 128, 20)))
    assert step(imitates=False) == pytest.approx(step("adaptation") + alone)
    mapping = 3 * 2 * 312 * 768 * 5 * 128  # to the teacher's width: embeddings and four layers
    assert step() - step(imitates=False) == pytest.approx(mapping)


def test_devices_are_known_by_the_beginning_of_their_names():
    assert flops.peak_tflops("NVIDIA H200") == 989.0
    assert flops.peak_tflops("NVIDIA H100 80GB HBM3") == 989.0
    assert flops.peak_tflops("NVIDIA A100-SXM4-80GB") == 312.0
    assert flops.peak_tflops("TPU v5 lite") == 197.0
    assert flops.peak_tflops("cpu") is None
