# SPDX-License-Identifier: Apache-2.0
"""Several documents in a row: single segments without padding.

A document that is longer than a row fills rows of its own, as in DistilBERT cut where a row ends.
What is left of it shares rows with other rests and short documents: best fit, the largest first
(Krell et al. 2021), within a chunk of the corpus. Where none fits, the largest that waits is cut.
A cut is moved back to a sentence's end that is near, and leaves no part too short for a row of
single segments.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from edad_jax.data.segments import SHORTEST_SINGLE, Documents, Specials

_SPECIALS = 2  # [CLS], [SEP]
_SLACK = 64  # a row's length over this: pieces that may stay empty for a cut at a sentence's end
_LEAST = SHORTEST_SINGLE + 1  # pieces of a part of a document


class _Part(NamedTuple):
    """What is to be placed: a range of the ids, of one document; ordered by size."""

    size: int
    start: int
    stop: int
    document: int


def pack(documents: Documents, *, max_length: int) -> list[list[tuple[int, int]]]:
    """Returns the (start, stop) of the documents of each row, ranges of `documents.ids`.

    Each piece stands in one row, but for those of documents too short for a row of single segments
    (SHORTEST_SINGLE), which are left out here as there.
    """
    slack, longest = max_length // _SLACK, max_length - _SPECIALS
    rows: list[list[tuple[int, int]]] = []
    waiting: list[_Part] = []

    def cut(part: _Part, size: int) -> tuple[int, _Part]:
        """Returns where the part's beginning of at most this size ends, and the rest."""
        starts = documents.starts[part.document]
        place = min(part.start + size, part.stop - _LEAST)
        sentence = starts[bisect.bisect_right(starts, place) - 1]
        if place - sentence <= slack and sentence - part.start >= _LEAST:
            place = sentence
        return place, _Part(part.stop - place, place, part.stop, part.document)

    for number, starts in enumerate(documents.starts):
        part = _Part(starts[-1] - starts[0], starts[0], starts[-1], number)
        while part.size > longest:
            place, rest = cut(part, longest)
            rows.append([(part.start, place)])
            part = rest
        if part.size >= _LEAST:
            waiting.append(part)
    waiting.sort()
    while waiting:
        part = waiting.pop()
        row, room = [(part.start, part.stop)], longest - part.size
        while room >= _SPECIALS + _LEAST and waiting:
            size = room - _SPECIALS
            fitting = bisect.bisect_right(waiting, size, key=itemgetter(0)) - 1
            left = size - waiting[fitting].size if fitting >= 0 else size
            if slack < left < _SPECIALS + _LEAST or fitting < 0:
                # What would stay empty is too much, and too little for another one.
                if waiting[-1].size >= size + _LEAST:
                    part = waiting.pop()
                    place, rest = cut(part, size)
                    bisect.insort(waiting, rest)
                    row.append((part.start, place))
                    break
                if fitting < 0:
                    break
            part = waiting.pop(fitting)
            row.append((part.start, part.stop))
            room = left
        rows.append(row)
    rows.sort(key=itemgetter(0))  # as they come in the text, whatever their length
    return rows


def packed_rows(
    documents: Documents,
    packed: Sequence[Sequence[tuple[int, int]]],
    specials: Specials,
    row_type: np.dtype,
) -> np.ndarray:
    """Returns the rows `[CLS] A [SEP] [CLS] B [SEP] ...`, and where documents begin in them."""
    rows = np.zeros(len(packed), row_type)
    ids_rt = rows["ids"]
    ids_rt[:] = specials.pad
    begins_rt = np.zeros(ids_rt.shape, bool)
    for row, ranges in enumerate(packed):
        end = 0
        for start, stop in ranges:
            begins_rt[row, end] = True
            ids_rt[row, end] = specials.cls
            ids_rt[row, end + 1 : end + 1 + stop - start] = documents.ids[start:stop]
            end += stop - start + _SPECIALS
            ids_rt[row, end - 1] = specials.sep
        rows["length"][row] = rows["segment_b_start"][row] = end
    rows["begins"] = np.packbits(begins_rt, axis=1)
    return rows
