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

import argparse
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import tokenizers

from edad_jax.export import windows
from edad_jax.export.stream import Progress, read_lines, size_of

MODEL_FILE = "model.onnx"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Span(NamedTuple):
    """An entity: text[start:end]."""

    label: str
    start: int
    end: int
    text: str
    score: float  # mean probability of its words' labels


class Prediction(NamedTuple):
    """The likeliest class of a text."""

    label: str
    score: float
    scores: dict[str, float]  # probability of every class


class Answers(list):
    """The best Answer first."""


class Answer(NamedTuple):
    """An answer to a question: context[start:end]."""

    text: str
    start: int
    end: int
    score: float  # its share among the answers that were considered


class _Model:
    """A session, its tokenizer and its windows; what all kinds of model share.

    Args:
      directory: what launch/export.py wrote with --format onnx or onnx-int8.
      batch_size: windows that the net reads at once.
      max_length: pieces of a window, [CLS] and [SEP] included; 0 for 128, or as many as the
        model has positions.
      overlap: pieces that neighbouring windows share; None for a quarter of them.
      threads: of a product; 0 for as many as there are cores.

    Raises:
      ValueError: a file is missing, damaged or does not fit the others; the model does another
        task, or a tagger's labels are not those of entities; the windows are longer than the
        model's positions.
    """

    architecture = ""  # how the class's name ends in config.json
    outputs = ("logits",)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        batch_size: int = 32,
        max_length: int = 0,
        overlap: int | None = None,
        threads: int = 0,
    ):
        directory = Path(directory).expanduser()
        self.config = _read_config(directory)
        architectures = self.config.get("architectures") or [""]
        if not architectures[0].endswith(self.architecture):
            raise ValueError(
                f"{directory} has a {architectures[0]}, {type(self).__name__} expected one that "
                f"ends in {self.architecture}"
            )
        limit = self.config["max_position_embeddings"]
        max_length = max_length or min(128, limit)
        overlap = max_length // 4 if overlap is None else overlap
        if not 4 <= max_length <= limit or not 0 <= overlap < max_length - 2 or batch_size < 1:
            raise ValueError(
                f"got max_length={max_length}, overlap={overlap}, batch_size={batch_size}; "
                f"expected max_length from 4 to {limit}, a smaller overlap, a batch of 1 or more"
            )
        self.batch_size, self.max_length, self.overlap = batch_size, max_length, overlap
        self._tokenizer = _read_tokenizer(directory, self.config["vocab_size"])
        ids = {name: self._tokenizer.token_to_id(f"[{name}]") for name in ("CLS", "SEP", "UNK")}
        self._cls, self._sep, self._unknown = ids["CLS"], ids["SEP"], ids["UNK"]
        if None in ids.values():
            raise ValueError(f"{directory}/tokenizer.json lacks one of [CLS], [SEP], [UNK]")
        self.session = _open(directory, threads)
        names = [output.name for output in self.session.get_outputs()]
        if not set(self.outputs) <= set(names):
            raise ValueError(
                f"{directory}/{MODEL_FILE} gives {names}, expected {list(self.outputs)}; "
                "export the model again"
            )

    def __call__(self, texts: Iterable[str]) -> Iterator[Any]:
        """Yields what the model makes of each text; memory does not grow with their number."""
        for chunk in windows.chunks(texts):
            yield from self._judge(chunk, [self._cut(text) for text in chunk])

    def _judge(self, texts, pieces):
        """Returns what the model makes of each text."""
        raise NotImplementedError

    def _cut(self, text):
        """Returns the pieces of a text. Surrogates, which no encoding knows, count as unknown."""
        text = _SURROGATES.sub("\ufffd", text)
        parts = []
        for start, end in windows.segments(text):
            encoding = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + start
            is_first = np.diff(words, prepend=-2) != 0
            parts.append((np.array(encoding.ids, np.int64), offsets, is_first))
        ids, offsets, is_first = (np.concatenate(column) for column in zip(*parts, strict=True))
        return windows.Pieces(ids, offsets[:, 0], offsets[:, 1], is_first)

    def _run(
        self, pieces: Sequence[windows.Pieces], output: str
    ) -> Iterator[tuple[windows.Window, np.ndarray]]:
        """Yields every window of every text, short ones first, with its rows of an output.

        Of an output for each piece, the rows are those of the pieces that are judged here.
        """
        cut = [
            window
            for number, text in enumerate(pieces)
            for window in windows.cut(number, len(text.ids), self.max_length - 2, self.overlap)
        ]
        cut.sort(key=lambda window: window.end - window.start)
        for begin in range(0, len(cut), self.batch_size):
            batch = cut[begin : begin + self.batch_size]
            rows = [pieces[window.text].ids[window.start : window.end] for window in batch]
            (values,) = self.session.run(
                [output], windows.feed([[self._cls, *ids, self._sep] for ids in rows])
            )
            for row, window in enumerate(batch):
                if values.ndim == 2:
                    yield window, values[row]
                else:
                    first = window.keep_start - window.start + 1
                    yield window, values[row, first : first + window.keep_end - window.keep_start]


class Tagger(_Model):
    """Finds entities: yields the list of Span of each text."""

    architecture = "ForTokenClassification"

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self.labels = _labels(self.config)
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
            cut = [self._cut(word).ids if word else () for word in words]
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
        for window, logits in self._run(pieces, "logits"):
            kept = slice(window.keep_start, window.keep_end)
            best[window.text][0][kept] = logits.argmax(-1)
            best[window.text][1][kept] = _softmax(logits).max(-1)
        return best


class Classifier(_Model):
    """Tells the class: yields a Prediction for each text, the mean over its windows."""

    architecture = "ForSequenceClassification"

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self.labels = _labels(self.config)

    def _judge(self, texts, pieces):
        sums, counts = np.zeros((len(texts), len(self.labels))), np.zeros((len(texts), 1))
        for window, logits in self._run(pieces, "logits"):
            sums[window.text] += _softmax(logits)
            counts[window.text] += 1
        for scores in sums / counts:
            named = dict(zip(self.labels, scores.tolist(), strict=True))
            label = self.labels[int(scores.argmax())]
            yield Prediction(label, named[label], named)


class Reader(_Model):
    """Answers questions from contexts: yields the list of the best Answer of each pair.

    Answers are as in SQuAD 1.1, parts of the context; an empty context has none.

    Args:
      directory: what launch/export.py wrote.
      best: how many answers to give.
      longest_answer: pieces of an answer at most.
      options: as for the other models.
    """

    architecture = "ForQuestionAnswering"
    outputs = ("start_logits", "end_logits")
    _considered = 20  # starts, ends and answers of a window

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        best: int = 1,
        longest_answer: int = 30,
        **options: Any,
    ):
        super().__init__(directory, **options)
        if best < 1 or longest_answer < 1:
            raise ValueError(
                f"got best={best}, longest_answer={longest_answer}, expected 1 or more"
            )
        self.best, self.longest_answer = best, longest_answer

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Answers]:
        """Yields the best answers to each (question, context)."""
        for question, context in pairs:
            pieces = self._cut(context)
            found = sorted(self._candidates(self._cut(question).ids, pieces), reverse=True)
            found = found[: max(self._considered, self.best)]
            shares = _softmax(np.array([score for score, _, _ in found])) if found else ()
            yield Answers(
                Answer(context[start:end], start, end, round(float(share), 4))
                for (_, start, end), share in list(zip(found, shares, strict=True))[: self.best]
            )

    def _candidates(self, question, context):
        """Yields (score, first character, one past the last) of every answer considered.

        Where windows overlap, a part of the context counts once, by its better score.
        """
        if not len(context.ids):
            return
        question = question[: (self.max_length - 3) // 2]
        room = self.max_length - 3 - len(question)
        cut = list(windows.cut(0, len(context.ids), room, min(self.overlap, room // 2)))
        before = [self._cls, *question, self._sep]
        scores = {}
        for begin in range(0, len(cut), self.batch_size):
            batch = cut[begin : begin + self.batch_size]
            rows = [[*before, *context.ids[w.start : w.end], self._sep] for w in batch]
            outputs = self.session.run(list(self.outputs), windows.feed(rows, second=len(before)))
            for window, starts, ends in zip(batch, *outputs, strict=True):
                inside = slice(len(before), len(before) + window.end - window.start)
                for score, first, last in self._best_of(starts[inside], ends[inside]):
                    place = (
                        int(context.starts[window.start + first]),
                        int(context.ends[window.start + last]),
                    )
                    scores[place] = max(score, scores.get(place, score))
        yield from ((score, *place) for place, score in scores.items())

    def _best_of(self, starts, ends):
        """Yields (score, first, last) of the likeliest starts with the likeliest ends."""
        for first in np.argsort(-starts)[: self._considered]:
            for last in np.argsort(-ends)[: self._considered]:
                if first <= last < first + self.longest_answer:
                    yield float(starts[first] + ends[last]), int(first), int(last)


class Encoder(_Model):
    """Yields a vector for each text, float32 [width]: the mean of its pieces' last hidden states.

    Any exported encoder will do; a text without pieces gives zeros.
    """

    outputs = ("last_hidden_state",)

    def _judge(self, texts, pieces):
        sums = np.zeros((len(texts), self.config["hidden_size"]), np.float64)
        for window, hidden in self._run(pieces, "last_hidden_state"):
            sums[window.text] += hidden.sum(axis=0, dtype=np.float64)
        counts = np.array([[max(len(text.ids), 1)] for text in pieces])
        yield from (sums / counts).astype(np.float32)


def join_words(
    text: str,
    labels: Sequence[str],
    starts: Sequence[int],
    ends: Sequence[int],
    scores: Sequence[float],
) -> list[Span]:
    """Returns the entities that the labels of consecutive words name, IOB2 or IOBES.

    An I- without its B- begins an entity, as seqeval counts it.
    """
    spans: list[Span] = []
    open_label, first, last, gathered = "", 0, 0, []

    def close():
        if open_label:
            start, end = starts[first], ends[last]
            score = sum(gathered) / len(gathered)
            spans.append(Span(open_label, start, end, text[start:end], round(score, 4)))

    for word, label in enumerate(labels):
        position, _, name = label.partition("-")
        if position in ("I", "E") and name == open_label:
            last = word
            gathered.append(scores[word])
        else:
            close()
            open_label = name if position != "O" else ""
            first = last = word
            gathered = [scores[word]]
        if position in ("E", "S"):
            close()
            open_label = ""
    close()
    return spans


KINDS = {kind.architecture: kind for kind in (Tagger, Classifier, Reader)}


def open_model(directory: str | os.PathLike[str], **options: Any) -> _Model:
    """Returns a Tagger, Classifier, Reader or Encoder, as config.json says; options are theirs.

    Raises:
      ValueError: as they do.
    """
    architecture = (_read_config(Path(directory).expanduser()).get("architectures") or [""])[0]
    kind = next((KINDS[end] for end in KINDS if architecture.endswith(end)), Encoder)
    return kind(directory, **options)


def _read_config(directory):
    for name in (MODEL_FILE, "config.json", "tokenizer.json"):
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory} lacks {name}; expected what launch/export.py --format onnx writes"
            )
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"vocab_size", "hidden_size", "max_position_embeddings"} - set(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}; export the model again") from error
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; export the model again")
    return config


def _read_tokenizer(directory, vocab_size):
    path = directory / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more definite
        raise ValueError(f"{path}: {error}; export the model again") from error
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.get_vocab_size()} pieces, the model {vocab_size}: "
            "it belongs to another model; export this one again"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _open(directory, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(directory / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds have no common parent
        raise ValueError(
            f"{directory / MODEL_FILE}: onnxruntime cannot read it ({error}); "
            "export the model again"
        ) from error


def _labels(config):
    named = {int(number): label for number, label in config.get("id2label", {}).items()}
    if not named or sorted(named) != list(range(len(named))):
        raise ValueError(f"config.json says id2label={named}, expected names from number 0 on")
    return [named[number] for number in range(len(named))]


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def as_json(result: Any) -> dict[str, Any]:
    """Returns what a model yields as an object of JSON."""
    if isinstance(result, np.ndarray):
        return {"vector": [round(float(number), 6) for number in result]}
    if isinstance(result, Prediction):
        return result._asdict()
    name = "answers" if isinstance(result, Answers) else "entities"
    return {
        name: [
            part._replace(text=_SURROGATES.sub("\ufffd", part.text))._asdict() for part in result
        ]
    }


def _read_pair(line):
    """Returns (question, context) of a JSON line."""
    try:
        pair = json.loads(line)
        return str(pair["question"]), str(pair["context"])
    except (ValueError, TypeError, KeyError) as error:
        sys.exit(f'got {line[:80]!r} ({error}), expected {{"question": ..., "context": ...}}')


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads texts from standard input, one on each line, and writes a JSON line for each.

    A Reader's lines are JSON themselves: {"question": ..., "context": ...}.
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
    texts = read_lines(sys.stdin.buffer, sizes)
    for result in model(map(_read_pair, texts) if isinstance(model, Reader) else texts):
        sys.stdout.write(json.dumps(as_json(result), ensure_ascii=False) + "\n")
        progress.add(sizes.popleft())
    sys.stdout.flush()
    progress.add(0, last=True)


if __name__ == "__main__":
    main()
