# SPDX-License-Identifier: Apache-2.0
"""Tagging: a label for each word, scored by entities."""

import itertools
from collections.abc import Sequence

from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks import scores
from edad_jax.tasks.data.tagged import TaggedSentence, read_tagged, write_predictions
from edad_jax.tasks.rows import NO_LABEL, TaskRows, tagging_rows
from edad_jax.tasks.task import Task


class Tagging(Task):
    """Two-column files or a data set of tagged words; entity-level micro F1 is the headline."""

    name = "tagging"
    headline = "f1"
    examples = "sentences"
    labelled = "entities"
    write_predictions = staticmethod(write_predictions)

    def read(self, config: ConfigDict) -> tuple[dict[str, list[TaggedSentence]], ReadReport]:
        """Returns what `read_tagged` does."""
        return read_tagged(
            config.data,
            encoding=config.encoding,
            word_key=config.text_key,
            tag_key=config.label_key,
            seed=config.split_seed,
            dataset_config=config.dataset_config,
            allow_skipped_test=config.allow_skipped_test,
        )

    def labels_of(self, example: TaggedSentence) -> list[str]:
        """Returns the type of each entity."""
        return [tag[2:] for tag in example.tags if tag[0] == "B"]

    def label_names(self, examples: Sequence[TaggedSentence]) -> tuple[str, ...]:
        """Returns the tags that occur, O first, B- and I- of a type together."""
        seen = set(itertools.chain.from_iterable(sentence.tags for sentence in examples))
        return ("O", *sorted(seen - {"O"}, key=lambda tag: (tag[2:], tag)))

    def rows(
        self,
        examples: Sequence[TaggedSentence],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        max_length: int,
    ) -> TaskRows:
        """Returns rows of whole words."""
        number = {label: index for index, label in enumerate(labels)}
        return tagging_rows(
            [sentence.words for sentence in examples],
            [[number.get(tag, NO_LABEL) for tag in sentence.tags] for sentence in examples],
            tokenizer,
            max_length=max_length,
        )

    def score(
        self,
        examples: Sequence[TaggedSentence],
        predicted: Sequence[Sequence[str]],
        rows: TaskRows,
        labels: Sequence[str],
    ) -> dict:
        """Returns entity scores by seqeval, and the figure that the paper's code computes."""
        gold = [sentence.tags for sentence in examples]
        unseen = set(itertools.chain.from_iterable(gold)) - set(labels)
        every = [*labels, *sorted(unseen)]
        return scores.entity_scores(gold, predicted) | {
            "paper_metric": scores.paper_metric(gold, predicted, rows.pieces_per_word, every)
        }

    def quick_score(
        self, examples: Sequence[TaggedSentence], predicted: Sequence[Sequence[str]]
    ) -> float:
        """Returns micro F1 of entities."""
        return scores.entity_scores([each.tags for each in examples], predicted)[self.headline]
