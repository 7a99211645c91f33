# SPDX-License-Identifier: Apache-2.0
"""Entity F1 of every model of a pipeline on one test split, with intervals, and int8's predictions.

Intervals are by a bootstrap over test sentences (Efron and Tibshirani 1993, chapter 16; for NLP:
Berg-Kirkpatrick et al. 2012): how far another choice of sentences would have moved a score. Models
are compared by the same draws. Of several seeds the mean is drawn; what another training would
have moved beyond these seeds is in no interval.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.files import read_json
from edad_jax.runtime.models import Tagger
from edad_jax.tasks.data.tagged import TaggedSentence, write_predictions
from edad_jax.tasks.scores import counted_f1, entity_counts, resampled_f1

_EXPECTED = "what a finished fine-tuning left; run the pipeline again"


class Tagged(NamedTuple):
    """Sentences with their true tags and what a model said."""

    words: list[list[str]]
    gold: list[list[str]]
    predicted: list[list[str]]


def read_predictions(path: Path) -> Tagged:
    """Returns what launch/finetune.py wrote: a word, its tag, and the predicted one on each line.

    Raises:
      ValueError: a line has not three columns.
    """
    sentences: list[list[list[str]]] = [[]]
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            sentences.append([])
            continue
        columns = line.split("\t")
        if len(columns) != 3:
            raise ValueError(f"{path}:{number}: got {line!r}, expected a word and two tags")
        sentences[-1].append(columns)
    columns = [list(map(list, zip(*each, strict=True))) for each in sentences if each]
    return Tagged(*map(list, zip(*columns, strict=True)))


def best_seed(summary: Mapping[str, Any]) -> str:
    """Returns the seed whose model launch/finetune.py kept: the best on the validation split."""
    sound = {name: seed for name, seed in summary["seeds"].items() if not seed["failed"]}
    return max(sound, key=lambda name: sound[name]["validation"][summary["headline"]])


def tuned_predictions(workdir: Path) -> dict[str, Tagged]:
    """Returns the test predictions of each seed of a fine-tuning that did not fail.

    Of data without a test split they are those of the validation split.
    """
    summary = read_json(workdir / "summary.json", expected=_EXPECTED)
    split = scored_split(summary)
    return {
        name: read_predictions(workdir / "predictions" / f"{split}-seed-{name}.tsv")
        for name, seed in summary["seeds"].items()
        if not seed["failed"]
    }


def scored_split(summary: Mapping[str, Any]) -> str:
    """Returns which split a fine-tuning was scored on."""
    return "test" if "test" in summary["examples"] else "validation"


def predict_exported(folder: Path, like: Tagged, path: Path) -> Tagged:
    """Returns what an exported model says of the sentences; writes it, or reads what was written.

    Args:
      folder: of the export.
      like: the sentences, and their true tags.
      path: of the file, as `read_predictions` reads it.
    """
    model = folder / "model.onnx"
    if not path.exists() or path.stat().st_mtime_ns < model.stat().st_mtime_ns:
        said = Tagger(folder).tag_words(like.words)
        sentences = [
            TaggedSentence(tuple(words), tuple(tags), f"test:{number}")
            for number, (words, tags) in enumerate(zip(like.words, like.gold, strict=True))
        ]
        write_predictions(path, sentences, said)
    return read_predictions(path)


def score_models(models: Mapping[str, Sequence[Tagged]], base: str) -> dict[str, dict[str, Any]]:
    """Returns the scores of each model: of the mean over its seeds, in [0, 1].

    They are {"f1", "precision", "recall", "low", "high", "sentences", "entities", "seeds",
    "difference"}.

    Args:
      models: predictions of each seed, all of the same sentences.
      base: the model that the others are compared with: "difference" is {"f1", "low", "high"},
        None of the base itself.

    Raises:
      ValueError: models that were scored on other sentences.
    """
    counts = {
        name: np.stack([entity_counts(each.gold, each.predicted) for each in seeds])
        for name, seeds in models.items()
    }  # [seeds, sentences, 3]
    sentences = {each.shape[1] for each in counts.values()}
    if len(sentences) > 1:
        raise ValueError(f"got scores of {sorted(sentences)} sentences, expected the same of all")
    (size,) = sentences
    drawn = {
        name: np.mean([resampled_f1(seed) for seed in each], 0) for name, each in counts.items()
    }
    means = {name: float(np.mean(counted_f1(each.sum(axis=1)))) for name, each in counts.items()}
    scored = {}
    for name, each in counts.items():
        found, said, wanted = np.moveaxis(each.sum(axis=1), -1, 0)
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        scored[name] = {
            "f1": means[name],
            "precision": float(np.mean(found / np.maximum(said, 1))),
            "recall": float(np.mean(found / np.maximum(wanted, 1))),
            "low": float(low),
            "high": float(high),
            "sentences": size,
            "entities": int(wanted[0]),
            "seeds": len(each),
            "difference": None
            if name == base
            else _interval(means[name] - means[base], drawn[name] - drawn[base]),
        }
    return scored


def agreement(one: Tagged, other: Tagged) -> float:
    """Returns how far two models find the same entities: F1 of the one against the other.

    Two that find none agree.
    """
    counts = entity_counts(one.predicted, other.predicted).sum(axis=0)
    return float(counted_f1(counts)) if counts.any() else 1.0


def _interval(difference, drawn):
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"f1": float(difference), "low": float(low), "high": float(high)}
