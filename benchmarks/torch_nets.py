# SPDX-License-Identifier: Apache-2.0
"""The nets of edad_jax/models in torch: exBERT with its heads, for the peer of a training step.

Modules are named as our parameters are, so that `torch_tensors` needs no table of names:
`base/layers_0/attention/query/kernel` is `base.layers_0.attention.query.weight`, transposed.
(edad_jax/export/modeling_exbert.py, which travels with exported models, keeps one word table for
both vocabularies. Here the base's is frozen and the added words' is not.)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edad_jax.models.attention import PADDING_SCORE
from edad_jax.models.config import BertConfig, ExBertConfig
from edad_jax.models.names import LEAVES
from edad_jax.types import MaskedBatch


class Output(NamedTuple):
    """What an encoder returns: the last layer, and what the taps asked for."""

    last_hidden_btd: torch.Tensor
    embedding_btd: torch.Tensor
    hidden_btd: tuple[torch.Tensor, ...]
    scores_bhts: tuple[torch.Tensor, ...]  # raw: scaled, before mask and softmax


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    With `fuses` it is one kernel where its scores are not asked for, and on a CPU where no gradient
    is either: the kernel's backward pass is slower there than the products it saves.
    """

    def __init__(self, config: BertConfig, attention_size: int, heads: int, *, fuses: bool):
        super().__init__()
        self.heads, self.rate, self.fuses = heads, config.attention_probs_dropout_prob, fuses
        self.query = nn.Linear(config.hidden_size, attention_size)
        self.key = nn.Linear(config.hidden_size, attention_size)
        self.value = nn.Linear(config.hidden_size, attention_size)
        self.output = nn.Linear(attention_size, config.hidden_size)

    def forward(self, operand_btd, mask_bt, *, tapped: bool):
        """Returns the attended values, and the raw scores_bhts where tapped."""
        query_bhtk, key_bhsk, value_bhsk = (
            linear(operand_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        rate = self.rate if self.training else 0.0
        fuses = self.fuses and (query_bhtk.is_cuda or not query_bhtk.requires_grad)
        scores_bhts = None
        if fuses and not tapped:
            context_bhtk = functional.scaled_dot_product_attention(
                query_bhtk, key_bhsk, value_bhsk, mask_bt[:, None, None, :], dropout_p=rate
            )
        else:
            query_bhtk = query_bhtk / math.sqrt(query_bhtk.shape[-1])
            scores_bhts = query_bhtk @ key_bhsk.transpose(-1, -2)
            padding_b11s = (~mask_bt)[:, None, None, :].to(scores_bhts.dtype) * PADDING_SCORE
            # In float32 on a GPU, by autocast; on a CPU the kernel itself sums in float32.
            weights_bhts = torch.softmax(scores_bhts + padding_b11s, -1).to(value_bhsk.dtype)
            context_bhtk = functional.dropout(weights_bhts, rate) @ value_bhsk
        return self.output(context_bhtk.transpose(1, 2).flatten(2)), scores_bhts


class Block(nn.Module):
    """One post-norm Transformer block; original and extension differ in inner sizes only."""

    def __init__(self, config: BertConfig, attention_size, heads, intermediate_size, *, fuses):
        super().__init__()
        width = config.hidden_size
        self.rate, self.gelu = config.hidden_dropout_prob, _gelu(config)
        self.attention = SelfAttention(config, attention_size, heads, fuses=fuses)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(width, intermediate_size)
        self.output = nn.Linear(intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden_btd, operand_btd, mask_bt, *, tapped: bool):
        """Returns the block's output and, where tapped, its raw scores.

        `operand_btd` is hidden_btd in the type of the products that read it.
        """
        attended_btd, scores_bhts = self.attention(operand_btd, mask_bt, tapped=tapped)
        hidden_btd = self.attention_norm(hidden_btd + self._drop(attended_btd))
        inner_btf = self.gelu(self.intermediate(hidden_btd))
        return self.output_norm(hidden_btd + self._drop(self.output(inner_btf))), scores_bhts

    def _drop(self, hidden_btd):
        return functional.dropout(hidden_btd, self.rate, self.training)


class Head(nn.Module):
    """The MLM head before its word tables, which are the embeddings'."""

    def __init__(self, config: BertConfig, vocab_size: int):
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.gelu = _gelu(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden, tables_vd: Sequence[torch.Tensor]):
        """Returns float32 logits over the tables' rows, one table after the other."""
        hidden = _operand(self.norm(self.gelu(self.transform(hidden))))
        biases_v = self.bias.split([len(table_vd) for table_vd in tables_vd])
        logits = [
            functional.linear(hidden, table_vd, bias_v)
            for table_vd, bias_v in zip(tables_vd, biases_v, strict=True)
        ]
        return torch.cat(logits, -1).float()


class ExBert(nn.Module):
    """exBERT with pooler, pretraining heads and, in a student, the map to the teacher's width."""

    def __init__(self, config: ExBertConfig, *, fuses: bool, teacher_width: int | None = None):
        super().__init__()
        base, extension = config.base, config.extension
        if base.shares_layers or base.embedding_size:
            raise ValueError(
                "got shared layers or a factorised embedding (ALBERT), which the torch peer has "
                "not; set config.student.shares_layers=False and config.student.embedding_size=0"
            )
        if base.modern:
            raise ValueError("got a ModernBERT, whose blocks the torch peer has not; take a BERT")
        width, layers = base.hidden_size, range(base.num_hidden_layers)
        self.config = config
        embeddings = {
            "word": nn.Embedding(base.vocab_size, width),
            "position": nn.Embedding(base.max_position_embeddings, width),
            "norm": nn.LayerNorm(width, eps=base.layer_norm_eps),
        }
        if base.type_vocab_size:
            embeddings["token_type"] = nn.Embedding(base.type_vocab_size, width)
        original = (width, base.num_attention_heads, base.intermediate_size)
        blocks = {f"layers_{n}": Block(base, *original, fuses=fuses) for n in layers}
        self.base = nn.ModuleDict({"embeddings": nn.ModuleDict(embeddings)} | blocks)
        added = {}
        if config.extension_vocab_size:
            added["word"] = nn.Embedding(config.extension_vocab_size, width)
        if extension:
            sizes = (
                extension.hidden_size,
                extension.num_attention_heads,
                extension.intermediate_size,
            )
            added |= {f"layers_{n}": Block(base, *sizes, fuses=fuses) for n in layers}
            added |= {f"gates_{n}": nn.Linear(width, 1) for n in layers}
        self.extension = nn.ModuleDict(added)
        self.mlm = Head(base, config.vocab_size)
        if base.has_pooler:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})
            self.nsp = nn.ModuleDict({"dense": nn.Linear(width, 2)})
        if teacher_width:
            self.projection = nn.ModuleDict({"dense": nn.Linear(width, teacher_width)})

    def forward(self, batch: MaskedBatch, taps: Sequence[int] = ()) -> Output:
        """Returns the last layer, and hidden states and raw scores of the tapped layers."""
        embedding_btd = hidden_btd = self._embed(batch.ids_bt, batch.segments_bt)
        tapped = {}
        for layer in range(self.config.base.num_hidden_layers):
            hidden_btd, scores_bhts = self._layer(
                layer, hidden_btd, batch.mask_bt, tapped=layer in taps
            )
            tapped[layer] = (hidden_btd, scores_bhts)
        return Output(
            last_hidden_btd=hidden_btd,
            embedding_btd=embedding_btd,
            hidden_btd=tuple(tapped[layer][0] for layer in taps),
            scores_bhts=tuple(tapped[layer][1] for layer in taps),
        )

    def mlm_logits(self, hidden):
        """Returns float32 logits over the joint vocabulary, wherever `hidden` is."""
        tables_vd = [self.base["embeddings"]["word"].weight]
        if self.config.extension_vocab_size:
            tables_vd.append(self.extension["word"].weight)
        return self.mlm(hidden, tables_vd)

    def nsp_logits(self, hidden_btd):
        """Returns float32 logits_bc."""
        return self.nsp["dense"](torch.tanh(self.pooler["dense"](hidden_btd[:, 0]))).float()

    def project(self, hidden_btd):
        """Returns float32 hidden_bte, in the teacher's width."""
        return self.projection["dense"](hidden_btd).float()

    def _embed(self, ids_bt, segments_bt):
        parts, base_size = self.base["embeddings"], self.config.base.vocab_size
        words_btd = parts["word"](ids_bt.clamp(max=base_size - 1)).float()
        if self.config.extension_vocab_size:
            added_btd = self.extension["word"]((ids_bt - base_size).clamp(min=0))
            words_btd = torch.where((ids_bt < base_size)[..., None], words_btd, added_btd)
        hidden_btd = words_btd + parts["position"].weight[: ids_bt.shape[1]]
        if "token_type" in parts:
            hidden_btd = hidden_btd + parts["token_type"](segments_bt)
        rate = self.config.base.hidden_dropout_prob
        return functional.dropout(parts["norm"](hidden_btd), rate, self.training)

    def _layer(self, layer, hidden_btd, mask_bt, *, tapped):
        name = f"layers_{layer}"
        operand_btd = _operand(hidden_btd)
        original_btd, scores_bhts = self.base[name](hidden_btd, operand_btd, mask_bt, tapped=tapped)
        if not self.config.extension:
            return original_btd, scores_bhts
        added_btd, added_scores_bhts = self.extension[name](
            hidden_btd, operand_btd, mask_bt, tapped=tapped
        )
        share_bt1 = torch.sigmoid(self.extension[f"gates_{layer}"](operand_btd).float())
        if tapped:
            scores_bhts = torch.cat([scores_bhts, added_scores_bhts], 1)
        return torch.lerp(added_btd, original_btd, share_bt1), scores_bhts


def load_net(
    config: ExBertConfig,
    params: Mapping[str, Any],
    *,
    fuses: bool,
    device: str,
) -> ExBert:
    """Returns a net of these sizes with our parameters, in training mode.

    Args:
      config: sizes, those of ours.
      params: all of the net's parameters, a student's "projection" among them where it has one.
      fuses: attention whose scores are not asked for runs as one kernel.
      device: where to.
    """
    width = params["projection"]["dense"]["bias"].shape[0] if "projection" in params else None
    with torch.device("meta"):  # nothing is drawn that is overwritten at once
        net = ExBert(config, fuses=fuses, teacher_width=width)
    net.load_state_dict(torch_tensors(params), assign=True)
    return net.to(device).train()


def torch_tensors(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns a tree of our parameters, or of their gradients, under the names of `ExBert`."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *modules, kind = (part.key for part in path)
        array = np.asarray(leaf)
        tensor = torch.tensor(array.T if kind == "kernel" else array).contiguous()
        tensors[".".join([*modules, LEAVES[kind]])] = tensor
    return tensors


def _gelu(config):
    return nn.GELU(approximate="tanh" if config.hidden_act == "gelu_new" else "none")


def _operand(hidden):
    """Returns what several products read, turned to their type once and not once for each."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        return hidden.to(torch.get_autocast_dtype(kind))
    return hidden
