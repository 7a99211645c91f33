# SPDX-License-Identifier: Apache-2.0
"""The training runs of the paper's tables, as cells, at the paper's scale and at a small one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edad_jax.models.config_json import bert_config
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.training.schedules import ALPHA_SCHEDULES
from reproduction.cells import Cell, make_cell
from reproduction.table import TableRun


class Scale(NamedTuple):
    """How large the runs are: a configuration, and what is changed in it."""

    config: str
    distillation: tuple[str, ...]  # of stage two
    all_weights: tuple[str, ...]  # of adapting all weights of a pretrained BERT
    new_vocabulary: tuple[str, ...]  # of a vocabulary from scratch
    student: tuple[str, ...]  # begun with the teacher's layers, as wide as it; () for random ones
    tune_teacher: tuple[str, ...]
    tune_student: tuple[str, ...]
    seeds: int  # of fine-tuning
    cost: str  # what the pictures call cost: "seconds" by the clock, or "cpu_seconds" of all cores


_SMALL_TUNING = (
    # The small training runs have none, and their nets say so; a plain BERT says 0.1. All alike:
    "hidden_dropout_prob=0.0",
    "attention_probs_dropout_prob=0.0",
    # Small batches: with so few sentences it is the number of updates that counts.
    "max_train=600",
    "max_validation=150",
    "max_length=48",
    "batch_size=8",
    "epochs=2",
)

SCALES = {
    "paper": Scale(
        config="edad",
        distillation=("optimizer.student_learning_rate=1e-5",),
        all_weights=(),
        new_vocabulary=("vocabulary.size=30986",),  # 31,090 with BERT's special pieces
        student=(),
        tune_teacher=("epochs=3", "optimizer.learning_rate=5e-5"),
        tune_student=("epochs=15", "optimizer.learning_rate=1e-4"),
        seeds=5,
        cost="seconds",
    ),
    "small": Scale(
        config="table_small",
        distillation=(),  # 1e-5, the paper's, hardly moves a student in so few updates
        # The small configuration's 1e-3 is for a fresh extension beside a frozen BERT.
        all_weights=("optimizer.teacher_learning_rate=1e-4",),
        # All the pieces there are, so about as many as BERT has; the small configuration's 1,000
        # come on top of BERT's, and alone would spell most words out.
        new_vocabulary=("vocabulary.size=29000",),
        student=(
            "student.init=teacher",
            "student.extension.hidden_size=132",
            "student.extension.intermediate_size=512",
        ),
        tune_teacher=(*_SMALL_TUNING, "optimizer.learning_rate=1e-4"),
        tune_student=(*_SMALL_TUNING, "optimizer.learning_rate=2e-4"),
        seeds=3,
        cost="cpu_seconds",
    ),
}

_NO_WORDS = ("vocabulary.size=0",)
_NO_BLOCKS = ("teacher.extension.hidden_size=0",)
_NO_EXTENSION = (*_NO_BLOCKS, *_NO_WORDS)
_ALL_WEIGHTS = ("method=adaptation", "teacher.frozen=()")
_NO_HEADS = ("teacher.random_heads=('mlm','nsp','pooler')",)  # distillation reads none of them
_FROM_SCRATCH = ("vocabulary.from_scratch=True", "teacher.from_scratch=True")
_PLAIN_STUDENT = ("student.extension.hidden_size=0",)  # of a teacher without extension


def plan_trainings(run: TableRun) -> dict[str, tuple[Cell, Cell]]:
    """Returns the training runs of the four tables, each after the cell with its rows of text.

    Raises:
      ValueError: a model whose width its student takes is not there, or is no BERT.
    """
    scale = SCALES[run.scale]
    sizes = read_sizes((run.teacher, run.biobert, run.scibert)) if scale.student else {}
    student = student_options(scale, sizes, run.teacher)
    distil = ("method=distillation", *scale.distillation)
    # Rows of text, which training runs with one vocabulary share: name -> teacher, options.
    rows = {
        "rows": (run.teacher, ()),
        "rows-plain": (run.teacher, _NO_WORDS),
        "rows-new": (run.teacher, (*_FROM_SCRATCH, *scale.new_vocabulary)),
    }
    from_scratch = (*_ALL_WEIGHTS, *_NO_BLOCKS, *_FROM_SCRATCH, "optimizer.schedule=warmup_linear")
    adapted = {
        name: f"{run.folder}/{name}/teacher"
        for name in ("adaptation", "adaptation-all-weights", "adaptation-from-scratch")
    }
    # Name -> rows, teacher, options.
    trainings = {
        "adaptation": ("rows", run.teacher, ("method=adaptation",)),
        "adaptation-all-weights": (
            "rows-plain",
            run.teacher,
            (*_ALL_WEIGHTS, *_NO_EXTENSION, *scale.all_weights),
        ),
        "adaptation-from-scratch": ("rows-new", run.teacher, from_scratch),
        "distillation": ("rows", adapted["adaptation"], (*distil, *student)),
        "distillation-random": ("rows", adapted["adaptation"], distil),
        "distillation-bert": (
            "rows-plain",
            run.teacher,
            (*distil, *student, *_NO_EXTENSION, *_PLAIN_STUDENT),
        ),
        "distillation-all-weights": (
            "rows-plain",
            adapted["adaptation-all-weights"],
            (*distil, *student, *_PLAIN_STUDENT),
        ),
        "distillation-from-scratch": (
            "rows-new",
            adapted["adaptation-from-scratch"],
            (*distil, *student, *_PLAIN_STUDENT),
        ),
        "edad-linear-random": ("rows", run.teacher, ("alpha=linear",)),
    }
    for alpha in ALPHA_SCHEDULES:
        trainings[f"edad-{alpha}"] = ("rows", run.teacher, (f"alpha={alpha}", *student))
    for flag in ("biobert", "scibert"):
        if given := getattr(run, flag):
            rows[f"rows-{flag}"] = (given, _NO_WORDS)
            trainings[f"distillation-{flag}"] = (
                f"rows-{flag}",
                given,
                (
                    *distil,
                    *student_options(scale, sizes, given),
                    *_NO_EXTENSION,
                    *_PLAIN_STUDENT,
                    *_NO_HEADS,
                ),
            )

    def cell(script, name, teacher, *options):
        begun = f"teacher.checkpoint={teacher}"
        return make_cell(script, name, scale.config, begun, *options, *run.train)

    made = {
        name: cell("prepare", name, teacher, f"corpus.files={run.corpus}", *options)
        for name, (teacher, options) in rows.items()
    }
    return {
        name: (made[read], cell("train", name, teacher, f"prepared={run.folder}/{read}", *options))
        for name, (read, teacher, options) in trainings.items()
    }


def student_options(
    scale: Scale, sizes: Mapping[str, tuple[int, int]], teacher: str
) -> tuple[str, ...]:
    """Returns the options of a student as wide as its teacher, which gives it layers."""
    if not scale.student:
        return ()
    width, inner = sizes[teacher]
    return (
        *scale.student,
        f"student.hidden_size={width}",
        f"student.intermediate_size={inner}",
    )


def read_sizes(models: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns the width and feed-forward width of each model: a folder or a hub id; "" is none.

    Raises:
      ValueError: a model is not there, or is no BERT.
    """
    sizes = {}
    for model in filter(None, models):
        folder = local_folder(model, option="--teacher, --biobert or --scibert")
        config = bert_config(read_model_json(folder / "config.json"))
        sizes[model] = (config.hidden_size, config.intermediate_size)
    return sizes
