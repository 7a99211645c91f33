# SPDX-License-Identifier: Apache-2.0
"""Texts under way: what a net has yet to read of each, and what it has found so far.

Who reads (`session.ExportedModel.__call__`, or the server) chooses which rows go together and when,
and may stop between two runs of the net: a reading that nobody waits for is simply left.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edad_jax.runtime import windows

POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens")


class Row(NamedTuple):
    """Pieces that a net reads at once, [CLS] and [SEP] included."""

    ids: np.ndarray  # int64 [pieces]
    second: int  # where the second segment begins; the number of pieces where there is none
    window: windows.Window  # what of the text this is


def rows_of_text(
    ids: np.ndarray, ends: tuple[int, int], max_length: int, overlap: int
) -> list[Row]:
    """Returns the rows [CLS] window [SEP] of a text.

    Args:
      ids: int64 [pieces].
      ends: ids of [CLS] and [SEP].
      max_length: pieces of a row at most.
      overlap: pieces that neighbours share.
    """
    first, last = ends
    rows = []
    for window in windows.split_windows(0, len(ids), max_length - 2, overlap):
        row = np.concatenate([[first], ids[window.start : window.end], [last]]).astype(np.int64)
        rows.append(Row(row, len(row), window))
    return rows


def rows_of_pair(
    first: Sequence[int],
    second: np.ndarray,
    ends: tuple[int, int],
    of_second: Sequence[windows.Window],
) -> list[Row]:
    """Returns the rows [CLS] first [SEP] window of the second [SEP] of two texts."""
    cls, sep = ends
    before = np.array([cls, *first, sep], np.int64)
    return [
        Row(np.concatenate([before, second[window.start : window.end], [sep]]), len(before), window)
        for window in of_second
    ]


class Reading(abc.ABC):
    """One text, or one pair of texts.

    Args:
      rows: all that the net is to read.
      pieces: how many the text has; rows have more, since windows overlap.
    """

    def __init__(self, rows: Sequence[Row], pieces: int):
        self.rows, self.pieces = rows, pieces

    @abc.abstractmethod
    def take(self, row: Row, *values: np.ndarray) -> None:
        """Notes what the net says of a row: an array of each of the model's outputs.

        An output for each piece may be longer than the row, which was padded.
        """

    @abc.abstractmethod
    def result(self) -> Any:
        """Returns what was found, once each row was taken."""


class LabelReading(Reading):
    """The label of every piece: (numbers int64 [pieces], probabilities float32 [pieces])."""

    def __init__(self, rows: Sequence[Row], pieces: int):
        super().__init__(rows, pieces)
        self.numbers, self.scores = np.zeros(pieces, np.int64), np.zeros(pieces, np.float32)

    def take(self, row: Row, *values: np.ndarray) -> None:
        window = row.window
        kept = slice(window.keep_start, window.keep_end)
        first = window.keep_start - window.start + 1  # after [CLS]
        logits = values[0][first : first + window.keep_end - window.keep_start]
        self.numbers[kept], self.scores[kept] = logits.argmax(-1), softmax(logits).max(-1)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self.numbers, self.scores


class MeanReading(Reading):
    """The mean over a text's windows of what each gives, float64.

    Args:
      rows: likewise.
      pieces: likewise.
      of_row: what is averaged, of a row's first output.
    """

    def __init__(
        self, rows: Sequence[Row], pieces: int, of_row: Callable[[np.ndarray], np.ndarray]
    ):
        super().__init__(rows, pieces)
        self.of_row, self.sum = of_row, 0.0

    def take(self, row: Row, *values: np.ndarray) -> None:
        self.sum = self.sum + self.of_row(values[0]).astype(np.float64)

    def result(self) -> np.ndarray:
        return self.sum / len(self.rows)


class VectorReading(Reading):
    """One vector of a text from its pieces' vectors: float32 [width].

    Of pieces that two windows share each window's vector is used where it sees more around it;
    each window's [CLS] and [SEP] count as pieces of the text, as in the models' own training.

    Args:
      rows: likewise.
      pieces: likewise.
      pooling: one of `POOLINGS`.
      is_normalized: whether the vector gets the length 1.
    """

    def __init__(self, rows: Sequence[Row], pieces: int, pooling: str, *, is_normalized: bool):
        super().__init__(rows, pieces)
        self.pooling, self.is_normalized = pooling, is_normalized
        self.vectors, self.counts = [], 0

    def take(self, row: Row, *values: np.ndarray) -> None:
        window, hidden = row.window, values[0][: len(row.ids)].astype(np.float64)
        if self.pooling == "cls":
            self.vectors.append(hidden[0])
            self.counts += 1
            return
        first = window.keep_start - window.start + 1
        kept = hidden[first : first + window.keep_end - window.keep_start]
        kept = np.concatenate([hidden[:1], kept, hidden[-1:]])
        self.vectors.append(kept.max(axis=0) if self.pooling == "max" else kept.sum(axis=0))
        self.counts += len(kept)

    def result(self) -> np.ndarray:
        if self.pooling == "max":
            vector = np.max(self.vectors, axis=0)
        else:
            power = 0.5 if self.pooling == "mean_sqrt_len_tokens" else 1.0
            vector = np.sum(self.vectors, axis=0) / self.counts**power
        if self.is_normalized:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector.astype(np.float32)


class PositionReading(Reading):
    """Logits of starts and ends: the list of (window, starts [pieces], ends [pieces])."""

    def __init__(self, rows: Sequence[Row], pieces: int):
        super().__init__(rows, pieces)
        self.judged: list[tuple[windows.Window, np.ndarray, np.ndarray]] = []

    def take(self, row: Row, *values: np.ndarray) -> None:
        starts, ends = values
        inside = slice(row.second, len(row.ids) - 1)
        self.judged.append((row.window, starts[inside], ends[inside]))

    def result(self) -> list[tuple[windows.Window, np.ndarray, np.ndarray]]:
        return self.judged


class Finished(Reading):
    """What another reading found, made into what is told.

    Args:
      reading: the other.
      finish: makes it.
    """

    def __init__(self, reading: Reading, finish: Callable[[Any], Any]):
        super().__init__(reading.rows, reading.pieces)
        self.reading, self.finish = reading, finish

    def take(self, row: Row, *values: np.ndarray) -> None:
        self.reading.take(row, *values)

    def result(self) -> Any:
        return self.finish(self.reading.result())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of logits [..., labels]."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
