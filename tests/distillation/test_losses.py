# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edad_jax.distillation import losses
from edad_jax.distillation.gram_distance import gram_distance
from edad_jax.models.attention import raw_scores
from edad_jax.types import AttentionHeads
from tests.tiny_models import tiny_batch

MASK_BT = np.arange(5)[None] < np.array([[5], [3]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heads(*widths, seed=0, fused=False):
    """Returns the heads of a net's original and extension: two rows of five pieces, three heads."""
    made = []
    for number, width in enumerate(widths):
        query, key = (normal(2, 5, 3, width, seed=10 * seed + 2 * number + n) for n in range(2))
        scores = None if fused else raw_scores(query, key)
        made.append(AttentionHeads(query, key, key, scores))
    return made


def test_attention_loss_ignores_padding():
    (some,) = heads(4)
    real = MASK_BT[:, None, :, None] & MASK_BT[:, None, None, :]
    noisy = some._replace(scores_bhts=some.scores_bhts + np.where(real, 0.0, 7.0))
    np.testing.assert_array_equal(losses.attention_loss([noisy], [some], MASK_BT), 0.0)


def test_attention_loss_of_a_masked_row_equals_that_of_the_sliced_row():
    student, teacher = heads(4), heads(6, seed=1)
    loss_b = losses.attention_loss(student, teacher, MASK_BT)
    ours, its = student[0].scores_bhts[1, :, :3, :3], teacher[0].scores_bhts[1, :, :3, :3]
    np.testing.assert_allclose(loss_b[1], np.square(ours - its).mean() * 9, rtol=1e-6)


def test_attention_loss_compares_original_heads_where_one_net_has_no_extension():
    student, teacher = heads(4), heads(6, 2, seed=1)
    np.testing.assert_allclose(
        losses.attention_loss(student, teacher, MASK_BT),
        losses.attention_loss(student, teacher[:1], MASK_BT),
    )
    both = losses.attention_loss(heads(4, 2), teacher, MASK_BT)
    assert not np.allclose(both, losses.attention_loss(student, teacher, MASK_BT))


@pytest.mark.parametrize("fused", [False, True])
def test_attention_loss_with_a_window_is_of_near_pairs_alone(fused):
    student, teacher = heads(4, fused=fused), heads(6, seed=1)
    ours, its = heads(4)[0].scores_bhts, teacher[0].scores_bhts
    expected_b = np.zeros(2)
    for row, length in enumerate(MASK_BT.sum(axis=1)):
        for t, s in np.ndindex(length, length):
            if abs(t - s) <= 1:
                expected_b[row] += np.square(ours[row, :, t, s] - its[row, :, t, s]).mean()
    loss_b = losses.attention_loss(student, teacher, MASK_BT, window=1)
    np.testing.assert_allclose(loss_b, expected_b, rtol=1e-5)


def test_centred_scores_differ_only_in_what_softmax_sees():
    (ours,), (its,) = heads(4), heads(4, seed=1)
    offset = normal(1, 1, 3, 4, seed=5)  # the same for all keys of a head: of a query one number
    moved_bshk = ours.key_bshk + np.where(MASK_BT[..., None, None], offset, 100.0)
    moved = ours._replace(key_bshk=moved_bshk, scores_bhts=raw_scores(ours.query_bthk, moved_bshk))
    loss = functools.partial(losses.attention_loss, teacher=[its], mask_bt=MASK_BT, centred=True)
    np.testing.assert_allclose(loss([moved]), loss([ours]), rtol=1e-4)
    plain = losses.attention_loss([moved], [its], MASK_BT)
    assert not np.allclose(plain, losses.attention_loss([ours], [its], MASK_BT), rtol=0.1)
    # By hand, of the row of three pieces.
    error = (ours.scores_bhts - its.scores_bhts)[1, :, :3, :3]
    error = error - error.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(loss([ours])[1], np.square(error).mean() * 9, rtol=1e-5)


@pytest.mark.parametrize("centred", [False, True], ids=["scores", "centred"])
@pytest.mark.parametrize("fused", [(True, True), (False, True)], ids=["both", "teacher"])
def test_attention_loss_without_scores_is_that_of_scores(fused, centred):
    def loss_and_gradient(fused):
        teacher = heads(6, 3, seed=1, fused=fused[1])

        def loss(vectors):
            student = [
                AttentionHeads(query, key, key, None if fused[0] else raw_scores(query, key))
                for query, key in vectors
            ]
            loss_b = losses.attention_loss(student, teacher, MASK_BT, centred=centred)
            return loss_b @ np.array([1.0, 3.0])

        return jax.value_and_grad(loss)([each[:2] for each in heads(4, 2)])

    expected, found = loss_and_gradient((False, False)), loss_and_gradient(fused)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, its in zip(*map(jax.tree.leaves, (found[1], expected[1])), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=1e-5)


def test_the_distance_without_scores_is_as_exact_where_vectors_are_bfloat16():
    """Of nets that agree well, so that what is left is a small part of what cancels."""
    student = [vectors.astype(jnp.bfloat16) for vectors in heads(64)[0][:2]]
    noise = [0.01 * normal(*vectors.shape, seed=9) for vectors in student]
    teacher = [(x + n).astype(jnp.bfloat16) for x, n in zip(student, noise, strict=True)]

    def direct(query, key):
        scores, targets = raw_scores(query, key), raw_scores(*teacher)
        error = jnp.square(scores - targets) * (MASK_BT[:, None, :, None] & MASK_BT[:, None, None])
        return error.sum()

    def without_scores(query, key):
        return gram_distance(query, key, *teacher, MASK_BT).sum()

    # In float32 throughout; the vectors are the same numbers.
    wide = [vectors.astype(jnp.float32) for vectors in student]
    expected = jax.value_and_grad(direct, argnums=(0, 1))(*wide)
    found = jax.value_and_grad(without_scores, argnums=(0, 1))(*student)
    assert expected[0] < 1e-3 * jnp.square(raw_scores(*student)).sum()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for ours, its in zip(found[1], expected[1], strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            ours.astype(jnp.float32), its, rtol=1e-2, atol=1e-2 * np.abs(its).max()
        )


def test_hidden_loss_of_a_masked_row_equals_that_of_the_sliced_row():
    student, teacher = normal(2, 5, 4), normal(2, 5, 4, seed=1)
    loss_b = losses.hidden_loss(student, teacher, MASK_BT)
    sliced = [np.square(student[b, :n] - teacher[b, :n]).mean() * n for b, n in ((0, 5), (1, 3))]
    np.testing.assert_allclose(loss_b, sliced, rtol=1e-6)


def test_mlm_loss_is_the_log_probability_of_the_labels_in_used_slots():
    batch = tiny_batch(11)._replace(masked_weights_bm=np.array([[1, 0], [1, 1], [0, 0]], "f"))
    logits = normal(3, 2, 11)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [
        -sum(
            log_probability[b, m, batch.masked_labels_bm[b, m]] * batch.masked_weights_bm[b, m]
            for m in range(2)
        )
        for b in range(3)
    ]
    np.testing.assert_allclose(losses.mlm_loss([logits], batch), expected, rtol=1e-5)
    by_table = losses.mlm_loss([logits[..., :7], logits[..., 7:]], batch)
    np.testing.assert_allclose(by_table, expected, rtol=1e-5)


def test_mlm_loss_of_several_tables_has_the_gradient_of_the_plain_one():
    batch = tiny_batch(11)
    logits = 3 * normal(3, 2, 11)

    def plain(logits):
        loss_bm = optax.softmax_cross_entropy_with_integer_labels(logits, batch.masked_labels_bm)
        return (loss_bm * batch.masked_weights_bm).sum()

    def by_table(logits):
        return losses.mlm_loss([logits[..., :7], logits[..., 7:]], batch).sum()

    np.testing.assert_allclose(jax.grad(by_table)(logits), jax.grad(plain)(logits), atol=1e-6)


def test_nsp_loss_of_undecided_logits_is_log_two_and_zero_for_empty_rows():
    batch = tiny_batch(11)
    mask_bt = batch.mask_bt.copy()
    mask_bt[2] = False
    loss_b = losses.nsp_loss(jnp.zeros((3, 2)), batch._replace(mask_bt=mask_bt))
    np.testing.assert_allclose(loss_b, [np.log(2), np.log(2), 0], rtol=1e-6)


def test_counts_are_those_of_real_pieces():
    counts = losses.count_targets(tiny_batch(11))  # lengths 11, 9, 7
    assert [float(x) for x in counts] == [6, 3, 27, 121 + 81 + 49]


def test_gradients_are_finite_where_everything_is_padding():
    nothing = np.zeros((2, 5), bool)

    def of_hidden(x):
        return losses.hidden_loss(x, normal(2, 5, 4), nothing).sum()

    def of_scores(scores_bhts):
        (ours,), (its,) = heads(4), heads(4, seed=1)
        ours = ours._replace(scores_bhts=scores_bhts)
        return losses.attention_loss([ours], [its], nothing).sum()

    def of_vectors(query_bthk):
        (ours,), (its,) = heads(4, fused=True), heads(4, seed=1, fused=True)
        return losses.attention_loss([ours._replace(query_bthk=query_bthk)], [its], nothing).sum()

    for loss, shape in (
        (of_hidden, (2, 5, 4)),
        (of_scores, (2, 3, 5, 5)),
        (of_vectors, (2, 5, 3, 4)),
    ):
        np.testing.assert_array_equal(jax.grad(loss)(normal(*shape, seed=1)), 0.0)
