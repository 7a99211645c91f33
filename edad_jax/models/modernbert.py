# SPDX-License-Identifier: Apache-2.0
"""ModernBERT's encoder (Warner et al. 2024, section 2.1), in the form of `bert.Bert`.

Its blocks norm what they read and not what they give (Xiong et al. 2020), so that a last norm
stands behind them; the first block's attention reads the embeddings' norm as it is. Positions are
rotations of queries and keys (RoPE; Su et al. 2021), by half: number i of a head turns with number
i + k/2. Every few layers see the whole row, the others a window. The feed-forward layer is gated
(GeGLU; Shazeer 2020). Linear layers and norms have no biases.

Deviation from transformers' form: queries, keys and values are three kernels here, and the two
halves of the feed-forward layer two; `names` joins and splits them.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from edad_jax.models.attention import (
    attention_weights,
    fused_attention,
    raw_scores,
    weigh_values,
)
from edad_jax.models.bert import Linear, activate, embedding_table, layer_norm
from edad_jax.models.config import BertConfig, Execution
from edad_jax.models.documents import is_packed, positions
from edad_jax.models.layers import Dropout
from edad_jax.types import AttentionHeads


def frequencies(theta: float, head_size: int) -> jax.Array:
    """Returns by how much, in radians, each of the k/2 pairs turns from position to position."""
    return 1.0 / theta ** (jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)


def rotate(
    vectors_bthk: jax.Array, theta: float, positions_bt: jax.Array | None = None
) -> jax.Array:
    """Returns queries or keys turned by their positions, in their own type; angles in float32.

    Positions are those in the row, where none are given.
    """
    length, head_size = vectors_bthk.shape[1], vectors_bthk.shape[3]
    if positions_bt is None:  # the same in all rows
        places_t1 = jnp.arange(length, dtype=jnp.float32)[:, None]
        turns_bt1h = (places_t1 * frequencies(theta, head_size)[None])[None, :, None]
    else:
        places_bt1 = positions_bt.astype(jnp.float32)[..., None]
        turns_bt1h = (places_bt1 * frequencies(theta, head_size)[None, None])[:, :, None]
    cos_bt1h, sin_bt1h = jnp.cos(turns_bt1h), jnp.sin(turns_bt1h)
    one, other = jnp.split(vectors_bthk.astype(jnp.float32), 2, axis=-1)
    turned = (one * cos_bt1h - other * sin_bt1h, other * cos_bt1h + one * sin_bt1h)
    return jnp.concatenate(turned, axis=-1).astype(vectors_bthk.dtype)


def _linear_of(part):
    """Returns what makes the linear layers of a block or its attention."""
    types = {"dtype": part.dtype, "matmul_dtype": part.matmul_dtype}
    return partial(Linear, config=part.config, **types, has_bias=False)


class ModernAttention(nn.Module):
    """Self-attention with rotary positions, over the whole row or a window."""

    config: BertConfig
    attention_size: int
    num_heads: int
    layer: int
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, hidden_btd: jax.Array, mask_bt: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, AttentionHeads]:
        """Returns the attended values, projected back to the width, and the heads.

        Queries and keys of the heads are those that were turned, whose product is the score.
        """
        config, modern = self.config, self.config.modern
        batch, length, width = hidden_btd.shape
        window, theta = modern.window_of(self.layer), modern.theta_of(self.layer)
        linear = _linear_of(self)

        def heads(name):
            projected = linear(self.attention_size, name=name)(hidden_btd)
            return projected.reshape(batch, length, self.num_heads, -1)

        places_bt = positions(mask_bt) if is_packed(mask_bt) else None
        query_bthk = rotate(heads("query"), theta, places_bt)
        key_bshk = rotate(heads("key"), theta, places_bt)
        value_bshk = heads("value")
        drops = not deterministic and config.attention_probs_dropout_prob > 0
        dropout = Dropout(config.attention_probs_dropout_prob)
        fused = self.execution.attention == "fused" and not drops
        scores_bhts = None
        if fused and not window:
            context_bthk = fused_attention(query_bthk, key_bshk, value_bshk, mask_bt)
        else:
            scores_bhts = raw_scores(query_bthk, key_bshk)
            weights_bhts = attention_weights(scores_bhts, mask_bt, window).astype(self.dtype)
            weights_bhts = dropout(weights_bhts, deterministic=deterministic)
            context_bthk = weigh_values(weights_bhts, value_bshk)
        context = context_bthk.reshape(batch, length, self.attention_size)
        attended_btd = dropout(linear(width, name="output")(context), deterministic=deterministic)
        return attended_btd, AttentionHeads(query_bthk, key_bshk, value_bshk, scores_bhts)


class ModernBlock(nn.Module):
    """One pre-norm block; `layer`, from 0, says what its attention sees."""

    config: BertConfig
    attention_size: int
    num_heads: int
    intermediate_size: int
    layer: int
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        # By position, which is how remat tells what is fixed when it traces.
        self,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        deterministic: bool,
        tapped: bool,
    ) -> tuple[jax.Array, AttentionHeads | None]:
        """Returns the block's output_btd and, where tapped, its attention heads."""
        config = self.config
        linear = _linear_of(self)
        read_btd = hidden_btd
        if self.layer:
            read_btd = layer_norm(config, self.dtype, name="attention_norm")(hidden_btd)
        attended_btd, heads = ModernAttention(
            config,
            self.attention_size,
            self.num_heads,
            self.layer,
            self.dtype,
            self.matmul_dtype,
            self.execution,
            name="attention",
        )(read_btd, mask_bt, deterministic=deterministic)
        hidden_btd = hidden_btd + attended_btd
        read_btd = layer_norm(config, self.dtype, name="intermediate_norm")(hidden_btd)
        inner_btf = activate(linear(self.intermediate_size, name="intermediate")(read_btd), config)
        inner_btf = inner_btf * linear(self.intermediate_size, name="multiplier")(read_btd)
        inner_btf = Dropout(config.hidden_dropout_prob)(inner_btf, deterministic=deterministic)
        output_btd = hidden_btd + linear(hidden_btd.shape[-1], name="output")(inner_btf)
        return output_btd, heads if tapped else None


class WordEmbeddings(nn.Module):
    """Word vectors, normalised; positions come in the blocks."""

    config: BertConfig
    dtype: jnp.dtype

    def setup(self):
        self.word = embedding_table(self.config.vocab_size, self.config)
        self.norm = layer_norm(self.config, self.dtype)
        self.dropout = Dropout(self.config.hidden_dropout_prob)

    def __call__(self, words_btd: jax.Array, *, deterministic: bool) -> jax.Array:
        """Returns hidden_btd from word vectors that have been looked up already."""
        length, longest = words_btd.shape[1], self.config.max_position_embeddings
        if length > longest:
            raise ValueError(
                f"rows of {length} pieces do not fit max_position_embeddings={longest}, with which "
                "the model was trained; prepare shorter rows"
            )
        return self.dropout(self.norm(words_btd), deterministic=deterministic)


class ModernBert(nn.Module):
    """ModernBERT without heads; methods as those of `bert.Bert`."""

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    def setup(self):
        config = self.config
        self.embeddings = WordEmbeddings(config, self.dtype)
        wrap = {"none": lambda block: block, "blocks": partial(nn.remat, static_argnums=(3, 4))}
        block = wrap[self.execution.remat](ModernBlock)
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.layers = [
            block(config, *sizes, layer, self.dtype, self.matmul_dtype, self.execution)
            for layer in range(config.num_hidden_layers)
        ]
        self.final_norm = layer_norm(config, self.dtype)

    def look_up(self, ids_bt: jax.Array) -> jax.Array:
        """Returns the word vectors of ids below vocab_size."""
        return self.embeddings.word(ids_bt)

    def embed(
        self,
        words_btd: jax.Array,
        segments_bt: jax.Array,
        mask_bt: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Returns the input of the first block; segments and mask are not read."""
        del segments_bt, mask_bt
        return self.embeddings(words_btd, deterministic=deterministic)

    def block(
        self,
        layer: int,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        *,
        deterministic: bool,
        tapped: bool,
        bias_hts: None = None,
    ) -> tuple[jax.Array, AttentionHeads | None]:
        """Returns what block number `layer` (from 0) makes of hidden_btd; if tapped, its heads."""
        del bias_hts
        return self.layers[layer](hidden_btd, mask_bt, deterministic, tapped)

    def position_bias(self, length: int) -> None:
        """Returns None: scores get no bias, positions are in the queries and keys."""
        del length

    def finish(self, hidden_btd: jax.Array) -> jax.Array:
        """Returns the encoder's output: the last block's, normalised."""
        return self.final_norm(hidden_btd)

    def word_table(self) -> jax.Array:
        """Returns the word table, [vocab_size, d], to which the MLM head is tied."""
        return self.embeddings.word.embedding
