# SPDX-License-Identifier: Apache-2.0
"""BERT's encoder (Devlin et al. 2019, section 3), which returns what a distiller asks for.

What differs from a textbook BERT:
- `taps` names the layers whose hidden states and attention heads come back; the other layers
  return neither, so that the compiler may fuse them as it likes;
- a `Block` may be narrower inside than outside: exBERT's extension blocks are such blocks;
- activations have `dtype`, the operands of matmuls may have another type (`product.py`);
  parameters, softmax and layer norm stay in float32.
"""

from collections.abc import Sequence
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
from edad_jax.models.config import BertConfig, Execution
from edad_jax.models.documents import is_packed, positions
from edad_jax.models.layers import Dropout, LayerNorm, gelu
from edad_jax.models.product import add_bias, linear_product
from edad_jax.models.relative_position import RelativePosition
from edad_jax.types import AttentionHeads, EncoderOutput


class Linear(nn.Module):
    """A linear layer that starts as BERT's do. What differs from `nn.Dense` is in `product.py`."""

    features: int
    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    has_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns inputs [..., d] times the kernel, plus the bias if any: [..., features]."""
        starts = nn.initializers.normal(self.config.initializer_range)
        kernel_de = self.param("kernel", starts, (inputs.shape[-1], self.features))
        product = linear_product(inputs, kernel_de, self.dtype, self.matmul_dtype)
        if not self.has_bias:
            return product
        return add_bias(product, self.param("bias", nn.initializers.zeros, (self.features,)))


def layer_norm(config: BertConfig, dtype: jnp.dtype, *, name: str | None = None) -> LayerNorm:
    """Returns the family's layer norm."""
    return LayerNorm(config.layer_norm_eps, dtype, config.has_biases, name=name)


def activate(inner: jax.Array, config: BertConfig) -> jax.Array:
    """Returns the feed-forward's or MLM head's inner layer after config.hidden_act."""
    return gelu(inner, config.hidden_act == "gelu_new")


def embedding_table(rows: int, config: BertConfig) -> nn.Embed:
    """Returns a table of `rows` vectors, as wide as the model's tables are.

    Its vectors are float32 whatever the type of the activations: the gradient of a vector is the
    sum over all places that look it up, and bfloat16 cannot sum thousands (of a segment vector it
    lost half).
    """
    return nn.Embed(
        rows,
        config.table_width,
        dtype=jnp.float32,
        embedding_init=nn.initializers.normal(config.initializer_range),
    )


class Embeddings(nn.Module):
    """Word + position + segment vectors, normalised; then mapped to the width where narrower."""

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None

    def setup(self):
        config, dtype = self.config, self.dtype
        self.word = embedding_table(config.vocab_size, config)
        self.position = embedding_table(config.max_position_embeddings, config)
        if config.type_vocab_size:
            self.token_type = embedding_table(config.type_vocab_size, config)
        self.norm = layer_norm(config, dtype)
        if config.embedding_size:
            self.projection = Linear(config.hidden_size, config, dtype, self.matmul_dtype)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        words_btd: jax.Array,
        segments_bt: jax.Array,
        mask_bt: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Returns hidden_btd from word vectors that have been looked up already.

        Without segment vectors, or with one alone (RoBERTa), `segments_bt` is not read. The mask
        tells where documents begin in packed rows.
        """
        length = words_btd.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"rows of {length} pieces do not fit max_position_embeddings="
                f"{self.config.max_position_embeddings}; prepare shorter rows"
            )
        if is_packed(mask_bt):
            hidden_btd = words_btd + self.position(positions(mask_bt))
        else:
            hidden_btd = words_btd + self.position(jnp.arange(length))[None]
        if self.config.type_vocab_size:
            kinds = self.config.type_vocab_size
            hidden_btd += self.token_type(segments_bt if kinds > 1 else jnp.zeros_like(segments_bt))
        hidden_btd = self.dropout(self.norm(hidden_btd), deterministic=deterministic)
        return self.projection(hidden_btd) if self.config.embedding_size else hidden_btd


class SelfAttention(nn.Module):
    """Multi-head self-attention whose heads share `attention_size` numbers."""

    config: BertConfig
    attention_size: int
    num_heads: int
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        bias_hts: jax.Array | None,
        *,
        deterministic: bool,
    ) -> tuple[jax.Array, AttentionHeads]:
        """Returns the attended values, projected back to the width, and the heads."""
        config = self.config
        self.execution.check_bias(config)
        batch, length, width = hidden_btd.shape
        head_size = self.attention_size // self.num_heads

        def heads(name):
            projected = Linear(
                self.attention_size, config, self.dtype, self.matmul_dtype, name=name
            )(hidden_btd)
            return projected.reshape(batch, length, self.num_heads, head_size)

        query_bthk, key_bshk, value_bshk = heads("query"), heads("key"), heads("value")
        drops = not deterministic and config.attention_probs_dropout_prob > 0
        if self.execution.attention == "fused" and not drops:
            scores_bhts = None
            context_bthk = fused_attention(query_bthk, key_bshk, value_bshk, mask_bt)
        else:
            scores_bhts = raw_scores(query_bthk, key_bshk)
            if bias_hts is not None:
                # It belongs to the scores that are tapped. TinyBERT has its student learn what
                # softmax reads, and of a student without such a bias, queries and keys alone must
                # come to look where the teacher looks.
                scores_bhts += bias_hts[None]
            weights_bhts = attention_weights(scores_bhts, mask_bt).astype(self.dtype)
            weights_bhts = Dropout(config.attention_probs_dropout_prob)(
                weights_bhts, deterministic=deterministic
            )
            context_bthk = weigh_values(weights_bhts, value_bshk)
        context = context_bthk.reshape(batch, length, self.attention_size)
        heads = AttentionHeads(query_bthk, key_bshk, value_bshk, scores_bhts)
        return Linear(width, config, self.dtype, self.matmul_dtype, name="output")(context), heads


class Block(nn.Module):
    """One post-norm Transformer block; its residual stream has the model's width."""

    config: BertConfig
    attention_size: int
    num_heads: int
    intermediate_size: int
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        # By position, which is how `make_block`'s remat tells what is fixed when it traces.
        self,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        deterministic: bool,
        tapped: bool,
        bias_hts: jax.Array | None = None,
    ) -> tuple[jax.Array, AttentionHeads | None]:
        """Returns the block's output_btd and, where tapped, its attention heads."""
        config = self.config
        width = hidden_btd.shape[-1]
        dropout = Dropout(config.hidden_dropout_prob)
        attended_btd, heads = SelfAttention(
            config,
            self.attention_size,
            self.num_heads,
            self.dtype,
            self.matmul_dtype,
            self.execution,
            name="attention",
        )(hidden_btd, mask_bt, bias_hts, deterministic=deterministic)
        attended_btd = dropout(attended_btd, deterministic=deterministic)
        hidden_btd = layer_norm(config, self.dtype, name="attention_norm")(
            hidden_btd + attended_btd
        )
        inner_btf = Linear(
            self.intermediate_size, config, self.dtype, self.matmul_dtype, name="intermediate"
        )(hidden_btd)
        inner_btf = activate(inner_btf, config)
        output_btd = Linear(width, config, self.dtype, self.matmul_dtype, name="output")(inner_btf)
        output_btd = dropout(output_btd, deterministic=deterministic)
        output_btd = layer_norm(config, self.dtype, name="output_norm")(hidden_btd + output_btd)
        return output_btd, heads if tapped else None


def make_block(
    config: BertConfig,
    sizes: tuple[int, int, int],
    dtype: jnp.dtype,
    matmul_dtype: jnp.dtype | None,
    execution: Execution,
) -> Block:
    """Returns a block of (attention_size, num_heads, intermediate_size)."""
    remat = {"none": lambda block: block, "blocks": partial(nn.remat, static_argnums=(3, 4))}
    return remat[execution.remat](Block)(config, *sizes, dtype, matmul_dtype, execution)


class Bert(nn.Module):
    """BERT without pooler and heads. Its two parts can also be called one by one."""

    config: BertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    def setup(self):
        config = self.config
        self.embeddings = Embeddings(config, self.dtype, self.matmul_dtype)
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.layers = [
            make_block(config, sizes, self.dtype, self.matmul_dtype, self.execution)
            for _ in range(config.stored_layers)
        ]
        if config.relative_attention_num_buckets:
            self.relative = RelativePosition(config.num_attention_heads, config.initializer_range)

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
        """Returns the input of the first block."""
        return self.embeddings(words_btd, segments_bt, mask_bt, deterministic=deterministic)

    def block(
        self,
        layer: int,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        *,
        deterministic: bool,
        tapped: bool,
        bias_hts: jax.Array | None = None,
    ) -> tuple[jax.Array, AttentionHeads | None]:
        """Returns what block number `layer` (from 0) makes of hidden_btd; if tapped, its heads."""
        block = self.layers[0 if self.config.shares_layers else layer]
        return block(hidden_btd, mask_bt, deterministic, tapped, bias_hts)

    def position_bias(self, length: int) -> jax.Array | None:
        """Returns bias_hts, which every block is to add to its scores; None where there is none."""
        return self.relative(length) if self.config.relative_attention_num_buckets else None

    def finish(self, hidden_btd: jax.Array) -> jax.Array:
        """Returns the encoder's output, given the last block's: the same."""
        return hidden_btd

    def word_table(self) -> jax.Array:
        """Returns the word table, [vocab_size, table_width], to which the MLM head is tied."""
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
        """Returns the last layer, and hidden states and heads of the tapped layers (from 0).

        The mask is True at real pieces; or has numbers of documents (`documents`).
        """
        embedding_btd = hidden_btd = self.embed(
            self.look_up(ids_bt), segments_bt, mask_bt, deterministic=deterministic
        )
        tapped = {}
        same = {"deterministic": deterministic, "bias_hts": self.position_bias(ids_bt.shape[1])}
        for layer in range(self.config.num_hidden_layers):
            hidden_btd, heads = self.block(layer, hidden_btd, mask_bt, tapped=layer in taps, **same)
            tapped[layer] = (hidden_btd, (heads,))
        return collect_taps(hidden_btd, embedding_btd, tapped, taps)


def collect_taps(
    last_hidden_btd: jax.Array,
    embedding_btd: jax.Array,
    tapped: dict[int, tuple[jax.Array, tuple[AttentionHeads | None, ...]]],
    taps: Sequence[int],
) -> EncoderOutput:
    """Returns an EncoderOutput that holds the layers which `taps` names, in that order."""
    return EncoderOutput(
        last_hidden_btd=last_hidden_btd,
        embedding_btd=embedding_btd,
        hidden_btd=tuple(tapped[layer][0] for layer in taps),
        heads=tuple(tapped[layer][1] for layer in taps),
    )
