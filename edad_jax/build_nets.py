# SPDX-License-Identifier: Apache-2.0
"""Teacher and student of a configuration: their sizes, types and first parameters."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from edad_jax import inheritance, state
from edad_jax.export import huggingface
from edad_jax.machine import has_bfloat16_units
from edad_jax.models import config_json, convert
from edad_jax.models.bert_config import BertConfig
from edad_jax.models.checkpoint_files import load_checkpoint
from edad_jax.models.exbert import ExBert, ExBertConfig, ExtensionConfig
from edad_jax.nets import layer_map

LOG = logging.getLogger(__name__)
NO_EXTENSION = 0  # exBERT's own convention: an extension of width 0 is none


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the nets must know of the tokenizer."""

    base_size: int
    size: int  # with the added words
    mask_id: int
    cls_id: int
    sep_id: int
    added_pieces: Sequence[tuple[int, ...]] = ()  # the base pieces that each added word is made of
    token_counts: np.ndarray | None = None  # int64 [size]; where masking asks for them
    unk_id: int | None = None  # what masking with token_counts leaves alone

    @property
    def added_size(self) -> int:
        """Returns the number of added words."""
        return self.size - self.base_size


class Precision(NamedTuple):
    """The types a net computes in: of its activations, and of its products' operands."""

    dtype: jnp.dtype
    products: jnp.dtype

    @property
    def name(self) -> str:
        """Returns what config.dtype calls it."""
        return self.dtype.name if self.dtype == self.products else "mixed"


def resolve_precision(name: str) -> Precision:
    """Returns the types that config.dtype stands for.

    "auto" is bfloat16 on GPUs and TPUs; on CPUs it is "mixed" where they have units for bfloat16,
    else float32. "mixed" is float32 with bfloat16 products: some 1.7 times as fast on such CPUs, on
    which plain bfloat16 is no faster, and no worse for the quick start's student
    (docs/performance.md). On a CPU without these units it is float32 too.
    """
    if jax.default_backend() != "cpu":
        name = "bfloat16" if name == "auto" else name
    elif name in ("auto", "mixed"):
        has_units = has_bfloat16_units()
        if name == "mixed" and not has_units:
            LOG.warning("This CPU has no units for bfloat16: dtype=mixed computes in float32.")
        name = "mixed" if has_units else "float32"
    if name not in ("float32", "bfloat16", "mixed"):
        raise ValueError(f"config.dtype={name!r} is not one of auto, float32, bfloat16, mixed")
    if name == "mixed":
        return Precision(jnp.dtype("float32"), jnp.dtype("bfloat16"))
    return Precision(jnp.dtype(name), jnp.dtype(name))


def build_teacher(
    section: ConfigDict, vocabulary: Vocabulary, precision: Precision, seed: Sequence[int]
) -> tuple[ExBert, dict, tuple[str, ...]]:
    """Returns the teacher, its parameters, and which of its heads start from random values.

    section.checkpoint is a BERT, DistilBERT or ALBERT in Hugging Face layout, to which the
    extension is added (an ALBERT takes none), or a model that this project exported, which is
    taken as it is.
    """
    if is_exported(section.checkpoint):
        exbert, params = huggingface.load_model(section.checkpoint)
        convert.check_vocabulary(vocabulary.size, exbert)
        rates = {
            name: section[name]
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
            if section[name] is not None
        }
        exbert = dataclasses.replace(exbert, base=dataclasses.replace(exbert.base, **rates))
        return ExBert(exbert, *precision), params, ()
    checkpoint = load_checkpoint(section.checkpoint)
    base = config_json.bert_config(
        checkpoint.config,
        hidden_dropout_prob=section.hidden_dropout_prob,
        attention_probs_dropout_prob=section.attention_probs_dropout_prob,
    )
    if section.from_scratch:
        base = dataclasses.replace(base, vocab_size=vocabulary.base_size)
    convert.check_vocabulary(vocabulary.base_size, base)
    extension = extension_config(section.extension)
    config_json.family_of(base, extended=extension is not None)  # it must be written when learned
    model = ExBert(ExBertConfig(base, extension, vocabulary.added_size), *precision)
    params = state.init_params(model, seed, gate_bias=section.gate_bias)
    if section.from_scratch:
        return model, params, tuple(params)  # SciBERT's way: only the sizes are the checkpoint's
    loaded = convert.bert_params(checkpoint, base, fresh=section.fresh)
    params = state.load_over(params, loaded)
    if section.added_words == "pieces" and vocabulary.added_size:
        params = state.begin_added_words(params, vocabulary.added_pieces)
    return model, params, tuple(section.fresh)


def build_student(
    section: ConfigDict, vocabulary: Vocabulary, precision: Precision, seed: Sequence[int]
) -> tuple[ExBert, dict]:
    """Returns the student and its random parameters."""
    model = ExBert(student_config(section, vocabulary), *precision)
    return model, state.init_params(model, seed, gate_bias=section.gate_bias)


def inheritance_rules(section: ConfigDict, teacher: ExBertConfig) -> inheritance.Rules:
    """Returns what the student takes of its teacher, as config.student.inherit says.

    Raises:
      ValueError: layers that the teacher has not, or not as many as the student.
    """
    names = section.inherit
    depths = (teacher.base.num_hidden_layers, section.num_hidden_layers)
    layers = {
        "uniform": layer_map,
        "distilbert": inheritance.distilbert_layers,
        "listed": lambda *depths: inheritance.check_listed(names.layers, *depths),
    }[names.layer_rule](*depths)
    return inheritance.Rules(layers, names.feed_forward, names.width)


def student_config(section: ConfigDict, vocabulary: Vocabulary) -> ExBertConfig:
    """Returns the student's sizes."""
    base = BertConfig(
        vocab_size=vocabulary.base_size,
        **{
            field.name: section[field.name]
            for field in dataclasses.fields(BertConfig)
            if field.name != "vocab_size"
        },
    )
    return ExBertConfig(base, extension_config(section.extension), vocabulary.added_size)


def is_exported(path: str) -> bool:
    """Returns whether a directory holds a model that this project exported."""
    config_file = Path(path).expanduser() / "config.json"
    return config_file.is_file() and '"extension_vocab_size"' in config_file.read_text("utf-8")


def extension_config(section: ConfigDict | None) -> ExtensionConfig | None:
    """Returns the sizes of the extension blocks, or None where there are none."""
    if section is None or section.hidden_size == NO_EXTENSION:
        return None
    return ExtensionConfig(**section)
