# SPDX-License-Identifier: Apache-2.0
"""What config.json says of an encoder's sizes, in the words of each family of checkpoints."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from edad_jax.models.config import ACTIVATIONS, BertConfig
from edad_jax.models.modernbert_json import check_modern, modern_config, modern_json
from edad_jax.models.relative_position import BUCKETS

# Whose sizes alone do not tell what they are.
NAMED = ("roberta", "xlm-roberta", "electra", "mpnet")
# What model_type may say, beside our own "exbert".
FAMILIES = ("bert", "distilbert", "albert", *NAMED, "modernbert")
_ROBERTAS = ("roberta", "xlm-roberta")
_OFFSET = (*_ROBERTAS, "mpnet")  # whose positions begin after the padding piece's id
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
    "electra": {
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_act": "gelu",
        "embedding_size": 128,
    },
}
_DEFAULTS |= dict.fromkeys((*_ROBERTAS, "mpnet"), _DEFAULTS["bert"])
# What the family is, whatever its config.json says; where it says otherwise, it is an error.
_FIXED = {
    "bert": {"position_embedding_type": "absolute"},
    "distilbert": {},
    "albert": {
        "position_embedding_type": "absolute",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    },
    # Their MLM heads have gelu whatever the blocks have.
    **{name: {"position_embedding_type": "absolute", "hidden_act": "gelu"} for name in NAMED},
}
# MPNet's code has both as constants, whatever config.json says.
_FIXED["mpnet"] |= {"pad_token_id": 1, "relative_attention_num_buckets": BUCKETS}
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
    "electra": {"shares_layers": False, "has_pooler": False},
    **dict.fromkeys(_ROBERTAS, {"shares_layers": False, "embedding_size": 0, "has_pooler": False}),
}
_IMPLIED["mpnet"] = _IMPLIED["roberta"] | {
    "type_vocab_size": 0,
    "relative_attention_num_buckets": BUCKETS,
}
_FIRST_PAD = 1  # pad_token_id of a RoBERTa whose config.json does not say it


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def bert_config(
    config_json: Mapping[str, Any],
    *,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> BertConfig:
    """Returns the sizes that the config.json of an encoder of one of FAMILIES gives.

    Where it is silent, the values are those that transformers takes for that family (for a BERT:
    layer_norm_eps 1e-12, initializer_range 0.02, two segments, dropout rates of 0.1). Dropout
    rates may be overridden.

    Raises:
      ValueError: another model family, a decoder or an encoder-decoder; another activation or
        kind of positions; an ALBERT with several groups of layers; a size is missing.
    """
    given = config_json
    # null stands for what is not said: so transformers writes options that nobody has set.
    config_json = {name: value for name, value in config_json.items() if value is not None}
    family = config_json.get("model_type", "bert")
    if config_json.get("is_decoder", False):
        raise ValueError(
            "config.json says is_decoder=true: pieces see only what is before them. Choose an "
            "encoder, or set it to false if the model is one"
        )
    check_family(family, FAMILIES, "choose a checkpoint of one of these families")
    if config_json.get("is_encoder_decoder", False):
        raise ValueError(
            "config.json says is_encoder_decoder=true: half of the net writes texts. Choose an "
            "encoder, or set it to false if the model is one"
        )
    overrides = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
    }
    if family == "modernbert":  # whose words are its own
        return modern_config(given, **overrides)
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
    values |= {"relative_attention_num_buckets": 0} | _IMPLIED[family]
    values |= {"family": family if family in NAMED else "", "position_offset": 0}
    values |= {key: rate for key, rate in overrides.items() if rate is not None}
    if values["hidden_act"] not in ACTIVATIONS:
        raise ValueError(
            f"config.json says {said['hidden_act']}={values['hidden_act']!r}, expected "
            f"{' or '.join(map(repr, ACTIVATIONS))}: choose a checkpoint that has it"
        )
    for field in fields:
        if (
            field.type in _KINDS
            and field.name in values
            and not _is_a(values[field.name], field.type)
        ):
            raise ValueError(
                f"config.json says {said[field.name]}={values[field.name]!r}, expected "
                f"{_KINDS[field.type]}"
            )
    for name in overrides:
        if not 0 <= values.get(name, 0) < 1:
            raise ValueError(
                f"config.json says {said[name]}={values[name]}, expected a share from 0 to below 1"
            )
    missing = [word for name, word in said.items() if name not in values]
    if missing:
        raise ValueError(
            f"config.json lacks {', '.join(missing)}; expected a {family.upper()}'s config.json"
        )
    if family in _OFFSET:
        # Positions are counted from the padding piece's id on: the rows up to it are never read.
        padding = config_json.get("pad_token_id", _FIRST_PAD)
        if not _is_a(padding, int) or not 0 <= padding < values["max_position_embeddings"] - 1:
            raise ValueError(
                f"config.json says pad_token_id={padding!r}, expected a number below "
                f"max_position_embeddings={values['max_position_embeddings']}, after which the "
                "positions begin"
            )
        values["position_offset"] = padding + 1
        values["max_position_embeddings"] -= padding + 1
    if family == "electra" and values["embedding_size"] == values["hidden_size"]:
        values["embedding_size"] = 0  # then it has no map
    return BertConfig(**values)


def named_fields(family: str, pad_token_id: int | None = None) -> dict[str, Any]:
    """Returns the fields of BertConfig that tell a net of one of NAMED from a BERT of its sizes.

    Args:
      family: one of NAMED.
      pad_token_id: after which its positions begin; None: the published nets'.

    Raises:
      ValueError: a pad_token_id that is no id.
    """
    padding = _FIRST_PAD if pad_token_id is None else pad_token_id
    if not _is_a(padding, int) or padding < 0:
        raise ValueError(f"config.json says pad_token_id={padding!r}, expected a piece's number")
    return {
        "family": family,
        "position_offset": padding + 1 if family in _OFFSET else 0,
        "relative_attention_num_buckets": BUCKETS if family == "mpnet" else 0,
    }


def check_padding(pad_token_id: int, config: BertConfig) -> None:
    """Raises ValueError where positions begin after another piece than the one that pads."""
    if config.position_offset not in (0, pad_token_id + 1):
        raise ValueError(
            f"the tokenizer pads with piece {pad_token_id}, expected {config.position_offset - 1}: "
            f"a {config.family} counts its positions from there; pass the tokenizer that the "
            "model was trained with"
        )


def check_family(family: str, known: Collection[str], advice: str) -> None:
    """Raises ValueError where model_type says a family that is not known; names those that are."""
    if family not in known:
        raise ValueError(
            f"config.json says model_type={family!r}, expected one of {', '.join(known)}: {advice}"
        )


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
    if config.modern:
        return modern_json(config)
    values = dataclasses.asdict(config)
    del values["family"], values["modern"]
    offset = values.pop("position_offset")
    if family == "distilbert":
        values = {word: values[name] for name, word in _DISTILBERT_WORDS.items()} | {
            name: values[name]
            for name in ("vocab_size", "max_position_embeddings", "initializer_range")
        }
        return {"model_type": family, **values, "sinusoidal_pos_embds": False}
    values = {"model_type": family, "position_embedding_type": "absolute", **values}
    if family == "albert":
        values |= {"num_hidden_groups": 1, "inner_group_num": 1}
    elif family == "electra":
        values["embedding_size"] = config.table_width
    else:
        del values["embedding_size"]
    if family == "mpnet":
        del values["type_vocab_size"]
    if not config.relative_attention_num_buckets:
        del values["relative_attention_num_buckets"]
    if family in _OFFSET:
        values["max_position_embeddings"] += offset
        values["pad_token_id"] = offset - 1
    del values["shares_layers"]
    if config.has_pooler or family in NAMED:
        del values["has_pooler"]  # our own word, for what the others cannot say
    return values


def family_of(config: BertConfig, *, extended: bool) -> str:
    """Returns the model_type that an encoder is written as: one of FAMILIES, or exbert.

    Raises:
      ValueError: no family of checkpoints has such an encoder.
    """
    if config.modern:
        check_modern(config, extended=extended)
        return config.family
    if config.family:
        _check_named(config, extended=extended)
        return config.family
    if config.relative_attention_num_buckets and not extended:
        raise ValueError(
            f"got relative_attention_num_buckets={config.relative_attention_num_buckets} without a "
            "family or an extension, which no kind of checkpoint can hold: MPNet has them"
        )
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


def _check_named(config, *, extended):
    """Raises ValueError where a net cannot be of the family that it names."""
    check_family(config.family, NAMED, "leave family empty for BERT, DistilBERT and ALBERT")
    is_mpnet = config.family == "mpnet"
    offset, buckets = config.position_offset, config.relative_attention_num_buckets
    wrong = {
        "an extension": extended,  # see `config.as_base`
        "a pooler": config.has_pooler,
        "shared layers": config.shares_layers,
        f"type_vocab_size={config.type_vocab_size}": is_mpnet == (config.type_vocab_size > 0),
        f"hidden_act={config.hidden_act!r}": config.hidden_act != "gelu",
        f"embedding_size={config.embedding_size}": config.family != "electra"
        and config.embedding_size > 0,
        f"position_offset={offset}": (config.family in _OFFSET) != (offset > 0)
        or (is_mpnet and offset != _FIRST_PAD + 1),  # a constant of its code
        f"relative_attention_num_buckets={buckets}": is_mpnet != (buckets > 0),
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise ValueError(
            f"got family={config.family!r} with {', '.join(found)}, which no kind of checkpoint "
            "can hold: that family's nets have none of it"
        )


_REQUIRED = dataclasses.MISSING
