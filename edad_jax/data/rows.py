# SPDX-License-Identifier: Apache-2.0
"""The row files: fixed-length examples on disk, in shards, with a manifest of counts and checksums.

A row set is a folder of `rows-00000.npy`, `rows-00001.npy`, ... (plain numpy files of the type
that `row_type` returns, to be memory-mapped) and a `manifest.json`. Beside each shard lies a
`rows-00000.json` with its counts, its checksum and a fingerprint of the text it was made of: a
shard that has one is finished. Every file is written beside its place and renamed, so a file
under its own name is whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


def row_type(vocabulary_size: int, max_length: int) -> np.dtype:
    """Returns the type of one row: ids, start of segment B, length, next-sentence label.

    Ids are uint16, or uint32 where the vocabulary has more than 65,536 entries.
    """
    id_type = np.uint16 if vocabulary_size <= 1 << 16 else np.uint32
    return np.dtype(
        [
            ("ids", id_type, (max_length,)),
            ("segment_b_start", np.uint16),
            ("length", np.uint16),
            ("next_sentence", np.uint8),
        ]
    )


def shard_path(folder: Path, number: int) -> Path:
    """Returns where the shard of this number lies; its counts lie beside it, as .json."""
    return folder / f"rows-{number:05d}.npy"


def npy_bytes(rows: np.ndarray) -> bytes:
    """Returns the rows as the content of a .npy file."""
    from io import BytesIO

    buffer = BytesIO()
    np.lib.format.write_array(buffer, rows, allow_pickle=False)
    return buffer.getvalue()  # not a view: Python 3.13 tells of one that outlives its buffer
