# SPDX-License-Identifier: Apache-2.0
"""The loss terms, each summed per example; the caller divides by a global count.

A mean over a batch that is spread over devices and micro-batches is a sum of sums over a sum
of counts. So each loss here returns one number per example, loss_b, and `count_targets`
says what to divide by: then N devices or N micro-batches give the loss and the gradient of
one big batch, to rounding.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from edad_jax.distillation.gram_distance import gram_distance
from edad_jax.models.attention import near_pairs, raw_scores
from edad_jax.models.documents import is_packed, real_pairs, real_pieces, seen_pairs
from edad_jax.types import AttentionHeads, MaskedBatch


class Counts(NamedTuple):
    """What the four kinds of mean divide by; float32 scalars."""

    masked: jax.Array  # masked slots in use
    examples: jax.Array  # rows with text in them
    tokens: jax.Array  # real pieces
    pairs: jax.Array  # (query, key) pairs of real pieces of one document


def count_targets(batch: MaskedBatch) -> Counts:
    """Returns this device's share of the counts; sum it over devices before use."""
    tokens_b = batch.mask_bt.sum(axis=1).astype(jnp.float32)
    return Counts(
        masked=batch.masked_weights_bm.sum(),
        examples=(tokens_b > 0).sum().astype(jnp.float32),
        tokens=tokens_b.sum(),
        pairs=_count_pairs(batch, tokens_b).sum(),
    )


def _count_pairs(batch, tokens_b):
    if batch.documents_bt is None:
        return jnp.square(tokens_b)
    return real_pairs(batch.documents_bt).sum(axis=(1, 2, 3)).astype(jnp.float32)


@jax.named_scope("mlm_loss")  # by which a profile tells it from the net
def mlm_loss(logits: Sequence[jax.Array], batch: MaskedBatch) -> jax.Array:
    """Returns loss_b: cross-entropy summed over a row's masked slots. Mean: / masked.

    `logits` are float32 [b, m, words] of one table of words after the other.
    """
    loss_bm = _cross_entropy(tuple(logits), batch.masked_labels_bm)
    return (loss_bm * batch.masked_weights_bm).sum(axis=1)


@jax.custom_vjp
def _cross_entropy(logits, labels_bm):
    """Returns loss_bm over the words of all tables; its gradient comes table by table."""
    return _cross_entropy_forward(logits, labels_bm)[0]


def _cross_entropy_forward(logits, labels_bm):
    highest_bm = jnp.stack([part_bmv.max(axis=-1) for part_bmv in logits]).max(axis=0)
    sum_bm = label_bm = 0.0
    for part_bmv, is_label_bmv in zip(logits, _label_masks(logits, labels_bm), strict=True):
        sum_bm += jnp.exp(part_bmv - highest_bm[..., None]).sum(axis=-1)
        label_bm += jnp.where(is_label_bmv, part_bmv, 0.0).sum(axis=-1)
    log_sum_bm = jnp.log(sum_bm) + highest_bm
    return log_sum_bm - label_bm, (logits, labels_bm, log_sum_bm)


def _cross_entropy_backward(saved, gradient_bm):
    logits, labels_bm, log_sum_bm = saved
    gradients = tuple(
        (jnp.exp(part_bmv - log_sum_bm[..., None]) - is_label_bmv) * gradient_bm[..., None]
        for part_bmv, is_label_bmv in zip(logits, _label_masks(logits, labels_bm), strict=True)
    )
    return gradients, None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _label_masks(logits, labels_bm):
    """Returns for each table where its word is the label."""
    masks, start = [], 0
    for part_bmv in logits:
        words_bmv = jax.lax.broadcasted_iota(jnp.int32, part_bmv.shape, 2)
        masks.append(words_bmv == labels_bm[..., None] - start)
        start += part_bmv.shape[-1]
    return masks


@jax.named_scope("nsp_loss")
def nsp_loss(logits_bc: jax.Array, batch: MaskedBatch) -> jax.Array:
    """Returns loss_b: next-sentence cross-entropy; 0 for empty rows. Mean: / examples."""
    loss_b = optax.softmax_cross_entropy_with_integer_labels(logits_bc, batch.next_sentence_b)
    return jnp.where(batch.mask_bt.any(axis=1), loss_b, 0.0)


def attention_loss(
    student: Sequence[AttentionHeads],
    teacher: Sequence[AttentionHeads],
    mask_bt: jax.Array,
    *,
    centred: bool = False,
    window: int = 0,
) -> jax.Array:
    """Returns loss_b: squared error of raw attention scores. Mean: / pairs (TinyBERT Eq. 7).

    Mean over heads, sum over pairs of real pieces; in packed rows, whose mask numbers the documents
    (`models.documents`), of one document. Heads are matched by index, the original's with
    the original's and the extension's with the extension's; where one net has no extension, the
    other's does not count. Where a net has not computed its scores, the error is found without
    them: `gram_distance`.

    Centred, each query's scores are compared less their mean over the real keys. Softmax does not
    see that mean, and TinyBERT's distance does; no paper of ours has this form.

    With a window, only pairs that are no further apart count: beyond it, a layer with local
    attention has scores that nothing reads and no training has made.

    Deviations: the reference code zeroes the columns of padded keys, keeps the rows of padded
    queries, and divides by all B * heads * T * T; here padding counts nowhere. It tells padding
    by the value, and so zeroes genuine scores of -100 or less too; here they count.
    """
    if centred:
        student = [_centre(heads, mask_bt) for heads in student]
        teacher = [_centre(heads, mask_bt) for heads in teacher]
    pairs = list(zip(student, teacher, strict=False))
    heads = sum(ours.query_bthk.shape[2] for ours, _ in pairs)
    error_b = 0.0
    for ours, its in pairs:
        if window or is_packed(mask_bt):
            error_bhts = jnp.square(_scores(ours) - _scores(its))
            error_b += jnp.where(_near_pairs(mask_bt, window), error_bhts, 0.0).sum(axis=(1, 2, 3))
        elif ours.scores_bhts is None or its.scores_bhts is None:
            error_b += gram_distance(
                ours.query_bthk, ours.key_bshk, its.query_bthk, its.key_bshk, mask_bt
            )
        else:
            error_bhts = jnp.square(ours.scores_bhts - its.scores_bhts)
            error_b += jnp.where(real_pairs(mask_bt), error_bhts, 0.0).sum(axis=(1, 2, 3))
    return error_b / heads


def _scores(heads):
    """Returns a layer's raw scores, also where its attention kept none."""
    if heads.scores_bhts is not None:
        return heads.scores_bhts
    return raw_scores(heads.query_bthk, heads.key_bshk)


def _near_pairs(mask_bt, window):
    """Returns pairs_b1ts: both real and, with a window, at most so many positions apart."""
    pairs_b1ts = real_pairs(mask_bt)
    return pairs_b1ts & near_pairs(mask_bt.shape[1], window)[None, None] if window else pairs_b1ts


def _centre(heads, mask_bt):
    """Returns heads with the mean over the real keys taken from keys and from each query's scores.

    The scores of centred keys are centred scores. In packed rows, where scores are always there and
    alone are read, the mean is over the query's document.
    """
    if is_packed(mask_bt):
        pairs_b1ts = real_pairs(mask_bt)
        count_b1t1 = jnp.maximum(pairs_b1ts.sum(axis=-1, keepdims=True), 1).astype(jnp.float32)
        scores_bhts = _scores(heads)
        mean_bht1 = jnp.where(pairs_b1ts, scores_bhts, 0).sum(axis=-1, keepdims=True) / count_b1t1
        return heads._replace(scores_bhts=scores_bhts - mean_bht1)
    count_b = jnp.maximum(mask_bt.sum(axis=1), 1).astype(jnp.float32)
    real_bs11 = mask_bt[..., None, None]
    key_bshk = heads.key_bshk.astype(jnp.float32)
    mean_b1hk = jnp.where(real_bs11, key_bshk, 0).sum(axis=1, keepdims=True)
    centred_bshk = key_bshk - mean_b1hk / count_b[:, None, None, None]
    scores_bhts = heads.scores_bhts
    if scores_bhts is not None:
        real_b11s = mask_bt[:, None, None, :]
        mean_bht1 = jnp.where(real_b11s, scores_bhts, 0).sum(axis=-1, keepdims=True)
        scores_bhts = scores_bhts - mean_bht1 / count_b[:, None, None, None]
    return heads._replace(
        key_bshk=centred_bshk.astype(heads.key_bshk.dtype), scores_bhts=scores_bhts
    )


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


def soft_loss(
    student_logits_bmv: jax.Array,
    teacher_logits_bmv: jax.Array,
    weights_bm: jax.Array,
    temperature: float,
) -> jax.Array:
    """Returns loss_b: T^2 KL(softmax(teacher / T) || softmax(student / T)) summed over positions.

    Hinton et al. 2015, section 2; DistilBERT (Sanh et al. 2019), section 2, which calls it L_ce.
    Mean: / the sum of weights_bm. It is the cross-entropy less the teacher's entropy, as in the
    published code: the gradient is the same, and a student that equals its teacher has 0.
    """
    student_bmv = jax.nn.log_softmax(student_logits_bmv.astype(jnp.float32) / temperature)
    teacher_bmv = jax.nn.log_softmax(teacher_logits_bmv.astype(jnp.float32) / temperature)
    loss_bm = optax.losses.kl_divergence_with_log_targets(student_bmv, teacher_bmv)
    return temperature**2 * (loss_bm * weights_bm).sum(axis=1)


def cosine_loss(
    student_hidden_btd: jax.Array, teacher_hidden_btd: jax.Array, mask_bt: jax.Array
) -> jax.Array:
    """Returns loss_b: 1 - cosine of two nets' last hidden states, summed over real pieces.

    DistilBERT (Sanh et al. 2019), section 3: L_cos. Mean: / tokens.
    """
    cosine_bt = optax.losses.cosine_similarity(
        student_hidden_btd.astype(jnp.float32),
        teacher_hidden_btd.astype(jnp.float32),
        epsilon=1e-8,
    )
    return jnp.where(mask_bt, 1.0 - cosine_bt, 0.0).sum(axis=1)


def relation_loss(
    student_bthk: jax.Array, teacher_bthk: jax.Array, mask_bt: jax.Array, heads: int
) -> jax.Array:
    """Returns loss_b: KL of the teacher's relations from the student's, summed over real pieces.

    MiniLMv2 (Wang et al. 2021), Eq. 3 to 5. A relation is how much a piece's query (or key, or
    value) resembles those of the others: all heads' vectors are put side by side and cut anew into
    `heads` relation heads, so the two nets need neither the same heads nor the same width. Mean
    over relation heads here; over tokens: / tokens. The mask as that of `attention_loss`.
    """
    teacher_bhts = _log_relations(teacher_bthk, mask_bt, heads)
    student_bhts = _log_relations(student_bthk, mask_bt, heads)
    loss_bht = optax.losses.kl_divergence_with_log_targets(student_bhts, teacher_bhts)
    return jnp.where(real_pieces(mask_bt), loss_bht.mean(axis=1), 0.0).sum(axis=1)


def _log_relations(vectors_bthk, mask_bt, heads):
    """Returns log softmax(x x^T / sqrt(k)) over the real pieces, float32 [b, h, t, s]."""
    batch, length = vectors_bthk.shape[:2]
    vectors_bthk = vectors_bthk.reshape(batch, length, heads, -1)
    scores_bhts = jnp.einsum(
        "bthk,bshk->bhts", vectors_bthk, vectors_bthk, preferred_element_type=jnp.float32
    ) / math.sqrt(vectors_bthk.shape[-1])
    # Finite: -inf would give 0 * inf in the divergence.
    return jax.nn.log_softmax(jnp.where(seen_pairs(mask_bt), scores_bhts, -10_000.0), axis=-1)
