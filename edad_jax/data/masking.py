# SPDX-License-Identifier: Apache-2.0
"""BERT's masking (Devlin et al. 2019, section 3.1) as a pure function, run inside the step.

One key per row: `fold_in(fold_in(key(seed), epoch), row)`. So the mask of a row depends on
the seed, the row and the epoch, and on nothing else: not on the batch size, the device count,
or where a run was resumed.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.types import Batch, MaskedBatch


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """What is masked, and how often."""

    vocab_size: int  # random replacements are drawn from the whole joint vocabulary
    mask_id: int
    special_ids: tuple[int, ...]  # never masked: [CLS], [SEP]; with piece_weights [UNK] too
    mlm_probability: float  # of the real pieces of a row
    max_predictions: int  # masked slots of a row at most
    seed: int
    piece_weights: np.ndarray | None = None  # float32 [vocab_size]: how likely, before the others


def mask_rows(batch: Batch, config: MaskingConfig) -> MaskedBatch:
    """Returns the batch as the nets read it, with what they must predict.

    Of a row's real pieces, round(mlm_probability * length) are chosen, at least 1 and at most
    max_predictions; of these 80% become [MASK], 10% a random piece, 10% stay:

        batch.ids_bt           101 7592 1010 2088  999  102    0    0
        ids_bt                 101 7592 1010  103  999  102    0    0
        masked_positions_bm      3    0    0
        masked_labels_bm      2088    0    0
        masked_weights_bm        1    0    0

    With piece_weights the pieces are drawn without replacement, each as likely as its weight.

    The reference code of exBERT and EDAD draws each position by itself, may mask [SEP], and
    has no upper limit; BERT's own rule is used here, since slots must be of a fixed number.
    """
    base_key = jax.random.key(config.seed, impl="threefry2x32")

    def row_key(epoch, row):
        return jax.random.fold_in(jax.random.fold_in(base_key, epoch), row)

    keys_b = jax.vmap(row_key)(batch.epoch_b, batch.row_b)
    ids_bt, positions_bm, labels_bm, weights_bm = jax.vmap(
        functools.partial(_mask_row, config=config)
    )(keys_b, batch.ids_bt, batch.length_b)
    return MaskedBatch(
        ids_bt=ids_bt,
        **_segments_and_mask(batch),
        masked_positions_bm=positions_bm,
        masked_labels_bm=labels_bm,
        masked_weights_bm=weights_bm,
        next_sentence_b=batch.next_sentence_b,
    )


def leave_unmasked(batch: Batch) -> MaskedBatch:
    """Returns the batch with every piece in place and nothing to predict.

    TinyBERT's general distillation reads text so ("no [MASK] corpus").
    """
    none_bm = jnp.zeros((batch.ids_bt.shape[0], 0), jnp.int32)
    return MaskedBatch(
        ids_bt=batch.ids_bt,
        **_segments_and_mask(batch),
        masked_positions_bm=none_bm,
        masked_labels_bm=none_bm,
        masked_weights_bm=none_bm.astype(jnp.float32),
        next_sentence_b=batch.next_sentence_b,
    )


def _segments_and_mask(batch):
    positions_1t = jnp.arange(batch.ids_bt.shape[1])[None]
    mask_bt = positions_1t < batch.length_b[:, None]
    segments_bt = (positions_1t >= batch.segment_b_start_b[:, None]) & mask_bt
    found = {"segments_bt": segments_bt.astype(jnp.int32), "mask_bt": mask_bt}
    if batch.documents_bt is not None:
        found["documents_bt"] = jnp.where(mask_bt, batch.documents_bt, 0)
    return found


def _mask_row(key, ids_t, length, *, config):
    choice_key, action_key, word_key = jax.random.split(key, 3)
    candidate_t = jnp.arange(ids_t.shape[0]) < length
    for special_id in config.special_ids:
        candidate_t &= ids_t != special_id
    wanted = jnp.clip(jnp.round(config.mlm_probability * length), 1, config.max_predictions)
    chosen = jnp.minimum(wanted.astype(jnp.int32), candidate_t.sum())

    if config.piece_weights is None:
        lottery_t = jax.random.uniform(choice_key, ids_t.shape)
    else:
        # Efraimidis and Spirakis 2006: the k largest u^(1/w) are a weighted draw; here in logs.
        uniform_t = jax.random.uniform(choice_key, ids_t.shape, minval=1e-9)
        lottery_t = jnp.log(uniform_t) / jnp.asarray(config.piece_weights)[ids_t]
    lottery_t = jnp.where(candidate_t, lottery_t, -jnp.inf)
    slots = min(config.max_predictions, ids_t.shape[0])
    _, positions_m = jax.lax.top_k(lottery_t, slots)
    used_m = jnp.arange(slots) < chosen
    positions_m = jnp.where(used_m, positions_m, 0)
    labels_m = ids_t[positions_m]

    action_m = jax.random.uniform(action_key, (slots,))
    random_m = jax.random.randint(word_key, (slots,), 0, config.vocab_size)
    replaced_m = jnp.where(
        action_m < 0.8, config.mask_id, jnp.where(action_m < 0.9, random_m, labels_m)
    )
    # Unused slots point at position 0 and write back what stands there.
    masked_t = ids_t.at[positions_m].set(jnp.where(used_m, replaced_m, labels_m))
    return masked_t, positions_m, jnp.where(used_m, labels_m, 0), used_m.astype(jnp.float32)
