# SPDX-License-Identifier: Apache-2.0
"""A student in its teacher's own family: which of its sizes the teacher decides.

Such a student is written as a class that transformers has, without code of ours. The others, BERT,
DistilBERT and ALBERT, are told apart by their sizes alone, whatever their teacher is.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from edad_jax.distillation.student_init import InitSettings
from edad_jax.models import config_json
from edad_jax.models.config import BertConfig, ModernConfig
from edad_jax.models.hf_files import local_folder, read_model_json


def family_sizes(
    settings: InitSettings, config: ConfigDict, teacher: BertConfig
) -> dict[str, Any] | None:
    """Returns what `nets.student_config` takes of the teacher; None where that is nothing.

    Of a ModernBERT windows and rotations, of others where their positions begin. A teacher that
    has extension blocks no longer says what it was; then its checkpoint's config.json is asked.

    Args:
      settings: how the student begins.
      config: of the run.
      teacher: the sizes of the teacher's original.

    Raises:
      ValueError: config.student.family is not the teacher's; names the option.
    """
    family = config.student.get("family", "")
    if family in config_json.NAMED:
        kind, offset = _read_kind(config.teacher.checkpoint, family, teacher)
        if kind != family:
            raise ValueError(
                f"config.student.family={family!r} and the teacher is of the family {kind!r}: a "
                f"student has its teacher's; leave it empty for a BERT, DistilBERT or ALBERT"
            )
        if config.student.type_vocab_size != teacher.type_vocab_size:
            raise ValueError(
                f"the student has type_vocab_size={config.student.type_vocab_size} and the teacher "
                f"{teacher.type_vocab_size}: with config.student.family={family!r} set "
                f"--config.student.type_vocab_size={teacher.type_vocab_size}"
            )
        return config_json.named_fields(family) | {"position_offset": offset}
    if teacher.modern and family == teacher.family:
        return {"modern": _blocks(settings, teacher)}
    return None


def _read_kind(checkpoint: str, family: str, teacher: BertConfig) -> tuple[str, int]:
    """Returns (the teacher's family, the position that its checkpoint's table begins with)."""
    if teacher.family:
        return teacher.family, teacher.position_offset
    folder = local_folder(checkpoint, option="--config.teacher.checkpoint=DIR")
    said = read_model_json(folder / "config.json")
    kind = said.get("model_type", "bert")
    if kind != "exbert":
        return kind, config_json.bert_config(said).position_offset
    # It was adapted, and only its sizes still tell what it may have been.
    offset = config_json.named_fields(family, said.get("pad_token_id"))["position_offset"]
    original = dataclasses.replace(teacher, family=family, position_offset=offset)
    try:
        config_json.family_of(original, extended=False)
    except ValueError as error:
        raise ValueError(
            f"config.student.family={family!r}, and the adapted teacher was never of it: {error}"
        ) from error
    return family, offset


def _blocks(settings: InitSettings, teacher: BertConfig) -> ModernConfig:
    """Returns what a ModernBERT's blocks have beside sizes.

    Windows and rotations are the teacher's. Each layer sees as much of a row as the teacher's layer
    does that it begins as or, where it begins at random, that it imitates.
    """
    layers = settings.rules(teacher.num_hidden_layers).layers
    whole = teacher.modern.global_layers
    return dataclasses.replace(
        teacher.modern, global_layers=tuple(m for m, n in enumerate(layers) if n in whole)
    )
