# SPDX-License-Identifier: Apache-2.0
"""What a small pipeline would have to tell, for tests of its page."""

from typing import Any

from chain.examples import show_entities
from chain.scores import Tagged, score_models

_WORDS = [["Mutations", "of", "BRCA1", "cause", "breast", "cancer", "."], ["No", "<b>", "here"]]
_GOLD = [["O", "O", "B-Gene", "O", "B-Disease", "I-Disease", "O"], ["O", "O", "B-Gene"]]
_SAID = [["O", "O", "B-Gene", "O", "B-Disease", "O", "O"], ["O", "B-Gene", "B-Gene"]]

RIGHT = Tagged(_WORDS, _GOLD, _GOLD)
SOME = Tagged(_WORDS, _GOLD, _SAID)


def make_lines(steps: int = 4) -> list[dict[str, float]]:
    """Returns a log of training."""
    return [
        {
            "step": step,
            "time": float(step),
            "teacher/mlm": 6.0 / (step + 1),
            "teacher/nsp": 0.7,
            "student/mlm": 7.0 / (step + 1),
            "student/nsp": 0.7,
            "alpha": 1 - step / steps,
            "heldout/teacher_mlm_accuracy": 0.1 * step,
            "heldout/student_mlm_accuracy": 0.05 * step,
            "heldout/agreement": 0.2 * step,
        }
        for step in range(steps)
    ]


def make_story(**changes: Any) -> dict[str, Any]:
    """Returns a story, with some parts changed."""
    models = {"base": [SOME], "teacher": [RIGHT], "student": [RIGHT], "int8": [SOME]}
    scores = score_models(models, "base")
    cells = [
        {"batch": batch, "length": 128, "median_ms": 3.0 * batch, "rows_per_second": 333.3}
        for batch in (1, 32)
    ]
    timing = {"cold_start": 0.4, "peak_memory_mb": 120.0, "cells": cells}
    heldout = {
        f"heldout/{net}_mlm_{name}": value
        for net in ("teacher", "student")
        for name, value in (("accuracy", 0.25), ("loss", 3.5))
    }
    story = {
        "title": "NCBI-disease by medicine",
        "made": {"when": "2026-11-28 06:00 UTC", "machine": "a laptop", "versions": "jax 0"},
        "labels_by_rule": [],
        "split": "test",
        "stages": [{"title": "fused training", "seconds": 75.0, "command": "python <train>"}],
        "training": {
            "method": "edad",
            "steps": 4,
            "heldout": {"start": heldout, "end": heldout},
            "nets": {
                net: {"parameters": 1_000, "rows_per_second": 20.5}
                for net in ("teacher", "student")
            },
        },
        "vocabulary": {
            "base_size": 30_522,
            "added": 2,
            "whole_words": 2,
            "heldout_words": 1_000,
            "pieces_per_word_before": 1.5,
            "pieces_per_word_after": 1.25,
            "unknown_before": 0.01,
            "unknown_after": 0.0,
            "longest": [{"word": "glioblastoma", "before": ["gl", "##io", "##blast", "##oma"]}],
        },
        "rows": {"train": 900, "heldout": 10, "documents": 50},
        "examples": {"student": {"train": 100, "validation": 10, "test": 2}},
        "scores": scores,
        "int8_against_its_source": scores["int8"]["difference"],
        "agreement": {"student": 1.0, "int8": 0.75},
        "verified": {"base": "", "student": "", "int8": "largest difference from Flax: 0.1"},
        "sizes": {"base": 130.0, "student": 70.0, "int8": 18.5},
        "speed": {"base": timing, "student": timing, "int8": timing},
        "entities": show_entities(SOME, 3),
        "gaps": [{"text": "a ___ gap", "word": "small", "teacher": "big", "student": "<s>"}],
        "settings": {"seed": "0", "teacher.checkpoint": "bert", "teacher.gate_bias": "2.0"},
    }
    return story | changes
