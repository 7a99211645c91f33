# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.models.product import (
    add_bias,
    add_vocabulary_bias,
    bfloat16_matmul,
    bfloat16_tied_matmul,
    linear_product,
)


def arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(keys[0], (3, 5, 48)),
        jax.random.normal(keys[1], (48, 20)),
        jax.random.normal(keys[2], (3, 5, 20)),
    )


def test_equal_types_take_the_plain_product():
    inputs, kernel_de, _ = arrays()
    for products in (None, jnp.float32):
        got = linear_product(inputs, kernel_de, jnp.float32, products)
        np.testing.assert_array_equal(got, inputs @ kernel_de)
    assert linear_product(inputs, kernel_de, jnp.bfloat16, jnp.bfloat16).dtype == jnp.bfloat16


def test_a_bfloat16_matmul_is_float32_and_within_bfloat16_of_the_exact_one():
    inputs, kernel_de, _ = arrays()
    got = bfloat16_matmul(inputs, kernel_de)
    exact = inputs @ kernel_de
    assert got.dtype == jnp.float32
    error = np.abs(got - exact).max() / np.abs(exact).max()
    assert 1e-6 < error < 8e-3


def test_a_bfloat16_matmul_sums_in_float32():
    ones = jnp.ones((1, 4096))
    assert bfloat16_matmul(ones, jnp.ones((4096, 1)))[0, 0] == 4096  # bfloat16 sums stop at 256


@pytest.mark.parametrize("rows", [(3, 5), (1, 5), (3, 1), (15,), (1,)])
@pytest.mark.parametrize("is_tied", [False, True])
def test_both_gradients_of_a_bfloat16_matmul_are_within_bfloat16(rows, is_tied):
    """Whatever the axes: of some, XLA:CPU has no product of bfloat16."""
    inputs, kernel_de, weights = arrays()
    inputs, weights = (each.reshape(-1, each.shape[-1]) for each in (inputs, weights))
    count = int(np.prod(rows))
    inputs, weights = inputs[:count].reshape(*rows, -1), weights[:count].reshape(*rows, -1)
    matrix, product, plain_product = kernel_de, bfloat16_matmul, jnp.matmul
    if is_tied:
        matrix, product = kernel_de.T, bfloat16_tied_matmul
        plain_product = lambda x, table_vd: x @ table_vd.T  # noqa: E731

    def loss(product):
        return lambda x, w: (product(x, w) * weights).sum()

    got = jax.jit(jax.grad(loss(product), argnums=(0, 1)))(inputs, matrix)
    exact = jax.grad(loss(plain_product), argnums=(0, 1))(inputs, matrix)
    for mixed, plain in zip(got, exact, strict=True):
        assert mixed.dtype == jnp.float32
        assert np.abs(mixed - plain).max() < 8e-3 * np.abs(plain).max()


def test_other_types_take_the_bfloat16_matmul():
    inputs, kernel_de, _ = arrays()
    got = linear_product(inputs, kernel_de, jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(got, bfloat16_matmul(inputs, kernel_de))


@pytest.mark.parametrize("add", [add_bias, add_vocabulary_bias])
def test_adding_a_bias_has_the_plain_sums_gradients(add):
    logits_bmv, weights = arrays()[0], jax.random.normal(jax.random.key(1), (3, 5, 48))
    bias_v = jnp.arange(48.0)

    def loss(logits_bmv, bias_v):
        return jnp.sum(weights * jnp.sin(add(logits_bmv, bias_v)))

    slopes_bmv = weights * jnp.cos(logits_bmv + bias_v[None, None])
    got_bmv, got_v = jax.grad(loss, argnums=(0, 1))(logits_bmv, bias_v)
    np.testing.assert_allclose(got_bmv, slopes_bmv, rtol=1e-6)
    np.testing.assert_allclose(got_v, slopes_bmv.sum((0, 1)), rtol=1e-5, atol=1e-5)


def test_a_bias_of_bfloat16_outputs_has_a_gradient_that_sums_in_float32():
    outputs = jnp.zeros((64, 128, 3), jnp.bfloat16)

    def total(bias_e):
        return add_bias(outputs, bias_e).astype(jnp.float32).sum()

    got_e = jax.jit(jax.grad(total))(jnp.zeros(3))
    assert got_e.dtype == jnp.float32
    np.testing.assert_array_equal(got_e, [64 * 128] * 3)  # bfloat16 sums stop at 256
