# SPDX-License-Identifier: Apache-2.0
"""Teacher and student together: which layers imitate which, and whether they can."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from edad_jax.models import block_copy, config_json, convert, init, pretrained
from edad_jax.models.config import (
    BertConfig,
    ExBertConfig,
    ExtensionConfig,
    as_base,
)
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.models.hf_files import load_checkpoint
from edad_jax.models.precision import Precision
from edad_jax.types import Vocabulary

STUDENT_FAMILIES = ("", *config_json.NAMED, "modernbert")


@dataclasses.dataclass(frozen=True)
class Nets:
    """Teacher, student, and the map from the student's width to the teacher's."""

    teacher: ExBert
    student: ExBert
    projection: WidthProjection

    @property
    def student_taps(self) -> tuple[int, ...]:
        return tuple(range(self.student.config.base.num_hidden_layers))

    @property
    def teacher_taps(self) -> tuple[int, ...]:
        """Returns the teacher layer that each student layer imitates."""
        return layer_map(self.teacher.config.base.num_hidden_layers, len(self.student_taps))


def layer_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Returns, for each student layer, the teacher layer (from 0) that it imitates.

    TinyBERT's uniform map: student layer m imitates teacher layer m N / M (from 1), so 12 -> 4
    gives 3, 6, 9, 12. Where M does not divide N it is rounded up, so that the last layers
    always meet: 6 -> 4 gives 2, 3, 5, 6.

    Raises:
      ValueError: where the student has more layers than the teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"a student of {student_layers} layers cannot imitate a teacher of {teacher_layers}; "
            "config.student.num_hidden_layers must be between 1 and the teacher's"
        )
    return tuple(-(-m * teacher_layers // student_layers) - 1 for m in range(1, student_layers + 1))


def windows(nets: Nets) -> tuple[int, ...]:
    """Returns how far apart two pieces may be whose scores are compared, of each student layer.

    The smaller window of the student's layer and of the teacher's that it imitates; 0: any.
    """
    pairs = zip(
        *(
            [net.config.base.modern.window_of(n) if net.config.base.modern else 0 for n in taps]
            for net, taps in ((nets.student, nets.student_taps), (nets.teacher, nets.teacher_taps))
        ),
        strict=True,
    )
    return tuple(min(filter(None, pair), default=0) for pair in pairs)


def check_imitation(nets: Nets) -> None:
    """Raises ValueError where the student has no layer or head to compare with the teacher's."""
    _ = nets.teacher_taps  # a student deeper than its teacher is an error now
    (teacher_base, teacher_added), (student_base, student_added) = (
        nets.teacher.config.score_heads,
        nets.student.config.score_heads,
    )
    if teacher_base != student_base:
        raise ValueError(
            f"the student has {student_base} attention heads and the teacher {teacher_base}; "
            f"TinyBERT compares heads one by one: set config.student.num_attention_heads="
            f"{teacher_base}"
        )
    if teacher_added and student_added and teacher_added != student_added:
        raise ValueError(
            f"the student's extension has {student_added} heads and the teacher's {teacher_added};"
            f" set config.student.extension.num_attention_heads={teacher_added}"
        )


def build_teacher(
    section: ConfigDict, vocabulary: Vocabulary, precision: Precision, seed: Sequence[int]
) -> tuple[ExBert, dict, tuple[str, ...]]:
    """Returns the teacher, its parameters, and which of its heads start from random values.

    section.checkpoint is a BERT or one of its kin in Hugging Face layout, to which the extension is
    added (nets whose tables are narrower take none: ALBERT, small ELECTRAs), or a model that this
    project exported, which is taken as it is.
    """
    if is_exported(section.checkpoint):
        exbert, params = pretrained.load_model(section.checkpoint)
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
    loaded = {}
    if section.from_scratch:
        base = dataclasses.replace(base, vocab_size=vocabulary.base_size)
    else:
        loaded = convert.bert_params(checkpoint, base, fresh=section.random_heads)
        plain = ExBertConfig(base, None, 0)
        plain, loaded = pretrained.cut_padding(
            plain, loaded, vocabulary.base_size, section.checkpoint
        )
        base = plain.base
    convert.check_vocabulary(vocabulary.base_size, base)
    extension = extension_config(section.extension)
    base = as_base(base) if extension else base
    config_json.family_of(base, extended=extension is not None)  # it must be written when learned
    model = ExBert(ExBertConfig(base, extension, vocabulary.added_size), *precision)
    params = init.init_params(model, seed, gate_bias=section.gate_bias)
    if section.from_scratch:
        return model, params, tuple(params)  # SciBERT's way: only the sizes are the checkpoint's
    params = init.load_over(params, loaded)
    if section.added_word_init == "pieces" and vocabulary.added_size:
        params = init.begin_added_words(params, vocabulary.added_pieces)
    return model, params, tuple(section.random_heads)


def check_teacher(section: ConfigDict, pieces: int, added_words: int) -> ExBertConfig:
    """Returns the sizes that the teacher of a run will have; reads all of its checkpoint for it.

    Args:
      section: config.teacher.
      pieces: of the tokenizer whose words the run begins with.
      added_words: that will be added to them.

    Raises:
      ValueError: no such model, weights that cannot be read or lack a part, or another number of
        words than the tokenizer has; says what to do.
    """
    if is_exported(section.checkpoint):
        exbert, _ = pretrained.load_model(section.checkpoint)
        convert.check_vocabulary(pieces + added_words, exbert)
        return exbert
    checkpoint = load_checkpoint(section.checkpoint)
    extension = extension_config(section.extension)
    plain = ExBertConfig(config_json.bert_config(checkpoint.config), None, 0)
    if section.from_scratch:
        plain = dataclasses.replace(plain, base=dataclasses.replace(plain.base, vocab_size=pieces))
    else:
        loaded = convert.bert_params(checkpoint, plain.base, fresh=section.random_heads)
        plain, _ = pretrained.cut_padding(plain, loaded, pieces, section.checkpoint)
    convert.check_vocabulary(pieces, plain)
    base = as_base(plain.base) if extension else plain.base
    config_json.family_of(base, extended=extension is not None)
    exbert = ExBertConfig(base, extension, added_words)
    if section.extension_init == "copy":
        block_copy.check_sizes(exbert)
    return exbert


def build_student(
    section: ConfigDict,
    vocabulary: Vocabulary,
    precision: Precision,
    seed: Sequence[int],
    family_sizes: Mapping[str, Any] | None = None,
) -> tuple[ExBert, dict]:
    """Returns the student and its random parameters; `family_sizes` as `student_config` has it."""
    model = ExBert(student_config(section, vocabulary, family_sizes), *precision)
    return model, init.init_params(model, seed, gate_bias=section.gate_bias)


def student_config(
    section: ConfigDict, vocabulary: Vocabulary, family_sizes: Mapping[str, Any] | None = None
) -> ExBertConfig:
    """Returns the student's sizes.

    Args:
      section: config.student.
      vocabulary: of the run.
      family_sizes: fields of BertConfig that no option gives; None: those of the family's published
        nets. See `student_family`.

    Raises:
      ValueError: sizes that do not go together, or a family that no student can have.
    """
    family = section.get("family", "")
    if family not in STUDENT_FAMILIES:
        raise ValueError(
            f"config.student.family={family!r} is not one of {STUDENT_FAMILIES}: an empty one is "
            "BERT, DistilBERT or ALBERT, as the other options say"
        )
    sizes = {
        field.name: section[field.name]
        for field in dataclasses.fields(BertConfig)
        if field.name in section
    }
    sizes |= _published_sizes(section) if family_sizes is None else family_sizes
    base = BertConfig(**(sizes | {"vocab_size": vocabulary.base_size}))
    extension = extension_config(section.extension)
    _check_stock(base, extension)
    return ExBertConfig(base, extension, vocabulary.added_size)


def _published_sizes(section):
    """Returns what no option of config.student gives of a net in its family."""
    family = section.get("family", "")
    if family == "modernbert":
        said = {"model_type": family, "num_hidden_layers": section.num_hidden_layers}
        return {"modern": config_json.bert_config(said).modern}
    return config_json.named_fields(family) if family else {}


def _check_stock(student, extension):
    """Raises ValueError where transformers' class of the student's family has no such parts."""
    if student.family not in config_json.NAMED:
        return
    has_segments = student.family == "mpnet" and student.type_vocab_size > 0
    options = {
        "extension.hidden_size=0": extension is not None,
        "has_pooler=False": student.has_pooler,
        "type_vocab_size=0": has_segments,
    }
    if wrong := [option for option, is_wrong in options.items() if is_wrong]:
        raise ValueError(
            f"config.student.family={student.family!r} is written as transformers' own class, "
            "which has no place for what the student has beside it: set "
            f"{' '.join(f'--config.student.{option}' for option in wrong)}, or leave the family "
            "empty"
        )


def is_exported(path: str) -> bool:
    """Returns whether a directory holds a model that this project exported."""
    config_file = Path(path).expanduser() / "config.json"
    return config_file.is_file() and '"extension_vocab_size"' in config_file.read_text(
        "utf-8", "replace"
    )


def extension_config(section: ConfigDict | None) -> ExtensionConfig | None:
    """Returns the sizes of the extension blocks, or None where there are none."""
    if section is None or section.hidden_size == 0:  # exBERT's own convention for none
        return None
    return ExtensionConfig(**section)
