# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients of packed rows are those of their documents, each alone in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.data import masking
from edad_jax.distillation import losses
from edad_jax.distillation.imitation import ImitationSettings
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.settings import read_settings
from edad_jax.models.attention import raw_scores
from edad_jax.training import state
from edad_jax.training.parallel import Parallel
from edad_jax.types import AttentionHeads
from tests.tiny_packed import LENGTH, PLACES, alone_and_packed, packed
from tests.tiny_run import tiny_config
from tests.tiny_steps import CLS, MASK, NO_DROPOUT, SEP, tiny_nets, tiny_params, tiny_settings


def mask_by_piece(batch, config):
    """Masks every third kind of piece, whatever the row; each piece of a row has a slot."""
    del config
    whole = masking.leave_unmasked(batch)
    ids_bt = whole.ids_bt
    chosen_bt = (ids_bt % 3 == 0) & whole.mask_bt & (ids_bt != CLS) & (ids_bt != SEP)
    positions_bt = jnp.broadcast_to(jnp.arange(ids_bt.shape[1])[None], ids_bt.shape)
    return whole._replace(
        ids_bt=jnp.where(chosen_bt, MASK, ids_bt),
        masked_positions_bm=positions_bt,
        masked_labels_bm=ids_bt,
        masked_weights_bm=chosen_bt.astype(jnp.float32),
    )


def test_the_fused_step_on_packed_rows_is_that_on_their_documents(monkeypatch):
    monkeypatch.setattr(masking, "mask_rows", mask_by_piece)
    nets = tiny_nets(teacher_layers=1, student_extension=False, **NO_DROPOUT)
    settings = tiny_settings(
        nets, alpha=lambda step: 0.4, with_nsp=False, own=ImitationSettings(soft_weight=0.5)
    )
    parallel = Parallel("pmap", jax.devices()[:1])
    initial, frozen = tiny_params(nets)
    train_state = parallel.replicate(state.begin(initial, settings.optimizers))
    frozen = parallel.replicate(frozen)
    step = parallel.compile(
        METHODS["edad"].make_step(nets, settings), replicated_arguments=2, donate=False
    )
    (expected, alone), (ours, of_packed) = (
        step(train_state, frozen, parallel.shard_batch(batch)) for batch in alone_and_packed()
    )
    assert alone.keys() == of_packed.keys() >= {"distill/attention", "teacher/mlm", "distill/soft"}
    for name, value in alone.items():
        np.testing.assert_allclose(of_packed[name], value, rtol=1e-5, err_msg=name)
    moved = 0.0
    for before, one, other in zip(
        *(jax.tree.leaves(state.unpack(each.params)) for each in (train_state, expected, ours)),
        strict=True,
    ):
        np.testing.assert_allclose(other, one, atol=1e-5)
        moved = max(moved, np.abs(np.asarray(one) - before).max())
    assert moved > 1e-3


def heads(seed, width):
    """Returns queries, keys and values of a layer, of documents alone."""
    random = np.random.default_rng(seed)
    shape = (len(PLACES), LENGTH, 3, width)
    return [random.standard_normal(shape).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"centred": True}], ids=str)
def test_the_attention_loss_counts_pairs_of_one_document_only(options):
    alone, of_packed = alone_and_packed()
    found = []
    for batch, move in ((alone, lambda x: x), (of_packed, packed)):
        nets = []
        for seed, width in ((0, 4), (1, 8)):
            query, key, value = map(move, heads(seed, width))
            nets.append([AttentionHeads(query, key, value, raw_scores(query, key))])
        mask_bt = batch.documents_bt if batch is of_packed else batch.documents_bt > 0
        found.append(losses.attention_loss(*nets, mask_bt, **options).sum())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_minilms_relations_stay_within_a_document():
    alone, of_packed = alone_and_packed()
    ours, its = heads(0, 4)[0], heads(1, 8)[0]
    expected = losses.relation_loss(ours, its, alone.documents_bt > 0, 6).sum()
    found = losses.relation_loss(packed(ours), packed(its), of_packed.documents_bt, 6).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pairs_are_counted_by_document():
    alone, of_packed = (masking.leave_unmasked(batch) for batch in alone_and_packed())
    expected = losses.count_targets(alone._replace(documents_bt=None))
    found = losses.count_targets(of_packed)
    assert float(found.pairs) == float(expected.pairs) == sum(size**2 for *_, size in PLACES)
    assert float(found.tokens) == float(expected.tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "config.rows.packed=True packs single segments.*rows.mode=single"),
        (
            {"rows__mode": "single", "attention": "fused"},
            "'fused' knows the lengths of rows and not where documents begin.*attention=explicit",
        ),
    ],
)
def test_what_cannot_be_packed_is_told(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_settings(tiny_config(tmp_path, rows__packed=True, **changes))
