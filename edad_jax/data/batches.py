# SPDX-License-Identifier: Apache-2.0
"""`batch_at(step)`: the batch of any step, at once, from rows on disk.

A batch is a pure function of (seed, step, process, batch size), so a run resumes from its step
number alone. Example number `step * batch_size + j` of the endless stream is row
`permutation(seed, epoch)[position]` with `epoch, position = divmod(number, rows)`: each epoch holds
every row exactly once, and no row is dropped at its end. The permutation is a keyed bijection that
is computed for the rows asked for, never written out, so step 10^9 costs what step 0 costs.

With length buckets, rows are sorted by length within pools of batches: an epoch's end then lies
somewhere in a pool, and a run that stops inside one has not seen all of that pool's rows.

Tokens seen = the sum of `length_b` over the global batches: real pieces, [CLS] and [SEP] included,
padding not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edad_jax.data.rows import FORMAT_VERSION, MANIFEST, PACKED_VERSION, row_type, shard_path
from edad_jax.files import file_checksum, is_whole, read_json_or_none
from edad_jax.types import Batch

POOL = 64  # batches whose rows are sorted by length together, where there are buckets
_ROUNDS = 6  # of the Feistel network; four already pass statistical tests


class Rows:
    """A row set on disk, memory-mapped: `len(rows)` rows, and any of them by number.

    Args:
      folder: what `make_rows` wrote, `out/train` or `out/heldout`.

    Raises:
      ValueError: not a finished row set, of another format version, empty, or a shard is missing
        or has another size than the manifest says (`verify` compares checksums too).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_json_or_none(self.folder / MANIFEST)
        if not isinstance(self.manifest, dict):
            raise ValueError(
                f"{self.folder} is not a finished row set: got no readable {MANIFEST}; "
                "prepare the rows again (finished shards are kept)"
            )
        if (version := self.manifest.get("format_version")) not in (FORMAT_VERSION, PACKED_VERSION):
            raise ValueError(
                f"{self.folder}: got row format {version}, expected {FORMAT_VERSION} (or "
                f"{PACKED_VERSION}: packed); prepare the rows again into a new folder"
            )
        if not is_whole(self.manifest):
            raise self._damaged("its checksum is another")
        self._check_fields()
        if not self.manifest["rows"]:
            raise ValueError(
                f"{self.folder}: got 0 rows; give more documents, or for the held-out set a "
                "larger held-out fraction"
            )
        self.max_length = self.manifest["max_length"]
        self.packed = version == PACKED_VERSION
        words = self.manifest["vocabulary_size"]
        self._type = row_type(words, self.max_length, packed=self.packed)
        self._shards = [self._open(shard) for shard in self.manifest["shards"]]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])

    def _damaged(self, what: str) -> ValueError:
        return ValueError(
            f"{self.folder / MANIFEST} is damaged: {what}; delete it and prepare the rows again "
            "(finished shards are kept)"
        )

    def _check_fields(self) -> None:
        """Raises ValueError where a manifest that was never sealed lacks what is read of it."""
        shards = self.manifest.get("shards")
        if not isinstance(shards, list):
            raise self._damaged("it has no list of shards")
        numbers = [(each, ("number", "rows", "bytes")) for each in shards]
        for said, names in ((self.manifest, ("rows", "max_length", "vocabulary_size")), *numbers):
            found = said if isinstance(said, dict) else {}
            if wrong := [name for name in names if not isinstance(found.get(name), int)]:
                raise self._damaged(f"it has no number for {', '.join(wrong)}")

    def _open(self, shard: dict) -> np.ndarray:
        path = shard_path(self.folder, shard["number"])
        try:
            size = path.stat().st_size
            if size != shard["bytes"]:
                raise ValueError(f"got {size:,} bytes, expected {shard['bytes']:,}")
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            if rows.dtype != self._type or rows.shape != (shard["rows"],):
                raise ValueError(
                    f"got {rows.shape} of {rows.dtype}, expected {(shard['rows'],)} of {self._type}"
                )
        except Exception as error:  # of a damaged header numpy raises TokenError and others too
            raise ValueError(
                f"{path} is damaged: {error}; delete it and prepare the rows again "
                "(the other shards are kept)"
            ) from error
        return rows.view(np.ndarray)  # np.memmap is ten times slower to index

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row_b: np.ndarray) -> np.ndarray:
        """Returns the rows of these numbers, as an array of `rows.row_type`."""
        found_b = np.empty(len(row_b), self._type)
        shard_b = np.searchsorted(self._starts, row_b, side="right") - 1
        for shard in np.unique(shard_b):
            here_b = shard_b == shard
            found_b[here_b] = self._shards[shard][row_b[here_b] - self._starts[shard]]
        return found_b

    def verify(self) -> None:
        """Reads everything and compares checksums; ValueError names the shards that differ."""
        wrong = [
            str(path)
            for shard in self.manifest["shards"]
            if file_checksum(path := shard_path(self.folder, shard["number"]))
            != shard.get("sha256")
        ]
        if wrong:
            raise ValueError(
                f"got another sha256 than the manifest's for {', '.join(wrong)}; delete these "
                "files and prepare the rows again (the other shards are kept)"
            )


def make_batch_at(
    rows: Rows,
    *,
    batch_size: int,
    seed: int,
    buckets: Sequence[int] = (),
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], Batch]:
    """Returns batch_at(step) -> Batch of int32 numpy arrays: this process's part of the batch.

    Args:
      rows: the row set.
      batch_size: examples in the global batch. The global batch of a step is the same however
        many processes share it; each takes a contiguous part.
      seed: of the order of the rows.
      buckets: lengths of batches, the least that is enough for its longest row. Rows of like length
        then share a batch: of POOL batches the rows are sorted by length, and the batches drawn in
        random order. Without any, all batches are as long as the rows on disk.
      process_index: which part, counted from 0.
      process_count: how many parts.
    """
    if batch_size <= 0 or batch_size % process_count:
        raise ValueError(
            f"got batch_size={batch_size} for {process_count} processes, expected a multiple of "
            "their number"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"got process_index={process_index} of {process_count} processes")
    count = len(rows)
    local_size = batch_size // process_count
    mine = slice(process_index * local_size, (process_index + 1) * local_size)
    lengths = bucket_lengths(buckets, rows.max_length)

    def draw_rows(first: int, batches: int) -> tuple[np.ndarray, np.ndarray]:
        numbers_b = first * batch_size + np.arange(batches * batch_size)
        epoch_b, position_b = np.divmod(numbers_b, count)
        return permuted(position_b, epoch_b, count=count, seed=seed), epoch_b

    @functools.lru_cache(maxsize=2)
    def sort_pool(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns row and epoch [POOL, b] of a pool's batches, and the length of each."""
        row_n, epoch_n = draw_rows(number * POOL, POOL)
        length_n = rows[row_n]["length"]
        order_pb = np.argsort(length_n, kind="stable").reshape(POOL, batch_size)
        order_pb = order_pb[np.random.default_rng([seed, number]).permutation(POOL)]
        longest_p = length_n[order_pb].max(axis=1)
        return row_n[order_pb], epoch_n[order_pb], lengths[np.searchsorted(lengths, longest_p)]

    def batch_at(step: int) -> Batch:
        step = int(step)
        if len(lengths) > 1:
            row_pb, epoch_pb, length_p = sort_pool(step // POOL)
            row_b, epoch_b, length = (each[step % POOL] for each in (row_pb, epoch_pb, length_p))
        else:
            (row_b, epoch_b), length = draw_rows(step, 1), rows.max_length
        row_b, epoch_b = row_b[mine], epoch_b[mine]
        return _fetch_batch(rows, row_b, epoch_b, length)

    return batch_at


def _fetch_batch(rows: Rows, row_b: np.ndarray, epoch_b: np.ndarray, length: int) -> Batch:
    found_b = rows[row_b]
    documents_bt = None
    if rows.packed:
        begins_bt = np.unpackbits(found_b["begins"], axis=1, count=length)
        documents_bt = begins_bt.cumsum(axis=1, dtype=np.int32)
    return Batch(
        ids_bt=found_b["ids"][:, :length].astype(np.int32),
        segment_b_start_b=found_b["segment_b_start"].astype(np.int32),
        length_b=found_b["length"].astype(np.int32),
        next_sentence_b=found_b["next_sentence"].astype(np.int32),
        row_b=row_b.astype(np.int32),
        epoch_b=epoch_b.astype(np.int32),
        documents_bt=documents_bt,
    )


def bucket_lengths(buckets: Sequence[int], max_length: int) -> np.ndarray:
    """Returns the lengths that batches may have, in order, the rows' own as the last.

    Raises:
      ValueError: a bucket that is empty or longer than the rows.
    """
    odd = [length for length in buckets if not 1 <= length <= max_length]
    if odd:
        raise ValueError(
            f"config.rows.buckets has {odd}, expected lengths from 1 to config.rows.max_length="
            f"{max_length}"
        )
    return np.unique([*buckets, max_length])


def padded_batches(
    rows: Rows, *, batch_size: int, max_rows: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Yields the first `max_rows` rows once, in order: this process's part of each batch.

    All batches have the same size; the last is filled up with empty rows (length 0).

    Args:
      rows: the row set.
      batch_size: rows in the global batch, a multiple of process_count.
      max_rows: rows to read at most.
      process_index: which part, counted from 0.
      process_count: how many parts.
    """
    count = min(len(rows), max_rows)
    local_size = batch_size // process_count
    for start in range(0, count, batch_size):
        row_b = start + process_index * local_size + np.arange(local_size)
        filled_b = np.minimum(row_b, count - 1)
        batch = _fetch_batch(rows, filled_b, np.zeros_like(row_b), rows.max_length)
        yield batch._replace(
            length_b=batch.length_b * (row_b < count), row_b=row_b.astype(np.int32)
        )


def permuted(position_b: np.ndarray, epoch_b: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Returns which row of `count` stands at each position of its epoch, int64.

    A Feistel network over pairs (left, right) with left, right < ceil(sqrt(count)); the few
    positions that leave [0, count) go through it again until they return ("cycle walking": Black
    and Rogaway 2002, Ciphers with arbitrary finite domains).
    """
    side = np.uint64(max(1, int(np.ceil(np.sqrt(count)))))
    with np.errstate(over="ignore"):
        key_b = _mix(_mix(np.uint64(seed % (1 << 64))) + epoch_b.astype(np.uint64))
        found_b = position_b.astype(np.uint64)
        walking = np.arange(len(found_b))
        while len(walking):
            left_b, right_b = np.divmod(found_b[walking], side)
            for number in range(_ROUNDS):
                round_key_b = key_b[walking] + np.uint64(number) * _GOLDEN
                shift_b = _mix(right_b ^ _mix(round_key_b)) % side
                left_b, right_b = right_b, (left_b + shift_b) % side
            found_b[walking] = left_b * side + right_b
            walking = walking[found_b[walking] >= count]
    return found_b.astype(np.int64)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: np.ndarray) -> np.ndarray:
    """Returns splitmix64's hash of 64-bit words."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
