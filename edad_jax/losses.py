# SPDX-License-Identifier: Apache-2.0
"""The loss terms, each summed per example; the caller divides by a global count.

A mean over a batch that is spread over devices and micro-batches is a sum of sums over a sum
of counts. So each loss here returns one number per example, loss_b, and `count_targets`
says what to divide by: then N devices or N micro-batches give the loss and the gradient of
one big batch, to rounding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from edad_jax.types import MaskedBatch


class Counts(NamedTuple):
    """What the four kinds of mean divide by; float32 scalars."""

    masked: jax.Array  # masked slots in use
    examples: jax.Array  # rows with text in them
    tokens: jax.Array  # real pieces
    pairs: jax.Array  # (query, key) pairs of real pieces


def count_targets(batch: MaskedBatch) -> Counts:
    """Returns this device's share of the counts; sum it over devices before use."""
    tokens_b = batch.mask_bt.sum(axis=1).astype(jnp.float32)
    return Counts(
        masked=batch.masked_weights_bm.sum(),
        examples=(tokens_b > 0).sum().astype(jnp.float32),
        tokens=tokens_b.sum(),
        pairs=jnp.square(tokens_b).sum(),
    )


def mlm_loss(logits_bmv: jax.Array, batch: MaskedBatch) -> jax.Array:
    """Returns loss_b: cross-entropy summed over a row's masked slots. Mean: / masked."""
    loss_bm = optax.softmax_cross_entropy_with_integer_labels(logits_bmv, batch.masked_labels_bm)
    return (loss_bm * batch.masked_weights_bm).sum(axis=1)


def nsp_loss(logits_bc: jax.Array, batch: MaskedBatch) -> jax.Array:
    """Returns loss_b: next-sentence cross-entropy; 0 for empty rows. Mean: / examples."""
    loss_b = optax.softmax_cross_entropy_with_integer_labels(logits_bc, batch.next_sentence_b)
    return jnp.where(batch.mask_bt.any(axis=1), loss_b, 0.0)


def attention_loss(
    student_scores_bhts: jax.Array, teacher_scores_bhts: jax.Array, mask_bt: jax.Array
) -> jax.Array:
    """Returns loss_b: squared error of raw attention scores. Mean: / pairs (TinyBERT Eq. 7).

    Mean over heads, sum over pairs of real pieces. Heads are matched by index; where one net
    has no extension heads, its original heads meet the other's original heads (which stand
    first) and the rest does not count.

    Deviation: the reference code zeroes the columns of padded keys, keeps the rows of padded
    queries, and divides by all B * heads * T * T; here padding counts nowhere.
    """
    heads = min(student_scores_bhts.shape[1], teacher_scores_bhts.shape[1])
    error_bhts = jnp.square(
        student_scores_bhts[:, :heads].astype(jnp.float32)
        - teacher_scores_bhts[:, :heads].astype(jnp.float32)
    )
    pairs_b1ts = mask_bt[:, None, :, None] & mask_bt[:, None, None, :]
    return jnp.where(pairs_b1ts, error_bhts, 0.0).sum(axis=(1, 2, 3)) / heads


def hidden_loss(
    projected_bte: jax.Array, teacher_hidden_bte: jax.Array, mask_bt: jax.Array
) -> jax.Array:
    """Returns loss_b: squared error of hidden states or embeddings. Mean: / tokens (Eq. 8, 9).

    Mean over the width, sum over real pieces. The reference code counts padding too.
    """
    error_bte = jnp.square(
        projected_bte.astype(jnp.float32) - teacher_hidden_bte.astype(jnp.float32)
    )
    return jnp.where(mask_bt, error_bte.mean(axis=-1), 0.0).sum(axis=1)
