# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned net says of every row: its logits, and those of a teacher."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.models import pretrained
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.models.precision import resolve_precision
from edad_jax.tasks.rows import TaskRows, ordered_batches
from edad_jax.tasks.setup import Predict, Prepared
from edad_jax.tasks.step import TaskNet, make_prediction_step


def make_predictor(net: TaskNet, *, batch_size: int, max_length: int) -> Predict:
    """Returns predict(params, rows), without dropout, in batches of rows of about one length."""
    step = jax.jit(make_prediction_step(net))

    def predict(params: dict, rows: TaskRows) -> list[list[np.ndarray]]:
        params = jax.tree.map(jnp.asarray, params)  # once, not with every batch
        seeds = jax.tree.leaves(params)[0].shape[0]
        found = [[None] * len(rows) for _ in range(seeds)]
        for numbers, batch in ordered_batches(rows, batch_size=batch_size, max_length=max_length):
            logits_sbnc = np.asarray(step(params, batch._replace(teacher_bnc=None)))
            for place, number in enumerate(numbers):
                for seed in range(seeds):
                    positions = len(rows.labels[number])
                    found[seed][number] = logits_sbnc[seed, place, :positions]
        return found

    return predict


def ask_teacher(config: ConfigDict, prepared: Prepared) -> TaskRows:
    """Returns the training rows with the soft labels of config.teacher.

    The teacher reads each example once, without dropout. It may have another vocabulary than the
    student, and its labels another order.

    Raises:
      ValueError: the teacher does another task, or knows other labels.
    """
    directory, labels, max_length = config.teacher, prepared.labels, config.max_length
    tokenizer = load_tokenizer(directory, option="--config.teacher=/a/local/folder")
    sizes, params, task = pretrained.load_task_model(directory)
    sizes, params = pretrained.cut_padding(sizes, params, len(tokenizer), directory)
    # Others do not name the classes of an answer; the first is always where it starts.
    names = labels if task.kind == "answering" and len(task.labels) == 2 else task.labels
    if task.kind != config.task or set(names) != set(labels):
        raise ValueError(
            f"config.teacher={directory} is a {task.kind} model of {sorted(names)}, "
            f"expected {config.task} of {sorted(labels)}; fine-tune it on the same data"
        )
    if len(tokenizer) != sizes.vocab_size or max_length > sizes.base.max_position_embeddings:
        raise ValueError(
            f"config.teacher={directory}: got a tokenizer of {len(tokenizer)} pieces, a word table "
            f"of {sizes.vocab_size} and {sizes.base.max_position_embeddings} positions; expected "
            f"as many words as pieces, and config.max_length={max_length} positions or more"
        )
    precision = resolve_precision(config.dtype)
    net = TaskNet(
        config.task, ExBert(sizes, *precision), Classifier(sizes.base, len(names), *precision)
    )
    rows = prepared.task.rows(prepared.examples["train"], tokenizer, names, max_length=max_length)
    predict = make_predictor(net, batch_size=config.batch_size, max_length=max_length)
    (logits,) = predict(jax.tree.map(lambda x: x[None], params), rows)
    order = [names.index(label) for label in labels]
    return prepared.task.teach(prepared.rows["train"], rows, logits, order)
