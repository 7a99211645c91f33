# SPDX-License-Identifier: Apache-2.0
"""From a configuration to nets, parameters and optimisers: all that a step closes over."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from edad_jax import distill, inheritance, methods, minilm, optimizer, schedules, state, triple
from edad_jax.data.counts import masking_weights
from edad_jax.data.masking import MaskingConfig
from edad_jax.export import huggingface
from edad_jax.models import config_json, convert
from edad_jax.models.bert import BertConfig
from edad_jax.models.checkpoint_files import load_checkpoint
from edad_jax.models.exbert import ExBert, ExBertConfig, ExtensionConfig
from edad_jax.models.heads import WidthProjection
from edad_jax.models.names import HEADS
from edad_jax.nets import Nets, check_heads, layer_map
from edad_jax.step import StepSettings

ADDED_WORDS = ("random", "pieces")
STUDENT_INITS = ("random", "teacher")
ROW_MODES = ("pairs", "single")
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

    @property
    def added_size(self) -> int:
        """Returns the number of added words."""
        return self.size - self.base_size


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

    "auto" is bfloat16 on GPUs and TPUs; on CPUs it is float32. "mixed" is float32 with bfloat16
    products: for CPUs with matrix units, on which plain bfloat16 is no faster.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16", "mixed"):
        raise ValueError(f"config.dtype={name!r} is not one of auto, float32, bfloat16, mixed")
    if name == "mixed":
        return Precision(jnp.dtype("float32"), jnp.dtype("bfloat16"))
    return Precision(jnp.dtype(name), jnp.dtype(name))


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
    has_learned = is_exported(config.teacher.checkpoint)
    grows = teacher.config.extension is not None or vocabulary.added_size > 0
    if "teacher" not in methods.TRAINED_NETS[config.method] and grows and not has_learned:
        raise ValueError(
            f"config.method={config.method!r} freezes the teacher, but {config.teacher.checkpoint} "
            "has no extension yet: it would imitate random blocks and words. Adapt it first "
            "(--config.method=adaptation) and give --config.teacher.checkpoint=WORKDIR/teacher, or "
            "distil the plain model: --config.teacher.extension.hidden_size=0 "
            "--config.vocabulary.size=0"
        )
    if config.method in methods.NEED_MLM_HEAD and "mlm" in fresh:
        raise ValueError(
            f"config.method={config.method!r} takes soft targets from the teacher's MLM head, and "
            "config.teacher.fresh says that it starts from random; give a teacher that has one, or "
            "adapt it first (--config.method=adaptation)"
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
    if config.masking.smoothing < 0:
        raise ValueError(
            f"config.masking.smoothing={config.masking.smoothing}, expected 0 (all pieces alike) "
            "or more (DistilBERT: 0.7)"
        )
    if config.rows.mode not in ROW_MODES:
        raise ValueError(
            f"config.rows.mode={config.rows.mode!r} is not one of {', '.join(ROW_MODES)}"
        )
    inheritance.check_section(config.student)
    resolve_precision(config.dtype)
    schedules.alpha(config.alpha, total_steps=1)
    triple.alpha_schedule(config.triple, triple.read_settings(config.triple), 1)
    build_optimizer(config.optimizer, _learning_rate(config.optimizer, "teacher", 1_000_000))
    student = student_config(config.student, Vocabulary(1, 1, 0, 0, 0))
    config_json.family_of(student.base, extended=student.extension is not None)
    extension_config(config.teacher.extension)


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
    student, student_params = build_student(config.student, vocabulary, precision, (config.seed, 1))
    projection = WidthProjection(teacher.config.base.hidden_size, student.config.base, *precision)
    same_width = teacher.config.base.hidden_size == student.config.base.hidden_size
    if config.method in distill.METHODS or (config.method in triple.METHODS and not same_width):
        student_params["projection"] = state.init_projection(projection, (config.seed, 2))
    nets = Nets(teacher, student, projection)
    if "student" in trained_nets:
        if config.method in distill.METHODS:
            check_heads(teacher, student)
            _ = nets.teacher_taps  # a student deeper than its teacher is an error now
        if config.method in minilm.METHODS:
            minilm.check_relation_heads(nets, config.minilm.relation_heads)
        if config.student.init == "teacher":
            rules = inheritance_rules(config.student, teacher.config)
            student_params = inheritance.inherit(
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
            special_ids=(vocabulary.cls_id, vocabulary.sep_id),
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


def build_optimizer(section: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser that a config.optimizer section asks for, at this learning rate."""
    names = ("b1", "b2", "eps", "weight_decay", "clip_norm", "clip_by")
    return optimizer.make_optimizer(
        section.name, learning_rate=schedule, **{name: section[name] for name in names}
    )
