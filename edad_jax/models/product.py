# SPDX-License-Identifier: Apache-2.0
"""The matrix product of a linear layer, forward and backward: the one place that picks its types.

A layer has two types: that of its activations (`dtype`) and that of the operands of its products
(`products`). On GPUs and TPUs both are bfloat16, and XLA does the rest. CPUs with matrix units
(AMX, AVX512-BF16) multiply bfloat16 several times as fast as float32, but only where XLA's product
returns float32 and the operands lie as these units want them: so it is for the product of the
layer and for the gradient of its input, and not for the gradient of its kernel, which is slower in
bfloat16 than in float32 (jax 0.10). And activations in bfloat16 are no gain there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def linear_product(dtype: jnp.dtype, products: jnp.dtype | None) -> Callable | None:
    """Returns what `nn.Dense` takes as `dot_general`; None is its own, for equal types."""
    if products is None or jnp.dtype(products) == jnp.dtype(dtype):
        return None

    def dot_general(inputs, kernel_de, dimensions, *unused_args: Any, **unused: Any):
        (inputs_axes, kernel_axes), batch_axes = dimensions
        if (tuple(inputs_axes), tuple(kernel_axes)) != ((inputs.ndim - 1,), (0,)) or any(
            map(len, batch_axes)
        ):
            raise ValueError(
                f"got the axes {dimensions}, expected those of a linear layer: the input's last "
                "against the kernel's first"
            )
        return mixed_product(inputs, kernel_de)

    return dot_general


def tied_product(
    hidden_bmd: jax.Array, table_vd: jax.Array, dtype: jnp.dtype, products: jnp.dtype | None
) -> jax.Array:
    """Returns float32 logits_bmv of hidden states against a table of word vectors."""
    if products is not None and jnp.dtype(products) != jnp.dtype(dtype):
        return mixed_product(hidden_bmd, table_vd.T)
    return jnp.einsum(
        "bmd,vd->bmv", hidden_bmd, table_vd.astype(dtype), preferred_element_type=jnp.float32
    )


@jax.custom_vjp
def add_bias(logits_bmv: jax.Array, bias_v: jax.Array) -> jax.Array:
    """Returns logits + bias. The bias's gradient is a product with ones.

    Over a whole vocabulary XLA's sum on CPUs is as slow as a third of the MLM head's products.
    """
    return logits_bmv + bias_v[None, None, :]


def _add_forward(logits_bmv, bias_v):
    return add_bias(logits_bmv, bias_v), None


def _add_backward(_, gradient_bmv):
    ones_bm = jnp.ones(gradient_bmv.shape[:2], gradient_bmv.dtype)
    return gradient_bmv, jnp.einsum("bm,bmv->v", ones_bm, gradient_bmv)


add_bias.defvjp(_add_forward, _add_backward)


@jax.custom_vjp
def mixed_product(inputs: jax.Array, kernel_de: jax.Array) -> jax.Array:
    """Returns inputs @ kernel, both float32, multiplied as bfloat16 and summed in float32.

    The gradient of the inputs is computed alike, that of the kernel in float32.
    """
    return _forward(inputs, kernel_de)[0]


def _forward(inputs, kernel_de):
    low_de = kernel_de.astype(jnp.bfloat16)
    output = _dot(inputs.astype(jnp.bfloat16), low_de, ((inputs.ndim - 1,), (0,)))
    return output, (inputs, low_de)


def _backward(saved, gradient):
    inputs, low_de = saved
    last = inputs.ndim - 1
    leading = tuple(range(last))
    inputs_gradient = _dot(gradient.astype(jnp.bfloat16), low_de, ((last,), (1,)))
    return inputs_gradient, _dot(inputs, gradient, (leading, leading))


def _dot(left, right, axes):
    return jax.lax.dot_general(left, right, (axes, ((), ())), preferred_element_type=jnp.float32)


mixed_product.defvjp(_forward, _backward)
