# SPDX-License-Identifier: Apache-2.0
"""The products of attention: raw scores, what they weigh, and both as one operation.

Queries, keys and values come by head, and so does the result; `bert.SelfAttention` puts them in
order. Masks are those of rows: real pieces first, padding after them; or numbers of documents
(`documents`).
"""

import math

import jax
import jax.numpy as jnp

from edad_jax.machine import target_backend
from edad_jax.models.documents import is_packed, seen_pairs

PADDING_SCORE = -10_000.0  # added to the scores of padded keys, as BERT does
_CUDNN_WIDEST_HEAD = 128  # 256 on Hopper and later; no BERT has such heads
_CUDNN_HEAD_UNIT = 8  # it takes heads whose width is a multiple of this


@jax.custom_vjp
def raw_scores(query_bthk: jax.Array, key_bshk: jax.Array) -> jax.Array:
    """Returns float32 scores_bhts, q k / sqrt(width of a head), of all positions.

    The gradient's products take operands of the queries' type: left to JAX, those of bfloat16
    queries would be products of float32, at a small part of an accelerator's speed.
    """
    return _scores_forward(query_bthk, key_bshk)[0]


def _scores_forward(query_bthk, key_bshk):
    scores_bhts = jnp.einsum(
        "bthk,bshk->bhts", query_bthk, key_bshk, preferred_element_type=jnp.float32
    ) / math.sqrt(query_bthk.shape[-1])
    return scores_bhts, (query_bthk, key_bshk)


def _scores_backward(saved, gradient_bhts):
    query_bthk, key_bshk = saved
    gradient_bhts = gradient_bhts / math.sqrt(query_bthk.shape[-1])
    gradient_bhts = gradient_bhts.astype(query_bthk.dtype)
    return (
        jnp.einsum("bhts,bshk->bthk", gradient_bhts, key_bshk),
        jnp.einsum("bhts,bthk->bshk", gradient_bhts, query_bthk),
    )


raw_scores.defvjp(_scores_forward, _scores_backward)


def attention_weights(scores_bhts: jax.Array, mask_bt: jax.Array, window: int = 0) -> jax.Array:
    """Returns weights_bhts, float32: the softmax of raw scores over the real keys.

    In packed rows, over those of the query's document; with a window, over those that are no
    further from the query than that.
    """
    seen_b1ts = seen_pairs(mask_bt)
    if window:
        seen_b1ts = seen_b1ts & near_pairs(mask_bt.shape[1], window)[None, None]
    return jax.nn.softmax(scores_bhts + jnp.where(seen_b1ts, 0.0, PADDING_SCORE), axis=-1)


def near_pairs(length: int, window: int) -> jax.Array:
    """Returns near_ts: True where two positions are at most `window` apart."""
    places_t = jnp.arange(length)
    return jnp.abs(places_t[:, None] - places_t[None]) <= window


def weigh_values(weights_bhts: jax.Array, value_bshk: jax.Array) -> jax.Array:
    """Returns context_bthk, the values weighed, in the values' type."""
    return jnp.einsum("bhts,bshk->bthk", weights_bhts.astype(value_bshk.dtype), value_bshk)


def fused_attention(
    query_bthk: jax.Array, key_bshk: jax.Array, value_bshk: jax.Array, mask_bt: jax.Array
) -> jax.Array:
    """Returns context_bthk, softmax(q k / sqrt(width of a head)) v over the real positions.

    By cuDNN where it takes these shapes; elsewhere by the compiler, which does not keep scores for
    anybody else. In a row without any real position, which no loss reads, it is finite and no more.

    Raises:
      ValueError: packed rows, which lengths alone do not describe.
    """
    if is_packed(mask_bt):
        raise ValueError(
            "fused attention knows the lengths of rows and not where documents begin in them; got "
            "packed rows: take --config.attention=explicit, or --config.rows.packed=False"
        )
    length, head_size = query_bthk.shape[1], query_bthk.shape[3]
    implementation = choose_implementation(
        target_backend(), query_bthk.dtype, head_size=head_size, length=length
    )
    if implementation != "cudnn":
        return weigh_values(
            attention_weights(raw_scores(query_bthk, key_bshk), mask_bt), value_bshk
        )
    # cuDNN takes no mask of shape [b, 1, 1, s]. Zeros that widen a head change no score.
    short = -head_size % _CUDNN_HEAD_UNIT
    wide = (
        jnp.pad(vectors, [(0, 0)] * 3 + [(0, short)]) if short else vectors
        for vectors in (query_bthk, key_bshk, value_bshk)
    )
    return jax.nn.dot_product_attention(
        *wide,
        scale=head_size**-0.5,
        key_value_seq_lengths=jnp.maximum(mask_bt.sum(axis=1, dtype=jnp.int32), 1),
        implementation="cudnn",
    )[..., :head_size]


def choose_implementation(backend: str, dtype: jnp.dtype, *, head_size: int, length: int) -> str:
    """Returns "cudnn" where it takes these shapes, else "xla"."""
    takes = (
        backend == "gpu"
        and dtype in (jnp.bfloat16, jnp.float16)
        and head_size <= _CUDNN_WIDEST_HEAD
        and length % 2 == 0
    )
    return "cudnn" if takes else "xla"
