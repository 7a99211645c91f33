# SPDX-License-Identifier: Apache-2.0
"""exBERT (Tai et al. 2020): a BERT that grows a second vocabulary and a module beside each block.

Each block mixes the original and the extension by a gate that reads the block's input:

    out = w * original(x) + (1 - w) * extension(x),    w = sigmoid(linear(x))  per token

Teacher and student of EDAD are both exBERTs, of different size. The parameters come apart
at the top level, so that "frozen" is a subtree and not a mask:

    base       the original BERT: embeddings and blocks
    pooler     [CLS] to the NSP head; the reference code leaves the teacher's as it was
    extension  new word vectors, narrow blocks, gates
    mlm, nsp   the pretraining heads (a base without pooler has no nsp)

Deviation from the reference code: the embedding lookup is clean. There, original words get
the extension's row 0 added (and the other way round), segment 0 is forced to zero and padding
has no word vector; with any of these, the original branch is not the BERT that was loaded. Nor
is row 0 of the position and segment tables kept from learning, as its `padding_idx=0` does.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from edad_jax.models.bert import Bert, Linear, collect_taps, embedding_table, make_block
from edad_jax.models.config import ExBertConfig, Execution
from edad_jax.models.heads import MlmHead, NspHead, Pooler, gather_positions
from edad_jax.models.modernbert import ModernBert
from edad_jax.types import AttentionHeads, EncoderOutput, MaskedBatch


class Extension(nn.Module):
    """What exBERT adds to a BERT: a table of new words; for each layer a block and a gate."""

    config: ExBertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    def setup(self):
        base, sizes = self.config.base, self.config.extension
        if self.config.extension_vocab_size:
            self.word = embedding_table(self.config.extension_vocab_size, base)
        if sizes:
            widths = (sizes.hidden_size, sizes.num_attention_heads, sizes.intermediate_size)
            self.layers = [
                make_block(base, widths, self.dtype, self.matmul_dtype, self.execution)
                for _ in range(base.num_hidden_layers)
            ]
            self.gates = [Linear(1, base, jnp.float32) for _ in range(base.num_hidden_layers)]

    def look_up(self, ids_bt: jax.Array) -> jax.Array:
        """Returns the word vectors of ids counted from the first added word."""
        return self.word(ids_bt)

    def word_table(self) -> jax.Array:
        """Returns the table of added words, [extension_vocab_size, d]."""
        return self.word.embedding

    def block(
        self,
        layer: int,
        hidden_btd: jax.Array,
        mask_bt: jax.Array,
        *,
        deterministic: bool,
        tapped: bool,
        bias_hts: jax.Array | None = None,
    ) -> tuple[jax.Array, AttentionHeads | None, jax.Array]:
        """Returns the extension block's output, its heads, and the original's share w_bt1."""
        output_btd, heads = self.layers[layer](hidden_btd, mask_bt, deterministic, tapped, bias_hts)
        original_share_bt1 = jax.nn.sigmoid(self.gates[layer](hidden_btd)).astype(self.dtype)
        return output_btd, heads, original_share_bt1


class ExBert(nn.Module):
    """exBERT with pooler and pretraining heads."""

    config: ExBertConfig
    dtype: jnp.dtype
    matmul_dtype: jnp.dtype | None = None
    execution: Execution = Execution()

    def setup(self):
        base = self.config.base
        encoder = ModernBert if base.modern else Bert
        self.base = encoder(base, self.dtype, self.matmul_dtype, self.execution)
        if self.config.extension or self.config.extension_vocab_size:
            self.extension = Extension(self.config, self.dtype, self.matmul_dtype, self.execution)
        self.mlm = MlmHead(base, self.config.vocab_size, self.dtype, self.matmul_dtype)
        if base.has_pooler:
            self.pooler = Pooler(base, self.dtype, self.matmul_dtype)
            self.nsp = NspHead(base, self.dtype, self.matmul_dtype)

    def encode(
        self,
        ids_bt: jax.Array,
        segments_bt: jax.Array,
        mask_bt: jax.Array,
        *,
        taps: Sequence[int] = (),
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Returns the last layer, and hidden states and heads of the tapped layers (from 0).

        The mask is True at real pieces; or has numbers of documents (`documents`). The original's
        heads come first, then the extension's. Hidden states are taken after the
        gate; those of the last layer are the encoder's output.
        """
        embedding_btd = hidden_btd = self.base.embed(
            self._look_up(ids_bt), segments_bt, mask_bt, deterministic=deterministic
        )
        tapped, bias_hts = {}, self.base.position_bias(ids_bt.shape[1])
        same = {"deterministic": deterministic, "bias_hts": bias_hts}
        for layer in range(self.config.base.num_hidden_layers):
            hidden_btd, heads = self._block(
                layer, hidden_btd, mask_bt, tapped=layer in taps, **same
            )
            tapped[layer] = (hidden_btd, heads)
        hidden_btd = self.base.finish(hidden_btd)
        tapped[layer] = (hidden_btd, heads)
        return collect_taps(hidden_btd, embedding_btd, tapped, taps)

    def mlm_logits(self, hidden_btd: jax.Array, positions_bm: jax.Array) -> jax.Array:
        """Returns logits_bmv over the joint vocabulary at the named positions."""
        return jnp.concatenate(self._mlm_logits_by_table(hidden_btd, positions_bm), axis=-1)

    def _mlm_logits_by_table(self, hidden_btd, positions_bm):
        """Returns logits_bmv over the original words, then those over the added ones."""
        tables_vd = [self.base.word_table()]
        if self.config.extension_vocab_size:
            tables_vd.append(self.extension.word_table())
        return self.mlm(gather_positions(hidden_btd, positions_bm), tables_vd)

    def nsp_logits(self, hidden_btd: jax.Array) -> jax.Array | None:
        """Returns logits_bc: 0 is "B follows A", 1 "B is random"; None without a pooler."""
        return self.nsp(self.pooler(hidden_btd)) if self.config.base.has_pooler else None

    def __call__(
        self, batch: MaskedBatch, *, taps: Sequence[int] = (), deterministic: bool = True
    ) -> tuple[EncoderOutput, tuple[jax.Array, ...], jax.Array | None]:
        """Returns the encoder's output, and the logits of both pretraining heads.

        Returns:
          the output; mlm_logits_bmv at the masked positions, over the original words and, where
          there are such, over the added ones (side by side they would be copied, forward and
          backward: at the paper's sizes half a gigabyte each way); nsp_logits_bc, or None where the
          net has no pooler.
        """
        output = self.encode(
            batch.ids_bt,
            batch.segments_bt,
            batch.seen_bt,
            taps=taps,
            deterministic=deterministic,
        )
        return (
            output,
            self._mlm_logits_by_table(output.last_hidden_btd, batch.masked_positions_bm),
            self.nsp_logits(output.last_hidden_btd),
        )

    def _look_up(self, ids_bt):
        if not self.config.extension_vocab_size:
            return self.base.look_up(ids_bt)
        base_size = self.config.base.vocab_size
        return jnp.where(
            (ids_bt < base_size)[..., None],
            self.base.look_up(jnp.minimum(ids_bt, base_size - 1)),
            self.extension.look_up(jnp.maximum(ids_bt - base_size, 0)),
        )

    def _block(self, layer, hidden_btd, mask_bt, **options):
        original_btd, heads = self.base.block(layer, hidden_btd, mask_bt, **options)
        if not self.config.extension:
            return original_btd, (heads,)
        added_btd, added_heads, share_bt1 = self.extension.block(
            layer, hidden_btd, mask_bt, **options
        )
        mixed_btd = share_bt1 * original_btd + (1 - share_bt1) * added_btd
        return mixed_btd, (heads, added_heads)
