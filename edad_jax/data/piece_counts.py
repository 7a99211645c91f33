# SPDX-License-Identifier: Apache-2.0
"""How often each piece occurs in a row set, and what follows from it.

DistilBERT's masking weighs pieces by it, and an MLM head that starts afresh may begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edad_jax.data.batches import Rows
from edad_jax.data.rows import MANIFEST
from edad_jax.data.stages import run_stage
from edad_jax.files import file_checksum, path_beside

_AT_ONCE = 65_536  # rows
_SAMPLE = 4_096  # likewise
_FILE = "token_counts.npy"


def token_counts(rows: Rows, folder: Path) -> np.ndarray:
    """Returns int64 [vocab_size] counts of the real pieces, special ones included.

    Counted once and kept in `folder`, as a plain array.

    Args:
      rows: usually those to train on.
      folder: where the counts are kept.
    """

    def count(out: Path) -> dict:
        counts = np.zeros(rows.manifest["vocabulary_size"], np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            found = rows[np.arange(start, min(start + _AT_ONCE, len(rows)))]
            is_real = np.arange(rows.max_length) < found["length"][:, None]
            counts += np.bincount(found["ids"][is_real], minlength=len(counts))
        with path_beside(out / _FILE) as beside:
            np.save(beside, counts, allow_pickle=False)
        return {"pieces": int(counts.sum()), "seen": int((counts > 0).sum())}

    run_stage(folder, {"rows": file_checksum(rows.folder / MANIFEST)}, count)
    return np.load(folder / _FILE, allow_pickle=False)


def unknown_share(rows: Rows, unknown_id: int) -> float:
    """Returns the share of [UNK] among the real pieces of some thousand rows from all over."""
    found = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))]
    is_real = np.arange(rows.max_length) < found["length"][:, None]
    return float(((found["ids"] == unknown_id) & is_real).sum() / max(1, is_real.sum()))


def masking_weights(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Returns float32 [vocab_size]: max(count, 1) ** -smoothing, so that rare pieces are masked.

    DistilBERT's published code, after XLM and word2vec; it takes 0.7.
    """
    return (np.maximum(counts, 1) ** -float(smoothing)).astype(np.float32)


def log_frequencies(counts: np.ndarray, never: Sequence[int]) -> np.ndarray:
    """Returns float32 [vocab_size]: the log of each piece's share, times the number of pieces.

    What an MLM head says before it has looked at the text: 0 where a piece is as frequent as the
    average, so that a bias of zeros says of all that they are. Every piece counts once more than it
    was seen.

    Args:
      counts: int64 [vocab_size].
      never: pieces that are never to be predicted; as rare as can be.
    """
    seen = counts + 1.0
    seen[list(never)] = 1.0
    return np.log(seen / seen.mean()).astype(np.float32)
