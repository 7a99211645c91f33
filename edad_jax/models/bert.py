# SPDX-License-Identifier: Apache-2.0
"""BERT's encoder (Devlin et al. 2019, section 3), which returns what a distiller asks for.

What differs from a textbook BERT:
- `taps` names the layers whose hidden states and raw attention scores come back; the other
  layers return neither, so that the compiler may fuse them as it likes;
- a `Block` may be narrower inside than outside: exBERT's extension blocks are such blocks;
- activations have `dtype`, the operands of products may have another type (`product.py`);
  parameters, softmax and layer norm stay in float32.
"""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from edad_jax.models.dropout import Dropout
from edad_jax.models.product import linear_product
from edad_jax.types import EncoderOutput

PADDING_SCORE = -10_000.0  # added to the scores of padded keys, as BERT does


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder, under the names that Hugging Face's config.json uses."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    layer_norm_eps: float
    initializer_range: float

    def __post_init__(self):
        """Raises ValueError where the heads do not divide the width."""
        check_heads(self.hidden_size, self.num_attention_heads, "hidden_size")


def check_heads(width: int, heads: int, name: str) -> None:
    """Raises ValueError where `heads` do not divide `width`."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{name}={width} is not divisible by num_attention_heads={heads}; "
            f"choose {name}={max(1, width // max(heads, 1)) * max(heads, 1)} or another head count"
        )


def dense(
    features: int,
    config: BertConfig,
    dtype: jnp.dtype,
    products: jnp.dtype | None = None,
    *,
    name: str | None = None,
) -> nn.Dense:
    """Returns a linear layer that starts as BERT's do; `products` as in `product.py`."""
    return nn.Dense(
        features,
        dtype=dtype,
        dot_general=linear_product(dtype, products),
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: BertConfig, dtype: jnp.dtype, *, name: str | None = None) -> nn.LayerNorm:
    """Returns BERT's layer norm: epsilon 1e-12, statistics in float32 by the two-pass formula."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )


def embedding_table(rows: int, config: BertConfig, dtype: jnp.dtype) -> nn.Embed:
    """Returns a table of `rows` vectors of the model's width."""
    return nn.Embed(
        rows,
        config.hidden_size,
        dtype=dtype,
        embedding_init=nn.initializers.normal(config.initializer_range),
    )


class Embeddings(nn.Module):
    """Word + position + segment vectors, normalised."""

    config: BertConfig
    dtype: jnp.dtype

    def setup(self):
        """Makes the parts; Linen calls it."""
        config, dtype = self.config, self.dtype
        self.word = embedding_table(config.vocab_size, config, dtype)
        self.position = embedding_table(config.max_position_embeddings, config, dtype)
        self.token_type = embedding_table(config.type_vocab_size, config, dtype)
        self.norm = layer_norm(config, dtype)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def __call__(
        self, words_btd: jax.Array, segments_bt: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Returns hidden_btd from word vectors that have been looked up already."""
        length = words_btd.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"rows of {length} pieces do not fit max_position_embeddings="
                f"{self.config.max_position_embeddings}; prepare shorter rows"
            )
        positions_1td = self.position(jnp.arange(length))[None]
        hidden_btd = words_btd + positions_1td + self.token_type(segments_bt)
        return self.dropout(self.norm(hidden_btd), deterministic=deterministic)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose heads share `attention_size` numbers."""

    config: BertConfig
    attention_size: int
    num_heads: int
    dtype: jnp.dtype
    products: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, hidden_btd: jax.Array, mask_bt: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the attended values, projected back to the width, and scores_bhts."""
        config = self.config
        batch, length, width = hidden_btd.shape
        head_size = self.attention_size // self.num_heads

        def heads(name):
            projected = dense(self.attention_size, config, self.dtype, self.products, name=name)(
                hidden_btd
            )
            return projected.reshape(batch, length, self.num_heads, head_size)

        query_bthk, key_bshk, value_bshk = heads("query"), heads("key"), heads("value")
        # Kept only for a caller that asks for "intermediates": MiniLM imitates them.
        vectors = {"query": query_bthk, "key": key_bshk, "value": value_bshk}
        self.sow("intermediates", "vectors", vectors)
        scores_bhts = jnp.einsum(
            "bthk,bshk->bhts", query_bthk, key_bshk, preferred_element_type=jnp.float32
        ) / math.sqrt(head_size)
        padding_b11s = jnp.where(mask_bt, 0.0, PADDING_SCORE)[:, None, None, :]
        weights_bhts = jax.nn.softmax(scores_bhts + padding_b11s, axis=-1).astype(self.dtype)
        weights_bhts = Dropout(config.attention_probs_dropout_prob)(
            weights_bhts, deterministic=deterministic
        )
        context_bthk = jnp.einsum("bhts,bshk->bthk", weights_bhts, value_bshk)
        context = context_bthk.reshape(batch, length, self.attention_size)
        return dense(width, config, self.dtype, self.products, name="output")(context), scores_bhts


class Block(nn.Module):
    """One post-norm Transformer block; its residual stream has the model's width."""

    config: BertConfig
    attention_size: int
    num_heads: int
    intermediate_size: int
    dtype: jnp.dtype
    products: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, hidden_btd: jax.Array, mask_bt: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the block's output_btd and its raw scores_bhts."""
        config = self.config
        width = hidden_btd.shape[-1]
        dropout = Dropout(config.hidden_dropout_prob)
        attended_btd, scores_bhts = SelfAttention(
            config, self.attention_size, self.num_heads, self.dtype, self.products, name="attention"
        )(hidden_btd, mask_bt, deterministic=deterministic)
        attended_btd = dropout(attended_btd, deterministic=deterministic)
        hidden_btd = layer_norm(config, self.dtype, name="attention_norm")(
            hidden_btd + attended_btd
        )
        inner_btf = dense(
            self.intermediate_size, config, self.dtype, self.products, name="intermediate"
        )(hidden_btd)
        inner_btf = jax.nn.gelu(inner_btf, approximate=False)  # BERT's gelu is the erf form
        output_btd = dense(width, config, self.dtype, self.products, name="output")(inner_btf)
        output_btd = dropout(output_btd, deterministic=deterministic)
        output_btd = layer_norm(config, self.dtype, name="output_norm")(hidden_btd + output_btd)
        return output_btd, scores_bhts


class Bert(nn.Module):
    """BERT without pooler and heads. Its two parts can also be called one by one."""

    config: BertConfig
    dtype: jnp.dtype
    products: jnp.dtype | None = None

    def setup(self):
        """Makes the parts; Linen calls it."""
        config = self.config
        self.embeddings = Embeddings(config, self.dtype)
        self.layers = [
            Block(
                config,
                attention_size=config.hidden_size,
                num_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                dtype=self.dtype,
                products=self.products,
            )
            for _ in range(config.num_hidden_layers)
        ]

    def look_up(self, ids_bt: jax.Array) -> jax.Array:
        """Returns the word vectors of ids below vocab_size."""
        return self.embeddings.word(ids_bt)

    def embed(
        self, words_btd: jax.Array, segments_bt: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Returns the input of the first block."""
        return self.embeddings(words_btd, segments_bt, deterministic=deterministic)

    def block(
        self, layer: int, hidden_btd: jax.Array, mask_bt: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns what block number `layer` (from 0) makes of hidden_btd, and its scores."""
        return self.layers[layer](hidden_btd, mask_bt, deterministic=deterministic)

    def word_table(self) -> jax.Array:
        """Returns the word embedding table, [vocab_size, d], to which the MLM head is tied."""
        return self.embeddings.word.embedding

    def __call__(
        self,
        ids_bt: jax.Array,
        segments_bt: jax.Array,
        mask_bt: jax.Array,
        *,
        taps: Sequence[int] = (),
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Returns the last layer, and hidden states and scores of the tapped layers (from 0)."""
        embedding_btd = hidden_btd = self.embed(
            self.look_up(ids_bt), segments_bt, deterministic=deterministic
        )
        tapped = {}
        for layer in range(self.config.num_hidden_layers):
            hidden_btd, scores_bhts = self.block(
                layer, hidden_btd, mask_bt, deterministic=deterministic
            )
            tapped[layer] = (hidden_btd, scores_bhts)
        return collect_taps(hidden_btd, embedding_btd, tapped, taps)


def collect_taps(
    last_hidden_btd: jax.Array,
    embedding_btd: jax.Array,
    tapped: dict[int, tuple[jax.Array, jax.Array]],
    taps: Sequence[int],
) -> EncoderOutput:
    """Returns an EncoderOutput that holds the layers which `taps` names, in that order."""
    return EncoderOutput(
        last_hidden_btd=last_hidden_btd,
        embedding_btd=embedding_btd,
        hidden_btd=tuple(tapped[layer][0] for layer in taps),
        scores_bhts=tuple(tapped[layer][1] for layer in taps),
    )
