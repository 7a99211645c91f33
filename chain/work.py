# SPDX-License-Identifier: Apache-2.0
"""How much work each stage is, roughly: so that the time left can be told before all have run."""

from pathlib import Path, PurePath

from ml_collections import ConfigDict

from edad_jax.data.text.files import file_format
from edad_jax.data.text.source import describe_source
from edad_jax.models.hf_files import read_model_json

_PIECES_OF_A_SENTENCE = 30
_BYTES_OF_A_PIECE = 4.5
_PACKED = 3.5  # times the size of a compressed file
# What is no training, as FLOPs of a machine of 1e11 a second.
_OF_A_MEGABYTE = 2e11  # words and rows of a megabyte of text
_OF_A_COMMAND = 2e12  # starting, reading a model, writing it, comparing it
_BERT_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3_072}


def stage_work(config: ConfigDict, sentences: int) -> dict[str, float]:
    """Returns FLOPs, or as many as would take their time, by stage; good to a factor of two.

    Args:
      config: of the pipeline.
      sentences: to fine-tune on.
    """
    checkpoint = Path(config.teacher.checkpoint)
    sizes = read_model_json(checkpoint / "config.json") if checkpoint.is_dir() else {}
    sizes = _BERT_BASE | {name: sizes[name] for name in _BERT_BASE if name in sizes}
    base = _weights(sizes, sizes["hidden_size"], sizes["intermediate_size"])
    grown = _extension(sizes, config.teacher.extension)
    student = _weights(config.student, config.student.hidden_size, config.student.intermediate_size)
    student += _extension(config.student, config.student.extension)
    text = corpus_bytes(config)
    steps = config.max_steps or config.epochs * text / _BYTES_OF_A_PIECE / (
        config.batch_size * config.rows.max_length
    )
    pieces = steps * config.batch_size * config.rows.max_length
    tuned = 6.0 * sentences * _PIECES_OF_A_SENTENCE * config.finetune.num_seeds
    large = config.finetune_large.get("epochs", config.finetune.epochs)
    work = {
        "rows": text / 1e6 * _OF_A_MEGABYTE,
        "train": pieces * (4 * base + 6 * grown + 6 * student),
        "tune-base": tuned * large * base,
        "tune-teacher": tuned * large * (base + grown),
        "tune-student": tuned * config.finetune.epochs * student,
    }
    return {name: each + _OF_A_COMMAND for name, each in work.items()}


def corpus_bytes(config: ConfigDict) -> float:
    """Returns how much text there is, as far as its files tell; 1 MB for each package."""
    source = describe_source(config.corpus)
    if "files" not in source:
        return 1e6 * max(1, len(config.corpus.packages))
    total = 0.0
    for name, size, *_ in source["files"]:
        kind, compression = file_format(PurePath(name).name)
        total += size * (_PACKED if compression or kind in (".zip", ".parquet") else 1)
    return total


def _weights(sizes, attention, inner):
    return sizes["num_hidden_layers"] * sizes["hidden_size"] * (4 * attention + 2 * inner)


def _extension(sizes, section):
    if section is None or not section.hidden_size:
        return 0
    return _weights(sizes, section.hidden_size, section.intermediate_size)
