# SPDX-License-Identifier: Apache-2.0
"""What can be known of a run from its settings and files, before hours of preparing text."""

import functools
import math
from pathlib import Path

import jax.numpy as jnp
from ml_collections import ConfigDict

from edad_jax.data import disk
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.data.vocabulary import own_pieces
from edad_jax.distillation.nets import Nets, check_teacher, student_config
from edad_jax.distillation.settings import Settings
from edad_jax.distillation.student_family import family_sizes
from edad_jax.distillation.student_init import check_sizes
from edad_jax.models import head_regression, init
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import check_padding
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.training.workdir import local_workdir
from edad_jax.types import Vocabulary

_COPIES = 3  # of each trained number in a checkpoint: itself and the optimiser's two means
_BYTES = 4  # of a number


def check_run(config: ConfigDict, settings: Settings, workdir: str) -> None:
    """Looks at teacher, tokenizer, sizes and disk of a run whose rows are not made yet.

    Raises:
      ValueError: a checkpoint, a tokenizer or sizes that do not go together, or a folder that
        cannot be written or has clearly too little room; names the option.
      RemoteError: config.checkpoint.directory cannot be written to.
    """
    if config.vocabulary.base:
        tokenizer = load_tokenizer(config.vocabulary.base, option="--config.vocabulary.base=FOLDER")
    else:
        tokenizer = load_tokenizer(config.teacher.checkpoint)
    pieces, added = len(tokenizer), config.vocabulary.size
    padding = tokenizer.pad_token_id
    if config.vocabulary.from_scratch:
        kept = own_pieces(tokenizer, tokenizer.name_or_path)
        padding = kept.index(tokenizer.pad_token)
        pieces, added = len(kept) + added, 0
    teacher = check_teacher(config.teacher, pieces, added)
    words = Vocabulary(teacher.base.vocab_size, teacher.vocab_size, 0, 0, 0)
    shared = family_sizes(settings.student_init, config, teacher.base)
    student = student_config(config.student, words, shared)
    check_nets(config, settings, teacher, student)
    trained = whole = 0
    resting = {"teacher": set(config.teacher.frozen) - set(config.teacher.random_heads)}
    for net, sizes in (("teacher", teacher), ("student", student)):
        if net in settings.method.trained_nets:
            check_padding(padding, sizes.base)
            counts = _count_parameters(sizes)
            whole += sum(counts.values())
            trained += sum(n for part, n in counts.items() if part not in resting.get(net, ()))
    check_room(config, workdir, trained=trained, whole=whole)


def check_nets(
    config: ConfigDict, settings: Settings, teacher: ExBertConfig, student: ExBertConfig
) -> None:
    """Raises ValueError where nets of these sizes cannot take the rows, or learn of each other."""
    method = settings.method
    settings.execution.check_bias(teacher.base)
    sizes = {"teacher": teacher, "student": student}
    for net in sorted({"teacher", *method.trained_nets}):
        if config.rows.max_length > sizes[net].base.max_position_embeddings:
            raise ValueError(
                f"config.rows.max_length={config.rows.max_length}: the {net} has only "
                f"{sizes[net].base.max_position_embeddings} positions; choose at most that"
            )
        begins_anew = net == "student" or "mlm" in config.teacher.random_heads
        if config.mlm_head_init == "regression" and begins_anew:
            head_regression.check_head(sizes[net].base)
    if "student" not in method.trained_nets:
        return
    width = teacher.base.hidden_size
    projection = WidthProjection(width, student.base, jnp.float32)
    nets = Nets(ExBert(teacher, jnp.float32), ExBert(student, jnp.float32), projection)
    method.check_nets(nets, settings.own)
    if settings.student_init.init == "teacher":
        rules = settings.student_init.rules(teacher.base.num_hidden_layers)
        check_sizes(student, teacher, rules)


def check_room(config: ConfigDict, workdir: str | Path, *, trained: int, whole: int) -> None:
    """Looks whether what a run leaves can be written.

    Args:
      config: of the run.
      workdir: its folder.
      trained: numbers that the method trains.
      whole: numbers of the nets that it leaves.

    Raises:
      ValueError: a workdir that cannot be written, or has clearly too little room.
      RemoteError: config.checkpoint.directory cannot be written to.
    """
    folder = local_workdir(workdir)
    disk.check_writable(folder, option="--workdir")
    saved = config.checkpoint.keep + 1  # the next one is written before the oldest goes
    if config.max_steps:
        every = config.checkpoint.every_steps or config.max_steps
        saved = min(saved, math.ceil(config.max_steps / every))
    there = sum(disk.written_bytes(folder / name) for name in ("checkpoints", "teacher", "student"))
    left = _BYTES * (_COPIES * trained * saved + whole) - there
    needed = {f"{saved} checkpoint(s) and the trained nets": max(0, left)}
    if config.prepared:
        disk.check_free(folder, needed, option="--workdir")
    else:
        disk.check_rows_folder(config, folder, needed, option="--workdir")
    if config.checkpoint.directory:
        disk.check_writable(config.checkpoint.directory, option="--config.checkpoint.directory")


@functools.cache
def _count_parameters(sizes: ExBertConfig) -> dict[str, int]:
    """Returns how many numbers each part of a net has."""
    shapes = init.param_shapes(ExBert(sizes, jnp.float32))
    return {part: init.count_parameters(tree) for part, tree in shapes.items()}
