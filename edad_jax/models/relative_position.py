# SPDX-License-Identifier: Apache-2.0
"""A bias for each distance between two pieces, which MPNet (Song et al. 2020) adds to its scores.

One table for the whole net, a number for each bucket of distances and each head, as in T5 (Raffel
et al. 2020, section 2.1). Near pieces have a bucket for each distance; from 8 on buckets widen by
the square root of two; the last has all from 91 on. Pieces behind and ahead have their own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# The smallest distance of each bucket but the first, which is that of a piece to itself. So 128 as
# the longest distance of T5's formula gives them, which MPNet's code has as constants.
_EDGES = np.array([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91], np.int32)
BUCKETS = 2 * (len(_EDGES) + 1)


def buckets(ahead: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Returns the bucket of each whole number of positions that a piece is ahead of another."""
    edges = _EDGES.reshape((1,) * ahead.ndim + (-1,))
    far = (abs(ahead)[..., None] >= edges).sum(axis=-1)
    return far + BUCKETS // 2 * (ahead > 0)


def bias_of(table_nh: jax.Array, length: int) -> jax.Array:
    """Returns bias_hts, float32, of rows of `length` pieces; n is a bucket."""
    positions_t = jnp.arange(length)
    bias_tsh = jnp.asarray(table_nh)[buckets(positions_t[None] - positions_t[:, None])]
    return jnp.moveaxis(bias_tsh, -1, 0)


class RelativePosition(nn.Module):
    """The table, of which all layers read the same."""

    num_heads: int
    deviation: float  # of the random numbers that it begins with

    @nn.compact
    def __call__(self, length: int) -> jax.Array:
        """Returns bias_hts of rows of `length` pieces."""
        starts = nn.initializers.normal(self.deviation)
        return bias_of(self.param("embedding", starts, (BUCKETS, self.num_heads)), length)
