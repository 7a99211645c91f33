# SPDX-License-Identifier: Apache-2.0
"""Rows in which several documents stand one behind the other: what each piece of them may see.

Encoders and losses read such a row as they read any other, but for its mask: instead of True at
real pieces, it has the number of the document that a piece is of, from 1, and 0 at padding:

    [CLS] a b [SEP] [CLS] c [SEP] [PAD]        1 1 1 1  2 2 2  0

Attention and all that is found from pairs of pieces stay within a document, whose first piece is at
position 0. So a document gives what it gives alone in a row: packing "without cross-contamination"
(Krell et al. 2021).
"""

import jax
import jax.numpy as jnp
import numpy as np


def is_packed(mask_bt: jax.Array | np.ndarray) -> bool:
    """Returns whether this is the mask of rows of several documents: whole numbers, not bool."""
    return mask_bt.dtype != bool


def real_pieces(mask_bt: jax.Array) -> jax.Array:
    """Returns real_bt, bool."""
    return mask_bt > 0 if is_packed(mask_bt) else mask_bt


def seen_pairs(mask_bt: jax.Array) -> jax.Array:
    """Returns seen_b1ts: which keys each query may look at; of plain rows [b, 1, 1, s].

    Queries at padding, which no loss reads, see no key in packed rows and all real ones in others.
    """
    if not is_packed(mask_bt):
        return mask_bt[:, None, None, :]
    queries_b1t1, keys_b11s = mask_bt[:, None, :, None], mask_bt[:, None, None, :]
    return (queries_b1t1 == keys_b11s) & (keys_b11s > 0)


def real_pairs(mask_bt: jax.Array) -> jax.Array:
    """Returns pairs_b1ts: both pieces are real, and of one document."""
    if is_packed(mask_bt):
        return seen_pairs(mask_bt)
    return mask_bt[:, None, :, None] & mask_bt[:, None, None, :]


def positions(mask_bt: jax.Array) -> jax.Array:
    """Returns positions_bt of packed rows, int32: how many pieces of its document precede each."""
    places_1t = jnp.arange(mask_bt.shape[1], dtype=jnp.int32)[None]
    begins_bt = mask_bt[:, 1:] != mask_bt[:, :-1]
    begins_bt = jnp.pad(begins_bt, ((0, 0), (1, 0)), constant_values=True)
    first_bt = jax.lax.cummax(jnp.where(begins_bt, places_1t, 0), axis=1)
    return places_1t - first_bt
