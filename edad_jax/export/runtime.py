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
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import tokenizers

MODEL_FILE = "model.onnx"
_SURROGATES = re.compile("[\ud800-\udfff]")
_SEGMENT = 20_000  # characters that are tokenised at once
_CHUNK = 200_000  # characters of texts that are worked on at once, unless one text is longer


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


class _Pieces(NamedTuple):
    """A text as the net reads it."""

    ids: np.ndarray  # int64 [pieces]
    starts: np.ndarray  # int64 [pieces]; first character
    ends: np.ndarray  # int64 [pieces]; one past the last
    is_first: np.ndarray  # bool [pieces]; of its word


class _Window(NamedTuple):
    """Pieces start to end of a text, of which those from keep_start to keep_end are judged."""

    text: int
    start: int
    end: int
    keep_start: int
    keep_end: int


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
        task; the windows are longer than the model's positions.
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
        for chunk in _chunks(texts):
            yield from self._judge(chunk, [self._cut(text) for text in chunk])

    def _judge(self, texts, pieces):
        """Returns what the model makes of each text."""
        raise NotImplementedError

    def _cut(self, text):
        """Returns the pieces of a text. Surrogates, which no encoding knows, count as unknown."""
        text = _SURROGATES.sub("\ufffd", text)
        parts = []
        for start, end in _segments(text):
            encoding = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + start
            is_first = np.diff(words, prepend=-2) != 0
            parts.append((np.array(encoding.ids, np.int64), offsets, is_first))
        ids, offsets, is_first = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _Pieces(ids, offsets[:, 0], offsets[:, 1], is_first)

    def _run(self, pieces: Sequence[_Pieces], output: str) -> Iterator[tuple[_Window, np.ndarray]]:
        """Yields every window of every text, short ones first, with its rows of an output.

        Of an output for each piece, the rows are those of the pieces that are judged here.
        """
        windows = [
            window
            for number, text in enumerate(pieces)
            for window in _windows(number, len(text.ids), self.max_length - 2, self.overlap)
        ]
        windows.sort(key=lambda window: window.end - window.start)
        for begin in range(0, len(windows), self.batch_size):
            batch = windows[begin : begin + self.batch_size]
            length = max(window.end - window.start for window in batch) + 2
            ids = np.zeros((len(batch), length), np.int64)
            mask = np.zeros((len(batch), length), np.int64)
            for row, window in enumerate(batch):
                size = window.end - window.start
                ids[row, 0], ids[row, size + 1] = self._cls, self._sep
                ids[row, 1 : size + 1] = pieces[window.text].ids[window.start : window.end]
                mask[row, : size + 2] = 1
            (values,) = self.session.run(
                [output],
                {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)},
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

    def tag_words(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns a label for each word of sentences that have been cut into words already."""
        pieces, firsts = [], []
        for words in sentences:
            cut = [self._cut(word).ids if word else () for word in words]
            cut = [ids if len(ids) else np.array([self._unknown]) for ids in cut]
            sizes = np.array([len(ids) for ids in cut], np.int64)
            first = np.cumsum(sizes) - sizes
            ids = np.concatenate([np.zeros(0, np.int64), *cut])
            pieces.append(_Pieces(ids, ids, ids, np.isin(np.arange(len(ids)), first)))
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


KINDS = {kind.architecture: kind for kind in (Tagger, Classifier)}


def open_model(directory: str | os.PathLike[str], **options: Any) -> _Model:
    """Returns a Tagger, Classifier or Encoder, as config.json says; options are theirs.

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


def _chunks(texts):
    """Yields lists of texts that have _CHUNK characters together, or one that has more."""
    chunk, size = [], 0
    for text in texts:
        if chunk and size + len(text) > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text) + 100
    if chunk:
        yield chunk


def _segments(text):
    """Yields (start, end) of parts of a text, which end where a word does if one ends there."""
    start = 0
    while len(text) - start > _SEGMENT:
        end = start + _SEGMENT
        gap = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
        end = gap + 1 if gap > start else end
        yield start, end
        start = end
    yield start, len(text)


def _windows(text, pieces, room, overlap):
    """Yields the windows of a text; half of what two share is judged by each."""
    start = keep_start = 0
    while True:
        end = min(start + room, pieces)
        keep_end = end if end == pieces else end - overlap // 2
        yield _Window(text, start, end, keep_start, keep_end)
        if end == pieces:
            return
        start, keep_start = end - overlap, keep_end


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class _Progress:
    """One line on a terminal: texts, megabytes, texts a second, time left."""

    def __init__(self, total_bytes):
        self.start = self.shown = time.monotonic()
        self.total, self.texts, self.bytes = total_bytes, 0, 0
        self.is_on = sys.stderr.isatty()

    def add(self, size, *, last=False):
        """Counts a text; shows where things stand, every half second."""
        self.texts, self.bytes = self.texts + (not last), self.bytes + size
        now = time.monotonic()
        if not self.is_on or (now - self.shown < 0.5 and not last):
            return
        self.shown = now
        seconds = max(now - self.start, 1e-9)
        left = ""
        if self.total and self.bytes:
            rest = int(seconds * (self.total - self.bytes) / self.bytes)
            left = f", {self.bytes / self.total:.0%}, {rest // 60}:{rest % 60:02} left"
        print(
            f"\r{self.texts:,} texts, {self.bytes / 1e6:,.1f} MB, {self.texts / seconds:,.0f} "
            f"texts/s{left}   ",
            end="\n" if last else "",
            file=sys.stderr,
            flush=True,
        )


def _read_lines(stream, sizes):
    """Yields the lines of a stream of bytes; notes how long each was. Bad UTF-8 becomes U+FFFD."""
    for line in stream:
        sizes.append(len(line))
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def as_json(result: Any) -> dict[str, Any]:
    """Returns what a model yields as an object of JSON."""
    if isinstance(result, np.ndarray):
        return {"vector": [round(float(number), 6) for number in result]}
    if isinstance(result, Prediction):
        return result._asdict()
    return {
        "entities": [
            span._replace(text=_SURROGATES.sub("\ufffd", span.text))._asdict() for span in result
        ]
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads texts from standard input, one on each line, and writes a JSON line for each."""
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
    stream = sys.stdin.buffer
    try:
        total = os.fstat(stream.fileno()).st_size
    except OSError:
        total = 0
    progress, sizes = _Progress(total), deque()
    for result in model(_read_lines(stream, sizes)):
        sys.stdout.write(json.dumps(as_json(result), ensure_ascii=False) + "\n")
        progress.add(sizes.popleft())
    sys.stdout.flush()
    progress.add(0, last=True)


if __name__ == "__main__":
    main()
