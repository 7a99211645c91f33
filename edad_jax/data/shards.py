# SPDX-License-Identifier: Apache-2.0
"""Shards: files of rows, each beside the counts of the chunks that it was made of."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edad_jax import files
from edad_jax.data import rows as rows_on_disk
from edad_jax.data.workers import ChunkRows

_CHUNK_COUNTS = (
    "tokens",
    "random_next",
    "documents_without_pieces",
    "documents_of_one_sentence",
)


class Shard:
    """One file of rows in the making, and what an earlier run left under its name."""

    def __init__(
        self, folder: Path | files.RemotePath, number: int, *, shared: bool = False
    ) -> None:
        """Finds what there is in `folder` under this number.

        Attribute `there` has it by digest of its chunk: counts and rows; nothing where the file is
        not whole. `shared`: another process may make the same shard at the same time.
        """
        self._path, self._number = rows_on_disk.shard_path(folder, number), number
        self._shared = shared
        self._counts_path = self._path.with_suffix(".json")
        old = files.read_json_or_none(self._counts_path)
        self._old = files.unsealed(old) if files.is_whole(old) else None
        self.there: dict[str, tuple[dict, np.ndarray]] = {}
        self._chunks: list[dict] = []
        self._parts: list[np.ndarray] = []
        rows = None if self._old is None else read_shard(self._path, self._old.get("sha256"))
        if rows is not None:
            self.there = {chunk["digest"]: (chunk, part) for chunk, part in cut(self._old, rows)}

    def add(self, digest: str, made: ChunkRows | None) -> int:
        """Takes the next chunk's rows (None: those that are there); returns how many it has."""
        if made is None:
            counts, rows = self.there[digest]
        else:
            rows = made.rows
            counts = {
                "digest": digest,
                "rows": len(rows),
                "tokens": int(rows["length"].sum(dtype=np.int64)),
                "random_next": int(rows["next_sentence"].sum(dtype=np.int64)),
                "documents_without_pieces": made.without_pieces,
                "documents_of_one_sentence": made.one_sentence,
            }
        self._chunks.append(counts)
        self._parts.append(rows)
        return len(self._chunks)

    def finish(self) -> dict:
        """Returns the counts of the shard, once it lies under its name."""
        if self.there and self._chunks == self._old["chunks"]:
            return self._old
        content = rows_on_disk.npy_bytes(np.concatenate(self._parts))
        counts = {
            "number": self._number,
            "rows": sum(chunk["rows"] for chunk in self._chunks),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "chunks": self._chunks,
        }
        files.write_file(self._path, content, shared=self._shared)
        files.write_json(self._counts_path, files.seal(counts), shared=self._shared)
        self._parts, self.there = [], {}
        return counts


def read_shard(path: Path | files.RemotePath, sha256: str | None) -> np.ndarray | None:
    """Returns the rows of a shard, memory-mapped where it is here; None if it is not whole."""
    try:
        if isinstance(path, files.RemotePath):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                return np.load(io.BytesIO(content), allow_pickle=False)
        elif files.file_checksum(path) == sha256:
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except files.RemoteError:
        raise
    except OSError:
        pass
    return None


def cut(shard: dict, rows: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields (counts, rows) of each chunk of a shard."""
    start = 0
    for chunk in shard["chunks"]:
        stop = start + chunk["rows"]
        yield chunk, rows[start:stop]
        start = stop


def finish_set(folder: Path | files.RemotePath, settings: dict, shards: list[dict]) -> dict:
    """Returns the set's totals; writes its manifest, and removes shards of a longer corpus."""
    chunks = [chunk for shard in shards for chunk in shard["chunks"]]
    totals = {"rows": sum(shard["rows"] for shard in shards)}
    totals |= {key: sum(chunk[key] for chunk in chunks) for key in _CHUNK_COUNTS}
    number = len(shards)
    while (path := rows_on_disk.shard_path(folder, number)).exists():
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink()
        number += 1
    listed = [
        {key: shard[key] for key in ("number", "rows", "bytes", "sha256")} for shard in shards
    ]
    manifest = settings | totals | {"shards": listed}
    files.write_json(folder / rows_on_disk.MANIFEST, files.seal(manifest))
    return totals
