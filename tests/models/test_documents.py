# SPDX-License-Identifier: Apache-2.0
"""Rows of several documents: in each of them a document is what it is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.data import masking
from edad_jax.models import block_copy
from edad_jax.models.attention import fused_attention
from edad_jax.models.config import ExBertConfig
from edad_jax.models.documents import positions, real_pairs, seen_pairs
from edad_jax.models.exbert import ExBert
from tests.golden_exports import MODERN
from tests.tiny_models import random_params, raw_scores, tiny_bert_config, tiny_exbert_config
from tests.tiny_packed import LENGTH, PLACES, alone_and_packed


def test_positions_begin_anew_and_pairs_stay_within_a_document():
    mask_bt = jnp.array([[1, 1, 1, 2, 2, 0]])
    assert positions(mask_bt)[0, :5].tolist() == [0, 1, 2, 0, 1]
    expected = np.zeros((6, 6), bool)
    expected[:3, :3] = expected[3:5, 3:5] = True
    np.testing.assert_array_equal(seen_pairs(mask_bt)[0, 0], expected)
    np.testing.assert_array_equal(real_pairs(mask_bt)[0, 0], expected)


@pytest.mark.parametrize(
    "config",
    [
        tiny_exbert_config(relative_attention_num_buckets=32),
        ExBertConfig(tiny_bert_config(vocab_size=68, **MODERN), None, 0),
    ],
    ids=["exbert with a bias of positions", "modernbert with a window"],
)
def test_a_document_in_a_packed_row_gives_what_it_gives_alone(config):
    model, params = ExBert(config, jnp.float32), random_params(config)
    alone, packed = alone_and_packed(config.vocab_size)

    @jax.jit
    def run(ids_bt, mask_bt):
        variables, segments_bt = {"params": params}, jnp.zeros_like(ids_bt)
        layers = tuple(range(config.base.num_hidden_layers))
        output = model.apply(variables, ids_bt, segments_bt, mask_bt, taps=layers, method="encode")
        everywhere_bt = jnp.broadcast_to(jnp.arange(LENGTH)[None], ids_bt.shape)
        logits_btv = model.apply(
            variables, output.last_hidden_btd, everywhere_bt, method="mlm_logits"
        )
        hidden = (output.embedding_btd, *output.hidden_btd, output.last_hidden_btd)
        scores = [jnp.moveaxis(scores_bhts, 1, -1) for scores_bhts in raw_scores(output)]
        return {"hidden": hidden, "logits": logits_btv}, scores

    of_alone, scores_alone = run(alone.ids_bt, alone.documents_bt > 0)
    of_packed, scores_packed = run(packed.ids_bt, packed.documents_bt)
    untold, _ = run(packed.ids_bt, packed.documents_bt > 0)
    for number, (row, start, size) in enumerate(PLACES):
        here, there = slice(start, start + size), slice(0, size)

        def same(ours, expected, row=row, number=number, here=here, there=there):
            ours, expected = ours[row, here], expected[number, there]
            np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)

        jax.tree.map(same, of_packed, of_alone)
        for ours, theirs in zip(scores_packed, scores_alone, strict=True):
            np.testing.assert_allclose(
                ours[row, here, here], theirs[number, there, there], atol=1e-5, rtol=1e-5
            )
    first = slice(0, PLACES[0][2])  # of a row whose other documents it would see
    assert np.abs(untold["hidden"][-1][0, first] - of_alone["hidden"][-1][0, first]).max() > 1e-2


def test_copied_blocks_are_fitted_to_documents_as_if_alone():
    config = tiny_exbert_config(num_hidden_layers=1)
    model, params = ExBert(config, jnp.float32), random_params(config)
    ours, expected = (
        block_copy.copy_blocks(model, params, masking.leave_unmasked(batch))["extension"]
        for batch in alone_and_packed()
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3), ours, expected
    )


def test_fused_attention_refuses_packed_rows():
    heads_bthk = jnp.ones((1, 4, 2, 8))
    with pytest.raises(ValueError, match="attention=explicit"):
        fused_attention(heads_bthk, heads_bthk, heads_bthk, jnp.array([[1, 1, 2, 2]]))
