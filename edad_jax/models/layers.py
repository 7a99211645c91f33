# SPDX-License-Identifier: Apache-2.0
"""Layers that work number by number or row by row; their gradients keep little.

On an accelerator these layers take the time that reading and writing takes, so what a layer keeps
for its backward pass counts. Left to JAX, they keep masks and float32 intermediates; here each
keeps its input alone (dropout: not even that) and the backward pass computes the rest anew, in the
same loop over memory as the gradient.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes a share `rate` of the numbers and scales up the rest, so that the mean stays.

    Reads the PRNG stream `dropout`: of each call one key, from which `keep_mask` follows.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Returns x with a random share of it zeroed; x itself where deterministic."""
        if deterministic or self.rate == 0:
            return x
        return _drop(x, jax.random.key_data(self.make_rng("dropout")), self.rate)


def keep_mask(words: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Returns which numbers of an array stay: a function of their place and of a key's words.

    Not `jax.random.bits`, whose threefry takes 20 rounds for two words: a mask that is computed
    twice, so that none is kept, has to be cheap. This is a hash of the place (lowbias32 of C.
    Wellons, 2018, "Prospecting for hash functions"; two rounds, each with a word of the key).

    Args:
      words: uint32, two or more; the data of a jax.random key.
      shape: of the array; its places repeat after 2^32.
      rate: share that goes.
    """
    bits = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    for word in (words[0], words[-1]):
        bits = bits ^ word
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
        bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
        bits = bits ^ (bits >> 16)
    return bits >= jnp.uint32(round(rate * 2**32))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x, words, rate):
    scaled = x.astype(jnp.float32) * jnp.float32(1 / (1 - rate))
    return jnp.where(keep_mask(words, x.shape, rate), scaled, 0.0).astype(x.dtype)


def _drop_forward(x, words, rate):
    return _drop(x, words, rate), words


def _drop_backward(rate, words, gradient):
    return _drop(gradient, words, rate), None


_drop.defvjp(_drop_forward, _drop_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: jax.Array, approximate: bool) -> jax.Array:
    """Returns x times the normal distribution's integral up to x, or its form with tanh."""
    return jax.nn.gelu(x, approximate)


def _gelu_forward(x, approximate):
    return gelu(x, approximate), x


def _gelu_backward(approximate, x, gradient):
    _, pull = jax.vjp(partial(jax.nn.gelu, approximate=approximate), x.astype(jnp.float32))
    return (pull(gradient.astype(jnp.float32))[0].astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


class LayerNorm(nn.Module):
    """Layer norm over the last axis; statistics in float32 by the two-pass formula.

    Parameters as `nn.LayerNorm` names them: `scale` and, where it has one, `bias`.
    """

    epsilon: float
    dtype: jnp.dtype
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x [..., d], normalised, in `dtype`."""
        scale_d = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias_d = jnp.zeros(x.shape[-1])
        if self.has_bias:
            bias_d = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return _normalise(x, scale_d, bias_d, self.epsilon).astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(x, scale_d, bias_d, epsilon):
    return _norm_forward(x, scale_d, bias_d, epsilon)[0]


def _norm_forward(x, scale_d, bias_d, epsilon):
    centred, inverse = _centre(x, epsilon)
    lead = (None,) * (x.ndim - 1)
    return centred * (inverse * scale_d[lead]) + bias_d[lead], (x, scale_d)


def _norm_backward(epsilon, saved, gradient):
    x, scale_d = saved
    centred, inverse = _centre(x, epsilon)
    normal = centred * inverse
    rows = tuple(range(x.ndim - 1))
    of_normal = gradient * scale_d[(None,) * len(rows)]
    along = (of_normal * normal).mean(axis=-1, keepdims=True)
    of_x = inverse * (of_normal - of_normal.mean(axis=-1, keepdims=True) - normal * along)
    return of_x.astype(x.dtype), (gradient * normal).sum(axis=rows), gradient.sum(axis=rows)


_normalise.defvjp(_norm_forward, _norm_backward)


def _centre(x, epsilon):
    """Returns x less its mean, and one over its standard deviation, along the last axis."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred, jax.lax.rsqrt(variance + epsilon)
