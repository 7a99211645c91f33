# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import numpy as np

from edad_jax.data.masking import MaskingConfig, leave_unmasked, mask_rows
from edad_jax.types import Batch
from tests.tiny_steps import CLS, MASK, SEP, tiny_rows

CONFIG = MaskingConfig(500, MASK, (CLS, SEP), 0.15, 20, seed=7)


@functools.cache
def program(max_predictions, weights):
    """Returns mask_rows as one compiled program, not operation by operation."""
    config = dataclasses.replace(CONFIG, max_predictions=max_predictions)
    if weights:
        config = dataclasses.replace(config, piece_weights=np.array(weights, np.float32))
    return jax.jit(functools.partial(mask_rows, config=config))


def mask(rows, *, max_predictions=20, weights=()):
    """Returns the masked rows, as numpy arrays."""
    return jax.device_get(program(max_predictions, tuple(weights))(rows))


def long_rows(rows=64, length=128, real=128):
    random = np.random.default_rng(0)
    ids_bt = random.integers(4, 500, (rows, length)).astype(np.int32)
    ids_bt[:, 0], ids_bt[:, 60], ids_bt[:, real - 1] = CLS, SEP, SEP
    ids_bt[:, real:] = 0
    full_b = np.full(rows, real, np.int32)
    return Batch(
        ids_bt,
        np.full(rows, 61, np.int32),
        full_b,
        np.zeros(rows, np.int32),
        np.arange(rows, dtype=np.int32),
        np.zeros(rows, np.int32),
    )


def test_a_row_of_128_pieces_has_19_masked_slots_and_short_rows_at_least_one():
    counts = mask(long_rows()).masked_weights_bm.sum(axis=1)
    np.testing.assert_array_equal(counts, np.full(64, 19.0))  # round(0.15 * 128) = 19
    counts = mask(long_rows(real=62)).masked_weights_bm.sum(axis=1)
    np.testing.assert_array_equal(counts, np.full(64, 9.0))  # round(9.3)
    rows = tiny_rows()
    rows = rows._replace(length_b=np.full(8, 5, np.int32))
    assert (mask(rows).masked_weights_bm.sum(axis=1) == 1).all()


def test_at_most_max_predictions_are_masked():
    masked = mask(long_rows(), max_predictions=6)
    np.testing.assert_array_equal(masked.masked_weights_bm, np.ones((64, 6)))


def test_special_pieces_and_padding_are_never_masked():
    rows = long_rows(real=90)
    masked = mask(rows)
    used = masked.masked_weights_bm > 0
    positions, labels = masked.masked_positions_bm[used], masked.masked_labels_bm[used]
    assert (positions < 89).all() and (positions > 0).all() and (positions != 60).all()
    assert (labels >= 4).all()
    np.testing.assert_array_equal(masked.ids_bt[:, 90:], 0)


def test_labels_are_the_original_pieces_and_other_pieces_stay():
    rows = long_rows()
    masked = mask(rows)
    restored = masked.ids_bt.copy()
    for b, m in zip(*np.nonzero(masked.masked_weights_bm), strict=True):
        restored[b, masked.masked_positions_bm[b, m]] = masked.masked_labels_bm[b, m]
    np.testing.assert_array_equal(restored, rows.ids_bt)
    for positions, weights in zip(
        masked.masked_positions_bm, masked.masked_weights_bm, strict=True
    ):
        used = positions[weights > 0]
        assert len(set(used)) == len(used)


def test_eighty_ten_ten():
    rows = long_rows()
    epochs = [mask(rows._replace(epoch_b=np.full(64, epoch, np.int32))) for epoch in range(8)]
    masked = jax.tree.map(lambda *parts: np.concatenate(parts), *epochs)
    at = np.take_along_axis(masked.ids_bt, masked.masked_positions_bm, axis=1)
    used = masked.masked_weights_bm > 0
    total = used.sum()
    share_masked = (at == MASK)[used].sum() / total
    share_same = (at == masked.masked_labels_bm)[used].sum() / total
    # 9,728 draws: a standard deviation is 0.004.
    assert abs(share_masked - 0.8) < 0.02
    assert abs(share_same - 0.1) < 0.02


def test_a_mask_depends_on_seed_row_and_epoch_only():
    rows = long_rows()
    whole = mask(rows)
    part = mask(jax.tree.map(lambda x: x[10:13], rows))
    jax.tree.map(np.testing.assert_array_equal, part, jax.tree.map(lambda x: x[10:13], whole))
    other_epoch = mask(rows._replace(epoch_b=np.ones(64, np.int32)))
    other_row = mask(rows._replace(row_b=rows.row_b + 1))
    for other in (other_epoch, other_row):
        same = (other.masked_positions_bm == whole.masked_positions_bm).mean()
        assert same < 0.2


def test_segments_begin_where_b_begins():
    masked = leave_unmasked(long_rows(real=90))
    np.testing.assert_array_equal(masked.segments_bt[0, :61], 0)
    np.testing.assert_array_equal(masked.segments_bt[0, 61:90], 1)
    np.testing.assert_array_equal(masked.segments_bt[0, 90:], 0)
    np.testing.assert_array_equal(masked.mask_bt.sum(axis=1), 90)


def test_an_empty_row_has_nothing_to_predict():
    rows = tiny_rows()
    rows = rows._replace(length_b=np.zeros(8, np.int32))
    assert mask(rows).masked_weights_bm.sum() == 0


def test_rare_pieces_are_masked_more_often_where_pieces_have_weights():
    weights = np.ones(500)
    weights[4:250] = 128**-0.7  # frequent ones: 30 times less likely at the first draw
    rows = long_rows()
    plain, weighted = mask(rows), mask(rows, weights=weights)
    assert plain.masked_weights_bm.sum() == weighted.masked_weights_bm.sum()
    labels = weighted.masked_labels_bm[weighted.masked_weights_bm > 0]
    assert (labels >= 4).all()
    assert (labels >= 250).mean() > 0.85
    labels = plain.masked_labels_bm[plain.masked_weights_bm > 0]
    assert 0.4 < (labels >= 250).mean() < 0.6


def test_equal_weights_are_no_weights():
    equal = mask(long_rows(), weights=np.full(500, 0.2)).masked_positions_bm
    np.testing.assert_array_equal(equal, mask(long_rows()).masked_positions_bm)
