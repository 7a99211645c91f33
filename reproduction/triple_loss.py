# SPDX-License-Identifier: Apache-2.0
"""Which terms of the triple loss pay: DistilBERT's ablation (Sanh et al. 2019, table 4), our way.

Each row is the same student from the same start, trained with some of the three terms, once per
seed; what is left keeps its proportions, since the weights sum to 1. A teacher without an MLM head
gets one first, on the same text, with all else frozen: soft targets are words.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.files import open_beside, write_json
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.result import show_difference, show_interval
from edad_jax.tasks.scores import mean_interval
from reproduction.cells import Cell, check_command, read_summary, run_cells, show_commands
from reproduction.output import keep_other

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


class AblationScale(NamedTuple):
    """How large the runs are: flags for every run of a kind."""

    rows: tuple[str, ...]
    head: tuple[str, ...]
    train: tuple[str, ...]
    tune: tuple[str, ...]


_ROWS = ("--config.rows.mode=single", "--config.rows.max_length=64", "--config.rows.buckets=()")
_SHORT = (
    *_ROWS,
    "--config.batch_size=16",
    "--config.accumulate_steps=1",
    "--config.masking.max_predictions=10",
    "--config.heldout.max_rows=256",
    "--config.heldout.every_steps=60",
)
_NO_DROPOUT = ("hidden_dropout_prob=0.0", "attention_probs_dropout_prob=0.0")
ABLATION_SCALES = {
    "paper": AblationScale((), ("--config.rows.mode=single",), (), ()),
    "small": AblationScale(
        rows=_ROWS,
        head=(
            *_SHORT,
            "--config.max_steps=400",
            "--config.optimizer.teacher_learning_rate=2e-3",  # of a head alone, which is new
            "--config.optimizer.schedule=warmup_linear",
        ),
        train=(
            *_SHORT,
            "--config.max_steps=60",
            "--config.masking.smoothing=0.0",  # in so few updates rare pieces teach nothing
            "--config.triple.positions=masked",  # logits at all positions cost more than the rest
            "--config.optimizer.student_learning_rate=2e-4",
            *(f"--config.student.{rate}" for rate in _NO_DROPOUT),
        ),
        tune=(
            *(f"--config.{rate}" for rate in _NO_DROPOUT),
            "--config.max_train=600",
            "--config.max_validation=150",
            "--config.max_length=48",
            "--config.batch_size=8",
            "--config.epochs=2",
            "--config.optimizer.learning_rate=1e-4",
        ),
    ),
}


class AblationPlan(NamedTuple):
    """The cells in the order they run, and which belong to each row, seed by seed."""

    cells: list[Cell]
    trainings: dict[str, list[Cell]]
    tunings: dict[str, list[Cell]]  # empty lists without data


def plan_ablation(
    scale: AblationScale,
    teacher: str,
    corpus: str,
    ner: str,
    folder: str,
    *,
    train: Sequence[str] = (),
    tune: Sequence[str] = (),
) -> AblationPlan:
    """Returns the runs of the table.

    Args:
      scale: one of ABLATION_SCALES, or a changed one.
      teacher: folder or hub id of a BERT; it gives the student its sizes, but for the layers.
      corpus: text, as config.corpus.files takes it.
      ner: folder that has NCBI-disease-IOB/; "" for no fine-tuning.
      folder: where the cells are.
      train: more flags for every training.
      tune: more flags for every fine-tuning.
    """
    config = read_model_json(local_folder(teacher, option="--teacher=FOLDER") / "config.json")
    begun = f"--config.teacher.checkpoint={teacher}"
    prepared = f"--config.prepared={folder}/triple-rows"
    cells = [
        Cell(
            "triple-rows",
            (
                "launch/prepare.py",
                "--config=configs/distilkcbert.py",
                begun,
                f"--config.corpus.files={corpus}",
                "--config.corpus.lines=False",
                *scale.rows,
            ),
            "--out",
            "rows.stage.json",
        )
    ]
    if not has_mlm_head(config):
        words = (
            "launch/train.py",
            "--config=configs/adapt_all_weights.py",
            begun,
            prepared,
            "--config.teacher.fresh=('mlm','nsp','pooler')",
            "--config.teacher.frozen=('base',)",
            *scale.head,
            *train,
        )
        cells.append(Cell("triple-teacher", words, "--workdir", "summary.json"))
        begun = f"--config.teacher.checkpoint={folder}/triple-teacher/teacher"
    trainings, tunings = {}, {}
    for name, terms in TERMS.items():
        trainings[name], tunings[name] = [], []
        whole = sum(SHARES[term] for term in terms)
        weights = {term: SHARES[term] / whole if term in terms else 0.0 for term in SHARES}
        for seed in SEEDS:
            cell = f"triple-{'-'.join(terms)}-{seed}"
            words = (
                "launch/train.py",
                "--config=configs/distilkcbert.py",
                begun,
                prepared,
                *(f"--config.triple.{term}={weight:.7f}" for term, weight in weights.items()),
                f"--config.student.hidden_size={config['hidden_size']}",
                f"--config.student.intermediate_size={config['intermediate_size']}",
                f"--config.student.num_attention_heads={config['num_attention_heads']}",
                f"--config.student.max_position_embeddings={config['max_position_embeddings']}",
                f"--config.seed={seed}",
                *scale.train,
                *train,
            )
            trainings[name].append(Cell(cell, words, "--workdir", "summary.json"))
            if ner:
                words = (
                    "launch/finetune.py",
                    "--config=configs/ner.py",
                    f"--config.model={folder}/{cell}/student",
                    f"--config.data={ner}/{DATASET}-IOB",
                    f"--config.seed={seed}",
                    *scale.tune,
                    *tune,
                )
                tunings[name].append(Cell(f"{cell}.{DATASET}", words, "--workdir", "summary.json"))
    for by_row in (trainings, tunings):  # seed by seed, so that a part of the table can be read
        cells += [cell for of_seed in zip(*by_row.values(), strict=True) for cell in of_seed]
    return AblationPlan(cells, trainings, tunings)


def has_mlm_head(config: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint with this config.json brings an MLM head."""
    name = (config.get("architectures") or [""])[0]
    return name.endswith(("ForMaskedLM", "ForPreTraining"))


def reproduce_ablation(
    scale_name: str,
    scale: AblationScale,
    teacher: str,
    corpus: str,
    ner: str,
    *,
    root: Path,
    workdir: Path,
    out: Path,
    train: Sequence[str] = (),
    tune: Sequence[str] = (),
    jobs: int = 1,
    only_report: bool = False,
) -> Path:
    """Returns the table's file; writes out/table-triple.md, .json and .png.

    Args:
      scale_name: "small" or "paper", for the title.
      scale: what the runs are like.
      teacher: folder or hub id.
      corpus: text.
      ner: folder of the named-entity data; "" for no fine-tuning.
      root: folder of the project.
      workdir: where the cells are.
      out: where the table goes.
      train: more flags for every training.
      tune: more flags for every fine-tuning.
      jobs: cells at once.
      only_report: write down what there is, and run nothing.

    Raises:
      ValueError: a cell failed, or with only_report has not been run; says which.
    """
    folder = workdir / scale_name / "cells"
    plan = plan_ablation(scale, teacher, corpus, ner, str(folder), train=train, tune=tune)
    if not only_report:
        run_cells(plan.cells, folder, root, jobs)
    for cell in plan.cells:
        check_command(cell, folder)
    rows = [_row(name, plan, folder) for name in TERMS]
    _add_differences(rows)
    out.mkdir(parents=True, exist_ok=True)
    told = {"scale": scale_name, "teacher": Path(teacher).name}
    keep_other(out, NAME, told)
    write_json(out / f"{NAME}.json", told | {"rows": rows})
    metric = "f1" if ner else "heldout/student_mlm_accuracy"
    points = [
        {
            "name": row["name"],
            "score": 100 * row[metric]["mean"],
            "half": 100 * (row[metric]["half"] or 0.0),
        }
        for row in rows
    ]
    figures.plot_bars(out / f"{NAME}.png", points, TITLE, SCORES[metric])
    with open_beside(out / f"{NAME}.md") as file:
        file.write(_markdown(scale_name, rows, plan, folder, (teacher, corpus, ner)))
    return out / f"{NAME}.md"


def _row(name: str, plan: AblationPlan, folder: Path) -> dict[str, Any]:
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


def _markdown(scale_name, rows, plan, folder, inputs) -> str:
    shown = [
        {
            "loss": row["name"],
            "weights (soft, MLM, cosine)": _weights(TERMS[row["name"]]),
            "held-out MLM loss (nats)": "{mean:.3f} ± {half:.3f}".format(**row[LOSS]),
        }
        | {title: show_interval(row[metric]) for metric, title in SCORES.items() if metric in row}
        for row in rows
    ]
    differences = [
        {
            "loss": row["name"],
            "held-out MLM loss (nats)": "{mean:+.3f} ± {half:.3f}".format(
                **row["against_plain"][LOSS]
            ),
        }
        | {
            title: show_difference(row["against_plain"][metric])
            for metric, title in SCORES.items()
            if metric in row
        }
        for row in rows
        if row["name"] != PLAIN
    ]
    places = dict(zip((*inputs, str(folder)), ("TEACHER", "CORPUS", "NER", "CELLS"), strict=True))
    return "\n".join(
        [
            f"# {TITLE} ({scale_name})",
            "",
            f"Mean ± half the 95% interval (Student's t) over {len(SEEDS)} seeds, each a training "
            f"run{' and a fine-tuning run' if 'f1' in rows[0] else ''} of its own. All students "
            f"begin with layers of the teacher, a {Path(inputs[0]).name}.",
            "",
            markdown_table(shown, list(shown[0])),
            "",
            f"Differences from {PLAIN}, seed by seed (start, rows and masks are the same):",
            "",
            markdown_table(differences, list(differences[0])),
            "",
            f"![{TITLE}]({NAME}.png)",
            "",
            "## Every command",
            "",
            *show_commands(plan.cells, folder, places),
            "",
        ]
    )


def _weights(terms: Sequence[str]) -> str:
    whole = sum(SHARES[term] for term in terms)
    return ", ".join(f"{SHARES[term] / whole if term in terms else 0:.3g}" for term in SHARES)
