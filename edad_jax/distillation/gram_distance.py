# SPDX-License-Identifier: Apache-2.0
"""The distance of two nets' attention scores, without the scores.

For one head, with queries q and keys k of width d on one side, p and r of width e on the other,
and only real positions left, the squared error of all scores is a sum of products of small
matrices (a Gram matrix is the product of vectors with themselves):

    sum over t, s of (q_t k_s / sqrt(d) - p_t r_s / sqrt(e))^2
        = <q'q, k'k> / d  -  2 <q'p, k'r> / sqrt(d e)  +  <p'p, r'r> / e

No [heads, t, s] array is made, forward or backward: time and memory grow with the length of the
rows, not with its square, and the layers may use fused attention.

The three terms cancel to a small rest, so they must be exact to float32. Products of bfloat16
vectors that sum in float32 are. Of the gradient's products one side is a Gram matrix in float32;
beside bfloat16 vectors it is cut into two bfloat16 parts.
"""

import math

import jax
import jax.numpy as jnp

from edad_jax.machine import target_backend


@jax.custom_vjp
def gram_distance(
    query_bthk: jax.Array,
    key_bshk: jax.Array,
    target_query_bthl: jax.Array,
    target_key_bshl: jax.Array,
    mask_bt: jax.Array,
) -> jax.Array:
    """Returns error_b, float32: squared error of raw scores over heads and pairs of real pieces.

    The targets, whose heads may have another width (l), get no gradient.
    """
    return _forward(query_bthk, key_bshk, target_query_bthl, target_key_bshl, mask_bt)[0]


def _forward(query_bthk, key_bshk, target_query_bthl, target_key_bshl, mask_bt):
    queries = _Grams(query_bthk, target_query_bthl, mask_bt)
    keys = _Grams(key_bshk, target_key_bshl, mask_bt)
    own, both, target = _scales(query_bthk, target_query_bthl)
    error_b = (
        own * (queries.own_bhkk * keys.own_bhkk).sum(axis=(1, 2, 3))
        - 2 * both * (queries.both_bhlk * keys.both_bhlk).sum(axis=(1, 2, 3))
        + target * (queries.target_bhll * keys.target_bhll).sum(axis=(1, 2, 3))
    )
    grams = (queries.own_bhkk, queries.both_bhlk, keys.own_bhkk, keys.both_bhlk)
    vectors = (query_bthk, key_bshk, target_query_bthl, target_key_bshl)
    return error_b, (*vectors, mask_bt, *grams)


def _backward(saved, gradient_b):
    query_bthk, key_bshk, target_query_bthl, target_key_bshl, mask_bt = saved[:5]
    query_own_bhkk, query_both_bhlk, key_own_bhkk, key_both_bhlk = saved[5:]
    own, both, _ = _scales(query_bthk, target_query_bthl)
    weight_bt11 = jnp.where(mask_bt, 2 * gradient_b[:, None], 0.0)[..., None, None]

    def gradient(vectors_bthk, target_bthl, own_bhkk, both_bhlk):
        own_bthk = _product(vectors_bthk, own * own_bhkk)
        both_bthk = _product(target_bthl, both * both_bhlk)
        return (weight_bt11 * (own_bthk - both_bthk)).astype(vectors_bthk.dtype)

    return (
        gradient(query_bthk, target_query_bthl, key_own_bhkk, key_both_bhlk),
        gradient(key_bshk, target_key_bshl, query_own_bhkk, query_both_bhlk),
        jnp.zeros_like(target_query_bthl),
        jnp.zeros_like(target_key_bshl),
        None,
    )


gram_distance.defvjp(_forward, _backward)


class _Grams:
    """Products of one net's vectors and the target's over the real positions, float32."""

    def __init__(self, vectors_bthk, target_bthl, mask_bt):
        mask_bt11 = mask_bt[..., None, None]
        real_bthk = jnp.where(mask_bt11, vectors_bthk, 0)
        real_bthl = jnp.where(mask_bt11, target_bthl, 0)
        self.own_bhkk = _gram("bthk,bthj->bhkj", vectors_bthk, real_bthk)
        self.both_bhlk = _gram("bthl,bthk->bhlk", target_bthl, real_bthk)
        self.target_bhll = _gram("bthl,bthj->bhlj", target_bthl, real_bthl)


def _gram(axes, left, right):
    if target_backend() == "cpu":  # where not every form of bfloat16 x bfloat16 = float32 is there
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum(axes, left, right, precision=exact, preferred_element_type=jnp.float32)


def _product(vectors_bthl, gram_bhlk):
    """Returns vectors times a float32 Gram matrix, float32 [b, t, h, k], as exact as both."""
    if vectors_bthl.dtype == jnp.float32:
        return _gram("bthl,bhlk->bthk", vectors_bthl, gram_bhlk)
    # Not by a cast to bfloat16 and back, which XLA takes for nothing and leaves out.
    rough_bhlk = jax.lax.reduce_precision(gram_bhlk, exponent_bits=8, mantissa_bits=7)
    parts = (rough_bhlk, gram_bhlk - rough_bhlk)
    return sum(_gram("bthl,bhlk->bthk", vectors_bthl, part.astype(jnp.bfloat16)) for part in parts)


def _scales(query_bthk, target_query_bthl):
    """Returns what the three terms are multiplied with."""
    width, target_width = query_bthk.shape[-1], target_query_bthl.shape[-1]
    return 1 / width, 1 / math.sqrt(width * target_width), 1 / target_width
