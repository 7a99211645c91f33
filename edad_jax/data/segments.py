# SPDX-License-Identifier: Apache-2.0
"""From documents to rows: BERT's next-sentence pairs, or single segments as DistilBERT has them.

`create_pretraining_data.py` of Devlin et al. 2019, step by step, except where a comment says so.
Sentences of a document are ranges of one flat array of ids, so that a pair is four integers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edad_jax.data.pieces import PieceTable, SentenceTable
from edad_jax.data.text.sentences import split_sentences

SHORTEST_SINGLE = 9  # pieces; DistilBERT drops sequences of 11 or fewer, [CLS] and [SEP] included


class Specials(NamedTuple):
    """Ids of the special pieces."""

    pad: int
    cls: int
    sep: int


class Documents(NamedTuple):
    """Documents as ids: where the sentences of each one start in a flat array."""

    ids: np.ndarray  # int32, all pieces of all documents
    starts: list[list[int]]  # per document, one longer than its sentences; positions in ids


def encode_documents(
    texts: Sequence[str], table: PieceTable | SentenceTable, max_length: int
) -> Documents:
    """Returns the ids of the documents, by sentence; documents without any are left out.

    Sentences of more than `max_length` words are cut in parts of half that many words: a deviation
    from BERT, which would keep the first or last pieces only and lose the rest (a whole document,
    where the text has no full stops).
    """
    sentences: list[list[str]] = []
    counts = []
    for text in texts:
        before = len(sentences)
        for sentence in split_sentences(text):
            words = table.split(sentence, is_first=len(sentences) == before)
            if len(words) <= max_length:
                sentences.append(words)
            else:
                part = max(1, max_length // 2)
                sentences.extend(words[i : i + part] for i in range(0, len(words), part))
        counts.append(len(sentences) - before)
    ids, sentence_starts = table.encode(sentences)
    stops = sentence_starts.tolist()
    starts = []
    first = 0
    for count in counts:
        positions = stops[first : first + count + 1]
        # Sentences of no piece (a lone accent, a control character) leave no trace.
        positions = [p for i, p in enumerate(positions) if i == 0 or p > positions[i - 1]]
        if len(positions) > 1:
            starts.append(positions)
        first += count
    return Documents(ids, starts)


def next_sentence_pairs(
    documents: Documents,
    *,
    max_length: int,
    short_seq_prob: float,
    generator: random.Random,
) -> list[tuple[int, int, int, int, int]]:
    """Returns (A start, A stop, B start, B stop, label) per row, as ranges of `documents.ids`.

    Label 0: B follows A in the text; 1: B is from another document. The other document is drawn
    from `documents`, the part of the corpus at hand: a deviation from BERT, which holds the whole
    corpus in memory. Where there is no other document, every pair is a true one.
    """
    pairs = []
    longest = max_length - 3  # [CLS], [SEP], [SEP]
    draw = generator.random
    number_of_documents = len(documents.starts)
    for number, starts in enumerate(documents.starts):
        target = longest
        if draw() < short_seq_prob:
            target = 2 + int(draw() * (longest - 1))  # 2 .. longest
        sentences = len(starts) - 1
        first = i = 0
        while i < sentences:
            i += 1
            if i < sentences and starts[i] - starts[first] < target:
                continue
            # The sentences first .. i-1 are at hand.
            a_stop = first + 1
            if i - first > 1:
                a_stop = first + 1 + int(draw() * (i - first - 1))  # first+1 .. i-1
            is_random = i - first == 1 or draw() < 0.5
            other = _other_document(number, number_of_documents, generator) if is_random else None
            if is_random and other is not None:
                others = documents.starts[other]
                target_b = target - (starts[a_stop] - starts[first])
                b_first = int(draw() * (len(others) - 1))
                b_last = b_first + 1
                while b_last < len(others) - 1 and others[b_last] - others[b_first] < target_b:
                    b_last += 1
                b_start, b_stop, label = others[b_first], others[b_last], 1
                i = a_stop  # the sentences that A did not use are put back
            else:
                b_start, b_stop, label = starts[a_stop], starts[i], 0
            if b_stop > b_start:
                a = (starts[first], starts[a_stop])
                pairs.append((*_truncate(*a, b_start, b_stop, longest, generator), label))
            first = i
    return pairs


def _other_document(number: int, count: int, generator: random.Random) -> int | None:
    """Returns the number of another document, each as likely; None where there is none."""
    if count < 2:
        return None
    other = int(generator.random() * (count - 1))
    return other + (other >= number)


def _truncate(
    a_start: int, a_stop: int, b_start: int, b_stop: int, longest: int, generator: random.Random
) -> tuple[int, int, int, int]:
    """Returns the ranges cut to `longest` pieces in all.

    BERT removes one piece at a time from the longer side, from its front or back by a coin. How
    many go from each side is thus fixed, and how many of them from the front is a sum of coins.
    """
    a, b = a_stop - a_start, b_stop - b_start
    surplus = a + b - longest
    if surplus <= 0:
        return a_start, a_stop, b_start, b_stop
    from_longer = min(surplus, abs(a - b))
    rest = surplus - from_longer
    # Of two equal sides BERT cuts B first.
    from_a = (from_longer if a > b else 0) + rest // 2
    from_b = surplus - from_a
    a_front = generator.getrandbits(from_a).bit_count() if from_a else 0
    b_front = generator.getrandbits(from_b).bit_count() if from_b else 0
    a_start, b_start = a_start + a_front, b_start + b_front
    return a_start, a_start + a - from_a, b_start, b_start + b - from_b


def single_segments(documents: Documents, *, max_length: int) -> list[tuple[int, int]]:
    """Returns (start, stop) per row: as many whole sentences as fit, long ones cut in parts."""
    segments = []
    longest = max_length - 2  # [CLS], [SEP]
    for starts in documents.starts:
        start = starts[0]
        for sentence, stop in zip(starts[:-1], starts[1:], strict=True):
            if stop - start > longest and sentence > start:
                segments.append((start, sentence))
                start = sentence
            while stop - start > longest:
                segments.append((start, start + longest))
                start += longest
        segments.append((start, starts[-1]))
    return [(start, stop) for start, stop in segments if stop - start > SHORTEST_SINGLE]


def pair_rows(
    documents: Documents,
    pairs: Sequence[tuple[int, int, int, int, int]],
    specials: Specials,
    row_type: np.dtype,
) -> np.ndarray:
    """Returns the rows `[CLS] A [SEP] B [SEP]` of the pairs, padded at the end."""
    rows = _empty_rows(len(pairs), specials, row_type)
    ids_rt = rows["ids"]
    ids = documents.ids.astype(ids_rt.dtype)
    for row, (a_start, a_stop, b_start, b_stop, _) in enumerate(pairs):
        ids_t = ids_rt[row]
        b_place = a_stop - a_start + 2
        end = b_place + b_stop - b_start
        ids_t[1 : b_place - 1] = ids[a_start:a_stop]
        ids_t[b_place - 1] = specials.sep
        ids_t[b_place:end] = ids[b_start:b_stop]
        ids_t[end] = specials.sep
    if pairs:
        table = np.array(pairs, np.int64)
        rows["segment_b_start"] = table[:, 1] - table[:, 0] + 2
        rows["length"] = table[:, 1] - table[:, 0] + table[:, 3] - table[:, 2] + 3
        rows["next_sentence"] = table[:, 4]
    return rows


def single_rows(
    documents: Documents,
    segments: Sequence[tuple[int, int]],
    specials: Specials,
    row_type: np.dtype,
) -> np.ndarray:
    """Returns the rows `[CLS] A [SEP]` of the segments; segment B starts where the row ends."""
    rows = _empty_rows(len(segments), specials, row_type)
    for row, (start, stop) in enumerate(segments):
        rows["ids"][row, 1 : stop - start + 1] = documents.ids[start:stop]
        rows["ids"][row, stop - start + 1] = specials.sep
        rows["length"][row] = rows["segment_b_start"][row] = stop - start + 2
    return rows


def _empty_rows(count: int, specials: Specials, row_type: np.dtype) -> np.ndarray:
    rows = np.zeros(count, row_type)
    rows["ids"] = specials.pad
    rows["ids"][:, 0] = specials.cls
    return rows
