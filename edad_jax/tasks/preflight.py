# SPDX-License-Identifier: Apache-2.0
"""What can be known of a fine-tuning run from its files, before labelled data are read."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from edad_jax.data import disk
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.models import init, pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.tasks.setup import check_length, load_encoder

_BYTES = 4  # of a number
_COPIES = 4  # of each in a checkpoint: itself, the optimiser's two means, the best epoch's


def check_run(
    config: ConfigDict, workdir: str | Path, pieces: int
) -> tuple[ExBertConfig, dict[str, Any]]:
    """Looks at model, teacher and disk of a run; returns sizes and parameters of the model.

    Args:
      config: of the run.
      workdir: its folder.
      pieces: of the model's tokenizer.

    Raises:
      ValueError: a model that cannot be read, does another task, is too short or does not fit its
        tokenizer, or a folder that cannot be written or has clearly too little room.
    """
    disk.check_writable(workdir, option="--workdir")
    # A pooler that the task has no use for is left out when the net is built.
    sizes, params = load_encoder(config, pieces, with_pooler=True)
    check_length(config, sizes)
    if config.teacher:
        _check_teacher(config)
    numbers = init.count_parameters(params)
    saved = numbers * config.num_seeds * _COPIES if config.checkpoint.every_minutes > 0 else 0
    there = sum(disk.written_bytes(Path(workdir) / name) for name in ("checkpoints", "model"))
    needed = {"checkpoints and the model": max(0, _BYTES * (saved + numbers) - there)}
    disk.check_free(workdir, needed, option="--workdir")
    return sizes, params


def _check_teacher(config):
    """Raises ValueError for a teacher of another task, or that cannot read as long rows."""
    tokenizer = load_tokenizer(config.teacher, option="--config.teacher=/a/local/folder")
    sizes, params, task = pretrained.load_task_model(config.teacher)
    sizes, _ = pretrained.cut_padding(sizes, params, len(tokenizer), config.teacher)
    positions = sizes.base.max_position_embeddings
    if task.kind != config.task:
        raise ValueError(
            f"config.teacher={config.teacher} is a {task.kind} model, expected one of "
            f"{config.task}; fine-tune it on the same data"
        )
    if len(tokenizer) != sizes.vocab_size or config.max_length > positions:
        raise ValueError(
            f"config.teacher={config.teacher}: got a tokenizer of {len(tokenizer)} pieces, a word "
            f"table of {sizes.vocab_size} and {positions} positions; expected as many words as "
            f"pieces, and config.max_length={config.max_length} positions or more"
        )
