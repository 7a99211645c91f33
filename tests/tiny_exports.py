# SPDX-License-Identifier: Apache-2.0
"""Tiny models in Hugging Face layout for tests: pretrained, or fine-tuned for a task."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edad_jax.export.card import ModelCard
from edad_jax.export.huggingface import save_model
from edad_jax.files import SUMS
from edad_jax.models.config import ExBertConfig
from edad_jax.models.task import Task
from tests.tiny_models import random_params, tiny_exbert_config

LABELS = ("O", "B-Drug", "I-Drug", "B-Gene")
CARD = ModelCard(
    title="A tiny student",
    summary="Made by a test.",
    data={"corpus": "none | nothing", "tokens": 0},
    settings={"alpha": "linear", "student": {"hidden_size": 24}},
    measured={"mlm_accuracy": 0.123456789},
    license="apache-2.0",
    language="en",
)


def write_words(folder: Path) -> Path:
    """Returns the folder of a tokenizer without tokenizer.json: 68 pieces, [PAD] is the second."""
    folder.mkdir()
    pieces = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(63))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "unrelated.bin").write_bytes(b"x")
    return folder


def labels_of(kind: str) -> tuple[str, ...]:
    """Returns the labels of the tiny models of a task."""
    return ("start", "end") if kind == "answering" else LABELS


def tuned(kind: str, **sizes: Any) -> tuple[ExBertConfig, dict[str, Any]]:
    """Returns (sizes, parameters) of a tiny fine-tuned model."""
    config = tiny_exbert_config(**sizes)
    params = random_params(config)
    heads = ("pooler",) if kind == "classification" else ()
    params = {part: params[part] for part in ("base", "extension", *heads) if part in params}
    random, labels = np.random.default_rng(1), len(labels_of(kind))
    kernel = random.standard_normal((24, labels)).astype(np.float32)
    bias = random.standard_normal(labels).astype(np.float32)
    return config, params | {"classifier": {"dense": {"kernel": kernel, "bias": bias}}}


def save(
    folder: Path,
    tokenizer_dir: Path,
    kind: str = "encoder",
    *,
    seed: int = 0,
    labels: tuple[str, ...] = (),
    blocks: bool = True,
    added_words: int = 7,
) -> tuple[ExBertConfig, dict[str, Any]]:
    """Returns (sizes, parameters) of a tiny model that now lies in a folder.

    Args:
      folder: where to.
      tokenizer_dir: has vocab.txt; the model has as many words.
      kind: of a task; "encoder": with the heads of pretraining.
      seed: of an encoder's parameters.
      labels: others than the usual ones.
      blocks: whether it has extension blocks.
      added_words: how many of its words are added ones.
    """
    words = len((tokenizer_dir / "vocab.txt").read_text(encoding="utf-8").splitlines())
    sizes = {"blocks": blocks, "added_words": added_words, "vocab_size": words - added_words}
    if kind == "encoder":
        config, task = tiny_exbert_config(**sizes), None
        params = random_params(config, seed)
    else:
        (config, params), task = tuned(kind, **sizes), Task(kind, labels or labels_of(kind))
    assert save_model(folder, params, config, tokenizer_dir, card=CARD, task=task) == folder
    return config, params


def tiny_model(folder: Path, *arguments: Any, **options: Any) -> str:
    """Returns the folder of a tiny model, as `save` leaves it."""
    save(folder, *arguments, **options)
    return str(folder)


def edit_json(path: Path, **changes: Any) -> None:
    """Changes values of a JSON file; None takes one away."""
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    path.with_name(SUMS).unlink(missing_ok=True)  # as its message says


def arrays_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns {name without its number: array} of a graph's constants."""
    return {
        each.name.rpartition(".")[0]: onnx.numpy_helper.to_array(each)
        for each in model.graph.initializer
    }
