# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning run begins with: settings, examples as rows, a net, parameters per seed."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from edad_jax.data.text.reading import ReadReport
from edad_jax.data.tokenizer import check_unknown
from edad_jax.models import init, pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier, make_pooler
from edad_jax.models.precision import resolve_precision
from edad_jax.tasks.answering import Answering
from edad_jax.tasks.classification import Classification
from edad_jax.tasks.data.label_sets import check_label_sets
from edad_jax.tasks.data.splits import SPLITS, choose
from edad_jax.tasks.rows import TaskRows
from edad_jax.tasks.step import OVER_SEEDS, TaskNet
from edad_jax.tasks.tagging import Tagging
from edad_jax.tasks.task import Task

LOG = logging.getLogger(__name__)
TASKS: dict[str, Task] = {task.name: task for task in (Tagging(), Classification(), Answering())}
SOFT_WEIGHT = 0.5  # where config.soft_weight is None

# (parameters with the seeds of a group in front, rows) -> for each seed and row, float32 logits
# [label positions, classes].
Predict = Callable[[dict, TaskRows], list[list[np.ndarray]]]


def resolve_settings(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a configuration, in which soft labels have the task's defaults.

    Raises:
      ValueError: what is wrong at first sight, before anything is read.
    """
    if config.task not in TASKS:
        raise ValueError(f"config.task={config.task!r} is not one of {', '.join(TASKS)}")
    for key, meaning in (
        ("model", "a folder in Hugging Face layout or a hub id"),
        ("data", "a folder with train, validation and test files, or a data set"),
    ):
        if not config[key]:
            raise ValueError(f"config.{key} is empty, expected {meaning}: give --config.{key}=...")
    for key in ("num_seeds", "epochs", "batch_size"):
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}, expected at least 1")
    if config.max_length < 8:
        raise ValueError(f"config.max_length={config.max_length}, expected at least 8 pieces")
    if config.over_seeds not in ("auto", *OVER_SEEDS):
        raise ValueError(
            f"config.over_seeds={config.over_seeds!r} is not one of auto, {', '.join(OVER_SEEDS)}"
        )
    resolve_precision(config.dtype)
    task = TASKS[config.task].configured(config)
    config = config.copy_and_resolve_references()
    for key, default in (("soft_weight", SOFT_WEIGHT), ("temperature", task.temperature)):
        if config.teacher and config[key] is None:
            config[key] = default
        elif not config.teacher and config[key] is not None:
            raise ValueError(
                f"config.{key}={config[key]!r} is read with a teacher only, and got none: it would "
                f"change nothing; leave it out, or give --config.teacher=FOLDER"
            )
    if config.teacher and (not 0 <= config.soft_weight <= 1 or config.temperature <= 0):
        raise ValueError(
            f"config.soft_weight={config.soft_weight} and temperature={config.temperature}: "
            "expected a weight between 0 and 1, and a temperature above 0"
        )
    return config


class Prepared(NamedTuple):
    """The examples of a run, and their rows, by split."""

    task: Task
    labels: tuple[str, ...]
    examples: dict[str, list]
    rows: dict[str, TaskRows]
    notes: dict[str, Any]  # what the readers had to say, as JSON

    def decode(self, split: str, predict: Predict, grouped: Iterable[dict]) -> list[list[Any]]:
        """Returns each seed's predictions of a split's examples.

        Args:
          split: whose examples.
          predict: of the net.
          grouped: parameters of groups of seeds, seeds in front.
        """
        examples, rows = self.examples[split], self.rows[split]
        return [
            self.task.decode(examples, rows, logits, self.labels)
            for params in grouped
            for logits in predict(params, rows)
        ]


def read_examples(config: ConfigDict) -> tuple[Task, dict[str, list], ReadReport, str]:
    """Returns the task, the examples of config.data, and what the reader and their labels say.

    Raises:
      ValueError: the data cannot be read, have one label only, or splits whose labels are not
        those of one task.
    """
    task = TASKS[config.task].configured(config)
    examples, report = task.read(config)
    notes = report.summary()
    for note in check_label_sets(config.data, examples, task.labels_of, labelled=task.labelled):
        LOG.warning("%s", note)
        notes += f"\n  {note}"
    given = task.label_names(examples["train"])
    random = np.random.default_rng(config.split_seed)
    for split in (name for name in SPLITS if name in examples):
        examples[split] = choose(examples[split], config[f"max_{split}"], random)
    labels = task.label_names(examples["train"])
    if left_out := [label for label in given if label not in labels]:
        named = ", ".join(left_out[:8]) + (", ..." if len(left_out) > 8 else "")
        notes += (
            f"\n  {len(left_out):,} x label unseen in training, since "
            f"config.max_train={config.max_train} left it out ({named})"
        )
    LOG.info("%s", notes)
    if len(labels) < 2:
        raise ValueError(
            f"{config.data}: got only one label to train on, {labels}; expected at least two"
        )
    return task, examples, report, notes


def prepare_examples(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> Prepared:
    """Returns the examples of config.data and their rows.

    Raises:
      ValueError: as `read_examples`, or the tokenizer does not know the texts.
    """
    task, examples, report, notes = read_examples(config)
    labels = task.label_names(examples["train"])
    rows = {
        split: task.rows(each, tokenizer, labels, max_length=config.max_length)
        for split, each in examples.items()
    }
    for split, each in rows.items():
        LOG.info(
            "%s: %s %s in %s rows%s",
            split,
            f"{len(examples[split]):,}",
            task.examples,
            f"{len(each):,}",
            "".join(f"; {count:,} {note}" for note, count in each.notes.items()),
        )
    pieces = {split: np.concatenate(each.ids) for split, each in rows.items() if len(each)}
    unknown = {
        split: float((ids == tokenizer.unk_token_id).mean()) for split, ids in pieces.items()
    }
    check_unknown(
        unknown,
        config.max_unknown_share,
        option="--config.max_unknown_share",
        advice="Give another --config.model or --config.encoding",
    )
    said = {
        "skipped": report.skipped,  # what scores are not of
        "unknown": unknown,
        "reader": notes.splitlines(),
        "rows": {split: r.notes for split, r in rows.items()},
    }
    return Prepared(task, labels, examples, rows, said)


def build_net(
    config: ConfigDict, prepared: Prepared, encoder: tuple[ExBertConfig, dict[str, Any]]
) -> tuple[TaskNet, list[dict]]:
    """Returns the net and the parameters of each seed.

    The encoder, as `load_encoder` returns it, is the same for all; each seed has a classifier of
    its own.
    """
    precision = resolve_precision(config.dtype)
    sizes, loaded = encoder
    net = TaskNet(
        config.task,
        ExBert(sizes, *precision),
        Classifier(sizes.base, len(prepared.labels), *precision),
    )

    def fresh(module: nn.Module, seed: int, **options: bool) -> dict:
        hidden_btd = jnp.zeros((1, 1, sizes.base.hidden_size))
        shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **options), hidden_btd)
        deviation = sizes.base.initializer_range
        return init.draw(shapes["params"], (seed,), deviation=deviation)

    params = []
    for seed in run_seeds(config):
        mine = loaded | {"classifier": fresh(net.classifier, seed, deterministic=True)}
        if "pooler" in net.parts and "pooler" not in mine:
            mine["pooler"] = fresh(make_pooler(sizes.base, *precision), seed)
        params.append({part: mine[part] for part in (*net.parts, "classifier") if part in mine})
    return net, params


def check_length(config: ConfigDict, sizes: ExBertConfig) -> None:
    """Raises ValueError where a model has fewer positions than rows have pieces."""
    if config.max_length > sizes.base.max_position_embeddings:
        raise ValueError(
            f"config.max_length={config.max_length}: the model has only "
            f"{sizes.base.max_position_embeddings} positions; choose at most that"
        )


def load_encoder(
    config: ConfigDict, vocab_size: int, *, with_pooler: bool = False
) -> tuple[ExBertConfig, dict[str, Any]]:
    """Returns sizes and parameters of config.model, whose tokenizer has so many pieces.

    Raises:
      ValueError: the model cannot be read, or has other words than its tokenizer.
    """
    sizes, params, _ = pretrained.load_encoder(
        config.model,
        with_pooler=with_pooler,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
    )
    sizes, params = pretrained.cut_padding(sizes, params, vocab_size, config.model)
    if sizes.vocab_size != vocab_size:
        raise ValueError(
            f"config.model={config.model}: its tokenizer has {vocab_size} pieces and its word "
            f"table {sizes.vocab_size} rows; put the tokenizer beside it that it was trained with"
        )
    return sizes, params


def run_seeds(config: ConfigDict) -> list[int]:
    """Returns the seeds of a run."""
    return list(range(config.seed, config.seed + config.num_seeds))
