# SPDX-License-Identifier: Apache-2.0
"""What config.json says of an encoder's sizes, in the words of each family of checkpoints."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from edad_jax.models.config import ACTIVATIONS, BertConfig

FAMILIES = ("bert", "distilbert", "albert")  # what model_type may say, beside our own "exbert"
_DISTILBERT_WORDS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
# Where config.json is silent: what transformers then takes, so that old files are read alike.
_DEFAULTS = {
    "bert": {
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_act": "gelu",
    },
    "distilbert": {
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "hidden_act": "gelu",
    },
    "albert": {
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_act": "gelu_new",
        "embedding_size": 128,
    },
}
# What the family is, whatever its config.json says; where it says otherwise, it is an error.
_FIXED = {
    "bert": {"position_embedding_type": "absolute"},
    "distilbert": {},
    "albert": {
        "position_embedding_type": "absolute",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    },
}
_IMPLIED = {
    "bert": {"shares_layers": False, "embedding_size": 0},
    # Sinusoidal positions lie in the checkpoint as a table too, so `sinusoidal_pos_embds` is not
    # asked for; from then on they are vectors like others.
    "distilbert": {
        "shares_layers": False,
        "embedding_size": 0,
        "type_vocab_size": 0,
        "has_pooler": False,
        "layer_norm_eps": 1e-12,
    },
    "albert": {"shares_layers": True},
}


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def bert_config(
    config_json: Mapping[str, Any],
    *,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> BertConfig:
    """Returns the sizes that the config.json of a BERT, DistilBERT or ALBERT gives.

    Where it is silent, the values are those that transformers takes for that family (for a BERT:
    layer_norm_eps 1e-12, initializer_range 0.02, two segments, dropout rates of 0.1). Dropout
    rates may be overridden.

    Raises:
      ValueError: another model family, activation or kind of positions; an ALBERT with several
        groups of layers; a size is missing.
    """
    # null stands for what is not said: so transformers writes options that nobody has set.
    config_json = {name: value for name, value in config_json.items() if value is not None}
    family = config_json.get("model_type", "bert")
    if config_json.get("is_decoder", False):
        raise ValueError(
            "config.json says is_decoder=true: pieces see only what is before them. Choose an "
            "encoder, or set it to false if the model is one"
        )
    if family not in FAMILIES:
        raise ValueError(
            f"config.json says model_type={family!r}, expected 'bert', 'distilbert' or 'albert': "
            "choose a checkpoint of one of these families"
        )
    for key, value in _FIXED[family].items():
        if config_json.get(key, value) != value:
            raise ValueError(
                f"config.json says {key}={config_json[key]!r}, expected {value!r}: "
                f"choose a checkpoint of the {family.upper()} family that has it"
            )
    words = _DISTILBERT_WORDS if family == "distilbert" else {}
    fields = dataclasses.fields(BertConfig)
    said = {field.name: words.get(field.name, field.name) for field in fields}
    values = {field.name: field.default for field in fields if field.default is not _REQUIRED}
    values |= _DEFAULTS[family]
    values |= {name: config_json[word] for name, word in said.items() if word in config_json}
    values |= _IMPLIED[family]
    overrides = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
    }
    values |= {key: rate for key, rate in overrides.items() if rate is not None}
    if values["hidden_act"] not in ACTIVATIONS:
        raise ValueError(
            f"config.json says {said['hidden_act']}={values['hidden_act']!r}, expected "
            f"{' or '.join(map(repr, ACTIVATIONS))}: choose a checkpoint that has it"
        )
    for field in fields:
        if field.name in values and not _is_a(values[field.name], field.type):
            raise ValueError(
                f"config.json says {said[field.name]}={values[field.name]!r}, expected "
                f"{_KINDS[field.type]}"
            )
    missing = [word for name, word in said.items() if name not in values]
    if missing:
        raise ValueError(
            f"config.json lacks {', '.join(missing)}; expected a {family.upper()}'s config.json"
        )
    return BertConfig(**values)


def _is_a(value, kind):
    """Returns whether a JSON value is of a kind; a whole number is a number, true is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def sizes_json(config: BertConfig, *, extended: bool) -> dict[str, Any]:
    """Returns what a config.json says of these sizes: `bert_config` undone.

    Args:
      config: the sizes.
      extended: whether extension blocks stand beside the layers.

    Raises:
      ValueError: no family of checkpoints has such sizes; see `family_of`.
    """
    family = family_of(config, extended=extended)
    values = dataclasses.asdict(config)
    if family == "distilbert":
        values = {word: values[name] for name, word in _DISTILBERT_WORDS.items()} | {
            name: values[name]
            for name in ("vocab_size", "max_position_embeddings", "initializer_range")
        }
        return {"model_type": family, **values, "sinusoidal_pos_embds": False}
    values = {"model_type": family, "position_embedding_type": "absolute", **values}
    if family == "albert":
        values |= {"num_hidden_groups": 1, "inner_group_num": 1}
    else:
        del values["embedding_size"]
    del values["shares_layers"]
    if config.has_pooler:
        del values["has_pooler"]  # our own word, for what the others cannot say
    return values


def family_of(config: BertConfig, *, extended: bool) -> str:
    """Returns the model_type that an encoder is written as: bert, distilbert, albert or exbert.

    Raises:
      ValueError: no family of checkpoints has such an encoder.
    """
    is_albert = config.shares_layers and config.embedding_size > 0
    if config.shares_layers != (config.embedding_size > 0) or (extended and is_albert):
        raise ValueError(
            f"got shares_layers={config.shares_layers}, embedding_size={config.embedding_size} and "
            f"{'an' if extended else 'no'} extension, which no kind of checkpoint can hold: both "
            "or neither of the two (ALBERT has both), and extension blocks with neither"
        )
    if extended:
        return "exbert"
    if config.type_vocab_size == 0:
        if is_albert or config.has_pooler or config.layer_norm_eps != 1e-12:
            raise ValueError(
                f"got type_vocab_size=0 with has_pooler={config.has_pooler}, layer_norm_eps="
                f"{config.layer_norm_eps} and shares_layers={config.shares_layers}, which no kind "
                "of checkpoint can hold: DistilBERT has no segments, no pooler, and 1e-12"
            )
        return "distilbert"
    return "albert" if is_albert else "bert"


_REQUIRED = dataclasses.MISSING
