# SPDX-License-Identifier: Apache-2.0
"""Everything that sits on an encoder: pooler, MLM and NSP heads, classifier, width projection."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models.bert import Linear, activate, layer_norm
from edad_jax.models.config import BertConfig
from edad_jax.models.layers import Dropout
from edad_jax.models.product import add_vocabulary_bias, tied_product


class Pooler(nn.Module):
    """tanh(linear([CLS])), the vector that NSP and sequence classification read.

    A net whose pretraining has no pooler gets one with relu for tanh when it learns to classify:
    that is DistilBERT's `pre_classifier`, so that its classifiers can be read and written. In
    RoBERTa's and ELECTRA's classifiers it has tanh and gelu.
    """

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden_btd: jax.Array) -> jax.Array:
        pooled_bd = Linear(
            self.config.hidden_size, self.config, self.dtype, self.matmul_dtype, name="dense"
        )(hidden_btd[:, 0])
        if self.config.pooler_act == "gelu":
            return activate(pooled_bd, self.config)
        return {"tanh": jnp.tanh, "relu": jax.nn.relu}[self.config.pooler_act](pooled_bd)


class ModernHead(nn.Module):
    """Linear, gelu and norm in front of all of a ModernBERT's classifiers, of texts and of pieces.

    In its checkpoints it is the head for masked words, from which a classifier's begins.
    """

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Returns [..., d] from hidden [..., d]."""
        inner = Linear(
            self.config.hidden_size,
            self.config,
            self.dtype,
            self.matmul_dtype,
            has_bias=False,
            name="dense",
        )(hidden)
        return layer_norm(self.config, self.dtype, name="norm")(activate(inner, self.config))


def make_pooler(
    config: BertConfig, dtype: jnp.dtype, matmul_dtype: jnp.dtype | None = None
) -> nn.Module:
    """Returns what stands between encoder and classifier where there is such: params "pooler"."""
    return (ModernHead if config.modern else Pooler)(config, dtype, matmul_dtype)


def read_vectors(
    pooler: Pooler | ModernHead,
    params: Mapping[str, Any],
    hidden_btd: jax.Array,
    mask_bt: jax.Array,
    *,
    of_texts: bool,
) -> jax.Array:
    """Returns what a classifier reads through a pooler: [b, d] of texts, else [b, t, d].

    Args:
      pooler: from `make_pooler`.
      params: its parameters.
      hidden_btd: the encoder's output.
      mask_bt: True at real pieces; read where a ModernBERT takes their mean.
      of_texts: whether each row has one vector.
    """
    if of_texts and isinstance(pooler, ModernHead):
        hidden_btd = text_vectors(pooler.config, hidden_btd, mask_bt)
    return pooler.apply({"params": params}, hidden_btd)


def text_vectors(config: BertConfig, hidden_btd: jax.Array, mask_bt: jax.Array) -> jax.Array:
    """Returns hidden_bd: that of [CLS], or the mean over the real pieces, as `pooling` says."""
    if config.modern.pooling == "cls":
        return hidden_btd[:, 0]
    real_bt1 = mask_bt[..., None]
    count_b1 = jnp.maximum(real_bt1.sum(axis=1), 1).astype(hidden_btd.dtype)
    return jnp.where(real_bt1, hidden_btd, 0).sum(axis=1) / count_b1


def gather_positions(hidden_btd: jax.Array, positions_bm: jax.Array) -> jax.Array:
    """Returns hidden_bmd: the hidden states at the named positions.

    At most 20 of 128 positions are masked; logits over 48,180 pieces at all of them would be
    3.2 GB in float32 for the paper's batch of 128.
    """
    return jnp.take_along_axis(hidden_btd, positions_bm[..., None], axis=1)


class MlmHead(nn.Module):
    """BERT's masked-language-model head, tied to one or more tables of word vectors."""

    config: BertConfig
    vocab_size: int  # rows of all tables together
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, hidden_bmd: jax.Array, tables_vd: Sequence[jax.Array]
    ) -> tuple[jax.Array, ...]:
        """Returns float32 logits_bmv over the rows of each table."""
        config = self.config
        hidden_bmd = Linear(
            config.table_width,
            config,
            self.dtype,
            self.matmul_dtype,
            config.has_biases,
            name="transform",
        )(hidden_bmd)
        hidden_bmd = activate(hidden_bmd, config)
        hidden_bmd = layer_norm(config, self.dtype, name="norm")(hidden_bmd)
        bias_v = self.param("bias", nn.initializers.zeros, (self.vocab_size,))
        ends = np.cumsum([len(table_vd) for table_vd in tables_vd])
        return tuple(
            add_vocabulary_bias(
                tied_product(hidden_bmd, table_vd, self.dtype, self.matmul_dtype),
                table_bias_v,
            )
            for table_vd, table_bias_v in zip(tables_vd, jnp.split(bias_v, ends[:-1]), strict=True)
        )


class NspHead(nn.Module):
    """BERT's next-sentence head: class 0 is "B follows A", class 1 "B is random"."""

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, pooled_bd: jax.Array) -> jax.Array:
        return Linear(2, self.config, self.dtype, self.matmul_dtype, name="dense")(
            pooled_bd
        ).astype(jnp.float32)


class Classifier(nn.Module):
    """Dropout and a linear layer: on every piece for tagging, else on the pooled vector.

    Devlin et al. 2019, section 4; as in the reference code, dropout is the encoder's.
    """

    config: BertConfig
    labels: int
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden: jax.Array, *, deterministic: bool) -> jax.Array:
        """Returns float32 logits [..., labels] from hidden [..., d]."""
        hidden = Dropout(self.config.hidden_dropout_prob)(hidden, deterministic=deterministic)
        return Linear(self.labels, self.config, self.dtype, self.matmul_dtype, name="dense")(
            hidden
        ).astype(jnp.float32)


class WidthProjection(nn.Module):
    """TinyBERT's shared linear map from the student's width to the teacher's (Eq. 8, 9).

    One map with a bias serves the embeddings and all layers, as in the authors' `fit_dense`.
    """

    teacher_width: int
    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden_btd: jax.Array) -> jax.Array:
        return Linear(self.teacher_width, self.config, self.dtype, self.matmul_dtype, name="dense")(
            hidden_btd
        )
