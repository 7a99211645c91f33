# SPDX-License-Identifier: Apache-2.0
"""The matrix product of a linear layer, forward and backward: the one place that picks its types.

A layer has two types: that of its activations (`dtype`) and that of the operands of its products
(`matmul_dtype`). On GPUs and TPUs both are bfloat16, and XLA does the rest. CPUs with matrix units
(AMX, AVX512-BF16) multiply bfloat16 several times as fast as float32, but only where XLA's product
returns float32 and the operands lie as these units want them, which is made so here. Activations in
bfloat16 are no gain there.
"""

import jax
import jax.numpy as jnp

from edad_jax.machine import target_backend


def linear_product(
    inputs: jax.Array, kernel_de: jax.Array, dtype: jnp.dtype, matmul_dtype: jnp.dtype | None
) -> jax.Array:
    """Returns inputs [..., d] @ kernel, in `dtype`, of operands in `matmul_dtype` (None: dtype)."""
    if matmul_dtype is not None and jnp.dtype(matmul_dtype) != jnp.dtype(dtype):
        return bfloat16_matmul(inputs, kernel_de)
    return inputs.astype(dtype) @ kernel_de.astype(dtype)


def tied_product(
    hidden_bmd: jax.Array, table_vd: jax.Array, dtype: jnp.dtype, matmul_dtype: jnp.dtype | None
) -> jax.Array:
    """Returns float32 logits_bmv of hidden states against a table of word vectors."""
    if matmul_dtype is not None and jnp.dtype(matmul_dtype) != jnp.dtype(dtype):
        return bfloat16_tied_matmul(hidden_bmd, table_vd)
    return _tied(hidden_bmd, table_vd.astype(dtype))


@jax.custom_vjp
def _tied(hidden_bmd, table_vd):
    """Logits in float32; the gradient's products take operands of the hidden states' type."""
    return _plain_tied_forward(hidden_bmd, table_vd)[0]


def _plain_tied_forward(hidden_bmd, table_vd):
    logits_bmv = jnp.einsum("bmd,vd->bmv", hidden_bmd, table_vd, preferred_element_type=jnp.float32)
    return logits_bmv, (hidden_bmd, table_vd)


def _plain_tied_backward(saved, gradient_bmv):
    hidden_bmd, table_vd = saved
    gradient_bmv = gradient_bmv.astype(hidden_bmd.dtype)
    return (
        jnp.einsum("bmv,vd->bmd", gradient_bmv, table_vd),
        jnp.einsum("bmv,bmd->vd", gradient_bmv, hidden_bmd),
    )


_tied.defvjp(_plain_tied_forward, _plain_tied_backward)


@jax.custom_vjp
def add_bias(outputs: jax.Array, bias_e: jax.Array) -> jax.Array:
    """Returns outputs [..., e] + bias, in the outputs' type. The bias's gradient sums in float32.

    A sum over thousands of pieces in bfloat16, which is what the plain form's gradient is where the
    outputs are bfloat16, is off by up to a half (XLA:CPU, jax 0.10).
    """
    bias = jnp.expand_dims(bias_e, tuple(range(outputs.ndim - 1)))
    return outputs + bias.astype(outputs.dtype)


def _add_forward(outputs, bias_e):
    return add_bias(outputs, bias_e), None


def _add_backward(_, gradient):
    return gradient, gradient.sum(axis=range(gradient.ndim - 1), dtype=jnp.float32)


add_bias.defvjp(_add_forward, _add_backward)


@jax.custom_vjp
def add_vocabulary_bias(logits_bmv: jax.Array, bias_v: jax.Array) -> jax.Array:
    """Returns logits + bias, both float32. On a CPU the bias's gradient is a product with ones.

    Over a whole vocabulary XLA:CPU's own sum is slow: 0.11 s for 640 x 38,522 (jax 0.10).
    """
    return logits_bmv + bias_v[None, None, :]


def _add_vocabulary_forward(logits_bmv, bias_v):
    return add_vocabulary_bias(logits_bmv, bias_v), None


def _add_vocabulary_backward(_, gradient_bmv):
    if target_backend() != "cpu":
        return gradient_bmv, gradient_bmv.sum(axis=(0, 1))
    ones_bm = jnp.ones(gradient_bmv.shape[:2], gradient_bmv.dtype)
    return gradient_bmv, jnp.einsum("bm,bmv->v", ones_bm, gradient_bmv)


add_vocabulary_bias.defvjp(_add_vocabulary_forward, _add_vocabulary_backward)


@jax.custom_vjp
def bfloat16_matmul(inputs: jax.Array, kernel_de: jax.Array) -> jax.Array:
    """Returns inputs @ kernel, both float32, multiplied as bfloat16 and summed in float32.

    Both gradients are computed alike.
    """
    return _forward(inputs, kernel_de)[0]


def _forward(inputs, kernel_de):
    low, low_de = inputs.astype(jnp.bfloat16), kernel_de.astype(jnp.bfloat16)
    return _dot(low, low_de), (low, low_de)


def _backward(saved, gradient):
    low, low_de = saved
    low_gradient = gradient.astype(jnp.bfloat16)
    return _dot(low_gradient, low_de.T), _sum_of_products(low, low_gradient)


bfloat16_matmul.defvjp(_forward, _backward)


@jax.custom_vjp
def bfloat16_tied_matmul(hidden_bmd: jax.Array, table_vd: jax.Array) -> jax.Array:
    """Returns logits_bmv, as `bfloat16_matmul` with the table's transpose would."""
    return _tied_forward(hidden_bmd, table_vd)[0]


def _tied_forward(hidden_bmd, table_vd):
    low_bmd, low_vd = hidden_bmd.astype(jnp.bfloat16), table_vd.astype(jnp.bfloat16)
    return _dot(low_bmd, low_vd.T), (low_bmd, low_vd)


def _tied_backward(saved, gradient_bmv):
    low_bmd, low_vd = saved
    low_gradient_bmv = gradient_bmv.astype(jnp.bfloat16)
    return _dot(low_gradient_bmv, low_vd), _sum_of_products(low_gradient_bmv, low_bmd)


bfloat16_tied_matmul.defvjp(_tied_forward, _tied_backward)


def _dot(left, right_de):
    return jax.lax.dot_general(
        left,
        right_de,
        (((left.ndim - 1,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _sum_of_products(left, right):
    """Returns the sum over all positions of left's vectors times right's, float32 [d, e]."""
    rows_d, rows_e = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    if left.ndim == 2 or 1 in left.shape[:-1]:
        # Turned, the left would be a plain transposition, which XLA:CPU folds into the product;
        # then the matrix units do not take it: "Unsupported element type for DotThunk" (jax 0.10).
        # Such products are small.
        return jnp.einsum("nd,ne->de", rows_d.astype(jnp.float32), rows_e.astype(jnp.float32))
    # Over several axes it is a copy, and the product three times as fast as in float32.
    return _dot(jnp.moveaxis(left, -1, 0).reshape(left.shape[-1], -1), rows_e)
