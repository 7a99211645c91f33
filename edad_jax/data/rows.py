# SPDX-License-Identifier: Apache-2.0
"""Rows: the settings that decide them, and the files that hold them.

Rows are fixed-length examples on disk, in shards, with a manifest of counts and checksums.
A row set is a folder of `rows-00000.npy`, `rows-00001.npy`, ... (plain numpy files of the type
that `row_type` returns, to be memory-mapped) and a `manifest.json`. Beside each shard lies a
`rows-00000.json` with its counts, its checksum and a fingerprint of the text it was made of: a
shard that has one is finished. Every file is written beside its place and renamed, so a file
under its own name is whole.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edad_jax.files import RemotePath

if TYPE_CHECKING:
    from ml_collections import ConfigDict

FORMAT_VERSION = 1
PACKED_VERSION = 2  # rows that say where documents begin in them
MANIFEST = "manifest.json"
MODES = ("pairs", "single")
SHORTEST_PACKED = 32  # pieces of a row that is to hold several documents


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSettings:
    """What decides the rows beside the documents and the tokenizer.

    Attributes:
      max_length: pieces in a row, special ones included.
      short_seq_prob: how often a document is cut into shorter pairs (BERT's 0.1).
      duplicates: how often each document is used, with other random choices (BERT's dupe_factor).
      mode: "pairs" for BERT's next-sentence pairs, "single" for single segments as in DistilBERT.
      heldout_fraction: of the documents that go to `heldout`, by a hash of seed and number.
      seed: of all random choices.
      chunk_characters: documents are made into rows in chunks of this size, which bounds memory;
        "another document" is one of the same chunk.
      chunks_in_shard: chunks in one file of rows, by default some 50 MB; a kill costs at most the
        making of one.
      packed: whether short documents, and what is left of long ones, share rows; with "single".

    Raises:
      ValueError: a setting that cannot be; names its key in the configuration.
    """

    max_length: int = 128
    short_seq_prob: float = 0.1
    duplicates: int = 1
    mode: str = "pairs"
    heldout_fraction: float
    seed: int
    chunk_characters: int = 1 << 21
    chunks_in_shard: int = 64
    packed: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"config.rows.mode={self.mode!r} is not one of {', '.join(MODES)}")
        if not 8 <= self.max_length <= 65_535:
            raise ValueError(
                f"got config.rows.max_length={self.max_length}, expected 8 to 65535 pieces"
            )
        if not 0 <= self.short_seq_prob <= 1:
            raise ValueError(
                f"got config.rows.short_seq_prob={self.short_seq_prob}, expected 0 to 1"
            )
        if self.duplicates < 1:
            raise ValueError(f"got config.rows.duplicates={self.duplicates}, expected 1 or more")
        if self.mode == "single" and self.duplicates != 1:
            raise ValueError(
                f"got config.rows.duplicates={self.duplicates}, expected 1 with config.rows.mode="
                "'single': single segments have no random choices"
            )
        if self.packed and self.mode != "single":
            raise ValueError(
                f"config.rows.packed=True packs single segments, and config.rows.mode={self.mode!r}"
                " has next-sentence pairs, of which each needs a row; give --config.rows.mode="
                "single, or --config.rows.packed=False"
            )
        if self.packed and self.max_length < SHORTEST_PACKED:
            raise ValueError(
                f"got config.rows.max_length={self.max_length}, expected {SHORTEST_PACKED} or more "
                "with config.rows.packed=True: shorter rows have no room for several documents"
            )
        if not 0 <= self.heldout_fraction < 1:
            raise ValueError(
                f"got config.heldout.fraction={self.heldout_fraction}, expected 0 or more, below 1"
            )
        if self.seed < 0:
            raise ValueError(f"got config.seed={self.seed}, expected 0 or more")

    @classmethod
    def from_config(cls, config: ConfigDict) -> RowSettings:
        """Returns what config.rows, config.heldout and config.seed ask for."""
        return cls(
            max_length=config.rows.max_length,
            short_seq_prob=config.rows.short_seq_prob,
            duplicates=config.rows.duplicates,
            mode=config.rows.mode,
            heldout_fraction=config.heldout.fraction,
            seed=config.seed,
            packed=config.rows.packed,
        )

    def recorded(self) -> dict:
        """Returns what manifests say: of rows that are not packed, nothing of packing.

        So folders that were made before there were packed rows are those of the same settings.
        """
        values = dataclasses.asdict(self)
        is_packed = values.pop("packed")
        version = {"format_version": PACKED_VERSION if is_packed else FORMAT_VERSION}
        return version | values | ({"packed": True} if is_packed else {})


def row_type(vocabulary_size: int, max_length: int, *, packed: bool = False) -> np.dtype:
    """Returns the type of one row: ids, start of segment B, length, next-sentence label.

    Ids are uint16, or uint32 where the vocabulary has more than 65,536 entries. A packed row also
    has a bit for each piece, eight in a byte: 1 where a document begins.
    """
    id_type = np.uint16 if vocabulary_size <= 1 << 16 else np.uint32
    fields = [
        ("ids", id_type, (max_length,)),
        ("segment_b_start", np.uint16),
        ("length", np.uint16),
        ("next_sentence", np.uint8),
    ]
    if packed:
        fields.append(("begins", np.uint8, (-(-max_length // 8),)))
    return np.dtype(fields)


def shard_path(folder: Path | RemotePath, number: int) -> Path | RemotePath:
    """Returns where the shard of this number lies; its counts lie beside it, as .json."""
    return folder / f"rows-{number:05d}.npy"


def npy_bytes(rows: np.ndarray) -> bytes:
    """Returns the rows as the content of a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, rows, allow_pickle=False)
    return buffer.getvalue()  # not a view: Python 3.13 tells of one that outlives its buffer


def random_next_share(counts: Mapping[str, int]) -> float | None:
    """Returns the share of rows whose B is a random one; None where there is no row."""
    return counts["random_next"] / counts["rows"] if counts["rows"] else None


def is_next_sentence_task(random_share: float) -> bool:
    """Returns whether rows with this share of random Bs ask for more than one answer.

    About 0.5 in BERT; text in short documents comes to some 0.6.
    """
    return 0.2 <= random_share <= 0.8
