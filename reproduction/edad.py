# SPDX-License-Identifier: Apache-2.0
"""The paper's four tables: which runs each row needs, as commands. `published` has its figures.

Rows share cells: EDAD with the linear schedule is in tables 2, 3 and 4, and is trained once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edad_jax.training.schedules import ALPHA_SCHEDULES
from reproduction.cells import Cell

DATASETS = {
    "BC5CDR": "BC5CDR-IOB",
    "BioNLP09": "BioNLP09-IOB",
    "NCBI-disease": "NCBI-disease-IOB",
}
TITLES = {
    1: "BERT, three ways to adapt it, and a student distilled from each",
    2: "Two stages against a single pass",
    3: "EDAD against models pretrained on large domain text",
    4: "The schedule of alpha",
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What only the user has."""

    teacher: str  # a general BERT: folder or hub id
    corpus: str  # domain text, as config.corpus.files takes it
    ner: str  # folder with the three folders of DATASETS
    biobert: str = ""
    scibert: str = ""
    # Width and feed-forward width of each model above; read where students begin with its layers.
    sizes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def paths(self) -> dict[str, str]:
        """Returns what was given, by name."""
        names = ("teacher", "corpus", "ner", "biobert", "scibert")
        return {name: path for name in names if (path := getattr(self, name))}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the runs are: configurations, and what is changed in them."""

    train_config: str
    plain_student: tuple[str, ...]  # the student of a teacher without extension
    distillation: tuple[str, ...]  # of stage two
    all_weights: tuple[str, ...]  # of adapting all weights of a pretrained BERT
    new_vocabulary: tuple[str, ...]  # of a vocabulary from scratch
    student: tuple[str, ...]  # begun with the teacher's layers, as wide as it; () for random ones
    tune_teacher: tuple[str, ...]
    tune_student: tuple[str, ...]
    seeds: int  # of fine-tuning
    cost: str  # what the pictures call cost: "seconds" by the clock, or "cpu_seconds" of all cores


class RowSet(NamedTuple):
    """Rows of text on disk, which training runs with the same vocabulary share."""

    name: str = "rows"
    changes: tuple[str, ...] = ()  # flags that set the vocabulary apart
    teacher: str = ""  # whose vocabulary it begins with; "" for the user's


class Row(NamedTuple):
    """One line of a table."""

    name: str
    model: str  # folder or hub id; "" where it cannot run
    kind: str  # teacher | student
    trained_by: tuple[str, ...]  # cells whose training makes up the time cost
    note: str = ""  # why it cannot run, or what sets it apart
    is_cost_known: bool = True  # False where others have trained the model before
    teacher_cell: str = ""  # cell whose teacher, fine-tuned on the same data, gives soft labels

    @property
    def cell(self) -> str:
        """Returns what its fine-tuning runs are called: rows with the same model share them."""
        name = Path(self.model).parent.name if self.trained_by else self.name
        return f"{name}.soft" if self.teacher_cell else name


class Plan(NamedTuple):
    """A table: its rows, and the cells in the order they run."""

    rows: list[Row]
    cells: dict[str, Cell]


# The small training runs have none, and their nets say so; a plain BERT says 0.1. All rows alike:
_NO_DROPOUT = ("--config.hidden_dropout_prob=0.0", "--config.attention_probs_dropout_prob=0.0")
# Small batches: with so few sentences it is the number of updates that counts.
_SMALL_TUNING = (
    *_NO_DROPOUT,
    "--config.max_train=600",
    "--config.max_validation=150",
    "--config.max_length=48",
    "--config.batch_size=8",
    "--config.epochs=2",
)

SCALES = {
    "paper": Scale(
        train_config="configs/edad.py",
        plain_student=("--config.student.extension.hidden_size=0",),
        distillation=("--config.optimizer.student_learning_rate=1e-5",),
        all_weights=(),
        new_vocabulary=("--config.vocabulary.size=30986",),  # 31,090 with BERT's special pieces
        student=(),
        tune_teacher=("--config.epochs=3", "--config.optimizer.learning_rate=5e-5"),
        tune_student=("--config.epochs=15", "--config.optimizer.learning_rate=1e-4"),
        seeds=5,
        cost="seconds",
    ),
    "small": Scale(
        train_config="configs/table_small.py",
        plain_student=("--config.student.extension.hidden_size=0",),
        distillation=(),  # 1e-5, the paper's, hardly moves a student in so few updates
        # The small configuration's 1e-3 is for a fresh extension beside a frozen BERT.
        all_weights=("--config.optimizer.teacher_learning_rate=1e-4",),
        # All the pieces there are, so about as many as BERT has; the small configuration's 1,000
        # come on top of BERT's, and alone would spell most words out.
        new_vocabulary=("--config.vocabulary.size=29000",),
        student=(
            "--config.student.init=teacher",
            "--config.student.extension.hidden_size=132",
            "--config.student.extension.intermediate_size=512",
        ),
        tune_teacher=(*_SMALL_TUNING, "--config.optimizer.learning_rate=1e-4"),
        tune_student=(*_SMALL_TUNING, "--config.optimizer.learning_rate=2e-4"),
        seeds=3,
        cost="cpu_seconds",
    ),
}


def plan_table(number: int, scale: Scale, inputs: Inputs, folder: str) -> Plan:
    """Returns the rows of a table and the cells that they need, but for fine-tuning.

    Args:
      number: 1 to 4.
      scale: one of SCALES, or a changed one.
      inputs: what only the user has.
      folder: where the cells are.
    """
    return {1: _table_1, 2: _table_2, 3: _table_3, 4: _table_4}[number](
        _Maker(scale, inputs, folder)
    )


def tuning_cell(
    row: Row, dataset: str, scale: Scale, inputs: Inputs, folder: str, extra: Sequence[str]
) -> Cell:
    """Returns the fine-tuning of a row's model on one data set, with all its seeds."""
    changes = scale.tune_teacher if row.kind == "teacher" else scale.tune_student
    teacher = (
        (f"--config.teacher={folder}/{row.teacher_cell}.{dataset}/model",)
        if row.teacher_cell
        else ()
    )
    return Cell(
        f"{row.cell}.{dataset}",
        (
            "launch/finetune.py",
            "--config=configs/ner.py",
            f"--config.model={row.model}",
            f"--config.data={inputs.ner}/{DATASETS[dataset]}",
            f"--config.seeds={scale.seeds}",
            *changes,
            *teacher,
            *extra,
        ),
        "--workdir",
        "summary.json",
    )


_EXTENDED = RowSet()


class _Maker:
    """Collects cells; each method returns the name of one, or the folder of a net."""

    def __init__(self, scale, inputs, folder):
        self.scale, self.inputs, self.folder = scale, inputs, folder
        self.cells: dict[str, Cell] = {}

    def train(self, name, *changes, checkpoint="", rows=_EXTENDED):
        """Adds the rows and the training run, and returns the folder of the latter."""
        config = f"--config={self.scale.train_config}"
        self.cells[rows.name] = Cell(
            rows.name,
            (
                "launch/prepare.py",
                config,
                f"--config.teacher.checkpoint={rows.teacher or self.inputs.teacher}",
                f"--config.corpus.files={self.inputs.corpus}",
                *rows.changes,
            ),
            "--out",
            "rows.stage.json",
        )
        words = (
            "launch/train.py",
            config,
            f"--config.teacher.checkpoint={checkpoint or self.inputs.teacher}",
            f"--config.prepared={self.folder}/{rows.name}",
            *changes,
        )
        self.cells[name] = Cell(name, words, "--workdir", "summary.json")
        return f"{self.folder}/{name}"

    def student(self, checkpoint):
        """Returns the flags of a student as wide as its teacher, which gives it layers."""
        if not self.scale.student:
            return ()
        width, inner = self.inputs.sizes[checkpoint]
        return (
            *self.scale.student,
            f"--config.student.hidden_size={width}",
            f"--config.student.intermediate_size={inner}",
        )

    def adapt(self):
        """Returns the folder of the adapted exBERT."""
        return self.train("adaptation", "--config.method=adaptation") + "/teacher"

    def distil(self, name, teacher, *changes, rows=_EXTENDED, is_random=False):
        """Returns the folder of a student distilled from a frozen teacher."""
        student = () if is_random else self.student(rows.teacher or self.inputs.teacher)
        folder = self.train(
            name,
            "--config.method=distillation",
            *self.scale.distillation,
            *student,
            *changes,
            checkpoint=teacher,
            rows=rows,
        )
        return folder + "/student"

    def edad(self, alpha, *, name=None, is_random=False):
        """Returns the folder of the student of a single pass."""
        student = () if is_random else self.student(self.inputs.teacher)
        name = name or f"edad-{alpha}"
        return self.train(name, f"--config.alpha={alpha}", *student) + "/student"


_NO_WORDS = ("--config.vocabulary.size=0",)
_NO_BLOCKS = ("--config.teacher.extension.hidden_size=0",)
_NO_EXTENSION = (*_NO_BLOCKS, *_NO_WORDS)
_ALL_WEIGHTS = ("--config.method=adaptation", "--config.teacher.frozen=()")
_NO_HEADS = ("--config.teacher.fresh=('mlm','nsp','pooler')",)  # distillation reads none of them
_FROM_SCRATCH = ("--config.vocabulary.from_scratch=True", "--config.teacher.from_scratch=True")


def _table_1(maker):
    plain = RowSet("rows-plain", _NO_WORDS)
    new = RowSet("rows-new", (*_FROM_SCRATCH, *maker.scale.new_vocabulary))
    bare = maker.scale.plain_student
    teacher = maker.inputs.teacher
    bio = maker.train(
        "adaptation-all-weights",
        *_ALL_WEIGHTS,
        *_NO_EXTENSION,
        *maker.scale.all_weights,
        rows=plain,
    )
    sci = maker.train(
        "adaptation-from-scratch",
        *_ALL_WEIGHTS,
        *_NO_BLOCKS,
        *_FROM_SCRATCH,
        "--config.optimizer.schedule=warmup_linear",
        rows=new,
    )
    exbert = maker.adapt()
    students = [
        maker.distil("distillation-bert", teacher, *_NO_EXTENSION, *bare, rows=plain),
        maker.distil("distillation-all-weights", f"{bio}/teacher", *bare, rows=plain),
        maker.distil("distillation-from-scratch", f"{sci}/teacher", *bare, rows=new),
        maker.distil("distillation", exbert),
    ]
    rows = [
        Row("BERT", teacher, "teacher", ()),
        Row("oiBioBERT", f"{bio}/teacher", "teacher", ("adaptation-all-weights",)),
        Row("oiSciBERT", f"{sci}/teacher", "teacher", ("adaptation-from-scratch",)),
        Row("exBERT", exbert, "teacher", ("adaptation",)),
        Row("BERT_GD", students[0], "student", ("distillation-bert",)),
        Row(
            "oiBioBERT_GD",
            students[1],
            "student",
            ("adaptation-all-weights", "distillation-all-weights"),
        ),
        Row(
            "oiSciBERT_GD",
            students[2],
            "student",
            ("adaptation-from-scratch", "distillation-from-scratch"),
        ),
        Row("exBERT_GD", students[3], "student", ("adaptation", "distillation")),
    ]
    return Plan(rows, maker.cells)


def _table_2(maker):
    exbert = maker.adapt()
    two_stages = maker.distil("distillation", exbert)
    edad = maker.edad("linear")
    rows = [
        Row("BERT", maker.inputs.teacher, "teacher", (), "the teacher before adaptation"),
        Row("exBERT", exbert, "teacher", ("adaptation",), "the adapted teacher"),
        Row("exBERT_GD", two_stages, "student", ("adaptation", "distillation"), "two stages"),
        Row("EDAD", edad, "student", ("edad-linear",), "single pass"),
        Row(
            "EDAD_TD",
            edad,
            "student",
            ("edad-linear",),
            "single pass; tuned with soft labels of the adapted teacher, which it trains too",
            teacher_cell="adaptation",
        ),
    ]
    if maker.scale.student:
        note = "; student as in the paper: narrower, begun from random weights"
        rows += [
            Row(
                "exBERT_GD_random",
                maker.distil("distillation-random", exbert, is_random=True),
                "student",
                ("adaptation", "distillation-random"),
                "two stages" + note,
            ),
            Row(
                "EDAD_random",
                maker.edad("linear", name="edad-linear-random", is_random=True),
                "student",
                ("edad-linear-random",),
                "single pass" + note,
            ),
        ]
    return Plan(rows, maker.cells)


def _table_3(maker):
    rows = []
    for name, given in (("BioBERT", maker.inputs.biobert), ("SciBERT", maker.inputs.scibert)):
        if not given:
            missing = f"not run: no {name} at hand, give --{name.lower()}=DIR_OR_HUB_ID"
            rows += [
                Row(name, "", "teacher", (), missing),
                Row(f"{name}_GD", "", "student", (), missing),
            ]
            continue
        cell = f"distillation-{name.lower()}"
        student = maker.distil(
            cell,
            given,
            *_NO_EXTENSION,
            *maker.scale.plain_student,
            *_NO_HEADS,
            rows=RowSet(f"rows-{name.lower()}", _NO_WORDS, given),
        )
        note = "without its own pretraining"
        rows += [
            Row(name, given, "teacher", (), note, is_cost_known=False),
            Row(f"{name}_GD", student, "student", (cell,), note, is_cost_known=False),
        ]
    rows.append(Row("EDAD", maker.edad("linear"), "student", ("edad-linear",)))
    return Plan(sorted(rows, key=lambda row: row.kind == "student"), maker.cells)


def _table_4(maker):
    rows = [
        Row(alpha, maker.edad(alpha), "student", (f"edad-{alpha}",)) for alpha in ALPHA_SCHEDULES
    ]
    return Plan(rows, maker.cells)


# Piece-level macro F1 with O (see `tasks.scores.paper_metric`), mean and half-width
# of the 95% interval of five seeds, and hours on four RTX 3090. Columns: BC5CDR, BioNLP09, NCBI,
# average. In table 4 the paper writes alpha = 1 and 2 beside its first two rows; by its Eq. 6 they
# are alpha = 0 (adaptation only) and 1 (distillation only).
PAPER = {
    "BERT": ("85.18 ± 0.31", "89.38 ± 0.08", "91.06 ± 0.13", "88.54 ± 0.17", "110M", "-"),
    "oiBioBERT": ("85.53 ± 0.37", "90.09 ± 0.10", "91.18 ± 0.20", "88.93 ± 0.22", "110M", "9.7"),
    "oiSciBERT": ("85.90 ± 0.04", "90.39 ± 0.07", "91.65 ± 0.11", "89.32 ± 0.07", "111M", "10.6"),
    "exBERT": ("86.13 ± 0.16", "91.41 ± 0.09", "91.83 ± 0.19", "89.79 ± 0.15", "152M", "14.1"),
    "BERT_GD": ("83.27 ± 0.10", "87.54 ± 0.08", "90.20 ± 0.13", "87.01 ± 0.10", "15M", "4.6"),
    "oiBioBERT_GD": ("83.53 ± 0.09", "88.47 ± 0.06", "90.49 ± 0.06", "87.50 ± 0.07", "15M", "14.3"),
    "oiSciBERT_GD": ("83.72 ± 0.11", "89.18 ± 0.07", "90.21 ± 0.10", "87.70 ± 0.09", "15M", "15.5"),
    "exBERT_GD": ("83.74 ± 0.16", "90.05 ± 0.13", "90.60 ± 0.07", "88.13 ± 0.12", "22M", "21.6"),
    "EDAD": ("84.15 ± 0.06", "90.26 ± 0.06", "90.68 ± 0.14", "88.36 ± 0.09", "22M", "17.4"),
    "BioBERT": ("88.54 ± 0.21", "91.76 ± 0.20", "92.95 ± 0.12", "91.09 ± 0.18", "109M", "1104"),
    "SciBERT": ("88.32 ± 0.15", "92.03 ± 0.16", "93.03 ± 0.15", "91.13 ± 0.15", "111M", "672"),
    "BioBERT_GD": ("83.95 ± 0.09", "88.62 ± 0.07", "90.05 ± 0.08", "87.54 ± 0.08", "14M", "1108.1"),
    "SciBERT_GD": ("84.56 ± 0.10", "89.75 ± 0.05", "90.89 ± 0.07", "88.40 ± 0.07", "15M", "676.3"),
    "only_adaptation": ("82.20 ± 0.10", "89.39 ± 0.06", "89.51 ± 0.05", "87.03 ± 0.07", "22M", ""),
    "only_distillation": (
        "84.17 ± 0.19",
        "89.90 ± 0.10",
        "89.98 ± 0.09",
        "88.02 ± 0.13",
        "22M",
        "",
    ),
    "same": ("84.04 ± 0.10", "89.85 ± 0.14", "90.06 ± 0.02", "87.98 ± 0.11", "22M", ""),
    "linear": ("84.15 ± 0.06", "90.26 ± 0.06", "90.68 ± 0.14", "88.36 ± 0.09", "22M", ""),
    "linear_reverse": ("84.07 ± 0.17", "89.91 ± 0.06", "90.25 ± 0.16", "88.08 ± 0.13", "22M", ""),
    "cosine": ("84.14 ± 0.08", "89.88 ± 0.05", "90.35 ± 0.10", "88.12 ± 0.08", "22M", ""),
    "cosine_reverse": ("83.76 ± 0.08", "89.84 ± 0.06", "90.34 ± 0.10", "87.98 ± 0.08", "22M", ""),
}


def published_rows(names: Sequence[str]) -> list[Mapping[str, str]]:
    """Returns the paper's figures for these rows, where it has them, as cells of a table."""
    columns = ("BC5CDR", "BioNLP09", "NCBI-disease", "average", "parameters", "time cost (h)")
    return [
        {"model": name} | dict(zip(columns, PAPER[name], strict=True))
        for name in names
        if name in PAPER
    ]
