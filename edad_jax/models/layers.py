# SPDX-License-Identifier: Apache-2.0
"""Attention as one operation, for layers of which nobody asks the scores.

Its inputs and its output are those of the explicit form in `bert.SelfAttention`: queries, keys and
values by head. It has no dropout of weights.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

_CUDNN_WIDEST_HEAD = 128  # 256 on Hopper and later; no BERT has such heads


def fused_attention(
    query_bthk: jax.Array, key_bshk: jax.Array, value_bshk: jax.Array, mask_bt: jax.Array
) -> jax.Array:
    """Returns context_bthk, softmax(q k / sqrt(width of a head)) v over the real positions.

    In a row without any real position, which no loss reads, it is finite and no more.
    """
    _, length, _, head_size = query_bthk.shape
    return jax.nn.dot_product_attention(
        query_bthk,
        key_bshk,
        value_bshk,
        mask=mask_bt[:, None, None, :],
        implementation=choose_implementation(
            jax.default_backend(), query_bthk.dtype, head_size=head_size, length=length
        ),
    )


def choose_implementation(backend: str, dtype: jnp.dtype, *, head_size: int, length: int) -> str:
    """Returns "cudnn" where it takes these shapes (by its documentation; untried), else "xla"."""
    takes = (
        backend == "gpu"
        and dtype in (jnp.bfloat16, jnp.float16)
        and head_size % 8 == 0
        and head_size <= _CUDNN_WIDEST_HEAD
        and length % 2 == 0  # since the mask goes in as a bias
    )
    return "cudnn" if takes else "xla"


class Dropout(nn.Module):
    """Zeroes a share `rate` of the numbers and scales up the rest, so that the mean stays.

    The rate is rounded to 1/256 (0.1 becomes 26/256 = 0.1016) and the scale is the exact
    inverse of the rounded keep rate. Reads the PRNG stream `dropout`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Returns x with a random share of it zeroed; x itself where deterministic."""
        dropped_of_256 = round(self.rate * 256)
        if deterministic or dropped_of_256 == 0:
            return x
        words = jax.random.bits(self.make_rng("dropout"), (math.ceil(x.size / 4),), jnp.uint32)
        octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size]
        keep = octets.reshape(x.shape) >= dropped_of_256
        scaled = x.astype(jnp.float32) * jnp.float32(256 / (256 - dropped_of_256))
        return jnp.where(keep, scaled, 0.0).astype(x.dtype)
