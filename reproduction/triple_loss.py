# SPDX-License-Identifier: Apache-2.0
"""Which terms of the triple loss pay: DistilBERT's ablation (Sanh et al. 2019, table 4), our way.

Each row is the same student from the same start, trained with some of the three terms, once per
seed; what is left keeps its proportions, since the weights sum to 1. A teacher without an MLM head
gets one first, on the same text, with all else frozen: soft targets are words.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.result import show_difference, show_interval
from edad_jax.tasks.scores import mean_interval
from reproduction.cells import Cell, make_cell, read_summary
from reproduction.table import Options, Plan, Report, TableRun

NAME, TITLE = "table-triple", "The triple loss, term by term"
SEEDS = (0, 1, 2)
# DistilBERT's 5 : 2 : 1, and what is left of it; plain MLM is training without a teacher.
TERMS = {
    "all three": ("soft", "mlm", "cosine"),
    "without cosine": ("soft", "mlm"),
    "without MLM": ("soft", "cosine"),
    "without soft targets": ("mlm", "cosine"),
    "MLM alone": ("mlm",),
}
PLAIN = "MLM alone"
SHARES = {"soft": 0.625, "mlm": 0.25, "cosine": 0.125}
DATASET = "NCBI-disease"
LOSS = "heldout/student_mlm_loss"
SCORES = {
    "heldout/student_mlm_accuracy": "held-out MLM accuracy (%)",
    "heldout/agreement": "agreement with the teacher (%)",
    "f1": f"entity F1, {DATASET} (%)",
}


_ROWS = ("rows.mode=single", "rows.max_length=64", "rows.buckets=()")
_SHORT = (
    *_ROWS,
    "batch_size=16",
    "accumulate_steps=1",
    "masking.max_predictions_per_seq=10",
    "heldout.max_rows=256",
    "heldout.every_steps=60",
)
_NO_DROPOUT = ("hidden_dropout_prob=0.0", "attention_probs_dropout_prob=0.0")
SCALES = {
    "paper": Options(head=("rows.mode=single",)),
    "small": Options(
        rows=_ROWS,
        head=(
            *_SHORT,
            "max_steps=400",
            "optimizer.teacher_learning_rate=2e-3",  # of a head alone, which is new
            "optimizer.schedule=warmup_linear",
        ),
        train=(
            *_SHORT,
            "max_steps=60",
            "masking.smoothing=0.0",  # in so few updates rare pieces teach nothing
            "triple.positions=masked",  # logits at all positions cost more than the rest
            "optimizer.student_learning_rate=2e-4",
            *(f"student.{rate}" for rate in _NO_DROPOUT),
        ),
        tune=(
            *_NO_DROPOUT,
            "max_train=600",
            "max_validation=150",
            "max_length=48",
            "batch_size=8",
            "epochs=2",
            "optimizer.learning_rate=1e-4",
        ),
    ),
}
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings")


@dataclasses.dataclass(frozen=True)
class TriplePlan(Plan):
    """Which cells belong to each row, seed by seed."""

    trainings: Mapping[str, Sequence[Cell]]
    tunings: Mapping[str, Sequence[Cell]]  # of each row none without --ner


def plan(run: TableRun) -> TriplePlan:
    """Returns the runs of the table; the teacher gives the student its sizes, but for the layers.

    Raises:
      ValueError: the teacher is not there.
    """
    scale = SCALES[run.scale]
    config = read_model_json(local_folder(run.teacher, option="--teacher=FOLDER") / "config.json")
    begun = f"teacher.checkpoint={run.teacher}"
    prepared = f"prepared={run.folder}/triple-rows"
    text = (f"corpus.files={run.corpus}", "corpus.lines=False")
    cells = [make_cell("prepare", "triple-rows", "distilkcbert", begun, *text, *scale.rows)]
    if not has_mlm_head(config):
        head = (
            "teacher.random_heads=('mlm','nsp','pooler')",
            "teacher.frozen=('base',)",
            *scale.head,
        )
        words = ("train", "triple-teacher", "adapt_all_weights", begun, prepared, *head)
        cells.append(make_cell(*words, *run.train))
        begun = f"teacher.checkpoint={run.folder}/triple-teacher/teacher"

    def train(terms, seed):
        return make_cell(
            "train",
            f"triple-{'-'.join(terms)}-{seed}",
            "distilkcbert",
            begun,
            prepared,
            *(f"triple.{term}={weight:.7f}" for term, weight in weights_of(terms).items()),
            *(f"student.{size}={config[size]}" for size in _SIZES),
            f"seed={seed}",
            *scale.train,
            *run.train,
        )

    def tune(training, seed):
        return make_cell(
            "finetune",
            f"{training.name}.{DATASET}",
            "ner",
            f"model={run.folder}/{training.name}/student",
            f"data={run.ner}/{DATASET}-IOB",
            f"seed={seed}",
            *scale.tune,
            *run.tune,
        )

    trainings = {name: [train(terms, seed) for seed in SEEDS] for name, terms in TERMS.items()}
    tunings = {
        name: [tune(cell, seed) for cell, seed in zip(of_row, SEEDS, strict=True) if run.ner]
        for name, of_row in trainings.items()
    }
    for by_row in (trainings, tunings):  # seed by seed, so that a part of the table can be read
        cells += [cell for of_seed in zip(*by_row.values(), strict=True) for cell in of_seed]
    return TriplePlan(NAME, TITLE, cells, trainings, tunings)


def weights_of(terms: Sequence[str]) -> dict[str, float]:
    """Returns the weight of every term where only these are left, in their proportions."""
    whole = sum(SHARES[term] for term in terms)
    return {term: share / whole if term in terms else 0.0 for term, share in SHARES.items()}


def has_mlm_head(config: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint with this config.json brings an MLM head."""
    name = (config.get("architectures") or [""])[0]
    return name.endswith(("ForMaskedLM", "ForPreTraining"))


def report(run: TableRun, plan: TriplePlan) -> Report:
    """Returns the table, from the cells."""
    rows = [_row(name, plan, run.folder) for name in TERMS]
    _add_differences(rows)
    metric = "f1" if run.ner else "heldout/student_mlm_accuracy"
    points = [
        {
            "name": row["name"],
            "score": 100 * row[metric]["mean"],
            "half": 100 * (row[metric]["half"] or 0.0),
        }
        for row in rows
    ]
    teacher = Path(run.teacher).name
    return Report(
        {"scale": run.scale, "teacher": teacher, "rows": rows},
        _show(rows, teacher),
        lambda path: figures.plot_bars(path, points, TITLE, SCORES[metric]),
    )


def _row(name: str, plan: TriplePlan, folder: Path) -> dict[str, Any]:
    ends = [read_summary(folder, cell.name)["heldout"]["end"] for cell in plan.trainings[name]]
    values = {
        metric: [end[metric] for end in ends] for metric in (LOSS, *SCORES) if metric in ends[0]
    }
    if plan.tunings[name]:
        values["f1"] = [
            next(iter(read_summary(folder, cell.name)["seeds"].values()))["test"]["f1"]
            for cell in plan.tunings[name]
        ]
    row = {metric: mean_interval(seeds)._asdict() for metric, seeds in values.items()}
    return {"name": name, "seeds": values} | row


def _add_differences(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to each row what it has over plain MLM, seed by seed: start and masks are the same."""
    plain = next(row for row in rows if row["name"] == PLAIN)
    for row in rows:
        row["against_plain"] = {
            metric: mean_interval(np.subtract(seeds, plain["seeds"][metric]))._asdict()
            for metric, seeds in row["seeds"].items()
        }


def _show(rows: Sequence[Mapping[str, Any]], teacher: str) -> list[str]:
    loss_title = "held-out MLM loss (nats)"
    shown, differences = [], []
    for row in rows:
        name, weights = {"loss": row["name"]}, weights_of(TERMS[row["name"]]).values()
        less = row["against_plain"]
        scores = {title: metric for metric, title in SCORES.items() if metric in row}
        shown.append(
            name
            | {"weights (soft, MLM, cosine)": ", ".join(f"{weight:.3g}" for weight in weights)}
            | {loss_title: "{mean:.3f} ± {half:.3f}".format(**row[LOSS])}
            | {title: show_interval(row[metric]) for title, metric in scores.items()}
        )
        if row["name"] != PLAIN:
            differences.append(
                name
                | {loss_title: "{mean:+.3f} ± {half:.3f}".format(**less[LOSS])}
                | {title: show_difference(less[metric]) for title, metric in scores.items()}
            )
    return [
        f"Mean ± half the 95% interval (Student's t) over {len(SEEDS)} seeds, each a training "
        f"run{' and a fine-tuning run' if 'f1' in rows[0] else ''} of its own. All students "
        f"begin with layers of the teacher, a {teacher}.",
        "",
        markdown_table(shown, list(shown[0])),
        "",
        f"Differences from {PLAIN}, seed by seed (start, rows and masks are the same):",
        "",
        markdown_table(differences, list(differences[0])),
        "",
        f"![{TITLE}]({NAME}.png)",
    ]
