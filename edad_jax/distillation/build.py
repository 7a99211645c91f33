# SPDX-License-Identifier: Apache-2.0
"""From settings to nets, parameters and optimisers: all that a step closes over."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from edad_jax.data.batches import Rows, make_batch_at
from edad_jax.data.masking import MaskingConfig, mask_rows
from edad_jax.data.piece_counts import masking_weights
from edad_jax.data.prepare import Prepared
from edad_jax.distillation import head_init, student_family, student_init
from edad_jax.distillation.method import StepSettings
from edad_jax.distillation.nets import Nets, build_student, build_teacher, is_exported
from edad_jax.distillation.phases import WHOLE
from edad_jax.distillation.settings import Settings, check_frozen_teacher
from edad_jax.models import block_copy, init
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.models.names import HEADS
from edad_jax.models.precision import Precision
from edad_jax.training import batch_size, state
from edad_jax.training.parallel import Parallel
from edad_jax.types import MaskedBatch, Vocabulary

LOG = logging.getLogger(__name__)
_NSP_PARTS = {"pooler", "nsp"}
_SAMPLE_PIECES = 8_192  # of text that copied blocks are fitted to; and in a batch of:
_HEAD_PIECES = 20_000  # masked ones, that an MLM head is fitted to


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

    @property
    def frozen_as_read(self) -> dict[str, dict]:
        """Returns the frozen parameters, kernels in the type of the activations.

        Where that is bfloat16, a step would else cast them anew in every update. Not the gates',
        which are float32 in any case.
        """

        def cast(path, leaf):
            keys = [part.key for part in path]
            is_cast = keys[-1] == "kernel" and not any(key.startswith("gates_") for key in keys)
            return leaf.astype(self.nets.teacher.dtype) if is_cast else leaf

        return jax.tree_util.tree_map_with_path(cast, self.frozen)

    def all_params(self, trained: dict[str, dict], net: str) -> dict:
        """Returns all parameters of one net, given its trained part."""
        return trained.get(net, {}) | self.frozen.get(net, {})

    def describe(self) -> None:
        for net in self.models:
            LOG.info(
                "%s: %s parameters, of which %s are trained",
                net,
                f"{init.count_parameters(self.all_params(self.trained, net)):,}",
                f"{init.count_parameters(self.trained.get(net, {})):,}",
            )


def make_step_at(
    run: Run, settings: Settings, parallel: Parallel, total_steps: int
) -> Callable[[int], Callable]:
    """Returns step_at(updates already made) -> the compiled step; each is made when first met."""
    phase_at = settings.phases.make_phase_at(run.settings.alpha, total_steps)

    @functools.cache
    def step_of(phase):
        if phase != WHOLE:
            LOG.info("From here on %s: compiling.", phase.describe())
        step = settings.method.make_step(run.nets, dataclasses.replace(run.settings, phase=phase))
        return parallel.compile(step, replicated_arguments=2, donate=True)

    return lambda number: step_of(phase_at(number))


def largest_batch(
    config: ConfigDict, settings: Settings, parallel: Parallel, prepared: Prepared
) -> int:
    """Returns the rows of the largest batch whose step fits the devices' memory, by compiling it.

    Raises:
      ValueError: not even one row of each device fits, or its memory is not known.
    """
    run = build_run(config, settings, prepared.vocabulary, total_steps=1)
    train_state, frozen = jax.eval_shape(
        lambda trained, frozen: (state.begin(trained, run.settings.optimizers), frozen),
        run.trained,
        run.frozen_as_read,
    )
    step = settings.method.make_step(run.nets, run.settings)
    rows = batch_size.find_batch_size(
        lambda rows: batch_size.step_bytes(
            step,
            train_state,
            frozen,
            rows=rows,
            length=config.rows.max_length,
            packed=config.rows.packed,
        ),
        budget=batch_size.memory_budget(config.memory_gb, jax.local_devices()[0]),
        unit=config.accumulate_steps,
        most=len(prepared.train) // parallel.device_count,
    )
    LOG.info("%d rows on each of %d device(s).", rows, parallel.device_count)
    return rows * parallel.device_count


def count_steps(config: ConfigDict, rows: int) -> int:
    """Returns the updates of a run on so many rows."""
    return config.max_steps or max(1, int(config.epochs * rows / config.batch_size))


def build_run(
    config: ConfigDict,
    settings: Settings,
    vocabulary: Vocabulary,
    *,
    total_steps: int,
    rows: Rows | None = None,
) -> Run:
    """Returns nets, parameters and settings for config.method.

    Args:
      config: of the run.
      settings: what it says.
      vocabulary: of its rows.
      total_steps: updates to come.
      rows: text that copied extension blocks, and MLM heads by regression, are fitted to; None
        where only shapes are asked for.

    Raises:
      ValueError: a checkpoint that cannot be read or does not fit, or settings that do not go
        together; the message names the option.
    """
    teacher, teacher_params, fresh = build_teacher(
        config.teacher, vocabulary, settings.precision, (config.seed, 0)
    )
    has_learned = is_exported(config.teacher.checkpoint)
    # Of an adapted teacher's words some are added ones, whatever its tokenizer calls them.
    vocabulary = dataclasses.replace(vocabulary, base_size=teacher.config.base.vocab_size)
    check_frozen_teacher(
        config,
        grows=teacher.config.extension is not None or vocabulary.added_size > 0,
        has_learned=has_learned,
    )
    sample = _sample_text(config, vocabulary, rows)
    if sample and config.teacher.extension_init == "copy" and not has_learned:
        teacher_params = block_copy.copy_blocks(teacher, teacher_params, sample[0])
    if "mlm" in fresh:
        teacher_params = head_init.begin_head(
            config, vocabulary, "teacher", teacher, teacher_params, sample
        )
    return assemble_run(
        config,
        settings,
        vocabulary,
        teacher,
        teacher_params,
        fresh=fresh,
        total_steps=total_steps,
        sample=sample,
    )


def assemble_run(
    config: ConfigDict,
    settings: Settings,
    vocabulary: Vocabulary,
    teacher: ExBert,
    teacher_params: dict,
    *,
    fresh: Sequence[str],
    total_steps: int,
    sample: Sequence[MaskedBatch] = (),
) -> Run:
    """Returns the run of config.method with this teacher; `fresh` parts of it are trained.

    A student whose extension blocks are copies, or its MLM head a regression, has them fitted to
    `sample`.
    """
    method = settings.method
    precision = Precision(teacher.dtype, teacher.matmul_dtype or teacher.dtype)
    settings.execution.check_bias(teacher.config.base)
    settings.execution.check_dropout("teacher", teacher.config.base.attention_probs_dropout_prob)
    sizes = student_family.family_sizes(settings.student_init, config, teacher.config.base)
    student, student_params = build_student(
        config.student, vocabulary, precision, (config.seed, 1), sizes
    )
    # Of a head that its teacher's, or a regression, does not replace.
    student_params = head_init.with_frequencies(config, vocabulary, student_params)
    width = teacher.config.base.hidden_size
    nets = Nets(
        teacher.clone(execution=settings.execution),
        student.clone(execution=settings.execution),
        WidthProjection(width, student.config.base, *precision),
    )
    if method.projects(width == student.config.base.hidden_size):
        student_params["projection"] = init.init_projection(nets.projection, (config.seed, 2))
    if "student" in method.trained_nets:
        method.check_nets(nets, settings.own)
        if settings.student_init.init == "teacher":
            student_params = student_init.inherit(
                student_params,
                student.config,
                teacher_params,
                teacher.config,
                settings.student_init.rules(teacher.config.base.num_hidden_layers),
            )
        if sample and settings.student_init.extension == "copy":
            student_params = block_copy.copy_blocks(student, student_params, sample[0])
        if config.mlm_head_init == "regression" and "MLM" in method.learned_heads(config):
            student_params = head_init.begin_head(
                config, vocabulary, "student", student, student_params, sample
            )
    params = {"teacher": teacher_params, "student": student_params}
    trained, frozen = {}, {}
    for net, parts in _frozen_parts(config, method, teacher_params, fresh).items():
        trained[net], frozen[net] = state.freeze(params[net], parts)
    rates = {
        net: settings.optimizer.learning_rate(config.optimizer[f"{net}_learning_rate"], total_steps)
        for net in method.trained_nets
    }
    return Run(
        nets=nets,
        trained={net: trained[net] for net in method.trained_nets},
        frozen={net: tree for net, tree in frozen.items() if tree or net == "teacher"},
        settings=StepSettings(
            masking=_masking(config, vocabulary),
            alpha=settings.alpha(config, total_steps),
            learning_rate=rates,
            optimizers={
                net: settings.optimizer.build(
                    rate,
                    block_ratio=config.optimizer.teacher_block_ratio if net == "teacher" else 1.0,
                )
                for net, rate in rates.items()
            },
            accumulate_steps=config.accumulate_steps,
            seed=config.seed,
            with_nsp=config.rows.mode == "pairs",
            own=settings.own,
        ),
    )


def _sample_text(
    config: ConfigDict, vocabulary: Vocabulary, rows: Rows | None
) -> Sequence[MaskedBatch]:
    """Returns the first rows of the run, masked, in batches of some thousand pieces.

    One batch where blocks begin as copies; as many as the masked pieces of an MLM head by
    regression need, each row at most once; none where nothing is fitted.
    """
    copies = "copy" in (config.teacher.extension_init, config.student.inherit.extension)
    regresses = config.mlm_head_init == "regression"
    if rows is None or not (copies or regresses):
        return ()
    count = max(1, _SAMPLE_PIECES // rows.max_length)
    batches = 1
    if regresses:
        pieces = _HEAD_PIECES / config.masking.mlm_probability
        batches = max(1, min(math.ceil(pieces / _SAMPLE_PIECES), len(rows) // count))
    batch_at = make_batch_at(rows, batch_size=count, seed=config.seed)
    return [mask_rows(batch_at(i), _masking(config, vocabulary)) for i in range(batches)]


def _frozen_parts(config, method, teacher_params, fresh):
    """Returns net -> parts that do not learn; of a student the heads that no loss reaches.

    Left to the optimiser, such heads would shrink by weight decay; torch, too, leaves alone what
    has no gradient.
    """
    unknown = set(config.teacher.frozen) - set(teacher_params) - set(HEADS)  # some nets lack heads
    if unknown:
        raise ValueError(
            f"config.teacher.frozen names {sorted(unknown)}; the teacher's parts are "
            f"{', '.join(sorted(teacher_params))}"
        )
    if "teacher" not in method.trained_nets:
        parts = {"teacher": set(teacher_params)}
    else:
        parts = {"teacher": set(config.teacher.frozen) - set(fresh)}
    if "student" in method.trained_nets:
        learned = method.learned_heads(config)
        parts["student"] = set() if "MLM" in learned else {"mlm"}
        parts["student"] |= set() if "NSP" in learned else _NSP_PARTS
    if config.rows.mode != "pairs":
        parts = {net: frozen | _NSP_PARTS for net, frozen in parts.items()}
    return parts


def _masking(config, vocabulary):
    section = config.masking
    never_masked = (vocabulary.cls_id, vocabulary.sep_id)  # as in BERT
    weights = None
    if section.smoothing:
        weights = masking_weights(vocabulary.token_counts, section.smoothing)
        if vocabulary.unk_id is not None:
            # DistilBERT's code, where smoothing comes from, gives all special pieces the weight 0.
            never_masked = (*never_masked, vocabulary.unk_id)
    return MaskingConfig(
        vocab_size=vocabulary.size,
        mask_id=vocabulary.mask_id,
        special_ids=never_masked,
        mlm_probability=section.mlm_probability,
        max_predictions=section.max_predictions_per_seq,
        seed=config.seed,
        piece_weights=weights,
    )
