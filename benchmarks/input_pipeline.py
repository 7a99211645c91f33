# SPDX-License-Identifier: Apache-2.0
"""The input pipeline alone: random rows on disk, in the form of a real run, and how fast they come.

The rows have just been written, so they come from the system's cache of files, as they do in a
training run whose rows fit in memory beside it.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from edad_jax import files
from edad_jax.data import rows as rows_on_disk
from edad_jax.data.batches import Rows, make_batch_at

RESUMED_AT = 10**8  # examples seen before
SHARD_ROWS = 50_000
_LONGEST = 2_000  # batches to time


def time_input(
    *,
    rows: int,
    max_length: int,
    vocabulary_size: int,
    batch_size: int,
    buckets: tuple[int, ...],
    seconds: float,
) -> dict:
    """Returns how long `batch_at` takes at the start of a run, and in one that was resumed.

    Args:
      rows: on disk.
      max_length: pieces of a row.
      vocabulary_size: decides between 16 and 32 bits a piece.
      batch_size: rows of a batch.
      buckets: as config.rows.buckets.
      seconds: how long to time it.

    Returns:
      "rows", "megabytes", "seconds" of a batch (mean), "seconds_p90", "batches_per_second",
      "resumed_at" (examples), "resumed_seconds": to open the rows and make that batch.
    """
    with tempfile.TemporaryDirectory(prefix="edad-jax-rows-") as folder:
        megabytes = write_random_rows(Path(folder), rows, max_length, vocabulary_size) / 1e6
        settings = {"batch_size": batch_size, "seed": 0, "buckets": buckets}
        start = time.perf_counter()
        make_batch_at(Rows(folder), **settings)(RESUMED_AT // batch_size)
        resumed = time.perf_counter() - start
        batch_at = make_batch_at(Rows(folder), **settings)
        taken: list[float] = []
        while len(taken) < 5 or (sum(taken) < seconds and len(taken) < _LONGEST):
            start = time.perf_counter()
            batch_at(len(taken))
            taken.append(time.perf_counter() - start)
    return {
        "rows": rows,
        "megabytes": megabytes,
        "seconds": float(np.mean(taken)),  # not the median: with buckets, few batches do the work
        "seconds_p90": float(np.percentile(taken, 90)),
        "batches_per_second": len(taken) / sum(taken),
        "resumed_at": RESUMED_AT,
        "resumed_seconds": resumed,
    }


def write_random_rows(folder: Path, rows: int, max_length: int, vocabulary_size: int) -> int:
    """Returns the bytes of a new row set of random pieces and lengths."""
    random = np.random.default_rng(0)
    shards = []
    for number, first in enumerate(range(0, rows, SHARD_ROWS)):
        count = min(SHARD_ROWS, rows - first)
        shard = np.zeros(count, rows_on_disk.row_type(vocabulary_size, max_length))
        shard["ids"] = random.integers(0, vocabulary_size, (count, max_length), np.uint32)
        shard["length"] = random.integers(max_length // 4, max_length + 1, count)
        shard["segment_b_start"] = shard["length"] // 2
        content = rows_on_disk.npy_bytes(shard)
        files.write_file(rows_on_disk.shard_path(folder, number), content)
        shards.append({"number": number, "rows": count, "bytes": len(content)})
    manifest = {
        "format_version": rows_on_disk.FORMAT_VERSION,
        "rows": rows,
        "max_length": max_length,
        "vocabulary_size": vocabulary_size,
        "shards": shards,
    }
    files.write_json(folder / rows_on_disk.MANIFEST, manifest)
    return sum(shard["bytes"] for shard in shards)
