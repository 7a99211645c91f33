# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.distillation import losses
from tests.tiny_models import tiny_batch

MASK_BT = np.arange(5)[None] < np.array([[5], [3]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_attention_loss_ignores_padding():
    scores_bhts = normal(2, 3, 5, 5)
    real = MASK_BT[:, None, :, None] & MASK_BT[:, None, None, :]
    noise = np.where(real, 0.0, 7.0)
    np.testing.assert_array_equal(
        losses.attention_loss(scores_bhts + noise, scores_bhts, MASK_BT), 0.0
    )


def test_attention_loss_of_a_masked_row_equals_that_of_the_sliced_row():
    student, teacher = normal(2, 3, 5, 5), normal(2, 3, 5, 5, seed=1)
    loss_b = losses.attention_loss(student, teacher, MASK_BT)
    sliced = np.square(student[1, :, :3, :3] - teacher[1, :, :3, :3]).mean() * 9
    np.testing.assert_allclose(loss_b[1], sliced, rtol=1e-6)


def test_attention_loss_compares_original_heads_where_one_net_has_no_extension():
    student, teacher = normal(2, 3, 5, 5), normal(2, 6, 5, 5, seed=1)
    np.testing.assert_allclose(
        losses.attention_loss(student, teacher, MASK_BT),
        losses.attention_loss(student, teacher[:, :3], MASK_BT),
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
    np.testing.assert_allclose(losses.mlm_loss(logits, batch), expected, rtol=1e-5)


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
    for loss, shape in ((losses.attention_loss, (2, 3, 5, 5)), (losses.hidden_loss, (2, 5, 4))):
        gradient = jax.grad(
            lambda x, loss=loss, shape=shape: loss(x, normal(*shape), nothing).sum()
        )(normal(*shape, seed=1))
        np.testing.assert_array_equal(gradient, 0.0)
