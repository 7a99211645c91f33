# SPDX-License-Identifier: Apache-2.0
"""Text that a model is for, taken from the run that left it: to compare its exports on."""

import itertools

import numpy as np
from ml_collections import ConfigDict

from edad_jax.data.text.reading import ReadReport
from edad_jax.data.text.source import read_text
from edad_jax.export import formats
from edad_jax.tasks.data.questions import Question
from edad_jax.tasks.data.splits import choose
from edad_jax.tasks.data.tagged import TaggedSentence
from edad_jax.tasks.exported import TASKS, config_of_run, read_texts, reading_of_run

Inputs = list[str] | list[tuple[str, str]]


def own_inputs(
    model: formats.Model,
    rows: int,
    *,
    data: str = "",
    texts: str = "",
    text_key: str = "",
    label_key: str = "",
) -> Inputs:
    """Returns some texts that a model is for, or (question, context); [] where none is known.

    Of the task's data they are of the validation split, which has chosen the model but not trained
    it, and which no score is told of. Without `data` and `texts` they are what the run read that
    left the model: its task's data, or the first lines of its text.

    Args:
      model: the trained one.
      rows: how many at most; of data, a random choice.
      data: of the model's task, as launch/finetune.py takes it.
      texts: a .txt file, or tagged data; for want of `data`.
      text_key: column of the text of labelled texts; "": the obvious one.
      label_key: column of their label, likewise.

    Raises:
      ValueError: what is given here cannot be read, or is nothing that the model reads. What a
        run names may be gone, or out of reach.
    """
    if data and model.task is None:
        raise ValueError(
            f"got data={data} for {model.source}, an encoder without a task; expected texts=, a "
            ".txt file or tagged data"
        )
    if data:
        return _of_task(model, data, rows, text_key=text_key, label_key=label_key)
    if texts and model.task is not None and model.task.kind == "answering":
        raise ValueError(
            f"got texts={texts} for {model.source}, which answers questions; expected data=, "
            "questions with their contexts"
        )
    if texts:
        return list(read_texts(texts, rows))
    recorded = config_of_run(model.source)
    try:
        if model.task is not None and recorded.get("data"):
            keys = {name: recorded.get(name) or "" for name in ("text_key", "label_key")}
            return _of_task(model, recorded["data"], rows, **keys)
        if model.task is None and recorded.get("corpus"):
            documents = read_text(ConfigDict(recorded["corpus"]), ReadReport())
            lines = (line for each in documents for line in each.splitlines() if line.strip())
            return list(itertools.islice(lines, rows))
    except (OSError, ValueError, KeyError, AttributeError):  # moved since, of another version, ...
        return []
    return []


def _of_task(model, data, rows, **columns):
    task = TASKS[model.task.kind]
    columns = columns if task.has_columns else {}
    splits, _ = task.read(data, **columns, **reading_of_run(model.source))
    examples = choose(splits["validation"], rows, np.random.default_rng(0))
    return [_input_of(example) for example in examples]


def _input_of(example):
    if isinstance(example, TaggedSentence):
        return " ".join(example.words)
    if isinstance(example, Question):
        return example.question, example.context
    return example.text
