# SPDX-License-Identifier: Apache-2.0
"""The arrays that travel between rooms, and the letters that name their axes.

Arrays carry their axes as a lower-case suffix, which is also their einsum string
(`scores_bhts`, `hidden_btd`). Scalars have no suffix.

    b  example in the batch         h  attention head
    t  position (query)             k  width of one head
    s  position attended to (key)   f  width of the feed-forward layer
    m  masked slot (at most 20)     v  vocabulary entry
    d  width of the model           c  class
    e  width of the teacher         n  where a task asks for a class
                                    1  an axis of size one, to broadcast

This file imports no jax, so that the processes that prepare text stay small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

    Array = jax.Array | np.ndarray


class Batch(NamedTuple):
    """Rows as they lie on disk, before masking; every field has the batch axis first.

    One row is `[CLS] A [SEP] B [SEP]`, padded at the end (Devlin et al. 2019, section 3.1):

        ids_bt           101  7592  102  2088  999  102  0  0
        segment_b_start  3        (the position of the first piece of B)
        length           6        (everything from here on is padding)
        next_sentence    0        (0: B follows A in the text; 1: B is from another document)

    A packed row is several of `[CLS] A [SEP]`, one behind the other, and all segment A.
    """

    ids_bt: Array  # int32 [b, t]; piece ids
    segment_b_start_b: Array  # int32 [b]; equals length where there is no segment B
    length_b: Array  # int32 [b]; number of real pieces, [CLS] and [SEP] included
    next_sentence_b: Array  # int32 [b]; BERT's label: 0 is next, 1 is random
    row_b: Array  # int32 [b]; the row's number in the whole data set, which seeds its mask
    epoch_b: Array  # int32 [b]; how often the data set has been seen before, likewise
    # int32 [b, t]; of packed rows, the number of the document that a piece is of, from 1
    documents_bt: Array | None = None


class MaskedBatch(NamedTuple):
    """What the nets read and must predict: a `Batch` after BERT's masking."""

    ids_bt: Array  # int32 [b, t]; some pieces replaced
    segments_bt: Array  # int32 [b, t]; 0 for A, 1 for B
    mask_bt: Array  # bool [b, t]; True at real pieces
    masked_positions_bm: Array  # int32 [b, m]; where to predict; 0 in unused slots
    masked_labels_bm: Array  # int32 [b, m]; the original pieces there
    masked_weights_bm: Array  # float32 [b, m]; 1 in used slots, 0 in unused ones
    next_sentence_b: Array  # int32 [b]
    documents_bt: Array | None = None  # int32 [b, t]; of packed rows, as in Batch; 0 at padding

    @property
    def seen_bt(self) -> Array:
        """Returns what tells encoders which pieces see each other: see `models.documents`."""
        return self.mask_bt if self.documents_bt is None else self.documents_bt


class TaskBatch(NamedTuple):
    """Rows to fine-tune on. Label positions (axis n) ask for a class each: see `tasks.rows`."""

    ids_bt: Array  # int32 [b, t]
    mask_bt: Array  # bool [b, t]; True at real pieces
    labels_bn: Array  # int32 [b, n]; -1 at positions without a label
    teacher_bnc: Array | None  # float32 [b, n, c]; a teacher's logits there
    segment_b_start_b: Array | None = None  # int32 [b]; as in Batch; None: all is segment A


class AttentionHeads(NamedTuple):
    """What a block's attention reads, by head; and its raw scores where they were computed."""

    query_bthk: Array
    key_bshk: Array
    value_bshk: Array
    scores_bhts: Array | None  # float32, scaled, before mask and softmax; None: fused attention


class EncoderOutput(NamedTuple):
    """What an encoder returns: the last layer, and what the taps asked for."""

    last_hidden_btd: Array  # the last layer's output
    embedding_btd: Array  # the embedding layer's output: TinyBERT's layer 0
    hidden_btd: tuple[Array, ...]  # outputs of the tapped layers, in the order of the taps
    heads: tuple[tuple[AttentionHeads, ...], ...]  # theirs: the original's, then the extension's


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the nets must know of the tokenizer."""

    base_size: int
    size: int  # with the added words
    mask_id: int
    cls_id: int
    sep_id: int
    added_pieces: Sequence[tuple[int, ...]] = ()  # the base pieces that each added word is made of
    token_counts: np.ndarray | None = None  # int64 [size]; where a run asks for them
    unk_id: int | None = None  # what masking with token_counts leaves alone

    @property
    def added_size(self) -> int:
        """Returns the number of added words."""
        return self.size - self.base_size
