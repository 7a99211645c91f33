# SPDX-License-Identifier: Apache-2.0
"""An exported model at work, with numpy, onnxruntime and tokenizers alone.

    for spans in Tagger("runs/ner/onnx")(["Cisplatin caused renal failure."]):
        print(spans)

Texts of any length and kind are taken: they are cut into overlapping windows, each piece is judged
in the window that shows most of what surrounds it, and what comes out names characters of the text
as it was given.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.runtime import answers, windows
from edad_jax.runtime.readings import (
    POOLINGS,
    Finished,
    LabelReading,
    MeanReading,
    PositionReading,
    Reading,
    Row,
    VectorReading,
    rows_of_pair,
    softmax,
)
from edad_jax.runtime.session import MODEL_FILE, ExportedModel, read_config, read_labels
from edad_jax.runtime.spans import Span, join_words

__all__ = [
    "MODEL_FILE",
    "Answer",
    "Answers",
    "Classifier",
    "Encoder",
    "Prediction",
    "QuestionAnswerer",
    "Score",
    "Scorer",
    "Span",
    "Tagger",
    "as_json",
    "open_model",
]


class Prediction(NamedTuple):
    """The likeliest class of a text."""

    label: str
    score: float
    scores: dict[str, float]  # probability of every class


class Score(NamedTuple):
    """What a model with one output says of a text, or of a pair of texts."""

    score: float


class Tagger(ExportedModel):
    """Finds entities: yields the list of Span of each text."""

    architecture = "ForTokenClassification"

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self.labels = read_labels(self.config)
        odd = [label for label in self.labels if not re.fullmatch("O|[BIES]-.+", label)]
        if odd:
            raise ValueError(
                f"{directory}: got labels {odd}, expected O and B-, I-, E- or S- with a type; "
                "name them in config.json's id2label"
            )

    def tag_words(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns a label for each word of sentences that have been cut into words already."""
        readings, firsts = [], []
        for words in sentences:
            # With the blanks between words, which some tokenizers have in their pieces.
            texts = [f" {word}" if number and word else word for number, word in enumerate(words)]
            of_words = [self.tokenize(text).ids if text else () for text in texts]
            of_words = [ids if len(ids) else np.array([self._unknown]) for ids in of_words]
            sizes = np.array([len(ids) for ids in of_words], np.int64)
            firsts.append(np.cumsum(sizes) - sizes)
            ids = np.concatenate([np.zeros(0, np.int64), *of_words])
            readings.append(LabelReading(self.rows_of(ids), len(ids)))
        self.read(readings)
        return [
            [self.labels[number] for number in reading.numbers[first]]
            for reading, first in zip(readings, firsts, strict=True)
        ]

    def begin(self, item: str) -> Reading:
        """Returns a text under way."""
        pieces = self.tokenize(item)

        def join(found):
            numbers, scores = found
            firsts = np.flatnonzero(pieces.is_first)
            lasts = np.append(firsts[1:], len(pieces.ids))[: len(firsts)] - 1
            return join_words(
                item,
                [self.labels[number] for number in numbers[firsts]],
                pieces.starts[firsts].tolist(),
                pieces.ends[lasts].tolist(),
                scores[firsts].tolist(),
            )

        ids = pieces.ids
        return Finished(LabelReading(self.rows_of(ids), len(ids)), join)


class Classifier(ExportedModel):
    """Tells the class: yields a Prediction for each text, the mean over its windows."""

    architecture = "ForSequenceClassification"

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self.labels = read_labels(self.config)
        if len(self.labels) == 1:
            raise ValueError(
                f"{directory} has one output, a score, expected a model with classes; open it as "
                "a Scorer"
            )

    def begin(self, item: str) -> Reading:
        """Returns a text under way."""

        def name(probabilities):
            named = dict(zip(self.labels, probabilities.tolist(), strict=True))
            label = self.labels[int(probabilities.argmax())]
            return Prediction(label, named[label], named)

        ids = self.tokenize(item).ids
        return Finished(MeanReading(self.rows_of(ids), len(ids), softmax), name)


class Scorer(ExportedModel):
    """Gives a Score to each text, or pair of texts: cross-encoders, and models of a number.

    The score is the net's one output, or its sigmoid, as the model's own files say (`read_task` in
    models/task.py): config.json of the export has it. A pair is read as one,
    [CLS] first [SEP] second [SEP]. What is longer than a window, which is as long as the model has
    positions here, up to 512, is read in several, of which the mean is taken; of a pair the second
    text is cut up then, and the first is read up to half a window in each.
    """

    architecture = "ForSequenceClassification"
    usual_length = 512

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        named = read_labels(self.config)
        function = (self.config.get("sentence_transformers") or {}).get("activation_fn", "")
        name = function.rpartition(".")[2]
        if len(named) != 1 or name not in _ACTIVATIONS:
            raise ValueError(
                f"{directory}: got {len(named)} outputs and activation_fn={function!r} in "
                f"config.json, expected one output and {' or '.join(_ACTIVATIONS)}; export the "
                "model again"
            )
        self.activation = _ACTIVATIONS[name]

    def begin(self, item: str | tuple[str, str]) -> Reading:
        """Returns a text, or a pair of them, under way."""
        if isinstance(item, str):
            ids = self.tokenize(item).ids
            rows, pieces = self.rows_of(ids), len(ids)
        else:
            first, second = (self.tokenize(text).ids for text in item)
            pieces = len(first) + len(second)
            if pieces + 3 <= self.max_length:
                of_second = windows.split_windows(0, len(second), max(len(second), 1), 0)
            else:
                first, of_second = self._lay_out(first, second, self.max_length)
            rows = rows_of_pair(first, second, self.ends, list(of_second))
        return Finished(MeanReading(rows, pieces, lambda logits: logits), self._tell)

    def _tell(self, logits):
        return Score(float(self.activation(logits[0])))


_ACTIVATIONS = {"Identity": lambda x: x, "Sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x))}


class Encoder(ExportedModel):
    """Yields a vector for each text, float32 [width].

    How it is made of the pieces' last hidden states the model's own files say where it is one of
    sentence-transformers (modules.json, kept by launch/export.py in config.json as
    `sentence_pooling`): mean, [CLS] alone, largest numbers; of length 1 or as it is; and of how
    many pieces a window is. Of others it is the mean over all pieces, [CLS] and [SEP] among them,
    as it is, in windows of 128. A text that is longer than a window is read in several. Any
    exported encoder will do.
    """

    outputs = ("last_hidden_state",)

    def __init__(self, directory: str | os.PathLike[str], *, max_length: int = 0, **options: Any):
        config = read_config(Path(directory).expanduser())
        said = {"mode": "mean", "normalize": False} | (config.get("sentence_pooling") or {})
        self.pooling, self.is_normalized = said["mode"], bool(said["normalize"])
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"{directory}: config.json says a pooling of {self.pooling!r}, expected one of "
                f"{', '.join(POOLINGS)}; export the model again"
            )
        super().__init__(directory, max_length=max_length or said.get("max_length", 0), **options)

    def begin(self, item: str) -> Reading:
        """Returns a text under way."""
        ids = self.tokenize(item).ids
        return VectorReading(
            self.rows_of(ids), len(ids), self.pooling, is_normalized=self.is_normalized
        )


class Answers(list):
    """The best Answer first."""


class Answer(NamedTuple):
    """An answer to a question: context[start:end]."""

    text: str
    start: int
    end: int
    score: float  # its share among the answers that were considered


class QuestionAnswerer(ExportedModel):
    """Answers questions from contexts: yields the list of the best Answer of each pair.

    Answers are as in SQuAD 1.1, parts of the context; an empty context has none.

    Args:
      directory: what launch/export.py wrote.
      top_k: how many answers to give.
      max_answer_length: pieces of an answer at most.
      max_query_length: pieces of a question that are read; half a window at most.
      options: as for the other models.
    """

    architecture = "ForQuestionAnswering"
    outputs = ("start_logits", "end_logits")

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        top_k: int = 1,
        max_answer_length: int = 30,
        max_query_length: int = 64,
        **options: Any,
    ):
        super().__init__(directory, **options)
        if min(top_k, max_answer_length, max_query_length) < 1:
            raise ValueError(
                f"got top_k={top_k}, max_answer_length={max_answer_length}, "
                f"max_query_length={max_query_length}, expected 1 or more"
            )
        self.top_k, self.max_answer_length = top_k, max_answer_length
        self.max_query_length = max_query_length

    def begin(self, item: tuple[str, str]) -> Reading:
        """Returns a (question, context) under way."""
        question, context = item
        asked, pieces = self.tokenize(question).ids, self.tokenize(context)
        rows: list[Row] = []
        if len(pieces.ids):
            kept, of_context = self._lay_out(asked, pieces.ids, self.max_query_length)
            rows = rows_of_pair(kept, pieces.ids, self.ends, of_context)

        def choose(judged):
            found = answers.find_answers(
                judged,
                pieces,
                n_best=answers.N_BEST,
                max_answer_length=self.max_answer_length,
                most=max(answers.N_BEST, self.top_k),
            )
            shares = softmax(np.array([one.score for one in found])) if found else ()
            return Answers(
                Answer(context[one.start : one.end], one.start, one.end, round(float(share), 4))
                for one, share in list(zip(found, shares, strict=True))[: self.top_k]
            )

        return Finished(PositionReading(rows, len(asked) + len(pieces.ids)), choose)


KINDS = {kind.architecture: kind for kind in (Tagger, Classifier, QuestionAnswerer)}


def open_model(directory: str | os.PathLike[str], **options: Any) -> ExportedModel:
    """Returns the model of the kind that config.json says; options are those of its class.

    Raises:
      ValueError: as they do.
    """
    config = read_config(Path(directory).expanduser())
    architecture = (config.get("architectures") or [""])[0]
    kind = next((KINDS[end] for end in KINDS if architecture.endswith(end)), Encoder)
    if kind is Classifier and len(config.get("id2label") or ()) == 1:
        kind = Scorer
    return kind(directory, **options)


def as_json(result: Any) -> dict[str, Any]:
    """Returns what a model yields as an object of JSON."""
    if isinstance(result, np.ndarray):
        return {"vector": [round(float(number), 6) for number in result]}
    if isinstance(result, Prediction | Score):
        return result._asdict()
    name = "answers" if isinstance(result, Answers) else "entities"
    return {
        name: [
            part._replace(text=windows.without_surrogates(part.text))._asdict() for part in result
        ]
    }
