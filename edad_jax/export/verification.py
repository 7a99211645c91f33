# SPDX-License-Identifier: Apache-2.0
"""An export is compared with the trained model before it takes its place.

    float32     no output number on random rows differs by more than 1e-4, of numbers beyond 1
                relative to the largest
    int8        what the model says of texts is what the trained one says, to 98%: of a tagger the
                entities, of a classifier the labels, of a question answerer the best answers; of a
                model of one output the correlation of its scores; of an encoder the mean cosine of
                its vectors

Vectors are compared less the mean of the trained model's: those of BERTs all point one way, so that
the plain cosine of any two texts is near 1. Both are read by the runtime that serves the export,
which must be able to.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from absl import logging

from edad_jax.export import check, formats
from edad_jax.export.card import Verified
from edad_jax.export.layouts import TRANSFORMERS_JS
from edad_jax.export.onnx import build_onnx
from edad_jax.export.sensitivity import losses
from edad_jax.runtime import models

LARGEST_DIFFERENCE = 1e-4
LEAST_AGREEMENT = 0.98
_SHOWN = 5  # parts that lose most, in an error
_WHAT = {
    "tagging": "entities",
    "classification": "labels",
    "answering": "best answers",
    "scoring": "scores (correlation)",
    None: "vectors (cosine, less their mean)",
}


class Verification:
    """Compares an export; to be called with its folder and format.

    Args:
      model: the trained one.
      format_name: of the export.
      inputs: texts, or (question, context) for a model that answers; int8 alone needs them.
      rows: random rows to compare float32 on.
      keep_float32: "auto": keep as many parts of int8 in 32 bits as the goal asks for.
      options: of `build_onnx`, with which the export was made.
      goal: the least agreement of int8.
    """

    def __init__(
        self,
        model: formats.Model,
        format_name: str,
        inputs: Sequence[Any] = (),
        *,
        rows: int = 100,
        keep_float32: Collection[str] = (),
        options: Mapping[str, Any] | None = None,
        goal: float = LEAST_AGREEMENT,
    ):
        if format_name in ("onnx-int8", TRANSFORMERS_JS) and not len(inputs):
            raise ValueError(
                "int8 is compared with float32 on texts, and the run that left "
                f"{model.source} names none that is here; give some with --data=..., or "
                "--texts=FILE.txt (one on each line), or leave the comparison out: --no_verify"
            )
        self._model, self._inputs = model, list(inputs)
        self._rows, self._goal = rows, goal
        self._keep_float32, self._options = tuple(keep_float32), dict(options or {})
        self.found: Verified | None = None

    def __call__(self, folder: Path, format_name: str) -> Verified:
        """Returns what was found, and keeps it as `found`; of two models, that of the last.

        Args:
          folder: of the export.
          format_name: of what is in it.

        Raises:
          ValueError: the export differs by more than it may, or the runtime cannot serve it.
        """
        served = None
        if format_name in ("onnx", "onnx-int8"):
            served = _open(self._model, folder)
        if format_name == "onnx-int8":
            self.found = self._compare_predictions(served, folder)
        else:
            self.found = self._compare_numbers(folder, format_name)
        if served is not None and self._inputs:
            example = example_of(served, self._inputs)
            self.found = dataclasses.replace(self.found, example=example)
        return self.found

    def _compare_numbers(self, folder, format_name):
        difference = check.largest_difference(
            self._model, format_name, folder, rows=self._rows, relative=True, progress=False
        )
        sentence = f"largest difference from Flax on {self._rows:,} random rows: {difference:.1e}"
        if not difference <= LARGEST_DIFFERENCE:  # NaN is no number below it
            raise ValueError(
                f"{sentence}, expected at most {LARGEST_DIFFERENCE:.0e}: nothing was written. "
                "Please report it with the model's config.json; --no_verify writes it all the same"
            )
        return Verified(sentence)

    def _compare_predictions(self, served, folder):
        session = served.session
        served.session = check.FlaxSession(self._model)
        expected = list(served(self._inputs))
        served.session = session
        kind = _kind_of(self._model.task)

        def agreement_of(session):
            served.session = session
            return agreement(kind, expected, list(served(self._inputs)))

        found, kept = agreement_of(session), self._keep_float32
        if found < self._goal:
            fixed = [name for name in kept if name != "auto"]
            ranked = losses(
                self._model,
                _texts(self._inputs),
                self._options.get("ranges"),
                reduce_range=self._options.get("reduce_range", False),
            )
            smaller = None
            if "auto" in kept:
                kept, smaller, found = self._keep_most(ranked, fixed, agreement_of)
            if smaller is None or found < self._goal:
                raise ValueError(self._advice(kind, found, ranked, fixed))
            (folder / models.MODEL_FILE).write_bytes(smaller)
        kept = tuple(name for name in kept if name != "auto")
        sentence = (
            f"int8 agrees with float32 on {found:.2%} of {_WHAT[kind]} in "
            f"{len(self._inputs):,} texts" + (f"; in 32 bits: {', '.join(kept)}" if kept else "")
        )
        return Verified(sentence, found, kept)

    def _keep_most(self, ranked, fixed, agreement_of):
        """Returns (parts, model, agreement) with the fewest parts kept that reach the goal."""
        names = [name for name in ranked if name not in fixed]

        def build(count):
            options = self._options | {"keep_float32": (*fixed, *names[:count])}
            model = self._model
            graph = build_onnx(model.config, model.params, model.task, int8=True, **options)
            return graph.SerializeToString()

        @functools.cache
        def attempt(count):
            found = agreement_of(_session(build(count)))
            logging.info("int8 with %d parts in 32 bits: %.2f%%", count, 100 * found)
            return found

        too_few, enough = 0, 1
        while enough < len(names) and attempt(enough) < self._goal:
            too_few, enough = enough, min(2 * enough, len(names))
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if attempt(middle) < self._goal:
                too_few = middle
            else:
                enough = middle
        return (*fixed, *names[:enough]), build(enough), attempt(enough)

    def _advice(self, kind, found, ranked, fixed):
        worst = [name for name in ranked if name not in fixed][:_SHOWN]
        told = ", ".join(f"{name} ({ranked[name]:.1e})" for name in worst)
        calibrate = "" if self._options.get("ranges") else "--calibrate=..., or "
        return (
            f"int8 agrees with float32 on {found:.2%} of {_WHAT[kind]} in "
            f"{len(self._inputs):,} texts, expected {self._goal:.0%}: nothing was written. Most is "
            f"lost in {told} (noise that int8 adds, as a share of what the part gives). Try "
            f"{calibrate}--keep_float32={','.join(worst[:3])}, or --keep_float32=auto, which keeps "
            "as many as it takes; --no_verify writes it all the same"
        )


def agreement(kind: str | None, expected: Sequence[Any], got: Sequence[Any]) -> float:
    """Returns how far two models say the same, 0 to 1.

    Args:
      kind: of their task; "scoring": of one output; None: they give vectors.
      expected: what one said of each input, as the runtime's classes give it.
      got: what the other said.

    Raises:
      ValueError: neither tagger finds an entity, which says nothing of either.
    """
    if kind == "tagging":
        ours, others = (
            {(number, *span[:3]) for number, spans in enumerate(each) for span in spans}
            for each in (expected, got)
        )
        if not ours and not others:
            raise ValueError(
                f"the model finds no entity in {len(expected):,} texts, so that int8 cannot be "
                "compared with it; give texts of its task with --data=... or --texts=FILE.txt, or "
                "leave the comparison out: --no_verify"
            )
        return 2 * len(ours & others) / (len(ours) + len(others))  # F1 of one against the other
    if kind is None:
        expected, got = np.asarray(expected, np.float64), np.asarray(got, np.float64)
        if len(expected) > 1:
            mean = expected.mean(axis=0)
            expected, got = expected - mean, got - mean
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
        cosines = (expected * got).sum(axis=1) / np.maximum(lengths, 1e-12)
        return float(np.nan_to_num(cosines, nan=0.0).mean())
    if kind == "scoring":
        expected, got = (np.array([each.score for each in all_]) for all_ in (expected, got))
        if np.ptp(expected) == 0 or np.ptp(got) == 0:  # of which there is no correlation
            return float(np.allclose(expected, got, rtol=0, atol=1 - LEAST_AGREEMENT))
        return float(np.corrcoef(expected, got)[0, 1])
    if kind == "answering":  # the best one's place; of an empty context there is none
        expected, got = (
            [[one[:3] for one in each[:1]] for each in all_] for all_ in (expected, got)
        )
    else:
        expected, got = ([each.label for each in all_] for all_ in (expected, got))
    return sum(one == other for one, other in zip(expected, got, strict=True)) / len(expected)


def example_of(served: Any, inputs: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Returns a short input, of which the model has something to say, and what it says as JSON."""
    short = [each for each in inputs[:100] if len(each if isinstance(each, str) else each[1]) < 300]
    chosen = short or list(inputs[:1])
    said = list(served(chosen))
    number = next((number for number, each in enumerate(said) if np.size(each)), 0)
    return chosen[number], models.as_json(said[number])


def _kind_of(task):
    if task is None:
        return None
    return "scoring" if task.activation else task.kind


def _texts(inputs):
    """Returns the texts of pairs, one after the other, as a net reads them."""
    return [each if isinstance(each, str) else " ".join(each) for each in inputs]


def _session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open(model, folder):
    """Returns the export as the runtime serves it."""
    try:
        return models.open_model(folder)
    except ValueError as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), "it")
        raise ValueError(
            f"--model={model.source} would be an export that `python -m edad_jax.runtime` cannot "
            f"serve: {reason}. Nothing was written; for another runtime: --no_verify"
        ) from error
