# SPDX-License-Identifier: Apache-2.0
"""Classification: a label for each text."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks import scores
from edad_jax.tasks.data.labelled import LabelledText, read_labelled, write_predictions
from edad_jax.tasks.rows import NO_LABEL, TaskRows, classification_rows
from edad_jax.tasks.task import Task


class Classification(Task):
    """Labelled texts in csv, tsv, jsonl or a data set; accuracy is the headline."""

    name = "classification"
    headline = "accuracy"
    examples = "texts"
    labelled = "texts"

    def read(self, config: ConfigDict) -> tuple[dict[str, list[LabelledText]], ReadReport]:
        """Returns what `read_labelled` does."""
        return read_labelled(
            config.data,
            text_key=config.text_key,
            label_key=config.label_key,
            encoding=config.encoding,
            seed=config.split_seed,
            dataset_config=config.dataset_config,
            allow_skipped_test=config.allow_skipped_test,
        )

    def labels_of(self, example: LabelledText) -> list[str]:
        """Returns the text's label."""
        return [example.label]

    def label_names(self, examples: Sequence[LabelledText]) -> tuple[str, ...]:
        """Returns the labels that occur, sorted."""
        return tuple(sorted({example.label for example in examples}))

    def rows(
        self,
        examples: Sequence[LabelledText],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        max_length: int,
    ) -> TaskRows:
        """Returns a row for each text."""
        number = {label: index for index, label in enumerate(labels)}
        return classification_rows(
            [example.text for example in examples],
            [number.get(example.label, NO_LABEL) for example in examples],
            tokenizer,
            max_length=max_length,
        )

    def score(
        self,
        examples: Sequence[LabelledText],
        predicted: Sequence[Sequence[str]],
        rows: TaskRows,
        labels: Sequence[str],
    ) -> dict:
        """Returns accuracy, macro F1, the confusion matrix and each class's scores."""
        del rows
        gold = [example.label for example in examples]
        every = [*labels, *sorted(set(gold) - set(labels))]
        return scores.classification_scores(gold, [one for (one,) in predicted], every) | {
            "labels": every
        }

    def quick_score(
        self, examples: Sequence[LabelledText], predicted: Sequence[Sequence[str]]
    ) -> float:
        """Returns the accuracy."""
        right = sum(
            example.label == one for example, (one,) in zip(examples, predicted, strict=True)
        )
        return right / len(examples)

    def write_predictions(
        self, path: Path, examples: Sequence[LabelledText], predicted: Sequence[Sequence[str]]
    ) -> None:
        """Writes text, true and predicted label."""
        write_predictions(path, examples, [one for (one,) in predicted])
