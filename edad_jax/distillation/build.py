# SPDX-License-Identifier: Apache-2.0
"""From a configuration to nets, parameters and optimisers: all that a step closes over."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from edad_jax.data.masking import MaskingConfig
from edad_jax.data.piece_counts import masking_weights
from edad_jax.distillation import edad, methods, minilm, phases, student_init, triple
from edad_jax.distillation.nets import (
    Nets,
    build_student,
    build_teacher,
    check_heads,
    extension_config,
    inheritance_rules,
    is_exported,
    student_config,
)
from edad_jax.distillation.settings import check_training
from edad_jax.distillation.step import StepSettings
from edad_jax.models import config_json, init
from edad_jax.models.config import Execution
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.models.names import HEADS
from edad_jax.models.precision import Precision, resolve_precision
from edad_jax.training import batch_size, schedules, state
from edad_jax.training.optimizer import build_optimizer
from edad_jax.types import Vocabulary

ADDED_WORDS = ("random", "pieces")
STUDENT_INITS = ("random", "teacher")
ROW_MODES = ("pairs", "single")


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a training run starts with."""

    nets: Nets
    trained: dict[str, dict]  # net -> parameters that the method trains
    frozen: dict[str, dict]  # net -> parameters that it only reads
    settings: StepSettings

    @property
    def models(self) -> dict[str, ExBert]:
        """Returns the nets that have parameters, by name."""
        return {
            name: getattr(self.nets, name)
            for name in ("teacher", "student")
            if name in self.trained or name in self.frozen
        }

    def all_params(self, trained: dict[str, dict], net: str) -> dict:
        """Returns all parameters of one net, given its trained part."""
        return trained.get(net, {}) | self.frozen.get(net, {})


def build_run(config: ConfigDict, vocabulary: Vocabulary, *, total_steps: int) -> Run:
    """Returns nets, parameters and settings for config.method.

    Raises:
      ValueError: a checkpoint that cannot be read or does not fit, or settings that do not go
        together; the message names the option.
    """
    precision = resolve_precision(config.dtype)
    teacher, teacher_params, fresh = build_teacher(
        config.teacher, vocabulary, precision, (config.seed, 0)
    )
    # Of an adapted teacher's words some are added ones, whatever its tokenizer calls them.
    base_size = teacher.config.base.vocab_size
    vocabulary = dataclasses.replace(vocabulary, base_size=base_size)
    _check_frozen_teacher(
        config,
        grows=teacher.config.extension is not None or vocabulary.added_size > 0,
        has_learned=is_exported(config.teacher.checkpoint),
    )
    return assemble_run(
        config, vocabulary, teacher, teacher_params, fresh=fresh, total_steps=total_steps
    )


def check_settings(config: ConfigDict) -> None:
    """Raises ValueError on what is wrong at first sight, before hours of preparing text.

    Names out of a list, head counts, and intervals; what needs a checkpoint is seen later.
    """
    if config.method not in methods.TRAINED_NETS:
        raise ValueError(
            f"config.method={config.method!r} is not one of {', '.join(methods.TRAINED_NETS)}"
        )
    for key in ("batch_size", "accumulate_steps"):
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}, expected at least 1")
    batch_size.read_setting(config.batch_size_per_device)
    if config.memory_gb < 0:
        raise ValueError(f"config.memory_gb={config.memory_gb}, expected 0 (all there is) or more")
    for key in ("log_every_steps", "heldout.every_steps", "checkpoint.every_steps", "max_steps"):
        value = config
        for part in key.split("."):
            value = value[part]
        if value < 0:
            raise ValueError(f"config.{key}={value}, expected 0 (never, or no limit) or more")
    if config.teacher.added_words not in ADDED_WORDS:
        raise ValueError(
            f"config.teacher.added_words={config.teacher.added_words!r} is not one of "
            f"{', '.join(ADDED_WORDS)}"
        )
    if config.vocabulary.from_scratch and not config.teacher.from_scratch:
        raise ValueError(
            "config.vocabulary.from_scratch drops the words that the teacher's checkpoint knows; "
            "set config.teacher.from_scratch too, or extend the vocabulary instead"
        )
    if config.student.init not in STUDENT_INITS:
        raise ValueError(
            f"config.student.init={config.student.init!r} is not one of {', '.join(STUDENT_INITS)}"
        )
    if config.rows.mode not in ROW_MODES:
        raise ValueError(
            f"config.rows.mode={config.rows.mode!r} is not one of {', '.join(ROW_MODES)}"
        )
    _check_lengths(config)
    has_learned = is_exported(config.teacher.checkpoint)
    grows = config.teacher.extension is not None and config.teacher.extension.hidden_size > 0
    adds_words = not config.prepared and config.vocabulary.size > 0
    _check_frozen_teacher(config, grows=grows or adds_words, has_learned=has_learned)
    if has_learned and adds_words:
        raise ValueError(
            f"{config.teacher.checkpoint} has its added words already, and config.vocabulary.size="
            f"{config.vocabulary.size:,} would add more: give the rows that it learned from, "
            "--config.prepared=ITS_WORKDIR, or --config.vocabulary.size=0 for its words alone"
        )
    execution = Execution(remat=config.remat, attention=config.attention)
    for net in {"teacher", *methods.TRAINED_NETS[config.method]}:
        execution.check_dropout(net, config[net].attention_probs_dropout_prob)
    student_init.check_section(config.student)
    phases.check_section(config.savings, config.method)
    resolve_precision(config.dtype)
    schedules.alpha(config.alpha, total_steps=1)
    triple.alpha_schedule(config.triple, triple.read_settings(config.triple), 1)
    build_optimizer(config.optimizer, _learning_rate(config.optimizer, "teacher", 1_000_000))
    student = student_config(config.student, Vocabulary(1, 1, 0, 0, 0))
    config_json.family_of(student.base, extended=student.extension is not None)
    extension_config(config.teacher.extension)
    check_training(config)


def _check_frozen_teacher(config, *, grows, has_learned):
    """Raises ValueError where a student would imitate random weights."""
    if "teacher" in methods.TRAINED_NETS[config.method]:
        return
    if (grows or config.teacher.from_scratch) and not has_learned:
        raise ValueError(
            f"config.method={config.method!r} freezes the teacher, but {config.teacher.checkpoint} "
            "has no extension yet: it would imitate random blocks and words. Adapt it first "
            "(--config.method=adaptation) and give --config.teacher.checkpoint=WORKDIR/teacher, or "
            "distil the plain model: --config.teacher.extension.hidden_size=0 "
            "--config.vocabulary.size=0"
        )
    if config.method in methods.NEED_MLM_HEAD and "mlm" in config.teacher.fresh:
        raise ValueError(
            f"config.method={config.method!r} takes soft targets from the teacher's MLM head, and "
            "config.teacher.fresh says that it starts from random; give a teacher that has one, or "
            "adapt it first (--config.method=adaptation)"
        )


def _check_lengths(config):
    """Raises ValueError for numbers of pieces, shares and heads that cannot be."""
    if not 0 < config.masking.share <= 1 or config.masking.smoothing < 0:
        raise ValueError(
            f"config.masking: got share={config.masking.share}, smoothing="
            f"{config.masking.smoothing}; expected a share from above 0 to 1, and a smoothing of 0 "
            "(all pieces alike) or more (DistilBERT: 0.7)"
        )
    odd = [length for length in config.rows.buckets if not 1 <= length <= config.rows.max_length]
    if odd:
        raise ValueError(
            f"config.rows.buckets has {odd}, expected lengths from 1 to config.rows.max_length="
            f"{config.rows.max_length}"
        )
    if config.method in minilm.METHODS:
        minilm.check_divides(config.minilm.relation_heads, "student", config.student.hidden_size)
        minilm.check_extension(extension_config(config.student.extension))


def assemble_run(
    config: ConfigDict,
    vocabulary: Vocabulary,
    teacher: ExBert,
    teacher_params: dict,
    *,
    fresh: Sequence[str],
    total_steps: int,
) -> Run:
    """Returns the run of config.method with this teacher; `fresh` parts of it are trained."""
    trained_nets = methods.TRAINED_NETS[config.method]
    precision = Precision(teacher.dtype, teacher.products or teacher.dtype)
    execution = Execution(remat=config.remat, attention=config.attention)
    execution.check_dropout("teacher", teacher.config.base.attention_probs_dropout_prob)
    teacher = teacher.clone(execution=execution)
    student, student_params = build_student(config.student, vocabulary, precision, (config.seed, 1))
    projection = WidthProjection(teacher.config.base.hidden_size, student.config.base, *precision)
    same_width = teacher.config.base.hidden_size == student.config.base.hidden_size
    if config.method in edad.METHODS or (config.method in triple.METHODS and not same_width):
        student_params["projection"] = init.init_projection(projection, (config.seed, 2))
    nets = Nets(teacher, student.clone(execution=execution), projection)
    if "student" in trained_nets:
        if config.method in edad.METHODS:
            check_heads(teacher, student)
            _ = nets.teacher_taps  # a student deeper than its teacher is an error now
        if config.method in minilm.METHODS:
            minilm.check_relation_heads(nets, config.minilm.relation_heads)
        if config.student.init == "teacher":
            rules = inheritance_rules(config.student, teacher.config)
            student_params = student_init.inherit(
                student_params, student.config, teacher_params, teacher.config, rules
            )

    unknown = set(config.teacher.frozen) - set(teacher_params) - set(HEADS)  # some nets lack heads
    if unknown:
        raise ValueError(
            f"config.teacher.frozen names {sorted(unknown)}; the teacher's parts are "
            f"{', '.join(sorted(teacher_params))}"
        )
    frozen_parts = set(config.teacher.frozen) - set(fresh)
    if "teacher" not in trained_nets:
        frozen_parts = set(teacher_params)
    teacher_trained, teacher_frozen = state.freeze(teacher_params, frozen_parts)
    trained = {"teacher": teacher_trained, "student": student_params}

    schedule = {net: _learning_rate(config.optimizer, net, total_steps) for net in trained_nets}
    triple_settings = triple.read_settings(config.triple)
    if config.method in triple.METHODS:
        alpha = triple.alpha_schedule(config.triple, triple_settings, total_steps)
    else:
        alpha = schedules.alpha(config.alpha, total_steps=total_steps)
    settings = StepSettings(
        masking=MaskingConfig(
            vocab_size=vocabulary.size,
            mask_id=vocabulary.mask_id,
            special_ids=_never_masked(config.masking, vocabulary),
            masked_share=config.masking.share,
            max_predictions=config.masking.max_predictions,
            seed=config.seed,
            piece_weights=_piece_weights(config.masking, vocabulary),
        ),
        alpha=alpha,
        learning_rate=schedule,
        optimizers={net: build_optimizer(config.optimizer, schedule[net]) for net in trained_nets},
        accumulate_steps=config.accumulate_steps,
        seed=config.seed,
        with_nsp=config.rows.mode == "pairs",
        triple=triple_settings,
        relation_heads=config.minilm.relation_heads,
    )
    return Run(
        nets=nets,
        trained={net: trained[net] for net in trained_nets},
        frozen={"teacher": teacher_frozen},
        settings=settings,
    )


def _never_masked(section, vocabulary):
    """Returns the ids of [CLS] and [SEP], as in BERT; with smoothing also of [UNK].

    DistilBERT's code, where smoothing comes from, gives all special pieces the weight 0.
    """
    ids = (vocabulary.cls_id, vocabulary.sep_id)
    return ids if not section.smoothing or vocabulary.unk_id is None else (*ids, vocabulary.unk_id)


def _piece_weights(section, vocabulary):
    if not section.smoothing:
        return None
    return masking_weights(vocabulary.token_counts, section.smoothing)


def _learning_rate(section: ConfigDict, net: str, total_steps: int) -> Any:
    return schedules.learning_rate(
        section.schedule,
        peak=section[f"{net}_learning_rate"],
        warmup_steps=round(section.warmup_share * total_steps),
        total_steps=total_steps,
    )
