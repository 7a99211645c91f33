# SPDX-License-Identifier: Apache-2.0
"""A configuration's settings, read and checked once, before hours of preparing text."""

import dataclasses
import functools
from typing import Any

import optax
from ml_collections import ConfigDict

from edad_jax.data.batches import bucket_lengths
from edad_jax.data.rows import RowSettings
from edad_jax.distillation import head_init, student_init
from edad_jax.distillation.edad import DEFAULT_ALPHA
from edad_jax.distillation.method import Method
from edad_jax.distillation.methods import METHODS, find_method
from edad_jax.distillation.nets import extension_config, is_exported, student_config
from edad_jax.distillation.phases import PhaseSettings
from edad_jax.models import block_copy, config_json
from edad_jax.models.config import Execution
from edad_jax.models.precision import Precision, check_precision, resolve_precision
from edad_jax.training import batch_size
from edad_jax.training.optimizer import OptimizerSettings, read_optimizer
from edad_jax.training.sections import check_not_given, read_section
from edad_jax.types import Vocabulary

ADDED_WORDS = ("random", "pieces")
EXTENSIONS = ("random", "copy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is given, as far as no checkpoint must be read for it."""

    method: Method
    own: Any  # of the method
    dtype: str  # by its name: see `precision`
    execution: Execution
    optimizer: OptimizerSettings
    student_init: student_init.InitSettings
    phases: PhaseSettings

    @functools.cached_property
    def precision(self) -> Precision:
        """The types that nets compute in.

        Not resolved before a net is built, since that takes the devices: a process that only
        checks settings would keep a GPU's memory, or a whole TPU, from the one that trains.
        """
        return resolve_precision(self.dtype)

    def alpha(self, config: ConfigDict, total_steps: int) -> optax.Schedule:
        return self.method.alpha(self.own, config, total_steps)


def read_settings(config: ConfigDict) -> Settings:
    """Returns the settings of a run; no device is asked for.

    Raises:
      ValueError: what is wrong at first sight: names out of a list, head counts, intervals, and
        options that the run would not read. What needs a checkpoint is seen later.
    """
    method = find_method(config.method)
    settings = Settings(
        method=method,
        own=method.read(config),
        dtype=config.dtype,
        execution=Execution(remat=config.remat, attention=config.attention),
        optimizer=read_optimizer(config.optimizer),
        student_init=student_init.read_init(config.student),
        phases=read_section(PhaseSettings, config.phases),
    )
    check_precision(config.dtype)
    settings.alpha(config, total_steps=1)
    RowSettings.from_config(config)
    settings.execution.check_packed(config.rows.packed)
    bucket_lengths(config.rows.buckets, config.rows.max_length)
    for option, choices in (("added_word_init", ADDED_WORDS), ("extension_init", EXTENSIONS)):
        if config.teacher[option] not in choices:
            raise ValueError(
                f"config.teacher.{option}={config.teacher[option]!r} is not one of "
                f"{', '.join(choices)}"
            )
    if config.mlm_head_init not in head_init.MLM_HEADS:
        raise ValueError(
            f"config.mlm_head_init={config.mlm_head_init!r} is not one of "
            f"{', '.join(head_init.MLM_HEADS)}"
        )
    _check_numbers(config)
    if config.max_steps:  # else it is known when the rows are there
        settings.optimizer.learning_rate(1.0, config.max_steps)
    for net in {"teacher", *method.trained_nets}:
        settings.execution.check_dropout(net, config[net].attention_probs_dropout_prob)
    student = student_config(config.student, Vocabulary(1, 1, 0, 0, 0))
    config_json.family_of(student.base, extended=student.extension is not None)
    if settings.student_init.extension == "copy":
        block_copy.check_sizes(student)
    extension_config(config.teacher.extension)
    check_unread(config, method)
    return settings


def check_settings(config: ConfigDict) -> Settings:
    """Returns the settings of a run whose teacher is the one that the configuration names.

    Raises:
      ValueError: as `read_settings`, and where teacher, vocabulary and method do not go together.
    """
    settings = read_settings(config)
    _check_teacher(config, settings.method)
    return settings


def resolve_config(config: ConfigDict, settings: Settings) -> ConfigDict:
    """Returns a copy with values where an option that this run reads was left at None.

    So a folder's config.json and a model card say what was run, and mean it still where a default
    has changed since.
    """
    config = config.copy_and_resolve_references()
    for option in settings.method.options:
        if option == "alpha":
            config.alpha = config.alpha or DEFAULT_ALPHA
        else:
            section = settings.phases if option == "phases" else settings.own
            config[option].update(dataclasses.asdict(section))
    if config.student.init == "teacher":
        values = dataclasses.asdict(settings.student_init)
        config.student.inherit.update({name: values[name] for name in config.student.inherit})
    return config


def check_unread(config: ConfigDict, method: Method) -> None:
    """Raises ValueError for an option that was given, and that only other runs read."""
    for option in sorted({option for each in METHODS.values() for option in each.options}):
        if option not in method.options:
            readers = " or ".join(each.name for each in METHODS.values() if option in each.options)
            check_not_given(
                config, option, f"config.method={readers} only, and config.method={method.name!r}"
            )
    if config.student.init != "teacher":
        check_not_given(
            config,
            "student.inherit",
            f"config.student.init=teacher only, and config.student.init={config.student.init!r}",
        )


def check_frozen_teacher(config: ConfigDict, *, grows: bool, has_learned: bool) -> None:
    """Raises ValueError where a student would imitate random weights.

    Args:
      config: of the run.
      grows: whether the teacher has an extension or added words.
      has_learned: whether these come from its checkpoint.
    """
    method = find_method(config.method)
    if "teacher" in method.trained_nets:
        return
    if (grows or config.teacher.from_scratch) and not has_learned:
        raise ValueError(
            f"config.method={config.method!r} freezes the teacher, but {config.teacher.checkpoint} "
            "has no extension yet: it would imitate random blocks and words. Adapt it first "
            "(--config.method=adaptation) and give --config.teacher.checkpoint=WORKDIR/teacher, or "
            "distil the plain model: --config.teacher.extension.hidden_size=0 "
            "--config.vocabulary.size=0"
        )
    if method.needs_mlm_head and "mlm" in config.teacher.random_heads:
        raise ValueError(
            f"config.method={config.method!r} takes soft targets from the teacher's MLM head, and "
            "config.teacher.random_heads says that it starts from random; give a teacher that has "
            "one, or adapt it first (--config.method=adaptation)"
        )


def _check_numbers(config):
    """Raises ValueError for sizes, intervals and shares that cannot be."""
    batch_size.read_setting(config.batch_size_per_device)
    for key, least, meaning in (
        ("batch_size", 1, "at least 1"),
        ("accumulate_steps", 1, "at least 1"),
        ("memory_gb", 0, "0 (all there is) or more"),
        ("log_every_steps", 0, "0 (never) or more"),
        ("heldout.every_steps", 0, "0 (never) or more"),
        ("heldout.examples", 0, "0 (none) or more"),
        ("heldout.max_rows", 1, "at least 1"),
        ("checkpoint.keep", 1, "at least 1"),
        ("masking.max_predictions_per_seq", 1, "at least 1"),
        ("rows.workers", 0, "0 (as many as there are cores) or more"),
        ("vocabulary.size", 0, "0 (none) or more"),
        ("vocabulary.max_megabytes", 1, "at least 1"),
        ("optimizer.teacher_learning_rate", 0, "0 (it rests) or more"),
        ("optimizer.student_learning_rate", 0, "0 (it rests) or more"),
        ("checkpoint.every_steps", 0, "0 (never) or more"),
        ("max_steps", 0, "0 (no limit) or more"),
        ("optimizer.teacher_block_ratio", 0, "0 (they rest) or more"),
    ):
        value = config
        for part in key.split("."):
            value = value[part]
        if value < least:
            raise ValueError(f"config.{key}={value}, expected {meaning}")
    if not config.max_steps and config.epochs <= 0:
        raise ValueError(
            f"config.epochs={config.epochs}, expected more than 0, or --config.max_steps=UPDATES"
        )
    if not 0 < config.masking.mlm_probability <= 1 or config.masking.smoothing < 0:
        raise ValueError(
            f"got config.masking.mlm_probability={config.masking.mlm_probability} and config."
            f"masking.smoothing={config.masking.smoothing}; expected a probability from above 0 to "
            "1 (BERT: 0.15), and a smoothing of 0 (all pieces alike) or more (DistilBERT: 0.7)"
        )


def _check_teacher(config, method):
    """Raises ValueError where teacher, vocabulary and method do not go together."""
    if config.vocabulary.from_scratch and not config.teacher.from_scratch:
        raise ValueError(
            "config.vocabulary.from_scratch drops the words that the teacher's checkpoint knows; "
            "set config.teacher.from_scratch too, or extend the vocabulary instead"
        )
    has_learned = is_exported(config.teacher.checkpoint)
    extension = config.teacher.extension
    adds_words = not config.prepared and config.vocabulary.size > 0
    check_frozen_teacher(
        config,
        grows=adds_words or (extension is not None and extension.hidden_size > 0),
        has_learned=has_learned,
    )
    if has_learned and adds_words:
        raise ValueError(
            f"{config.teacher.checkpoint} has its added words already, and config.vocabulary.size="
            f"{config.vocabulary.size:,} would add more: give the rows that it learned from, "
            "--config.prepared=ITS_WORKDIR, or --config.vocabulary.size=0 for its words alone"
        )
