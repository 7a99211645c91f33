# SPDX-License-Identifier: Apache-2.0
"""The same documents twice: each alone in a row, and several in a row; batches of one shape."""

import numpy as np

from edad_jax.types import Batch
from tests.tiny_steps import CLS, SEP

LENGTH = 18
_SIZES = ((7, 5, 6), (9, 4), (18,))  # of the documents of each packed row
# Of each document its packed row, where it begins there, and its pieces.
PLACES = tuple(
    (row, sum(sizes[:number]), size)
    for row, sizes in enumerate(_SIZES)
    for number, size in enumerate(sizes)
)


def alone_and_packed(vocab_size: int = 68, seed: int = 0) -> tuple[Batch, Batch]:
    """Returns a row for each document; and the same in fewer rows, with empty ones after them."""
    random = np.random.default_rng(seed)
    alone_bt = np.zeros((len(PLACES), LENGTH), np.int32)
    numbers_bt = np.zeros_like(alone_bt)
    for row, (_, _, size) in enumerate(PLACES):
        alone_bt[row, :size] = [CLS, *random.integers(4, vocab_size, size - 2), SEP]
        numbers_bt[row, :size] = 1
    packed_bt, documents_bt = packed(alone_bt), np.zeros_like(alone_bt)
    for row, start, size in PLACES:
        documents_bt[row, start : start + size] = documents_bt[row].max() + 1
    return _batch(alone_bt, numbers_bt), _batch(packed_bt, documents_bt)


def packed(alone: np.ndarray) -> np.ndarray:
    """Returns [documents, t, ...] with each document moved to its place in a packed row."""
    moved = np.zeros_like(alone)
    for number, (row, start, size) in enumerate(PLACES):
        moved[row, start : start + size] = alone[number, :size]
    return moved


def _batch(ids_bt, documents_bt):
    length_b = (documents_bt > 0).sum(axis=1).astype(np.int32)
    zero_b = np.zeros_like(length_b)
    return Batch(ids_bt, length_b, length_b, zero_b, zero_b, zero_b, documents_bt)
