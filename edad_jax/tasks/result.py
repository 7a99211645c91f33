# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning leaves: scores of every seed, their mean, predictions, a model, pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from edad_jax import __version__
from edad_jax.export import huggingface
from edad_jax.export.card import ModelCard, Score, is_hub_id, origin, public
from edad_jax.files import write_json
from edad_jax.models import pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks import scores
from edad_jax.tasks.data.questions import Question
from edad_jax.tasks.data.tagged import TaggedSentence
from edad_jax.tasks.setup import Prepared, run_seeds
from edad_jax.tasks.train import Trained

_USE = (
    "For texts like those of its data: on others expect less than the figures here. It is certain "
    "of what it says even where it is wrong: have a person look where much depends on it."
)
MOST_DRAWN_CLASSES = 40  # a larger confusion matrix cannot be read as a picture

# The scores that are averaged over seeds, where a task has them.
AVERAGED = ("f1", "precision", "recall", "paper_metric", "accuracy", "macro_f1", "exact_match")


def summarise(
    config: ConfigDict,
    prepared: Prepared,
    trained: Trained,
    predictions: Mapping[str, Sequence[Sequence[Any]]],
) -> dict:
    """Returns all figures of a run, as JSON.

    `predictions` has, by split and by seed number, a prediction for each example.
    """
    validation = np.array(trained.validation)  # [epochs, s]
    seeds = {}
    for number, seed in enumerate(run_seeds(config)):
        seeds[str(seed)] = {"failed": bool(trained.failed_s[number])}
        if trained.failed_s[number]:
            continue
        seeds[str(seed)]["best_epoch"] = int(validation[:, number].argmax()) + 1
        for split, by_seed in predictions.items():
            seeds[str(seed)][split] = prepared.task.score(
                prepared.examples[split], by_seed[number], prepared.rows[split], prepared.labels
            )
    return {
        "task": config.task,
        "model": config.model,
        "teacher": config.teacher,
        "data": Path(config.data).name,
        "headline": prepared.task.headline,
        "labels": list(prepared.labels),
        "examples": {split: len(each) for split, each in prepared.examples.items()},
        "notes": prepared.notes,
        "time_cost": trained.costs,
        "epochs": config.epochs,
        "validation_by_epoch": trained.validation,
        "seeds": seeds,
        "means": average(seeds),
    }


def average(seeds: Mapping[str, Mapping]) -> dict[str, dict]:
    """Returns {"test/f1": {"mean", "half", "count"}, ...} over the seeds that did not fail.

    `half` is half the width of the 95% interval by Student's t; None for a single seed.
    """
    sound = [seed for seed in seeds.values() if not seed["failed"]]
    return {
        f"{split}/{name}": scores.mean_interval([seed[split][name] for seed in sound])._asdict()
        for split in ("validation", "test")
        for name in AVERAGED
        if sound and name in sound[0].get(split, {})
    }


def leave_result(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    predictions: Mapping[str, Sequence[Sequence[Any]]],
    summary: dict,
    params: Sequence[dict],
    sizes: ExBertConfig,
) -> None:
    """Writes predictions/, model/, then summary.json, and last the pictures.

    summary.json marks the run as finished: a picture that cannot be drawn costs no scores.
    `predictions` and `summary` are as in `summarise`; `params` are by group of seeds, of which the
    one that did best on the validation split is saved; `sizes` are the encoder's.
    """
    names = list(summary["seeds"])
    sound, best = _find_sound(summary)
    (workdir / "predictions").mkdir(exist_ok=True)
    for split, by_seed in predictions.items():
        for number in sound:
            path = workdir / "predictions" / f"{split}-seed-{names[number]}.tsv"
            prepared.task.write_predictions(path, prepared.examples[split], by_seed[number])
    split = "test" if "test" in predictions else "validation"
    measured = summary["seeds"][names[best]][split]
    huggingface.save_model(
        workdir / "model",
        jax.tree.map(lambda *leaves: np.concatenate(leaves)[best], *params),
        sizes,
        pretrained.tokenizer_folder(config.model),
        card=ModelCard(
            **origin(config.model),
            datasets=[config.data] if is_hub_id(config.data) else [],
            scores=[
                Score(name, measured[name], summary["data"], split)
                for name in AVERAGED
                if name in measured
            ],
            example=_example(prepared.examples[split], predictions[split][best]),
            use=_USE,
            made=_steps(config, summary, names[best]),
            title=f"{Path(config.model).name} fine-tuned on {summary['data']}",
            summary=f"A {config.task} model, fine-tuned by edad-jax.",
            data={"examples": summary["examples"], "data": summary["data"]},
            settings={
                name: value for name, value in config.to_dict().items() if name != "parallel"
            },
            measured={f"{split} {name}": measured[name] for name in AVERAGED if name in measured}
            | {"seed": int(names[best]), "means": summary["means"]},
        ),
        task=huggingface.Task(config.task, tuple(summary["labels"])),
    )
    write_json(workdir / "summary.json", summary)
    draw_pictures(workdir, summary)


def draw_pictures(workdir: Path, summary: Mapping) -> None:
    """Draws those pictures of a finished run that are not there: a kill may have come before."""
    sound, best = _find_sound(summary)
    headline, name = summary["headline"], list(summary["seeds"])[best]
    split = "test" if "test" in summary["seeds"][name] else "validation"
    measured = summary["seeds"][name][split]
    by_seed = list(zip(*summary["validation_by_epoch"], strict=True))
    if not (workdir / "tuning.png").exists():
        figures.plot_seeds(
            workdir / "tuning.png",
            range(1, len(summary["validation_by_epoch"]) + 1),
            {f"validation: {headline}": [by_seed[number] for number in sound]},
            ylabel=headline,
        )
    is_drawn = "confusion" in measured and len(measured["labels"]) <= MOST_DRAWN_CLASSES
    if is_drawn and not (workdir / "confusion.png").exists():
        figures.plot_confusion(
            workdir / "confusion.png",
            measured["confusion"],
            measured["labels"],
            title=f"{summary['data']}, {split} split, seed {name}",
        )


def _example(examples, predicted):
    """Returns a short example and what the model says of it: words with a tag, a label, a text."""
    pairs = list(zip(examples[:200], predicted, strict=False))
    for example, said in pairs:
        if isinstance(example, TaggedSentence):
            tagged = [pair for pair in zip(example.words, said, strict=True) if pair[1] != "O"]
            if tagged and len(example.words) < 40:
                return " ".join(example.words), dict(tagged)
        elif isinstance(example, Question):
            if said and len(example.context) < 500:
                return [example.question, example.context], said
        elif len(example.text) < 300:
            return example.text, said[0]
    return None


def _steps(config, summary, seed):
    """Returns how a model was made, in five lines at most."""
    counts = ", ".join(f"{count:,} for {split}" for split, count in summary["examples"].items())
    teacher = f", taught by {public(config.teacher)}" if config.teacher else ""
    return [
        f"Encoder: {public(config.model)}.",
        f"Examples: {counts}.",
        f"{config.epochs} epochs of batches of {config.batch_size}, learning rate "
        f"{config.optimizer.learning_rate:g}{teacher}.",
        f"Of {len(summary['seeds'])} seed(s), number {seed} did best on the validation split.",
        f"Written by edad-jax {__version__}.",
    ]


def _find_sound(summary: Mapping) -> tuple[list[int], int]:
    """Returns the numbers of the seeds that did not fail, and of the best on validation."""
    scores = [seed.get("validation", {}) for seed in summary["seeds"].values()]
    sound = [n for n, seed in enumerate(summary["seeds"].values()) if not seed["failed"]]
    return sound, max(sound, key=lambda number: scores[number][summary["headline"]])


def describe(summary: Mapping) -> str:
    """Returns the lines that a run ends with: a table of scores, and one of entity types."""
    columns = [
        name for name in AVERAGED if any(key.endswith(f"/{name}") for key in summary["means"])
    ]
    rows = []
    for split in ("validation", "test"):
        for name, seed in summary["seeds"].items():
            row = {"split": split, "seed": name, "examples": _count_examples(summary, split)}
            if seed["failed"]:
                rows.append(row | {columns[0]: "failed: the loss was not finite"})
            elif split in seed:
                rows.append(row | {key: percent(seed[split][key]) for key in columns})
        means = {
            key: show_interval(summary["means"][f"{split}/{key}"])
            for key in columns
            if f"{split}/{key}" in summary["means"]
        }
        if means and len(summary["seeds"]) > 1:
            rows.append({"split": split, "seed": "mean ± 95%"} | means)
    text = "\n" + markdown_table(rows, ["split", "seed", "examples", *columns]) + "\n"
    name, seed = next(item for item in summary["seeds"].items() if not item[1]["failed"])
    split = "test" if "test" in seed else "validation"
    kinds = seed[split].get("types", seed[split].get("classes", {}))
    types = [
        {"type": kind, "entities" if "types" in seed[split] else "texts": values["support"]}
        | {key: percent(values[key]) for key in ("f1", "precision", "recall")}
        for kind, values in kinds.items()
    ]
    if types:
        text += f"\n{split} split, seed {name}:\n\n{markdown_table(types, list(types[0]))}\n"
    minutes = summary["time_cost"]["train/seconds"] / 60
    return text + f"training took {minutes:.1f} minutes for {len(summary['seeds'])} seed(s)\n"


def _count_examples(summary: Mapping, split: str) -> str:
    """Returns of how many examples a score is: "120", or "118 of 120" where some were left out."""
    count = summary["examples"].get(split, 0)
    skipped = summary["notes"].get("skipped", {}).get(split, 0)
    return f"{count:,} of {count + skipped:,}" if skipped else f"{count:,}"


def percent(value: float) -> str:
    """Returns 0.91234 as 91.23."""
    return f"{100 * value:.2f}"


def show_interval(interval: Mapping) -> str:
    """Returns the mean and half the 95% interval in percent, as 91.23 ± 0.45."""
    half = interval["half"]
    return percent(interval["mean"]) + ("" if half is None else f" ± {100 * half:.2f}")


def show_difference(interval: Mapping) -> str:
    """Returns a mean difference and half its 95% interval in points, as +1.23 ± 0.45."""
    return f"{100 * interval['mean']:+.2f} ± {100 * interval['half']:.2f}"
