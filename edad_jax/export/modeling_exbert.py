# SPDX-License-Identifier: Apache-2.0
"""exBERT in torch: a BERT with a second, narrow block beside each of its blocks.

This file travels with a model that edad-jax exported, and needs torch and transformers (4.46 or
newer, 4 or 5) only:

    AutoModel.from_pretrained(directory, trust_remote_code=True)

Each layer mixes the original block and the extension block (Tai et al. 2020) by a gate that
reads the layer's input, one number for each token:

    out = w * original(x) + (1 - w) * extension(x),    w = sigmoid(gate(x))

Names of the tensors: everything that BERT has is named as in BERT (`bert.embeddings.*`,
`bert.encoder.layer.N.*`, `bert.pooler.*`, `cls.*`). New are `bert.encoder.extension_layer.N.*`,
whose modules are named like a BERT layer's, and `bert.encoder.gate.N.{weight,bias}`. The word
table holds the base vocabulary's rows first, then the added words'.

With `type_vocab_size` 0 there are no segment vectors, and with `has_pooler` false no pooler: the
extension then stands beside a DistilBERT. With `relative_attention_num_buckets` 32 all scores have
an MPNet's bias, `bert.encoder.relative_attention_bias`: the original's and the extension's alike.
"""

import math
from dataclasses import dataclass

import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput

_VERSION = tuple(int(number) for number in transformers.__version__.split(".")[:2])
if not (4, 46) <= _VERSION < (6, 0):
    raise ImportError(
        f"modeling_exbert.py was written for transformers 4.46 to 5, got {transformers.__version__}"
    )
if _VERSION < (5, 0):
    from transformers import PretrainedConfig as PreTrainedConfig
else:
    from transformers import PreTrainedConfig

_PADDING_SCORE = -10_000.0  # added to the scores of padded positions, as BERT does


class ExBertConfig(PreTrainedConfig):
    """Sizes: BERT's, and with `extension_` in front those of the extension blocks."""

    model_type = "exbert"

    def __init__(
        self,
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        extension_vocab_size=0,
        extension_hidden_size=252,
        extension_num_attention_heads=12,
        extension_intermediate_size=1024,
        max_position_embeddings=512,
        type_vocab_size=2,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        has_pooler=True,
        hidden_act="gelu",
        relative_attention_num_buckets=0,
        classifier_dropout=None,
        pad_token_id=0,
        tie_word_embeddings=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size  # of both vocabularies together
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.extension_vocab_size = extension_vocab_size  # how many of the words were added
        self.extension_hidden_size = extension_hidden_size
        self.extension_num_attention_heads = extension_num_attention_heads
        self.extension_intermediate_size = extension_intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.has_pooler = has_pooler
        self.hidden_act = hidden_act  # gelu | gelu_new
        self.relative_attention_num_buckets = relative_attention_num_buckets  # 0 | 32
        self.classifier_dropout = classifier_dropout
        super().__init__(
            pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs
        )


class ExBertEmbeddings(nn.Module):
    """Word + position + segment vectors, normalised."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        else:
            self.token_type_embeddings = None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words, token_type_ids, position_ids):
        """Returns the input of the first layer from word vectors."""
        summed = words + self.position_embeddings(position_ids)
        if self.token_type_embeddings is not None:
            summed = summed + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(summed))


class ExBertSelfAttention(nn.Module):
    """Multi-head self-attention whose heads share `attention_size` numbers."""

    def __init__(self, config, attention_size, num_heads):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.query = nn.Linear(config.hidden_size, attention_size)
        self.key = nn.Linear(config.hidden_size, attention_size)
        self.value = nn.Linear(config.hidden_size, attention_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden, padding, with_weights):
        """Returns the attended values and the attention weights [batch, heads, to, from].

        Fused attention gives no weights, and takes its place where none are asked for.
        """
        query, key, value = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if self.config._attn_implementation == "sdpa" and not with_weights:
            rate = self.dropout.p if self.training else 0.0
            context = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=padding, dropout_p=rate
            )
            return context.transpose(1, 2).flatten(2), None
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = torch.softmax(scores + padding, dim=-1)
        context = self.dropout(weights) @ value
        return context.transpose(1, 2).flatten(2), weights


class ExBertProjection(nn.Module):
    """Linear map back to the model's width, added to the block's input and normalised."""

    def __init__(self, config, inner_size):
        super().__init__()
        self.dense = nn.Linear(inner_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner, residual):
        """Returns the normalised sum."""
        return self.LayerNorm(self.dropout(self.dense(inner)) + residual)


class ExBertAttention(nn.Module):
    """Attention with its projection, under BERT's names."""

    def __init__(self, config, attention_size, num_heads):
        super().__init__()
        self.self = ExBertSelfAttention(config, attention_size, num_heads)
        self.output = ExBertProjection(config, attention_size)

    def forward(self, hidden, padding, with_weights):
        """Returns the new hidden states and the attention weights."""
        context, weights = self.self(hidden, padding, with_weights)
        return self.output(context, hidden), weights


class ExBertIntermediate(nn.Module):
    """The widening half of the feed-forward layer."""

    def __init__(self, config, intermediate_size):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, intermediate_size)
        self.gelu = _gelu(config)

    def forward(self, hidden):
        """Returns the activated inner layer."""
        return self.gelu(self.dense(hidden))


class ExBertBlock(nn.Module):
    """One post-norm Transformer block; original and extension differ in inner sizes only."""

    def __init__(self, config, attention_size, num_heads, intermediate_size):
        super().__init__()
        self.attention = ExBertAttention(config, attention_size, num_heads)
        self.intermediate = ExBertIntermediate(config, intermediate_size)
        self.output = ExBertProjection(config, intermediate_size)

    def forward(self, hidden, padding, with_weights):
        """Returns the new hidden states and the attention weights."""
        hidden, weights = self.attention(hidden, padding, with_weights)
        return self.output(self.intermediate(hidden), hidden), weights


class ExBertEncoder(nn.Module):
    """Original blocks, extension blocks and gates, one of each for a layer."""

    def __init__(self, config):
        super().__init__()
        layers = range(config.num_hidden_layers)
        original = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        extension = (
            config.extension_hidden_size,
            config.extension_num_attention_heads,
            config.extension_intermediate_size,
        )
        self.layer = nn.ModuleList([ExBertBlock(config, *original) for _ in layers])
        self.extension_layer = nn.ModuleList([ExBertBlock(config, *extension) for _ in layers])
        self.gate = nn.ModuleList([nn.Linear(config.hidden_size, 1) for _ in layers])

        buckets = config.relative_attention_num_buckets
        self.relative_attention_bias = None
        if buckets:
            self.relative_attention_bias = nn.Embedding(buckets, config.num_attention_heads)
        self.gradient_checkpointing = False

    def forward(self, hidden, padding, with_weights):
        """Returns all hidden states (the input first) and all attention weights."""
        if self.relative_attention_bias is not None:
            padding = padding + self.compute_position_bias(hidden)
        all_hidden, all_weights = [hidden], []
        for layer in range(len(self.layer)):
            if self.gradient_checkpointing and self.training:
                hidden, weights = self._gradient_checkpointing_func(
                    self._mix, layer, hidden, padding, with_weights
                )
            else:
                hidden, weights = self._mix(layer, hidden, padding, with_weights)
            all_hidden.append(hidden)
            all_weights.append(weights)
        return tuple(all_hidden), tuple(all_weights)

    def compute_position_bias(self, hidden):
        """Returns what is added to scores for how far apart pieces are, [1, heads, to, from]."""
        places = torch.arange(hidden.shape[1], device=hidden.device)
        bias = self.relative_attention_bias(_buckets(places[None] - places[:, None]))
        return bias.permute(2, 0, 1)[None]

    def _mix(self, layer, hidden, padding, with_weights):
        """Returns what a layer makes of its input, and its attention weights."""
        original, original_weights = self.layer[layer](hidden, padding, with_weights)
        extension, extension_weights = self.extension_layer[layer](hidden, padding, with_weights)
        share = torch.sigmoid(self.gate[layer](hidden))
        mixed = share * original + (1 - share) * extension
        if not with_weights:
            return mixed, None
        return mixed, torch.cat([original_weights, extension_weights], dim=1)


class ExBertPooler(nn.Module):
    """tanh(linear([CLS])); relu(linear([CLS])) where only the classifier has a pooler."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.Tanh() if config.has_pooler else nn.ReLU()

    def forward(self, hidden):
        """Returns one vector for each row."""
        return self.activation(self.dense(hidden[:, 0]))


class ExBertPredictionTransform(nn.Module):
    """What the MLM head does before the word table."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.gelu = _gelu(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden):
        """Returns vectors to be compared with word vectors."""
        return self.LayerNorm(self.gelu(self.dense(hidden)))


class ExBertPredictionHead(nn.Module):
    """Logits over both vocabularies; the decoder is the word table."""

    def __init__(self, config):
        super().__init__()
        self.transform = ExBertPredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        if _VERSION < (5, 0):
            self._tie_weights()

    def _tie_weights(self):
        """Makes the decoder's bias the head's; transformers 4 calls it and ties the tables only."""
        self.decoder.bias = self.bias

    def forward(self, hidden):
        """Returns logits [batch, length, vocabulary]."""
        return self.decoder(self.transform(hidden))


class ExBertHeads(nn.Module):
    """The pretraining heads, under BERT's names."""

    def __init__(self, config, next_sentence):
        super().__init__()
        self.predictions = ExBertPredictionHead(config)
        if next_sentence:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


class ExBertPreTrainedModel(PreTrainedModel):
    """What all exBERT models share."""

    config_class = ExBertConfig
    base_model_prefix = "bert"
    _no_split_modules = ["ExBertEmbeddings", "ExBertBlock"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # Losses are means over a batch: Trainer must not pass a number of items to divide by instead.
    accepts_loss_kwargs = False

    def _init_weights(self, module):
        if _VERSION < (5, 0):  # where each model has its own
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx].zero_()
            if isinstance(module, nn.LayerNorm):
                module.weight.data.fill_(1.0)
            if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
                module.bias.data.zero_()
            return
        super()._init_weights(module)
        if isinstance(module, ExBertPredictionHead) and not getattr(
            module.bias, "_is_hf_initialized", False
        ):
            nn.init.zeros_(module.bias)


class ExBertModel(ExBertPreTrainedModel):
    """The encoder with its pooler, where it has one."""

    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler\."]

    def __init__(self, config, add_pooling_layer=None):
        super().__init__(config)
        if add_pooling_layer is None:
            add_pooling_layer = config.has_pooler
        self.embeddings = ExBertEmbeddings(config)
        self.encoder = ExBertEncoder(config)
        self.pooler = ExBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self):
        """Returns the word table."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        """Replaces the word table."""
        self.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns last_hidden_state, pooler_output and, where asked for, what lies between.

        `attentions` holds the original heads' weights first, then the extension's.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        rows, length = inputs_embeds.shape[:2]
        device = inputs_embeds.device
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} pieces do not fit max_position_embeddings="
                f"{self.config.max_position_embeddings}; truncate the rows"
            )
        if attention_mask is None:
            attention_mask = torch.ones((rows, length), device=device)
        if token_type_ids is None:
            token_type_ids = torch.zeros((rows, length), dtype=torch.long, device=device)
        if position_ids is None:
            position_ids = torch.arange(length, device=device)[None]
        padding = (1.0 - attention_mask[:, None, None, :].to(inputs_embeds)) * _PADDING_SCORE
        embedded = self.embeddings(inputs_embeds, token_type_ids, position_ids)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        all_hidden, all_weights = self.encoder(embedded, padding, bool(output_attentions))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = BaseModelOutputWithPooling(
            last_hidden_state=all_hidden[-1],
            pooler_output=self.pooler(all_hidden[-1]) if self.pooler is not None else None,
            hidden_states=all_hidden if output_hidden_states else None,
            attentions=all_weights if output_attentions else None,
        )
        return _as_asked(output, return_dict, self.config)


@dataclass
class ExBertForPreTrainingOutput(ModelOutput):
    """What ExBertForPreTraining returns; `loss` where both kinds of labels are given."""

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    seq_relationship_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class _WithPredictionHead(ExBertPreTrainedModel):
    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    if _VERSION < (5, 0):
        _tied_weights_keys = list(_tied_weights_keys)

    def get_output_embeddings(self):
        """Returns the decoder, which is the word table."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings):
        """Replaces the decoder."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias


class ExBertForPreTraining(_WithPredictionHead):
    """With the masked-language-model head and the next-sentence head."""

    def __init__(self, config):
        super().__init__(config)
        if not config.has_pooler:
            raise ValueError("this model has no next-sentence head: use ExBertForMaskedLM")
        self.bert = ExBertModel(config)
        self.cls = ExBertHeads(config, next_sentence=True)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        labels=None,
        next_sentence_label=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns prediction_logits and seq_relationship_logits; labels of -100 do not count."""
        output = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        prediction_logits = self.cls.predictions(output.last_hidden_state)
        sentence_logits = self.cls.seq_relationship(output.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = _cross_entropy(prediction_logits, labels)
            loss = loss + _cross_entropy(sentence_logits, next_sentence_label)
        output = ExBertForPreTrainingOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            seq_relationship_logits=sentence_logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return _as_asked(output, return_dict, self.config)


class ExBertForMaskedLM(_WithPredictionHead):
    """With the masked-language-model head."""

    _keys_to_ignore_on_load_unexpected = [r"seq_relationship\.", r"pooler\."]

    def __init__(self, config):
        super().__init__(config)
        self.bert = ExBertModel(config, add_pooling_layer=False)
        self.cls = ExBertHeads(config, next_sentence=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        labels=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns logits over both vocabularies; labels of -100 do not count."""
        output = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        logits = self.cls.predictions(output.last_hidden_state)
        output = MaskedLMOutput(
            loss=_cross_entropy(logits, labels) if labels is not None else None,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return _as_asked(output, return_dict, self.config)


class _WithClassifier(ExBertPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler\."]
    add_pooling_layer = False

    def __init__(self, config):
        super().__init__(config)
        self.bert = ExBertModel(config, add_pooling_layer=self.add_pooling_layer)
        rate = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class ExBertForTokenClassification(_WithClassifier):
    """With a linear classifier on each token."""

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        labels=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns logits [batch, length, labels]; labels of -100 do not count."""
        output = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(output.last_hidden_state))
        output = TokenClassifierOutput(
            loss=_cross_entropy(logits, labels) if labels is not None else None,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return _as_asked(output, return_dict, self.config)


class ExBertForSequenceClassification(_WithClassifier):
    """With a linear classifier on the pooled [CLS].

    As in BERT: one label is regression, labels that are no whole numbers are several at once, and
    `config.problem_type` decides over both.
    """

    add_pooling_layer = True

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        labels=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns logits [batch, labels]."""
        output = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(output.pooler_output))
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return _as_asked(output, return_dict, self.config)

    def _loss(self, logits, labels):
        """Returns the loss of the kind of problem, which is kept once it is known."""
        if self.config.problem_type is None:
            if self.config.num_labels == 1:
                self.config.problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                self.config.problem_type = "single_label_classification"
            else:
                self.config.problem_type = "multi_label_classification"
        if self.config.problem_type == "regression":
            return functional.mse_loss(logits.squeeze(), labels.to(logits).squeeze())
        if self.config.problem_type == "single_label_classification":
            return _cross_entropy(logits, labels.long())
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits))


class ExBertForQuestionAnswering(ExBertPreTrainedModel):
    """With two scores for each token: an answer starts there, an answer ends there."""

    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler\."]

    def __init__(self, config):
        super().__init__(config)
        self.bert = ExBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        start_positions=None,
        end_positions=None,
        return_dict=None,
        **kwargs,
    ):
        """Returns start_logits and end_logits [batch, length]; positions beyond it do not count."""
        output = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        start_logits, end_logits = self.qa_outputs(output.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            beyond = start_logits.size(1)
            loss = (
                sum(
                    functional.cross_entropy(logits, places.clamp(0, beyond), ignore_index=beyond)
                    for logits, places in (
                        (start_logits, start_positions),
                        (end_logits, end_positions),
                    )
                )
                / 2
            )
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return _as_asked(output, return_dict, self.config)


def _buckets(ahead):
    """Returns the bucket of each distance, as MPNet has them: ever wider ones from 8 pieces on."""
    edges = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91], device=ahead.device)
    return (ahead.abs()[..., None] >= edges).sum(-1) + 16 * (ahead > 0)


def _gelu(config):
    return nn.GELU(approximate="tanh" if config.hidden_act == "gelu_new" else "none")


def _cross_entropy(logits, labels):
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _as_asked(output, return_dict, config):
    """Returns the output, or a plain tuple of it where the caller or the config wants one."""
    wanted = getattr(config, "return_dict", True) if return_dict is None else return_dict
    return output if wanted else output.to_tuple()
