# SPDX-License-Identifier: Apache-2.0
r"""An exported model at work, with numpy, onnxruntime and tokenizers alone.

    from edad_jax.export.runtime import Tagger
    for spans in Tagger("runs/ner/onnx")(["Cisplatin caused renal failure."]):
        print(spans)

    python -m edad_jax.export.runtime runs/ner/onnx < text.txt > spans.jsonl

Texts of any length and kind are taken: they are cut into overlapping windows, each piece is judged
in the window that shows most of what surrounds it, and what comes out names characters of the text
as it was given.
"""

import abc
import argparse
import itertools
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.export import windows
from edad_jax.export.reader import Answer, Answers, Reader
from edad_jax.export.session import (
    MODEL_FILE,
    ExportedModel,
    read_config,
    read_labels,
    softmax,
)
from edad_jax.export.spans import Span, join_words
from edad_jax.export.stream import Progress, read_lines, size_of

__all__ = [
    "MODEL_FILE",
    "Answer",
    "Answers",
    "Classifier",
    "Encoder",
    "Prediction",
    "Reader",
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
            yield from self._judge(chunk, [self.cut(text) for text in chunk])

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
            cut = [self.cut(word).ids if word else () for word in words]
            cut = [ids if len(ids) else np.array([self._unknown]) for ids in cut]
            sizes = np.array([len(ids) for ids in cut], np.int64)
            first = np.cumsum(sizes) - sizes
            ids = np.concatenate([np.zeros(0, np.int64), *cut])
            pieces.append(windows.Pieces(ids, ids, ids, np.isin(np.arange(len(ids)), first)))
            firsts.append(first)
        best = self._label_pieces(pieces)
        return [
            [self.labels[number] for number in numbers[first]]
            for (numbers, _), first in zip(best, firsts, strict=True)
        ]

    def _judge(self, texts, pieces):
        for text, cut, (numbers, scores) in zip(
            texts, pieces, self._label_pieces(pieces), strict=True
        ):
            firsts = np.flatnonzero(cut.is_first)
            lasts = np.append(firsts[1:], len(cut.ids))[: len(firsts)] - 1
            yield join_words(
                text,
                [self.labels[number] for number in numbers[firsts]],
                cut.starts[firsts].tolist(),
                cut.ends[lasts].tolist(),
                scores[firsts].tolist(),
            )

    def _label_pieces(self, pieces):
        """Returns (label number, probability) of every piece of every text."""
        best = [(np.zeros(len(p.ids), np.int64), np.zeros(len(p.ids), np.float32)) for p in pieces]
        for window, logits in self.run_windows(pieces, "logits"):
            kept = slice(window.keep_start, window.keep_end)
            best[window.text][0][kept] = logits.argmax(-1)
            best[window.text][1][kept] = softmax(logits).max(-1)
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
            sums[window.text] += softmax(logits)
            counts[window.text] += 1
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
            sums[window.text] += hidden.sum(axis=0, dtype=np.float64)
        counts = np.array([[max(len(text.ids), 1)] for text in pieces])
        yield from (sums / counts).astype(np.float32)


KINDS = {kind.architecture: kind for kind in (Tagger, Classifier, Reader)}


def open_model(directory: str | os.PathLike[str], **options: Any) -> ExportedModel:
    """Returns a Tagger, Classifier, Reader or Encoder, as config.json says; options are theirs.

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


def _read_pairs(lines, problems):
    """Yields (question, context) of JSON lines; ends at one that is wrong, and adds what it is.

    It does not end the program itself: pairs read before it may still wait for their answers.
    """
    for number, line in enumerate(lines, 1):
        try:
            pair = json.loads(line)
            question, context = str(pair["question"]), str(pair["context"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(
                f"line {number:,}: got {line[:80]!r} ({type(error).__name__}: {error}), expected "
                '{"question": ..., "context": ...}; mend it, or take it out'
            )
            return
        yield question, context


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads texts from standard input, one on each line, and writes a JSON line for each.

    A Reader's lines are JSON themselves: {"question": ..., "context": ...}. Lines are read in
    chunks; at a terminal, or with --each-line, one by one. What is written is UTF-8, whatever the
    locale. Whoever reads it may stop at any time, as `head` does.

    Raises:
      SystemExit: the model cannot be opened, a Reader's line is not as above, or what is written
        is no longer read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m edad_jax.export.runtime",
        description="Reads texts, one on each line, and writes what the model finds as JSON lines.",
    )
    parser.add_argument("directory", help="what launch/export.py --format onnx[-int8] wrote")
    parser.add_argument("--batch-size", type=int, default=32, help="windows read at once")
    parser.add_argument("--max-length", type=int, default=0, help="pieces of a window; 0: 128")
    parser.add_argument("--overlap", type=int, help="pieces that windows share; a quarter of them")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument(
        "--each-line",
        action="store_true",
        help="answer a line before the next is read, as for `tail -f`; always so at a terminal",
    )
    options = parser.parse_args(arguments)
    try:
        model = open_model(
            options.directory,
            batch_size=options.batch_size,
            max_length=options.max_length,
            overlap=options.overlap,
            threads=options.threads,
        )
    except ValueError as error:
        sys.exit(str(error))
    progress, sizes = Progress(size_of(sys.stdin.buffer)), deque()
    texts, problems = read_lines(sys.stdin.buffer, sizes), []
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    items = _read_pairs(texts, problems) if isinstance(model, Reader) else texts
    if options.each_line or sys.stdin.isatty():
        results = itertools.chain.from_iterable(model([item]) for item in items)
    else:
        results = model(items)
    try:
        for result in results:
            sys.stdout.write(json.dumps(as_json(result), ensure_ascii=False) + "\n")
            progress.add(sizes.popleft())
            if len(sizes) < 2:  # a chunk is done: of the next one, its first line alone is read
                sys.stdout.flush()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left would be written as Python ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if problems:
        sys.exit(problems[0])
    progress.add(0, last=True)


if __name__ == "__main__":
    main()
