# SPDX-License-Identifier: Apache-2.0
"""What several requests ask of one model, read in slices of a tenth of a second.

Between two slices is decided what comes next: of two requests the one that has less left, but
every other slice is the oldest one's, so that none waits for ever. A request whose client is gone
is dropped there, and a short one gets its turn. Rows of several requests are read together where
they are of like length.

A slice is a run of the net on as many rows as it read in SLICE_SECONDS before, one at least: a
large net on a small machine may take longer for that one.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edad_jax.runtime.limits import Limits
from edad_jax.runtime.models import as_json
from edad_jax.runtime.readings import Reading, Row

SLICE_SECONDS = 0.1  # for a run of the net, and half of it for tokenising
_CHARACTERS = 4  # of a piece, to guess how much is left of what is not yet tokenised


class TooManyPiecesError(ValueError):
    """A request has more pieces than the server takes."""


class _Job:
    """One request under way. The event loop makes it and looks at it, the thread works on it."""

    def __init__(self, items: Sequence[Any], done: asyncio.Future):
        self.items, self.done = items, done
        self.begun: list[Reading] = []
        self.pieces = 0
        self.rows: list[tuple[int, Row]] = []  # to be read; the shortest is the last
        self.unread: list[int] = []  # rows of each reading
        self.unread_pieces = 0  # of all rows, once all is tokenised
        self.results: list[str | None] = [None] * len(items)
        self.finished = 0
        self.error: Exception | None = None

    @property
    def is_begun(self) -> bool:
        """Whether all its items are tokenised: none is read before the bound has been checked."""
        return len(self.begun) == len(self.items)

    def left(self) -> int:
        """Returns how many pieces are about to be read."""
        if self.is_begun:
            return self.unread_pieces
        return self.pieces + sum(map(_size, self.items[len(self.begun) :])) // _CHARACTERS

    def take_row(self) -> tuple[int, Row]:
        """Returns the shortest row, with the number of its reading; it is to be read now."""
        number, row = self.rows.pop()
        self.unread_pieces -= len(row.ids)
        return number, row

    def begin(self, reading: Reading, most: int) -> None:
        """Takes the next item's reading; TooManyPiecesError where there are more than `most`."""
        self.begun.append(reading)
        self.unread.append(len(reading.rows))
        self.pieces += reading.pieces
        if self.pieces > most:
            raise TooManyPiecesError(
                f"got {self.pieces:,} word pieces in {len(self.begun)} of {len(self.items)} texts, "
                f"expected {most:,} in all at most; cut it up and send several requests"
            )
        if self.is_begun:
            self.rows = [
                (number, row) for number, each in enumerate(self.begun) for row in each.rows
            ]
            self.rows.sort(key=lambda pair: -len(pair[1].ids))
            self.unread_pieces = sum(len(row.ids) for _, row in self.rows)

    def finish(self) -> None:
        """Makes results of the readings that have been read whole."""
        for number, unread in enumerate(self.unread):
            if not unread and self.results[number] is None:
                result = as_json(self.begun[number].result())
                self.results[number] = json.dumps(
                    result, ensure_ascii=False, allow_nan=False, separators=(",", ":")
                )
                self.finished += 1


class Batcher:
    """Reads for one model, in one thread, so that it is never entered twice.

    Args:
      model: an `session.ExportedModel`, or whatever has its begin, read_batch and batch_size.
      limits: of a request.
    """

    def __init__(self, model: Any, limits: Limits):
        self.model, self.limits = model, limits
        self.jobs: list[_Job] = []  # the oldest first
        self.arrived = asyncio.Event()
        self.most = 0  # pieces of a run, padding included; 0 before the first
        self.is_oldest_due = False

    async def read(self, items: Sequence[Any]) -> list[str]:
        """Returns the result of each item, as JSON. Who is cancelled here is read no further.

        Raises:
          TooManyPiecesError: more than the limits say.
        """
        job = _Job(items, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self.arrived.set()
        return await job.done

    async def run(self) -> None:
        """Serves until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                if not self.jobs:
                    self.arrived.clear()
                    await self.arrived.wait()
                    await asyncio.sleep(self.limits.gather_seconds)  # others may come
                self.jobs = [job for job in self.jobs if not job.done.done()]
                try:
                    await loop.run_in_executor(thread, self._advance, list(self.jobs))
                except Exception as error:  # nobody may wait for ever
                    for job in self.jobs:
                        job.error = job.error or error
                for job in self.jobs:
                    if job.done.done():  # who asked is gone
                        continue
                    if job.error:
                        job.done.set_exception(job.error)
                    elif job.finished == len(job.items):
                        job.done.set_result(job.results)

    def _advance(self, jobs):
        """Does a slice: tokenises, runs the net once, and makes results."""
        if not jobs:
            return
        oldest = jobs[0]
        jobs = sorted(jobs, key=_Job.left)
        if self.is_oldest_due:
            jobs.sort(key=lambda job: job is not oldest)
        self.is_oldest_due = not self.is_oldest_due
        self._tokenize(jobs)
        for job in self._read(jobs):
            try:
                job.finish()
            except Exception as error:
                job.error = job.error or error

    def _tokenize(self, jobs):
        limit = time.monotonic() + SLICE_SECONDS / 2
        for job in jobs:
            while not job.is_begun and not job.error and time.monotonic() < limit:
                try:
                    item = job.items[len(job.begun)]
                    job.begin(self.model.begin(item), self.limits.pieces)
                except Exception as error:  # told to who asked; the server goes on
                    job.error = error

    def _read(self, jobs):
        """Runs the net; returns the requests that may have results now."""
        jobs = [job for job in jobs if job.is_begun and not job.error]
        rows = self._choose(jobs)
        start = time.monotonic()
        if rows:
            try:
                self.model.read_batch([(job.begun[number], row) for job, number, row in rows])
            except Exception:
                # One of them did it; each alone, so that the others have their answers.
                self._read_alone(rows)
            for job, number, _ in rows:
                job.unread[number] -= 1
            self._adapt(_cells(rows), time.monotonic() - start)
        return jobs

    def _read_alone(self, rows):
        for job, number, row in rows:
            try:
                self.model.read_batch([(job.begun[number], row)])
            except Exception as error:
                job.error = error

    def _choose(self, jobs):
        """Takes rows to be read together out of the requests, in the order of these."""
        rows, longest = [], 0
        for job in jobs:
            while job.rows and len(rows) < self.model.batch_size:
                length = len(job.rows[-1][1].ids)
                is_much = (len(rows) + 1) * max(longest, length) > self.most
                is_unlike = rows and rows[0][0] is not job and length > 2 * longest + 16
                if rows and (is_much or is_unlike):
                    break
                rows.append((job, *job.take_row()))
                longest = max(longest, length)
        return rows

    def _adapt(self, cells, seconds):
        """Sets how many pieces the next run may have by what this one took."""
        fitting = int(cells * SLICE_SECONDS / max(seconds, 1e-6))
        if seconds > SLICE_SECONDS:
            self.most = fitting
        elif 2 * cells > self.most:  # a small run says little of a large one
            self.most = min(fitting, max(2 * self.most, 2 * cells))


def _size(item):
    """Returns the characters of a text, or of a pair of texts."""
    return len(item) if isinstance(item, str) else sum(map(len, item))


def _cells(rows):
    """Returns the pieces that the net reads, padding included."""
    return len(rows) * max(len(row.ids) for _, _, row in rows)
