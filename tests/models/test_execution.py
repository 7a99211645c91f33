# SPDX-License-Identifier: Apache-2.0
"""Remat and fused attention: the same numbers, dropout and taps included."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.distillation.settings import check_settings
from edad_jax.machine import compiling_for
from edad_jax.models import bert
from edad_jax.models.attention import choose_implementation, fused_attention
from edad_jax.models.config import ExBertConfig, Execution
from edad_jax.models.exbert import ExBert
from tests.tiny_models import (
    random_params,
    raw_scores,
    tiny_batch,
    tiny_bert_config,
    tiny_exbert_config,
)
from tests.tiny_run import tiny_config
from tests.tiny_steps import NO_DROPOUT


def make_loss(config, execution, batch, taps):
    """Returns loss(params, key) of a net that trains, in which all that it returns has a part."""
    model = ExBert(config, jnp.float32, execution=execution)

    def loss(params, key):
        output, mlm_logits, nsp_logits_bc = model.apply(
            {"params": params}, batch, taps=taps, deterministic=False, rngs={"dropout": key}
        )
        parts = [*mlm_logits, nsp_logits_bc, *output.hidden_btd, *raw_scores(output)]
        return sum(jnp.square(part).mean() for part in parts)

    return loss


@pytest.mark.parametrize(
    "config",
    [
        tiny_exbert_config(relative_attention_num_buckets=32),
        ExBertConfig(tiny_bert_config(shares_layers=True), None, 0),
    ],
    ids=["exbert with a bias of positions", "shared layers"],
)
def test_remat_changes_neither_losses_nor_gradients(config):
    params, batch = random_params(config), tiny_batch(config.vocab_size)
    key = jax.random.key(3)  # dropout is on: it must drop the same numbers the second time
    expected, found = (
        jax.jit(jax.value_and_grad(make_loss(config, Execution(remat), batch, taps=(1,))))(
            params, key
        )
        for remat in ("none", "blocks")
    )
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-6)
    for ours, theirs in zip(*map(jax.tree.leaves, (found[1], expected[1])), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(found[1]))


def test_remat_takes_less_memory():
    sizes = tiny_bert_config(num_hidden_layers=4, max_position_embeddings=64, **NO_DROPOUT)
    config = ExBertConfig(sizes, None, 0)
    params, batch = random_params(config), tiny_batch(config.vocab_size, rows=8, length=64)

    def temporaries(remat):
        gradient = jax.jit(jax.grad(make_loss(config, Execution(remat), batch, taps=())))
        # By default XLA orders a CPU's program for concurrency, and computes once more at once.
        compiled = gradient.lower(params, jax.random.key(0)).compile(
            {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
        )
        return compiled.memory_analysis().temp_size_in_bytes

    # Of four layers, all that is kept is one input each, and the inside of one at a time.
    assert temporaries("blocks") < 0.65 * temporaries("none")


@pytest.fixture
def fused(monkeypatch):
    """Returns the shapes of the queries that fused attention was given while tracing."""
    shapes = []

    def note(query_bthk, *others):
        shapes.append(query_bthk.shape)
        return fused_attention(query_bthk, *others)

    monkeypatch.setattr(bert, "fused_attention", note)
    return shapes


def test_fused_attention_is_explicit_attention(fused):
    config = tiny_exbert_config(**NO_DROPOUT)
    # Rows of 11, 9 and 7 pieces: padded keys must have no part.
    params, batch = random_params(config), tiny_batch(config.vocab_size)
    mask_bt = jnp.asarray(batch.mask_bt)

    def make(attention):
        model = ExBert(config, jnp.float32, execution=Execution(attention=attention))

        def loss(params):
            output, mlm_logits, nsp_logits_bc = model.apply(
                {"params": params}, batch, taps=(0,), deterministic=False
            )
            real_btd = jnp.where(mask_bt[..., None], output.last_hidden_btd, 0.0)
            tapped = [vectors for heads in output.heads[0] for vectors in heads[:3]]
            found = (real_btd, *mlm_logits, nsp_logits_bc, *tapped)
            return sum(jnp.square(each).mean() for each in found), (found, output.heads[0])

        return jax.value_and_grad(loss, has_aux=True)

    expected, found = (jax.jit(make(attention))(params) for attention in ("explicit", "fused"))
    (_, (_, expected_heads)), (_, (_, heads)) = expected[0], found[0]
    expected = (expected[0][1][0], expected[1])
    found = (found[0][1][0], found[1])
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    # Tapped layers too: the original's and the extension's attention, and no scores anywhere.
    assert fused == [(3, 11, 3, 8), (3, 11, 3, 4)] * 2
    assert [each.scores_bhts is None for each in heads] == [True, True]
    assert [each.scores_bhts is None for each in expected_heads] == [False, False]


def test_where_weights_are_dropped_attention_stays_explicit(fused):
    config = ExBertConfig(tiny_bert_config(), None, 0)
    params, batch = random_params(config), tiny_batch(config.vocab_size)
    model = ExBert(config, jnp.float32, execution=Execution(attention="fused"))

    def trace(deterministic):
        rngs = {"dropout": jax.random.key(0)}
        apply = partial(model.apply, deterministic=deterministic, rngs=rngs)
        jax.eval_shape(apply, {"params": params}, batch)
        return len(fused)

    assert trace(deterministic=False) == 0
    assert trace(deterministic=True) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "cudnn"),
        ({"backend": "cpu"}, "xla"),
        ({"backend": "tpu"}, "xla"),
        ({"dtype": jnp.float32}, "xla"),
        ({"head_size": 26}, "cudnn"),  # the paper's student, 312 over 12 heads: widened to 32
        ({"head_size": 136}, "xla"),
        ({"length": 127}, "xla"),
    ],
)
def test_cudnn_is_asked_where_it_can(changes, expected):
    case = {"backend": "gpu", "dtype": jnp.bfloat16, "head_size": 64, "length": 128} | changes
    case["dtype"] = jnp.dtype(case["dtype"])
    assert choose_implementation(**case) == expected


@pytest.mark.parametrize("head_size", [64, 26, 21])
def test_cudnn_gets_the_lengths_of_rows_and_heads_that_it_takes(head_size, monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo

    # Asked for while tracing; where no NVIDIA library is installed there is no answer.
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    query_bthk = jax.ShapeDtypeStruct((8, 128, 12, head_size), jnp.bfloat16)
    mask_bt = jax.ShapeDtypeStruct((8, 128), jnp.bool_)

    def gradients(*vectors):
        *vectors, mask_bt = vectors

        def loss(*vectors):
            return fused_attention(*vectors, mask_bt).astype(jnp.float32).sum()

        return jax.grad(loss, argnums=(0, 1, 2))(*vectors)

    with compiling_for("gpu"):
        exported = jax.export.export(
            jax.jit(gradients),
            platforms=["cuda"],
            disabled_checks=[
                jax.export.DisabledSafetyCheck.custom_call(f"__cudnn$fmhaSoftmax{direction}")
                for direction in ("", "Backward")
            ],
        )(*[query_bthk] * 3, mask_bt)
    program = exported.mlir_module()
    wide = -(-head_size // 8) * 8
    assert program.count("custom_call @__cudnn$fmha") == 2  # forward and backward
    assert f"8x128x12x{wide}xbf16" in program
    assert "x128x128xf32" not in program


def test_fused_attention_with_dropout_is_told_before_anything_is_prepared():
    changes = {"attention": "fused", "student__attention_probs_dropout_prob": 0.0}
    check_settings(tiny_config(Path("unused"), **changes))  # the teacher's is not known yet
    with pytest.raises(ValueError, match="the teacher's rate is 0.1; set --config.teacher.attent"):
        check_settings(
            tiny_config(Path("unused"), **changes, teacher__attention_probs_dropout_prob=0.1)
        )
    with pytest.raises(ValueError, match="the student's rate is 0.1"):
        check_settings(tiny_config(Path("unused"), attention="fused"))
    adaptation = {"attention": "fused", "method": "adaptation"}
    check_settings(tiny_config(Path("unused"), **adaptation))  # no student learns


def test_an_unknown_way_is_told_before_anything_is_prepared():
    with pytest.raises(ValueError, match="config.remat='all' is not one of none, blocks"):
        check_settings(tiny_config(Path("unused"), remat="all"))
