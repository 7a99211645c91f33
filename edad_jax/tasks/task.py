# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning asks of a task."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks.rows import TaskRows, name_labels, teach_words


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """How a task reads its data, what it asks a net, and how it scores the answers.

    A new task gives the class variables and the abstract methods; a Kind of the same name in
    `models.task.KINDS`, which says what sits on the encoder; and its place in `setup.TASKS`. Its
    own settings are fields, called as in the configuration, and it checks them in __post_init__.

    An example is whatever `read` returns. What stands here already is for tasks that give every
    word of an example a label, of which a whole text is one.
    """

    name: ClassVar[str]  # config.task
    headline: ClassVar[str]  # the score that chooses the best epoch, a key of `score`
    examples: ClassVar[str]  # what the log calls them
    labelled: ClassVar[str] = "examples"  # and what it calls that which `labels_of` has labels of
    temperature: ClassVar[float] = 1.0  # of soft labels, where config.temperature is None
    # (rows, rows of a teacher, its logits, its number of each class) -> rows with soft labels.
    teach: ClassVar[Callable[..., TaskRows]] = staticmethod(teach_words)

    def configured(self, config: ConfigDict) -> Self:
        """Returns the task with the settings of a run.

        Raises:
          ValueError: settings that cannot be used.
        """
        names = [field.name for field in dataclasses.fields(self)]
        return dataclasses.replace(self, **{name: config[name] for name in names})

    @abc.abstractmethod
    def read(self, config: ConfigDict) -> tuple[dict[str, list[Any]], ReadReport]:
        """Returns {"train", "validation", maybe "test"}, and what the reader has to say."""

    def labels_of(self, example: Any) -> Sequence[str]:
        """Returns what of an example has a class, by its class: what splits are compared by."""
        del example
        return ()

    @abc.abstractmethod
    def label_names(self, examples: Sequence[Any]) -> tuple[str, ...]:
        """Returns the names of the classes, given the training examples."""

    @abc.abstractmethod
    def rows(
        self,
        examples: Sequence[Any],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        max_length: int,
    ) -> TaskRows:
        """Returns the rows; a label that `labels` lacks is asked for nowhere, but scored."""

    def decode(
        self,
        examples: Sequence[Any],
        rows: TaskRows,
        logits: Sequence[np.ndarray],
        labels: Sequence[str],
    ) -> list[Any]:
        """Returns a prediction for each example: here the likeliest label of each of its words."""
        del examples
        return name_labels(rows, logits, labels)

    @abc.abstractmethod
    def score(
        self,
        examples: Sequence[Any],
        predicted: Sequence[Any],
        rows: TaskRows,
        labels: Sequence[str],
    ) -> Mapping[str, Any]:
        """Returns all scores of a split, as JSON; those of `result.AVERAGED` lie in [0, 1]."""

    @abc.abstractmethod
    def quick_score(self, examples: Sequence[Any], predicted: Sequence[Any]) -> float:
        """Returns the headline alone."""

    @abc.abstractmethod
    def write_predictions(
        self, path: Path, examples: Sequence[Any], predicted: Sequence[Any]
    ) -> None:
        """Writes the predictions of a split beside its examples, as a .tsv."""
