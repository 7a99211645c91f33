# SPDX-License-Identifier: Apache-2.0
"""Layers whose gradients keep little: the numbers of the library's, and what is kept."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.models.layers import Dropout, LayerNorm, gelu, keep_mask


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def words(seed):
    return jax.random.key_data(jax.random.key(seed))


def test_layer_norm_is_the_librarys_and_so_is_its_gradient():
    x = 3 * normal(4, 5, 24) + 7
    params = {"scale": normal(24, seed=1), "bias": normal(24, seed=2)}
    weights = normal(4, 5, 24, seed=3)

    def found(module):
        def loss(params, x):
            y = module.apply({"params": params}, x)
            return (y * weights).sum(), y

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    ours = found(LayerNorm(1e-12, jnp.float32))
    its = found(nn.LayerNorm(epsilon=1e-12, use_fast_variance=False))
    for one, other in zip(*map(jax.tree.leaves, (ours, its)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_layer_norm_of_bfloat16_has_statistics_and_gradients_of_parameters_in_float32():
    x = jnp.asarray(normal(512, 24) + 1, jnp.bfloat16)
    module = LayerNorm(1e-12, jnp.bfloat16)
    params = {"scale": jnp.ones(24), "bias": jnp.zeros(24)}

    def loss(params, x):
        return module.apply({"params": params}, x).astype(jnp.float32).sum()

    assert module.apply({"params": params}, x).dtype == jnp.bfloat16
    of_params, of_x = jax.grad(loss, argnums=(0, 1))(params, x)
    np.testing.assert_array_equal(of_params["bias"], 512)  # bfloat16 sums stop at 256
    assert of_x.dtype == jnp.bfloat16


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_the_librarys_and_so_is_its_gradient(approximate):
    x = jnp.asarray(4 * normal(1000))
    np.testing.assert_array_equal(gelu(x, approximate), jax.nn.gelu(x, approximate))
    ours = jax.grad(lambda x: gelu(x, approximate).sum())(x)
    its = jax.grad(lambda x: jax.nn.gelu(x, approximate).sum())(x)
    np.testing.assert_allclose(ours, its, atol=1e-6)


def kept_arrays(function, x):
    """Returns the shapes of what a function keeps for its backward pass."""
    _, pull = jax.vjp(function, x)
    return sorted(leaf.shape for leaf in jax.tree.leaves(pull))


def test_backward_passes_keep_inputs_and_nothing_of_dropout():
    x = jnp.asarray(normal(8, 24))
    params = {"scale": jnp.ones(24), "bias": jnp.zeros(24)}
    key = {"dropout": jax.random.key(0)}
    assert kept_arrays(lambda x: gelu(x, False), x) == [(8, 24)]
    norm = LayerNorm(1e-12, jnp.float32)
    assert kept_arrays(lambda x: norm.apply({"params": params}, x), x) == [(8, 24), (24,)]
    drop = Dropout(0.1)
    assert kept_arrays(lambda x: drop.apply({}, x, deterministic=False, rngs=key), x) == [(2,)]


def test_dropout_keeps_the_mean_and_its_gradient_goes_where_numbers_stayed():
    x, key = jnp.ones((64, 1024)), {"dropout": jax.random.key(1)}

    def drop(x):
        return Dropout(0.1).apply({}, x, deterministic=False, rngs=key)

    dropped = np.asarray(drop(x))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.9)}
    assert abs((dropped == 0).mean() - 0.1) < 4 * np.sqrt(0.09 / x.size)
    np.testing.assert_array_equal(jax.grad(lambda x: drop(x).sum())(x), dropped)
    np.testing.assert_array_equal(Dropout(0.1).apply({}, x, deterministic=True), x)


def test_masks_have_the_rate_in_all_rows_and_columns():
    shape = (512, 768)
    for rate in (0.1, 0.5):
        kept = np.asarray(keep_mask(words(3), shape, rate))
        for axis in (0, 1):
            share = kept.mean(axis=axis)
            sigma = np.sqrt(rate * (1 - rate) / shape[axis])
            assert np.abs(share - (1 - rate)).max() < 5 * sigma
            assert 0.8 < share.std() / sigma < 1.2  # as independent throws would spread


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (0, 2), (0, 64), (16, 0)])
def test_neighbours_in_a_mask_are_independent(shift):
    kept = np.asarray(keep_mask(words(4), (1024, 512), 0.5)) * 2.0 - 1
    other = np.roll(kept, shift, axis=(0, 1))
    assert abs((kept * other).mean()) < 5 / np.sqrt(kept.size)


def test_masks_of_different_keys_are_independent():
    masks = [np.asarray(keep_mask(words(seed), (512, 512), 0.5)) * 2.0 - 1 for seed in range(6)]
    # Keys that differ in one word alone, too: those of nearby places of a net may.
    first = words(9)
    masks += [
        np.asarray(keep_mask(first.at[word].add(1), (512, 512), 0.5)) * 2.0 - 1 for word in (0, 1)
    ]
    for number, mask in enumerate(masks):
        for other in masks[:number]:
            assert abs((mask * other).mean()) < 5 / np.sqrt(mask.size)
