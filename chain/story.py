# SPDX-License-Identifier: Apache-2.0
"""What a finished pipeline has to tell: read from what its stages left, nothing is trained here."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from chain import record, scores
from chain.examples import show_entities
from chain.stages import NETS, ROOT, Stage
from edad_jax import __version__
from edad_jax.data.stages import recorded_facts
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.data.vocabulary import added_words
from edad_jax.export.card import public
from edad_jax.files import read_json
from edad_jax.machine import describe_machine, name_machine
from reproduction.cells import show_command

_EXPECTED = "what a finished stage left; run the pipeline again"
_EXAMPLES = 4  # sentences with right entities, and as many with wrong ones
_WORDS = 30  # new ones that are shown
EXPORTS = {"base": "base-onnx", "student": "onnx", "int8": "onnx-int8"}
_BAR = re.compile(r"\d+%\|")
_COMPARED = re.compile("largest difference|int8 agrees with")


def make_story(config: ConfigDict, workdir: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Returns all that the page says, as JSON; it names no folder of the machine.

    Args:
      config: of the pipeline.
      workdir: of the finished pipeline.
      stages: of it.
    """
    trained = read_json(workdir / "train" / "summary.json", expected=_EXPECTED)
    names = {stage.name for stage in stages}  # a folder may be of other settings, before --redo
    tuned = [net for net in NETS if f"tune-{net}" in names]
    student = read_json(workdir / "tune-student" / "summary.json", expected=_EXPECTED)
    predictions = {net: scores.tuned_predictions(workdir / f"tune-{net}") for net in tuned}
    kept = predictions["student"][scores.best_seed(student)]
    exported = {
        name: scores.predict_exported(workdir / folder, kept, workdir / f"{folder}.predictions.tsv")
        for name, folder in EXPORTS.items()
        if name != "base"
    }
    models = {net: list(each.values()) for net, each in predictions.items()}
    models["int8"] = [exported["int8"]]
    places = _places(config, workdir)
    data = "Names in docstrings" if config.labels.packages else Path(student["data"]).stem
    return {
        "title": f"{data}: report of the run {workdir.name}",
        "made": {
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": name_machine(describe_machine()),
            "versions": f"edad-jax {__version__}, jax {jax.__version__}",
        },
        "labels_by_rule": list(config.labels.packages),
        "split": scores.scored_split(student),
        "stages": [
            {
                "title": stage.title,
                "seconds": record.seconds_of(stage, workdir),
                "command": show_command(stage.cell, workdir, places),
            }
            for stage in stages
        ],
        "training": {
            name: trained[name] for name in ("method", "steps", "time_cost", "heldout", "nets")
        },
        "vocabulary": _vocabulary(workdir / "rows"),
        "rows": _rows(recorded_facts(workdir / "rows" / "rows")),
        "examples": {
            net: read_json(workdir / f"tune-{net}" / "summary.json", expected=_EXPECTED)["examples"]
            for net in tuned
        },
        "scores": scores.score_models(models, "base"),
        "int8_against_its_source": scores.score_models(
            {"student": [kept], "int8": [exported["int8"]]}, "student"
        )["int8"]["difference"],
        "agreement": {name: scores.agreement(kept, each) for name, each in exported.items()},
        "verified": {
            name: _verified(workdir / f"{folder}.log")
            for name, folder in EXPORTS.items()
            if folder in names
        },
        "sizes": _sizes(workdir, tuned),
        "speed": _speed(workdir / "speed" / "edge.json") if "speed" in names else {},
        "entities": show_entities(exported["int8"], _EXAMPLES),
        "gaps": trained["examples"],
        "settings": _settings(config),
    }


def _places(config: ConfigDict, workdir: Path) -> dict[str, str]:
    """Returns {path: what stands for it in a command}; ids of the hub stay."""
    given = {
        "TEACHER": config.teacher.checkpoint,
        "VOCABULARY": config.vocabulary.base or "",
        "TEXT": config.corpus.files or config.corpus.dataset,
        "DATA": config.data,
    }
    named = {path: name for name, path in given.items() if Path(path).is_absolute()}
    return named | {f"{ROOT}/": "", str(workdir): "WORKDIR"}


def _vocabulary(rows: Path) -> dict[str, Any]:
    """Returns the facts of a vocabulary, its longest new words, and what they were before."""
    facts = recorded_facts(rows / "vocabulary")
    backend = load_tokenizer(rows / "vocabulary").backend_tokenizer
    words = [
        {"word": word, "before": before}
        for word, before in added_words(backend, facts["base_size"])
    ]
    longest = sorted(words, key=lambda each: (-len(each["word"]), each["word"]))[:_WORDS]
    return facts | {"whole_words": len(words), "longest": longest}


def _rows(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name]["rows"] for name in ("train", "heldout")} | {
        "documents": facts["documents"]
    }


def _verified(log: Path) -> str:
    """Returns what an export said of its comparison; "" where it made none."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    said = [line for line in lines if _COMPARED.search(line) and not _BAR.search(line)]
    return said[-1] if said else ""


def _sizes(workdir: Path, tuned: Sequence[str]) -> dict[str, float]:
    """Returns megabytes of what would be served of each model: weights, or the ONNX file."""
    paths = {net: workdir / f"tune-{net}" / "model" / "model.safetensors" for net in tuned}
    paths["int8"] = workdir / EXPORTS["int8"] / "model.onnx"
    return {name: path.stat().st_size / 1e6 for name, path in paths.items() if path.exists()}


def _speed(path: Path) -> dict[str, Any]:
    """Returns {model: what launch/benchmark_edge.py measured}."""
    measured = read_json(path, expected=_EXPECTED)
    by_folder = {row["name"].rpartition("/")[2]: row for row in measured["models"]}
    return {
        name: {
            "cold_start": by_folder[folder]["cold_start"],
            "peak_memory_mb": by_folder[folder]["peak_memory_mb"],
            "cells": [
                {key: cell[key] for key in ("batch", "length", "median_ms", "rows_per_second")}
                for cell in by_folder[folder]["cells"]
            ],
        }
        for name, folder in EXPORTS.items()
        if folder in by_folder
    }


def _settings(config: ConfigDict, prefix: str = "") -> dict[str, str]:
    """Returns {dotted key: value as text} of every setting; of paths the last name alone."""
    found = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            found |= _settings(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = str(public(value))
    return found
