# SPDX-License-Identifier: Apache-2.0
"""Examples as rows of pieces, and rows as batches: what fine-tuning feeds a net.

A row has *label positions* (axis n), where the net is asked for a class. In tagging every piece is
one, and the first piece of each word carries the word's label; in classification the row has one;
in question answering it has two, where the answer starts and ends, and the classes are the pieces
(`question_rows`). So the tasks, and their losses, are one: a class for each labelled position.
"""

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from edad_jax.data.tokenizer import composing, is_bert_kind
from edad_jax.runtime.windows import read_all
from edad_jax.types import TaskBatch

NO_LABEL = -1
IMPOSSIBLE = -1e9  # the logit of what cannot be chosen; finite, so that 0 times it is 0
_SHORTEST = 32  # pieces; rows are padded to this times a power of two, or to the longest allowed


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """The rows of one split."""

    ids: list[np.ndarray]  # int32 [pieces] of each row, with [CLS] and [SEP]
    labels: list[np.ndarray]  # int32 [n]; NO_LABEL where there is none
    words: list[np.ndarray]  # int32 [n]; the word of the example that a labelled position is of
    example: np.ndarray  # int32 [rows]; which example a row is from
    pieces_per_word: list[np.ndarray]  # of each example
    notes: dict[str, int]  # what was done to examples that did not fit -> how many
    soft: list[np.ndarray] | None = None  # float32 [n, classes]: a teacher's logits
    segment_b_start: np.ndarray | None = None  # int32 [rows]; None: all is segment A

    def __len__(self) -> int:
        return len(self.ids)

    def soft_batch(self, batch_size: int, positions: int, length: int) -> np.ndarray:
        """Returns room for a teacher's logits of a batch whose rows have `length` pieces."""
        del length
        return np.zeros((batch_size, positions, self.soft[0].shape[1]), np.float32)


def tagging_rows(
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
) -> TaskRows:
    """Returns rows of whole words. A sentence that is too long becomes several: no word is lost.

    Args:
      sentences: words of each sentence.
      labels: class of each word, or NO_LABEL.
      tokenizer: cuts words into pieces; one that it makes nothing of becomes [UNK], and "[SEP]"
        is plain text to it, as in pretraining (`data.tokenizer.load_tokenizer`).
      max_length: pieces of a row at most, [CLS] and [SEP] included.
    """
    room = max_length - 2
    notes = {"words without pieces: [UNK] instead": 0, "words longer than a row: cut": 0}
    notes["sentences cut into several rows"] = 0
    rows = {"ids": [], "labels": [], "words": [], "example": []}
    pieces_per_word = []
    for number, (pieces_of_words, word_labels) in enumerate(
        zip(_pieces(sentences, tokenizer), labels, strict=True)
    ):
        for pieces in pieces_of_words:
            if not pieces:
                pieces.append(tokenizer.unk_token_id)
                notes["words without pieces: [UNK] instead"] += 1
            if len(pieces) > room:
                del pieces[room:]
                notes["words longer than a row: cut"] += 1
        pieces_per_word.append(np.array([len(pieces) for pieces in pieces_of_words], np.int32))
        windows = list(_windows(pieces_per_word[-1], room))
        notes["sentences cut into several rows"] += len(windows) > 1
        for start, end in windows:
            ids, row_labels, words = [tokenizer.cls_token_id], [NO_LABEL], [NO_LABEL]
            for word in range(start, end):
                pieces = pieces_of_words[word]
                ids += pieces
                row_labels += [word_labels[word]] + [NO_LABEL] * (len(pieces) - 1)
                words += [word] + [NO_LABEL] * (len(pieces) - 1)
            rows["ids"].append(np.array([*ids, tokenizer.sep_token_id], np.int32))
            rows["labels"].append(np.array([*row_labels, NO_LABEL], np.int32))
            rows["words"].append(np.array([*words, NO_LABEL], np.int32))
            rows["example"].append(number)
    return _finish(rows, pieces_per_word, notes)


def classification_rows(
    texts: Sequence[str],
    labels: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
) -> TaskRows:
    """Returns a row for each text; a longer one is cut at max_length pieces, and counted."""
    rows = {"ids": [], "labels": [], "words": [], "example": range(len(texts))}
    notes = {"texts longer than a row: cut": 0, "texts without pieces: [UNK] instead": 0}
    composed = [unicodedata.normalize("NFC", text) for text in texts]  # as vocabularies are
    encoded = tokenizer(composed, add_special_tokens=False)["input_ids"] if texts else []
    for pieces, label in zip(encoded, labels, strict=True):
        notes["texts longer than a row: cut"] += len(pieces) > max_length - 2
        notes["texts without pieces: [UNK] instead"] += not pieces
        pieces = pieces[: max_length - 2] or [tokenizer.unk_token_id]
        ids = [tokenizer.cls_token_id, *pieces, tokenizer.sep_token_id]
        rows["ids"].append(np.array(ids, np.int32))
        rows["labels"].append(np.array([label], np.int32))
        rows["words"].append(np.zeros(1, np.int32))
    return _finish(rows, [np.array([len(pieces)], np.int32) for pieces in encoded], notes)


def teach_words(
    rows: TaskRows, teacher_rows: TaskRows, logits: Sequence[np.ndarray], order: Sequence[int]
) -> TaskRows:
    """Returns the rows with a teacher's logits, which go by words: vocabularies may differ.

    Args:
      rows: of the student.
      teacher_rows: the same examples, in the teacher's pieces.
      logits: of each of the teacher's rows, [n, classes].
      order: the teacher's number of each of the student's classes.
    """
    by_word = gather_words(teacher_rows, logits, 0.0)
    soft = []
    for example, words in zip(rows.example, rows.words, strict=True):
        taught = np.asarray(by_word[example][:, order], np.float32)
        soft.append(np.where((words >= 0)[:, None], taught[np.maximum(words, 0)], 0.0))
    return dataclasses.replace(rows, soft=soft)


def name_labels(
    rows: TaskRows, logits: Sequence[np.ndarray], labels: Sequence[str]
) -> list[list[str]]:
    """Returns the likeliest label of every word of every example."""
    guesses = gather_words(rows, [row.argmax(axis=-1) for row in logits], 0)
    return [[labels[index] for index in guess] for guess in guesses]


def epoch_batches(
    rows: TaskRows,
    *,
    batch_size: int,
    max_length: int,
    seeds: Sequence[int],
    epoch: int,
    first: int = 0,
) -> Iterator[TaskBatch]:
    """Yields every row once for each seed, in the seed's own order: arrays [b, s, ...].

    With `first`, only the batches from this number on: what is left of an epoch.

    A batch holds rows of about the same length. Which length comes when is the same for all
    seeds, since they share a step; which rows come is not. What does not fill a batch joins the
    next longer ones; only the very last batch has empty rows (no labels, length 0). A seed sees
    the same batches whichever other seeds there are.
    """
    lengths = np.array([len(ids) for ids in rows.ids])
    random = [np.random.default_rng([seed, epoch]) for seed in seeds]
    left = [np.zeros(0, np.int64) for _ in seeds]
    plan = []  # (padded length, row numbers of each seed)
    shorter = 0
    padded_lengths = _padded_lengths(max_length)
    for length in padded_lengths:
        here = np.flatnonzero((lengths > shorter) & (lengths <= length))
        shorter = length
        left = [
            np.concatenate([before, generator.permutation(here)])
            for before, generator in zip(left, random, strict=True)
        ]
        whole = len(left[0]) // batch_size * batch_size
        for start in range(0, whole, batch_size):
            plan.append((length, [numbers[start : start + batch_size] for numbers in left]))
        left = [numbers[whole:] for numbers in left]
    if len(left[0]):
        longest = next(length for length in padded_lengths if length >= lengths.max())
        plan.append((longest, left))
    for index in np.random.default_rng(epoch).permutation(len(plan))[first:]:
        length, chosen = plan[index]
        batches = [_batch(rows, numbers, batch_size, length) for numbers in chosen]
        yield TaskBatch(
            *(
                None if leaves[0] is None else np.stack(leaves, axis=1)
                for leaves in zip(*batches, strict=True)
            )
        )


def ordered_batches(
    rows: TaskRows, *, batch_size: int, max_length: int
) -> Iterator[tuple[np.ndarray, TaskBatch]]:
    """Yields (row numbers, batch) over all rows, short ones first; arrays [b, ...].

    The last batches of a length have empty rows; the row numbers are of the others.
    """
    lengths = np.array([len(ids) for ids in rows.ids])
    shorter = 0
    for length in _padded_lengths(max_length):
        here = np.flatnonzero((lengths > shorter) & (lengths <= length))
        shorter = length
        for start in range(0, len(here), batch_size):
            numbers = here[start : start + batch_size]
            yield numbers, _batch(rows, numbers, batch_size, length)


def count_batches(rows: TaskRows, batch_size: int) -> int:
    """Returns the number of batches of an epoch."""
    return -(-len(rows) // batch_size)


def gather_words(rows: TaskRows, values: Sequence[np.ndarray], fill: float) -> list[np.ndarray]:
    """Returns, for each example, the values at the label positions of its words: [words, ...].

    Args:
      rows: the rows.
      values: of each row, [n or more, ...].
      fill: value of a word that no position stands for.
    """
    gathered = [
        np.full((len(pieces), *values[0].shape[1:]), fill, values[0].dtype)
        for pieces in rows.pieces_per_word
    ]
    for example, words, given in zip(rows.example, rows.words, values, strict=True):
        positions = np.flatnonzero(words >= 0)
        gathered[example][words[positions]] = given[positions]
    return gathered


def _pieces(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[list[int]]]:
    """Yields, for each sentence, the list of pieces of each of its words."""
    if not is_bert_kind(tokenizer):
        yield from _pieces_with_blanks(sentences, tokenizer)
        return
    for start in range(0, len(sentences), 1_000):
        chunk = [
            [unicodedata.normalize("NFC", word) for word in words]  # as vocabularies are
            for words in sentences[start : start + 1_000]
        ]
        encoded = tokenizer(chunk, is_split_into_words=True, add_special_tokens=False)
        for number, words in enumerate(chunk):
            pieces_of_words = [[] for _ in words]
            for piece, word in zip(
                encoded["input_ids"][number], encoded.word_ids(number), strict=True
            ):
                pieces_of_words[word].append(piece)
            yield pieces_of_words


def _pieces_with_blanks(sentences, tokenizer):
    """Yields likewise; all words but the first have the blank before them, as in a text.

    Byte-level BPE has other pieces for a word after a blank than for one without, and no
    tokenizer's pieces go across a blank: so these are those of the words as one text.
    """
    backend = read_all(composing(tokenizer.backend_tokenizer))
    for words in sentences:
        texts = [f" {word}" if number else word for number, word in enumerate(words)]
        found = backend.encode_batch(texts, add_special_tokens=False)
        yield [list(encoding.ids) for encoding in found]


def _windows(pieces_per_word: np.ndarray, room: int) -> Iterator[tuple[int, int]]:
    """Yields (first word, last word + 1) of stretches that fit into `room` pieces."""
    start = used = 0
    for word, pieces in enumerate(pieces_per_word):
        if used + pieces > room:
            yield start, word
            start, used = word, 0
        used += pieces
    yield start, len(pieces_per_word)


def _padded_lengths(max_length: int) -> list[int]:
    lengths = [_SHORTEST]
    while lengths[-1] < max_length:
        lengths.append(lengths[-1] * 2)
    return [*lengths[:-1], max_length]


def _batch(rows: TaskRows, numbers: np.ndarray, batch_size: int, length: int) -> TaskBatch:
    positions = len(rows.labels[0])  # of a tagged row three at least, and then one for each piece
    positions = positions if positions <= 2 else length
    ids = np.zeros((batch_size, length), np.int32)
    mask = np.zeros((batch_size, length), bool)
    labels = np.full((batch_size, positions), NO_LABEL, np.int32)
    soft = None if rows.soft is None else rows.soft_batch(batch_size, positions, length)
    segment_b_start = None
    if rows.segment_b_start is not None:
        segment_b_start = np.zeros(batch_size, np.int32)
        segment_b_start[: len(numbers)] = rows.segment_b_start[numbers]
    for place, number in enumerate(numbers):
        ids[place, : len(rows.ids[number])] = rows.ids[number]
        mask[place, : len(rows.ids[number])] = True
        labels[place, : len(rows.labels[number])] = rows.labels[number]
        if soft is not None:
            there = rows.soft[number]
            soft[place, : there.shape[0], : there.shape[1]] = there
    return TaskBatch(ids, mask, labels, soft, segment_b_start)


def _finish(
    rows: dict[str, Sequence], pieces_per_word: list[np.ndarray], notes: dict[str, int]
) -> TaskRows:
    return TaskRows(
        ids=rows["ids"],
        labels=rows["labels"],
        words=rows["words"],
        example=np.array(rows["example"], np.int32),
        pieces_per_word=pieces_per_word,
        notes={note: count for note, count in notes.items() if count},
    )
