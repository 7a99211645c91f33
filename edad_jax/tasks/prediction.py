# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned net says of every row: its logits, and those of a teacher."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerFast

from edad_jax.models import pretrained
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.tasks.rows import TaskRows, ordered_batches
from edad_jax.tasks.step import TaskNet, make_prediction_step

# (parameters with the seeds of a group in front, rows) -> for each seed and row, float32 logits
# [label positions, classes].
Predict = Callable[[dict, TaskRows], list[list[np.ndarray]]]


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


def teacher_logits(
    directory: str,
    examples: Sequence,
    make_rows: Callable[..., TaskRows],
    tokenizer: PreTrainedTokenizerFast,
    *,
    kind: str,
    labels: Sequence[str],
    precision: Sequence,
    batch_size: int,
    max_length: int,
) -> tuple[TaskRows, list[np.ndarray], list[int]]:
    """Returns the rows a fine-tuned teacher reads, its logits, its number of each of our classes.

    The teacher reads each example once, without dropout. It may have another vocabulary than the
    student, and its labels another order.

    Args:
      directory: of the teacher: a folder of launch/finetune.py, or a fine-tuned BERT.
      examples: of the training split.
      make_rows: (examples, tokenizer, labels, max_length=) -> rows, of the task.
      tokenizer: the teacher's.
      kind: name of the task.
      labels: of the student, in its order.
      precision: types of activations and of products.
      batch_size: rows that the teacher reads at once.
      max_length: pieces of a row at most.

    Raises:
      ValueError: the teacher does another task, or knows other labels.
    """
    sizes, params, task = pretrained.load_task_model(directory)
    # Others do not name the classes of an answer; the first is always where it starts.
    names = tuple(labels) if task.kind == "answering" and len(task.labels) == 2 else task.labels
    if task.kind != kind or set(names) != set(labels):
        raise ValueError(
            f"config.teacher={directory} is a {task.kind} model of {sorted(names)}, "
            f"expected {kind} of {sorted(labels)}; fine-tune it on the same data"
        )
    if len(tokenizer) != sizes.vocab_size or max_length > sizes.base.max_position_embeddings:
        raise ValueError(
            f"config.teacher={directory}: got a tokenizer of {len(tokenizer)} pieces, a word table "
            f"of {sizes.vocab_size} and {sizes.base.max_position_embeddings} positions; expected "
            f"as many words as pieces, and config.max_length={max_length} positions or more"
        )
    net = TaskNet(kind, ExBert(sizes, *precision), Classifier(sizes.base, len(names), *precision))
    rows = make_rows(examples, tokenizer, names, max_length=max_length)
    predict = make_predictor(net, batch_size=batch_size, max_length=max_length)
    (logits,) = predict(jax.tree.map(lambda x: x[None], params), rows)
    return rows, logits, [names.index(label) for label in labels]
