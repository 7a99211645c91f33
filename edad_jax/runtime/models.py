# SPDX-License-Identifier: Apache-2.0
"""An exported model at work, with numpy, onnxruntime and tokenizers alone.

    for spans in Tagger("runs/ner/onnx")(["Cisplatin caused renal failure."]):
        print(spans)

Texts of any length and kind are taken: they are cut into overlapping windows, each piece is judged
in the window that shows most of what surrounds it, and what comes out names characters of the text
as it was given.
"""

import abc
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.runtime import answers, windows
from edad_jax.runtime.session import MODEL_FILE, ExportedModel, read_config, read_labels, softmax
from edad_jax.runtime.spans import Span, join_words

__all__ = [
    "MODEL_FILE",
    "Answer",
    "Answers",
    "Classifier",
    "Encoder",
    "Prediction",
    "QuestionAnswerer",
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


class _TextModel(ExportedModel, abc.ABC):
    """One that judges texts, each for itself."""

    def __call__(self, texts: Iterable[str]) -> Iterator[Any]:
        """Yields what the model makes of each text; memory does not grow with their number."""
        for chunk in windows.chunks(texts):
            yield from self._judge(chunk, [self.tokenize(text) for text in chunk])

    @abc.abstractmethod
    def _judge(self, texts, pieces):
        """Yields what the model makes of each text."""


class Tagger(_TextModel):
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
        pieces, firsts = [], []
        for words in sentences:
            # With the blanks between words, which some tokenizers have in their pieces.
            texts = [f" {word}" if number and word else word for number, word in enumerate(words)]
            of_words = [self.tokenize(text).ids if text else () for text in texts]
            of_words = [ids if len(ids) else np.array([self._unknown]) for ids in of_words]
            sizes = np.array([len(ids) for ids in of_words], np.int64)
            first = np.cumsum(sizes) - sizes
            ids = np.concatenate([np.zeros(0, np.int64), *of_words])
            pieces.append(windows.Pieces(ids, ids, ids, np.isin(np.arange(len(ids)), first)))
            firsts.append(first)
        best = self._label_pieces(pieces)
        return [
            [self.labels[number] for number in numbers[first]]
            for (numbers, _), first in zip(best, firsts, strict=True)
        ]

    def _judge(self, texts, pieces):
        for text, of_text, (numbers, scores) in zip(
            texts, pieces, self._label_pieces(pieces), strict=True
        ):
            firsts = np.flatnonzero(of_text.is_first)
            lasts = np.append(firsts[1:], len(of_text.ids))[: len(firsts)] - 1
            yield join_words(
                text,
                [self.labels[number] for number in numbers[firsts]],
                of_text.starts[firsts].tolist(),
                of_text.ends[lasts].tolist(),
                scores[firsts].tolist(),
            )

    def _label_pieces(self, pieces):
        """Returns (label number, probability) of every piece of every text."""
        best = [(np.zeros(len(p.ids), np.int64), np.zeros(len(p.ids), np.float32)) for p in pieces]
        for window, logits in self.run_windows(pieces, "logits"):
            kept = slice(window.keep_start, window.keep_end)
            best[window.text_index][0][kept] = logits.argmax(-1)
            best[window.text_index][1][kept] = softmax(logits).max(-1)
        return best


class Classifier(_TextModel):
    """Tells the class: yields a Prediction for each text, the mean over its windows."""

    architecture = "ForSequenceClassification"

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self.labels = read_labels(self.config)

    def _judge(self, texts, pieces):
        sums, counts = np.zeros((len(texts), len(self.labels))), np.zeros((len(texts), 1))
        for window, logits in self.run_windows(pieces, "logits"):
            sums[window.text_index] += softmax(logits)
            counts[window.text_index] += 1
        for scores in sums / counts:
            named = dict(zip(self.labels, scores.tolist(), strict=True))
            label = self.labels[int(scores.argmax())]
            yield Prediction(label, named[label], named)


class Encoder(_TextModel):
    """Yields a vector for each text, float32 [width]: the mean of its pieces' last hidden states.

    Any exported encoder will do; a text without pieces gives zeros.
    """

    outputs = ("last_hidden_state",)

    def _judge(self, texts, pieces):
        sums = np.zeros((len(texts), self.config["hidden_size"]), np.float64)
        for window, hidden in self.run_windows(pieces, "last_hidden_state"):
            sums[window.text_index] += hidden.sum(axis=0, dtype=np.float64)
        counts = np.array([[max(len(text.ids), 1)] for text in pieces])
        yield from (sums / counts).astype(np.float32)


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

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Answers]:
        """Yields the best answers to each (question, context).

        Memory does not grow with their number; windows of several pairs are read together.
        """
        for chunk in windows.chunks(pairs):
            contexts = [self.tokenize(context) for _, context in chunk]
            judged = self._judge([self.tokenize(question).ids for question, _ in chunk], contexts)
            for (_, context), pieces, seen in zip(chunk, contexts, judged, strict=True):
                found = answers.find_answers(
                    seen,
                    pieces,
                    n_best=answers.N_BEST,
                    max_answer_length=self.max_answer_length,
                    most=max(answers.N_BEST, self.top_k),
                )
                shares = softmax(np.array([one.score for one in found])) if found else ()
                yield Answers(
                    Answer(context[one.start : one.end], one.start, one.end, round(float(share), 4))
                    for one, share in list(zip(found, shares, strict=True))[: self.top_k]
                )

    def _judge(self, questions, contexts):
        """Returns for each pair its (window, logits of starts, logits of ends), in any order."""
        rows = []  # of all pairs: number, [CLS] question [SEP], window
        for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
            if not len(context.ids):
                continue
            question, of_context = answers.lay_out(
                question,
                len(context.ids),
                max_length=self.max_length,
                max_query_length=self.max_query_length,
                overlap=self.overlap,
            )
            before = [self._cls, *question, self._sep]
            rows += [(number, before, window) for window in of_context]
        rows.sort(key=lambda row: len(row[1]) + row[2].end - row[2].start)  # little padding
        judged = [[] for _ in contexts]
        for begin in range(0, len(rows), self.batch_size):
            batch = rows[begin : begin + self.batch_size]
            ids = [
                [*before, *contexts[n].ids[w.start : w.end], self._sep] for n, before, w in batch
            ]
            inputs = windows.feed(ids, [len(before) for _, before, _ in batch])
            outputs = self.session.run(list(self.outputs), inputs)
            for (number, before, window), starts, ends in zip(batch, *outputs, strict=True):
                inside = slice(len(before), len(before) + window.end - window.start)
                judged[number].append((window, starts[inside], ends[inside]))
        return judged


KINDS = {kind.architecture: kind for kind in (Tagger, Classifier, QuestionAnswerer)}


def open_model(directory: str | os.PathLike[str], **options: Any) -> ExportedModel:
    """Returns the model of the kind that config.json says; options are those of its class.

    Raises:
      ValueError: as they do.
    """
    architecture = (read_config(Path(directory).expanduser()).get("architectures") or [""])[0]
    kind = next((KINDS[end] for end in KINDS if architecture.endswith(end)), Encoder)
    return kind(directory, **options)


def as_json(result: Any) -> dict[str, Any]:
    """Returns what a model yields as an object of JSON."""
    if isinstance(result, np.ndarray):
        return {"vector": [round(float(number), 6) for number in result]}
    if isinstance(result, Prediction):
        return result._asdict()
    name = "answers" if isinstance(result, Answers) else "entities"
    return {
        name: [
            part._replace(text=windows.without_surrogates(part.text))._asdict() for part in result
        ]
    }
