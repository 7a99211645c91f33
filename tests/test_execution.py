# SPDX-License-Identifier: Apache-2.0
"""Remat: the same numbers, dropout and taps included, from less memory."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.build import check_settings
from edad_jax.models.exbert import ExBert, ExBertConfig
from edad_jax.models.execution import Execution
from tests.tiny_models import random_params, tiny_batch, tiny_bert_config, tiny_exbert_config
from tests.tiny_run import tiny_config


def make_loss(config, execution, batch, taps):
    """Returns loss(params, key) of a net that trains, in which all that it returns has a part."""
    model = ExBert(config, jnp.float32, execution=execution)

    def loss(params, key):
        output, mlm_logits_bmv, nsp_logits_bc = model.apply(
            {"params": params}, batch, taps=taps, deterministic=False, rngs={"dropout": key}
        )
        parts = [mlm_logits_bmv, nsp_logits_bc, *output.hidden_btd, *output.scores_bhts]
        return sum(jnp.square(part).mean() for part in parts)

    return loss


@pytest.mark.parametrize(
    "config",
    [
        tiny_exbert_config(),
        ExBertConfig(tiny_bert_config(shares_layers=True), None, 0),
    ],
    ids=["exbert", "shared layers"],
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
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # quick to compile
    config = ExBertConfig(
        tiny_bert_config(num_hidden_layers=4, max_position_embeddings=64, **rates), None, 0
    )
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


def test_what_minilm_reads_is_kept_under_remat():
    config = ExBertConfig(tiny_bert_config(), None, 0)
    params, batch = random_params(config), tiny_batch(config.vocab_size)

    def vectors(remat):
        model = ExBert(config, jnp.float32, execution=Execution(remat))
        _, kept = model.apply({"params": params}, batch, mutable=["intermediates"])
        return kept["intermediates"]["base"]["layers_1"]["attention"]["vectors"][-1]

    expected, found = vectors("none"), vectors("blocks")
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_an_unknown_way_is_told_before_anything_is_prepared():
    with pytest.raises(ValueError, match="config.remat='all' is not one of none, blocks"):
        check_settings(tiny_config(Path("unused"), remat="all"))
