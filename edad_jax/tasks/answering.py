# SPDX-License-Identifier: Apache-2.0
"""Question answering: the part of a context that answers."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from edad_jax.data.text.reading import ReadReport
from edad_jax.files import open_beside, write_json
from edad_jax.runtime.answers import N_BEST
from edad_jax.tasks.answer_scores import SCORINGS, answer_score, answer_scores
from edad_jax.tasks.data.questions import Question, read_questions
from edad_jax.tasks.question_rows import QuestionRows, best_answers, question_rows, teach_positions
from edad_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Answering(Task):
    """SQuAD's files or a data set of its form; F1 is the headline, exact match stands beside."""

    max_query_length: int = 64  # pieces of a question at most
    overlap: int = 128  # pieces that neighbouring windows of a context share
    n_best: int = N_BEST  # starts, and ends, of a window that are tried
    max_answer_length: int = 30  # pieces
    scoring: str = "squad"

    name = "answering"
    headline = "f1"
    examples = "questions"
    temperature = 2.0  # as in DistilBERT's second step
    teach = staticmethod(teach_positions)

    def __post_init__(self):
        """Raises ValueError for a setting that cannot be used."""
        for key, least in (
            ("max_query_length", 1),
            ("overlap", 0),
            ("n_best", 1),
            ("max_answer_length", 1),
        ):
            if getattr(self, key) < least:
                raise ValueError(f"config.{key}={getattr(self, key)}, expected at least {least}")
        if self.scoring not in SCORINGS:
            raise ValueError(f"config.scoring={self.scoring!r} is not one of {', '.join(SCORINGS)}")

    def read(self, config: ConfigDict) -> tuple[dict[str, list[Question]], ReadReport]:
        """Returns what `read_questions` does."""
        return read_questions(
            config.data,
            encoding=config.encoding,
            seed=config.split_seed,
            dataset_config=config.dataset_config,
            allow_skipped_test=config.allow_skipped_test,
        )

    def label_names(self, examples: Sequence[Question]) -> tuple[str, ...]:
        """Returns what is asked of every piece: how well an answer starts there, and ends there."""
        del examples
        return ("start", "end")

    def rows(
        self,
        examples: Sequence[Question],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        max_length: int,
    ) -> QuestionRows:
        """Returns the rows: a window of a context each."""
        del labels
        return question_rows(
            examples,
            tokenizer,
            max_length=max_length,
            max_query_length=self.max_query_length,
            overlap=self.overlap,
        )

    def decode(
        self,
        examples: Sequence[Question],
        rows: QuestionRows,
        logits: Sequence[np.ndarray],
        labels: Sequence[str],
    ) -> list[str]:
        """Returns the answer to every question: a part of its context as it was given."""
        del labels
        return best_answers(
            examples,
            rows,
            logits,
            n_best=self.n_best,
            max_answer_length=self.max_answer_length,
        )

    def score(
        self,
        examples: Sequence[Question],
        predicted: Sequence[str],
        rows: QuestionRows,
        labels: Sequence[str],
    ) -> dict:
        """Returns exact match and F1, and whose scoring this is."""
        del rows, labels
        gold = [example.gold_texts for example in examples]
        return answer_scores(predicted, gold, self.scoring) | {"scoring": self.scoring}

    def quick_score(self, examples: Sequence[Question], predicted: Sequence[str]) -> float:
        """Returns the mean F1."""
        gold = [example.gold_texts for example in examples]
        return answer_scores(predicted, gold, self.scoring)[self.headline]

    def write_predictions(
        self, path: Path, examples: Sequence[Question], predicted: Sequence[str]
    ) -> None:
        """Writes a tsv to read, and {id: answer} as .json, which the official scripts score."""
        with open_beside(path) as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("id", "question", "answer", "gold", "exact_match", "f1"))
            for example, answer in zip(examples, predicted, strict=True):
                gold = list(dict.fromkeys(example.gold_texts))
                score = answer_score(answer, gold, self.scoring)
                writer.writerow(
                    (
                        example.id,
                        example.question,
                        answer,
                        " | ".join(gold),
                        int(score.exact_match),
                        f"{score.f1:.3f}",
                    )
                )
        answers = {example.id: answer for example, answer in zip(examples, predicted, strict=True)}
        write_json(path.with_suffix(".json"), answers)
