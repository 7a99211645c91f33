# SPDX-License-Identifier: Apache-2.0
"""Table 2 of "DistilBERT on a Raspberry Pi": exact match, F1 and inference time of each model.

Each model is fine-tuned on SQuAD as a cell, unless it answers questions already, exported to ONNX
(float32 and int8), and asked question by question by the runtime, without JAX or torch.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from edad_jax.data.tokenizer import cuts_alike, load_tokenizer
from edad_jax.export import formats
from edad_jax.files import open_beside, write_json
from edad_jax.machine import core_count
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.answer_scores import answer_scores
from edad_jax.tasks.data.questions import Question, read_questions
from edad_jax.tasks.data.splits import choose
from edad_jax.tasks.exported import open_reader, reading_of_run
from reproduction.cells import Cell, check_command, run_cells, show_commands
from reproduction.output import keep_other

LOG = logging.getLogger(__name__)
TITLE = "Questions on a small machine: EM, F1 and inference time"
# Exact match, F1, seconds for the development set on a Raspberry Pi 5 (the paper's Table 2).
PUBLISHED = {"BERT-base": (54.93, 72.36, 13_220), "DistilBERT": (52.79, 70.44, 6_506)}
# Flags of fine-tuning: configs/squad.py as it is, or what two CPU cores carry.
PI_SCALES = {
    "paper": (),
    "small": (
        "--config.max_train=1500",
        "--config.max_validation=200",
        "--config.max_test=500",
        "--config.max_length=192",
        "--config.overlap=64",
        "--config.epochs=2",
        "--config.batch_size=16",
        "--config.optimizer.learning_rate=5e-5",
    ),
}
FORMATS = {"onnx": "float32", "onnx-int8": "int8"}
NAME = "table-pi-2"
_SCORED_BY = {"squad": "SQuAD 1.1", "korquad": "KorQuAD 1.0"}


class PiPlan(NamedTuple):
    """The cells, and where each model that answers questions is."""

    cells: list[Cell]
    models: dict[str, str]
    left_out: tuple[str, ...] = ()  # models that cannot have soft labels


def plan_pi(
    models: Mapping[str, str],
    squad: str,
    folder: str,
    tune: Sequence[str] = (),
    soft_labels_of: str = "",
    scoring: str = "squad",
) -> PiPlan:
    """Returns what has to be fine-tuned.

    Args:
      models: name -> folder or hub id.
      squad: data as launch/finetune.py takes it for questions.
      folder: where the cells are.
      tune: more flags for every fine-tuning.
      soft_labels_of: one of the models; the others are also fine-tuned with its soft labels
        (DistilBERT's second step, section 3), as models of their own, but for those that cut
        texts into other pieces: soft labels are of pieces. "": none.
      scoring: of the answers that each epoch is judged by.

    Raises:
      ValueError: no model, or one that is not there.
    """
    if not models:
        raise ValueError("--models is empty, expected NAME=FOLDER_OR_HUB_ID, comma-separated")
    if soft_labels_of and soft_labels_of not in models:
        raise ValueError(
            f"--soft_labels_of={soft_labels_of}: expected one of --models, {', '.join(models)}"
        )
    way = () if scoring == "squad" else (f"--config.scoring={scoring}",)
    cells, places, left_out = [], {}, []
    for name, model in models.items():
        config = read_model_json(local_folder(model, option="--models=NAME=FOLDER") / "config.json")
        if (config.get("architectures") or [""])[0].endswith("ForQuestionAnswering"):
            places[name] = model
            continue
        words = (
            "launch/finetune.py",
            "--config=configs/squad.py",
            f"--config.model={model}",
            f"--config.data={squad}",
            *way,
            *tune,
        )
        cells.append(Cell(f"squad-{name}", words, "--workdir", "summary.json"))
        places[name] = f"{folder}/squad-{name}/model"
    for cell in list(cells) if soft_labels_of else ():
        name = cell.name.removeprefix("squad-")
        if name == soft_labels_of:
            continue
        if not _cut_alike(models[name], models[soft_labels_of]):
            LOG.warning("%s has other pieces than %s: no soft labels.", name, soft_labels_of)
            left_out.append(name)
            continue
        words = (*cell.words, f"--config.teacher={places[soft_labels_of]}")
        cells.append(Cell(f"{cell.name}-soft", words, "--workdir", "summary.json"))
        places[f"{name}, soft labels of {soft_labels_of}"] = f"{folder}/{cell.name}-soft/model"
    return PiPlan(cells, places, tuple(left_out))


def _cut_alike(*models: str) -> bool:
    option = "--models=NAME=FOLDER"
    return cuts_alike(*(load_tokenizer(model, option=option) for model in models))


def reproduce_pi(
    models: Mapping[str, str],
    squad: str,
    *,
    scale_name: str,
    root: Path,
    workdir: Path,
    out: Path,
    questions: int = 0,
    scoring: str = "squad",
    threads: int = 0,
    tune: Sequence[str] = (),
    soft_labels_of: str = "",
    jobs: int = 1,
    only_report: bool = False,
    progress: bool = True,
) -> Path:
    """Returns the table's file; writes out/table-pi-2.md, .json and .png.

    Args:
      models: name -> folder or hub id.
      squad: data as launch/finetune.py takes it for questions; its test split is asked.
      scale_name: one of PI_SCALES, for the title.
      root: folder of the project.
      workdir: where the cells and the exported models are.
      out: where the table goes.
      questions: how many to ask, drawn at random; 0: all.
      scoring: of the answers, one of `answer_scores.SCORINGS`.
      threads: of the runtime; 0: as many as there are cores.
      tune: more flags for every fine-tuning.
      soft_labels_of: one of the models, whose soft labels the others learn from too; "": none.
      jobs: cells at once.
      only_report: train nothing.
      progress: whether to show bars.

    Raises:
      ValueError: a cell failed; says which.
    """
    folder = workdir / "pi" / "cells"
    plan = plan_pi(models, squad, str(folder), tune, soft_labels_of, scoring)
    if not only_report:
        run_cells(plan.cells, folder, root, jobs)
    for cell in plan.cells:
        check_command(cell, folder)
    settings = _settings(plan, folder)
    splits, _ = read_questions(squad, **settings.data)
    asked = choose(splits["test"], questions, np.random.default_rng(0))
    rows = []
    for name, place in plan.models.items():
        for format_name, numbers in FORMATS.items():
            file_name = f"{name.replace(', ', '-').replace(' ', '-')}-{format_name}"
            exported = formats.export(formats.load(place), format_name, folder.parent / file_name)
            rows.append(
                {"model": name, "numbers": numbers}
                | _ask(exported, asked, scoring, threads, settings.search, progress)
            )
    out.mkdir(parents=True, exist_ok=True)
    told = {"scale": scale_name, "data": Path(squad).name, "models": "-".join(models)}
    keep_other(out, NAME, told)
    found = {"scoring": scoring, "questions": len(asked), "rows": rows, "published": PUBLISHED}
    write_json(out / f"{NAME}.json", told | found)
    points = [
        {
            "name": f"{row['model']} {row['numbers']}",
            "score": 100 * row["f1"],
            "half": None,
            "cost": 1_000 * row["seconds"] / len(asked),
        }
        for row in rows
    ]
    figures.plot_costs(out / f"{NAME}.png", points, TITLE, "a question (ms)", "F1 (%)")
    with open_beside(out / f"{NAME}.md") as file:
        places = {squad: "SQUAD"} | _named(models)
        chosen = len(asked) < len(splits["test"])
        text = _markdown(scale_name, rows, asked, chosen, scoring, plan, folder, places)
        file.write(text)
    return out / f"{NAME}.md"


class _Settings(NamedTuple):
    """How the models were tuned, and so how they are asked."""

    data: dict[str, Any]  # of read_questions: another seed would ask what was trained on
    search: dict[str, Any]  # of open_reader: the windows that the models know


def _settings(plan: PiPlan, folder: Path) -> _Settings:
    """Returns the settings of the cells, which are the same for all; of none: the defaults."""
    if not plan.cells:
        return _Settings({}, {})
    run = folder / plan.cells[0].name
    config = read_model_json(run / "config.json")
    return _Settings(
        reading_of_run(run / "model"),
        {
            "max_length": config["max_length"],
            "overlap": config["overlap"],
            "longest_question": config["max_query"],
            "longest_answer": config["longest_answer"],
        },
    )


def _ask(
    exported: Path,
    asked: Sequence[Question],
    scoring: str,
    threads: int,
    search: Mapping[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Returns the scores of an exported model, and the seconds that it took, one by one."""
    reader = open_reader(exported, threads=threads, **search)
    next(reader([(asked[0].question, asked[0].context)]))
    answers, start = [], time.perf_counter()
    for question in tqdm(asked, desc=exported.name, unit="question", disable=not progress):
        best = next(reader([(question.question, question.context)]))
        answers.append(best[0].text if best else "")
    seconds = time.perf_counter() - start
    scores = answer_scores(answers, [question.gold_texts for question in asked], scoring)
    return {
        "exact_match": scores["exact_match"],
        "f1": scores["f1"],
        "seconds": seconds,
        "file_mb": (exported / "model.onnx").stat().st_size / 1e6,
        "window": reader.max_length,
    }


def _named(models):
    return {path: name.upper() for name, path in models.items()}


def _markdown(scale_name, rows, asked, chosen, scoring, plan, folder, places) -> str:
    first, count = rows[0]["seconds"], len(asked)
    windows = " or ".join(map(str, sorted({row["window"] for row in rows})))
    shown = [
        {
            "model": row["model"],
            "numbers": row["numbers"],
            "file (MB)": f"{row['file_mb']:.1f}",
            "EM": f"{100 * row['exact_match']:.2f}",
            "F1": f"{100 * row['f1']:.2f}",
            "seconds": f"{row['seconds']:.1f}",
            "a question (ms)": f"{1_000 * row['seconds'] / count:.0f}",
            "times as fast": f"{first / row['seconds']:.2f}",
        }
        for row in rows
    ]
    published = [
        {"model": name, "EM": em, "F1": f1, "seconds": seconds}
        for name, (em, f1, seconds) in PUBLISHED.items()
    ]
    lines = [
        f"# {TITLE} ({scale_name})",
        "",
        f"{count:,} questions of the test split ({'drawn at random' if chosen else 'all'}), one at "
        f"a time, windows of at most {windows} pieces, on {core_count()} cores, by onnxruntime. "
        f"Answers are scored in {_SCORED_BY[scoring]}'s way.",
        "",
        markdown_table(shown, list(shown[0])),
        "",
        f"![{TITLE}]({NAME}.png)",
        "",
        "## The paper's figures",
        "",
        "10,570 questions on a Raspberry Pi 5, TensorFlow, float32. Its exact match lies 17 points "
        "below its F1, where published scorers find 7 to 8: it reads answers out in another way.",
        "",
        markdown_table(published, list(published[0])),
    ]
    if plan.left_out:
        lines += ["", f"Without soft labels, for it has other pieces: {', '.join(plan.left_out)}."]
    if plan.cells:
        commands = show_commands(plan.cells, folder, {str(folder): "CELLS", **places})
        lines += ["", "## Every command", "", *commands]
    return "\n".join([*lines, ""])
