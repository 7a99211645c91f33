# SPDX-License-Identifier: Apache-2.0
"""What config.json says of a ModernBERT, in its old words and in its new ones.

                    until transformers 4              since transformers 5
    which layers    global_attn_every_n_layers        layer_types, one word for each layer
    rotations       global_rope_theta,                rope_parameters, rope_type and rope_theta of
                    local_rope_theta                  full_attention and of sliding_attention

Both are read, and both are written wherever the old words can say it.
"""

from collections.abc import Mapping
from typing import Any

from edad_jax.models.config import POOLINGS, BertConfig, ModernConfig

FAMILY = "modernbert"
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_EVERY, _WINDOW = 3, 128  # where config.json is silent, as all defaults here
_THETAS = {_GLOBAL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}
_SIZES = {
    "vocab_size": 50_368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
}
# Of each: our name, torch's, and what it is where config.json is silent.
_NUMBERS = (
    ("hidden_dropout_prob", "mlp_dropout", 0.0),
    ("attention_probs_dropout_prob", "attention_dropout", 0.0),
    ("layer_norm_eps", "norm_eps", 1e-5),
    ("initializer_range", "initializer_range", 0.02),
)
_OTHER_RATES = ("embedding_dropout", "classifier_dropout")  # as mlp_dropout, where written here
# What our blocks are; where config.json says otherwise, it is an error.
_FIXED = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "tie_word_embeddings": True,
}


def modern_config(
    config_json: Mapping[str, Any],
    *,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> BertConfig:
    """Returns the sizes that the config.json of a ModernBERT gives.

    Args:
      config_json: of the model.
      hidden_dropout_prob: instead of the model's own; None keeps that.
      attention_probs_dropout_prob: likewise.

    Raises:
      ValueError: rotations of another kind than RoPE's first (rope scaling, "yarn", ...); biases,
        activations, kinds of layers or of pooling that are not known; values of another type.
    """
    said = {name: value for name, value in config_json.items() if value is not None}
    for key, value in _FIXED.items():
        _expect(key, said.get(key, value), value)
    sizes = {name: _number(said, name, size, int) for name, size in _SIZES.items()}
    numbers = {ours: _number(said, its, value) for ours, its, value in _NUMBERS}
    embedding_dropout = _number(said, "embedding_dropout", 0.0)
    if hidden_dropout_prob is None and embedding_dropout != numbers["hidden_dropout_prob"]:
        raise ValueError(
            f"config.json says embedding_dropout={embedding_dropout} and mlp_dropout="
            f"{numbers['hidden_dropout_prob']}, expected one rate for both: set it, "
            "--config.teacher.hidden_dropout_prob (fine-tuning: --config.hidden_dropout_prob)"
        )
    rates = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
    }
    numbers |= {name: rate for name, rate in rates.items() if rate is not None}
    layers = sizes["num_hidden_layers"]
    pooling = said.get("classifier_pooling", POOLINGS[0])
    if pooling not in POOLINGS:
        _expect("classifier_pooling", pooling, " or ".join(POOLINGS))
    modern = ModernConfig(
        window=_number(said, "local_attention", _WINDOW, int) // 2,
        global_layers=_global_layers(said, layers),
        global_theta=_theta(config_json, _GLOBAL),
        local_theta=_theta(config_json, _LOCAL),
        pooling=pooling,
    )
    return BertConfig(
        **sizes, **numbers, type_vocab_size=0, has_pooler=False, family=FAMILY, modern=modern
    )


def _expect(key, got, expected):
    if got != expected:
        raise ValueError(
            f"config.json says {key}={got!r}, expected {expected!r}: choose a ModernBERT that has "
            "it; others are not known here"
        )


def _number(said, name, default, kind=float):
    value = said.get(name, default)
    kinds = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, kinds):
        _expect(name, value, "a whole number" if kind is int else "a number")
    return value


def _global_layers(said, layers):
    """Returns the numbers of the layers that see the whole row."""
    every = _number(said, "global_attn_every_n_layers", _EVERY, int)
    if every < 1:
        _expect("global_attn_every_n_layers", every, "1 or more")
    kinds = said.get("layer_types", [_LOCAL if n % every else _GLOBAL for n in range(layers)])
    is_list = isinstance(kinds, list) and len(kinds) == layers
    if not is_list or not all(kind in list(_THETAS) for kind in kinds):
        _expect("layer_types", kinds, f"for each of {layers} layers {_GLOBAL} or {_LOCAL}")
    return tuple(number for number, kind in enumerate(kinds) if kind == _GLOBAL)


def _theta(config_json, kind):
    """Returns the base of the rotations of one kind of layers."""
    name, default = _THETAS[kind]
    by_kind = config_json.get("rope_parameters") or {}
    if not isinstance(by_kind, dict) or set(by_kind) - set(_THETAS):
        _expect("rope_parameters", by_kind, f"settings of {_GLOBAL} and of {_LOCAL}")
    scaling, own = config_json.get("rope_scaling") or {}, by_kind.get(kind) or {}
    for key, value in (("rope_scaling", scaling), ("rope_parameters", own)):
        if not isinstance(value, dict):
            _expect(key, value, "settings of rotary positions")
    settings = scaling | own
    type_name = settings.get("rope_type", settings.get("type", "default"))
    if type_name != "default":
        raise ValueError(
            f"config.json says rope_type={type_name!r} for {kind}, expected 'default': rotary "
            "positions are not scaled here; choose a model without rope scaling"
        )
    if "rope_theta" in settings:
        return float(_number(settings, "rope_theta", default))
    if name in config_json and config_json[name] is None:  # transformers 4 then takes the other
        name, default = _THETAS[_GLOBAL]
    said = {key: value for key, value in config_json.items() if value is not None}
    return float(_number(said, name, default))


def modern_json(config: BertConfig) -> dict[str, Any]:
    """Returns what a config.json says of these sizes: `modern_config` undone.

    Raises:
      ValueError: a ModernBERT has no such sizes.
    """
    check_modern(config, extended=False)
    modern = config.modern
    types = [
        _GLOBAL if layer in modern.global_layers else _LOCAL
        for layer in range(config.num_hidden_layers)
    ]
    thetas = {_GLOBAL: modern.global_theta, _LOCAL: modern.local_theta}
    values = {"model_type": FAMILY} | {name: getattr(config, name) for name in _SIZES}
    values |= {its: getattr(config, ours) for ours, its, _ in _NUMBERS}
    values |= {name: config.hidden_dropout_prob for name in _OTHER_RATES}
    values |= _FIXED
    values |= {
        "layer_types": types,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
        "local_attention": 2 * modern.window,
        "classifier_pooling": modern.pooling,
        **{name: thetas[kind] for kind, (name, _) in _THETAS.items()},
        **{f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")},
    }
    for every in range(1, len(types) + 1):
        if modern.global_layers == tuple(range(0, len(types), every)):
            return values | {"global_attn_every_n_layers": every}
    return values  # older versions of transformers cannot say it


def check_modern(config: BertConfig, *, extended: bool) -> None:
    """Raises ValueError where a net with ModernBERT's blocks cannot be written as one."""
    if extended:
        raise ValueError(
            "got extension blocks beside ModernBERT's, which cannot be trained or written yet: set "
            "--config.teacher.extension.hidden_size=0 (of a student: --config.student.extension...)"
        )
    wrong = {
        f"family={config.family!r}": config.family != FAMILY,
        "a pooler": config.has_pooler,
        "shared layers": config.shares_layers,
        "segment vectors": config.type_vocab_size > 0,
        f"hidden_act={config.hidden_act!r}": config.hidden_act != "gelu",
        f"embedding_size={config.embedding_size}": config.embedding_size > 0,
        f"position_offset={config.position_offset}": config.position_offset > 0,
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise ValueError(
            f"got ModernBERT's blocks with {', '.join(found)}, which no kind of checkpoint can "
            "hold: ModernBERTs have none of it"
        )
