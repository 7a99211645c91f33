# SPDX-License-Identifier: Apache-2.0
"""The Distil-KcBERT thesis's tables 4 to 6: nine students of a Korean BERT, small to large.

    4  parameters and prediction time of the nine        (the teacher's in front)
    5  accuracy of the nine after each epoch of fine-tuning
    6  accuracy and time of the teacher, of other models and of the nine

Each student is distilled by the triple loss and fine-tuned on three-class sentiment, both as cells.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edad_jax.tasks.result import show_interval
from reproduction.cells import Cell

TITLES = {
    4: "Nine students: parameters and prediction time",
    5: "Nine students: accuracy by epoch",
    6: "Accuracy and time of each model",
}
LAYERS, FEED_FORWARD = (1, 3, 6), (192, 768, 3_072)  # of the nine
# (layers, feed-forward) -> parameters, seconds of prediction; the thesis's Table 4.
PUBLISHED = {
    (1, 192): (26_555_376, 128),
    (1, 768): (27_440_688, 136),
    (1, 3_072): (30_981_936, 177),
    (3, 192): (31_878_000, 292),
    (3, 768): (34_533_936, 330),
    (3, 3_072): (45_157_680, 475),
    (6, 192): (39_861_936, 548),
    (6, 768): (45_173_808, 649),
    (6, 3_072): (66_421_296, 882),
}
# The thesis's Table 6: accuracy in percent, minutes in all, of 5,000 news items of its own.
PUBLISHED_MODELS = {
    "KoBERT": (96.9, 36.25),
    "KcBERT": (96.7, 36.33),
    "multilingual BERT": (94.3, 42.5),
    "Distil-KcBERT": (92.4, 5.5),
    "ALBERT": (89.2, 10.0),
}
ITEMS = 5_000  # news items that the thesis's times are for
LENGTHS = (64, 256)  # pieces of the rows that are timed: of a headline, of a news item
TEACHER = "teacher"


class KcInputs(NamedTuple):
    """What only the user has."""

    teacher: str  # Korean BERT or ALBERT with its MLM head: folder or hub id
    corpus: str  # Korean text, as config.corpus.files takes it
    sentiment: str  # labelled texts, as launch/finetune.py takes them
    positions: int  # of the teacher, which the students have too
    others: Mapping[str, str]  # name -> folder or hub id, for table 6


class KcScale(NamedTuple):
    """How large the runs are: flags for every run of a kind."""

    rows: tuple[str, ...]
    train: tuple[str, ...]
    tune: tuple[str, ...]


_SMALL_ROWS = ("--config.rows.max_length=64", "--config.rows.buckets=()")
KC_SCALES = {
    "paper": KcScale((), (), ()),
    "small": KcScale(
        _SMALL_ROWS,
        (
            *_SMALL_ROWS,
            "--config.batch_size=32",
            "--config.accumulate_steps=1",
            "--config.max_steps=40",
            "--config.masking.max_predictions=10",
            "--config.triple.positions=masked",  # logits at all positions cost more than the rest
            "--config.optimizer.student_learning_rate=3e-4",
            "--config.heldout.max_rows=128",
            "--config.heldout.every_steps=20",
        ),
        (
            "--config.max_train=800",
            "--config.max_length=64",
            "--config.batch_size=16",
            "--config.epochs=3",
            "--config.optimizer.learning_rate=1e-4",
        ),
    ),
}


class KcPlan(NamedTuple):
    """The cells of a table in the order they run, and which belong to each model."""

    cells: list[Cell]
    models: dict[str, str]  # name -> folder or hub id of the model before fine-tuning
    tunings: dict[str, Cell]  # name -> its fine-tuning


def student_name(layers: int, feed_forward: int) -> str:
    """Returns what a student is called."""
    return f"{layers} x {feed_forward}"


def plan_kcbert(
    number: int,
    scale: KcScale,
    inputs: KcInputs,
    folder: str,
    *,
    train: Sequence[str] = (),
    tune: Sequence[str] = (),
) -> KcPlan:
    """Returns the cells of a table, 4 to 6.

    Args:
      number: of the table.
      scale: one of KC_SCALES, or a changed one.
      inputs: what only the user has.
      folder: where the cells are.
      train: more flags for every distillation.
      tune: more flags for every fine-tuning.
    """
    config = "--config=configs/distilkcbert.py"
    teacher = f"--config.teacher.checkpoint={inputs.teacher}"
    cells = [
        Cell(
            "kcbert-rows",
            (
                "launch/prepare.py",
                config,
                teacher,
                f"--config.corpus.files={inputs.corpus}",
                *scale.rows,
            ),
            "--out",
            "rows.stage.json",
        )
    ]
    models = {TEACHER: inputs.teacher} | (dict(inputs.others) if number == 6 else {})
    for layers in LAYERS:
        for feed_forward in FEED_FORWARD:
            name = f"kcbert-{layers}x{feed_forward}"
            words = (
                "launch/train.py",
                config,
                teacher,
                f"--config.prepared={folder}/kcbert-rows",
                f"--config.student.num_hidden_layers={layers}",
                f"--config.student.intermediate_size={feed_forward}",
                f"--config.student.max_position_embeddings={inputs.positions}",
                *scale.train,
                *train,
            )
            cells.append(Cell(name, words, "--workdir", "summary.json"))
            models[student_name(layers, feed_forward)] = f"{folder}/{name}/student"
    tunings = {}
    if number != 4:
        labelled = Path(inputs.sentiment).name.split(".")[0]
        for name, model in models.items():
            if name == TEACHER and number == 5:
                continue
            place = Path(model).parent.name if model.startswith(folder) else f"kcbert-{name}"
            words = (
                "launch/finetune.py",
                "--config=configs/sentiment.py",
                f"--config.model={model}",
                f"--config.data={inputs.sentiment}",
                *scale.tune,
                *tune,
            )
            tunings[name] = Cell(f"{place}.{labelled}", words, "--workdir", "summary.json")
    return KcPlan([*cells, *tunings.values()], models, tunings)


def time_row(
    name: str, seconds: Mapping[int, float], first: Mapping[int, float], parameters: int
) -> dict[str, Any]:
    """Returns a row of table 4, with the thesis's figures beside.

    Args:
      name: of the model.
      seconds: that it takes for ITEMS rows, by their length.
      first: that the smallest student takes, likewise.
      parameters: of the model.
    """
    published = {student_name(*sizes): figures for sizes, figures in PUBLISHED.items()}.get(name)
    row = {"model": name, "parameters": parameters}
    for length in seconds:
        row[f"{length} pieces: s"] = round(seconds[length], 1)
        row[f"{length} pieces: times the first"] = round(seconds[length] / first[length], 2)
    return row | {
        "thesis: parameters": published and published[0],
        "thesis: s": published and published[1],
        "thesis: times its first": published and round(published[1] / PUBLISHED[1, 192][1], 2),
    }


def out_of_order(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the pairs (slower, faster) of students whose order the thesis has the other way.

    Args:
      seconds: by name of the student; other models are left out.
    """
    by_thesis = sorted(PUBLISHED, key=lambda sizes: PUBLISHED[sizes][1])
    names = [name for name in (student_name(*sizes) for sizes in by_thesis) if name in seconds]
    pairs = itertools.combinations(names, 2)
    return [(before, after) for before, after in pairs if seconds[before] > seconds[after]]


def accuracy_row(name: str, summary: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Returns a row of table 6.

    Args:
      name: of the model.
      summary: of its fine-tuning.
      seconds: of prediction, for ITEMS rows.
    """
    tuning = summary["time_cost"]["train/seconds"] / len(summary["seeds"])
    return {
        "model": name,
        "accuracy": show_interval(summary["means"]["test/accuracy"]),
        "macro F1": show_interval(summary["means"]["test/macro_f1"]),
        "fine-tuning (s)": round(tuning, 1),
        f"prediction of {ITEMS:,} (s)": round(seconds, 1),
        "in all (s)": round(tuning + seconds, 1),
    }
