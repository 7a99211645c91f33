# SPDX-License-Identifier: Apache-2.0
"""What a run's text comes to: a sample of it made into rows, as the run itself would do it."""

import dataclasses
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from benchmarks.rehearsal import Clock
from edad_jax.data import disk
from edad_jax.data.batches import Rows, make_batch_at
from edad_jax.data.pairs import make_rows
from edad_jax.data.prepare import learn_vocabulary, prepare_folder
from edad_jax.data.rows import RowSettings
from edad_jax.data.text.source import describe_source
from edad_jax.machine import core_count
from planning.sample import Sample, take_sample, write_sample
from planning.vocabulary_curve import Point, measure_curve

LOG = logging.getLogger(__name__)
SAMPLE_CHARACTERS = 8e6
_SMALLER = (1.0, 0.75, 0.5, 0.25, 0.125)  # parts of the words asked for, tried in turn
_FEW = 8  # documents
# Learning words takes time for the distinct ones, of which a text has about a power of its length
# (Heaps). From 8 to 227 MB of medical text it took about 8 times as long, which is 28 ** 0.6.
_HEAPS = 0.6
_BATCHES = 64  # whose length is looked at, where rows are put in buckets


class Text(NamedTuple):
    """What the text comes to; counts are of all of it, as far as the sample tells."""

    characters: int  # of the sample
    share: float  # of the text that it is
    asked_words: int  # to be added
    added_words: int  # that the sample's tokenizer has: fewer where the sample has no more
    curve: list[Point]
    train_rows: int
    heldout_rows: int
    pieces: int  # in the rows to train on, padding aside
    added_share: float  # of these pieces, that are added words
    batch_length: float  # pieces of a batch's rows on average, padding included
    rows_bytes: int
    vocabulary_bytes: int
    seconds: dict[str, float]  # to learn the words, to make the rows
    cpu_seconds: dict[str, float]


def plan_text(config: ConfigDict, folder: Path) -> tuple[Text, ConfigDict]:
    """Returns what a text comes to, and a configuration whose rows, of a sample, are in `folder`.

    Args:
      config: of the run; its text is read.
      folder: for the sample, its vocabulary and its rows.

    Raises:
      ValueError: as `take_sample` and `prepare_folder`.
    """
    describe_source(config.corpus)  # looks whether it names any
    LOG.info("Reading a sample of the text.")
    sample = take_sample(config.corpus, SAMPLE_CHARACTERS)
    sampled = write_sample(sample, config, folder)
    prepared, clock = folder / "prepared", Clock()
    words = _learn(sampled, prepared, sample.share == 1, clock)
    curve = measure_curve(sampled, sample.documents, folder, words, config.vocabulary.size)
    LOG.info("Making rows of the sample.")
    with clock.measure("rows"):
        facts = prepare_folder(sampled, prepared)["rows"]
    if sample.share < 1:
        with clock.measure("start"):
            _make_few(sampled, sample, folder)
    train = Rows(prepared / "rows" / "train")
    lengths, added = _count_pieces(train, words)
    sampled.prepared = str(prepared)
    return Text(
        characters=sample.characters,
        share=sample.share,
        asked_words=config.vocabulary.size,
        added_words=words["added"],
        curve=curve,
        train_rows=_scaled(len(train), sample),
        heldout_rows=_scaled(facts["heldout"]["rows"], sample),
        pieces=_scaled(lengths, sample),
        added_share=added / lengths,
        batch_length=_batch_length(sampled, train),
        rows_bytes=_scaled(disk.written_bytes(prepared / "rows"), sample),
        vocabulary_bytes=disk.written_bytes(prepared / "vocabulary"),
        seconds=_whole_seconds(config, clock, sample, 0),
        cpu_seconds=_whole_seconds(config, clock, sample, 1),
    ), sampled


def _whole_seconds(config: ConfigDict, clock: Clock, sample: Sample, kind: int) -> dict[str, float]:
    """Returns what words and rows of all of the text take, from what a sample took."""
    took = {name: each[kind] for name, each in clock.parts.items()}
    start = min(took.get("start", 0.0), took["rows"])
    learned = min(1 / sample.share, config.vocabulary.max_megabytes * 1e6 / sample.characters)
    return {
        "vocabulary": took["words"] * max(1.0, learned) ** _HEAPS,
        "rows": start + (took["rows"] - start) / sample.share,
    }


def _make_few(sampled: ConfigDict, sample: Sample, folder: Path) -> None:
    """Makes rows of a few documents, to see how long its workers take to start."""
    make_rows(
        sample.documents[:_FEW],
        folder / "prepared" / "vocabulary",
        folder / "few",
        dataclasses.replace(RowSettings.from_config(sampled), heldout_fraction=0.0),
        workers=sampled.rows.workers or core_count(),
        progress=False,
    )


def _learn(sampled: ConfigDict, folder: Path, is_whole: bool, clock: Clock) -> dict:
    """Returns facts about the sample's tokenizer: with as many of the words asked for as it has."""
    asked, errors = sampled.vocabulary.size, []
    for size in dict.fromkeys(round(part * asked) for part in (_SMALLER[: is_whole or None])):
        LOG.info("Learning %d words from the sample.", size)
        sampled.vocabulary.size = size
        try:
            with clock.measure("words"):
                return learn_vocabulary(sampled, folder)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _count_pieces(rows: Rows, words: dict) -> tuple[int, int]:
    """Returns (pieces, pieces that are added words) of all rows."""
    pieces = added = 0
    for first in range(0, len(rows), 4_096):
        found = rows[np.arange(first, min(first + 4_096, len(rows)))]
        is_piece = np.arange(rows.max_length) < found["length"][:, None]
        pieces += int(is_piece.sum())
        added += int((is_piece & (found["ids"] >= words["base_size"])).sum())
    return pieces, added


def _batch_length(config: ConfigDict, rows: Rows) -> float:
    """Returns how long the rows of a batch are on average, as buckets cut them."""
    if not config.rows.buckets:
        return float(rows.max_length)
    size = min(config.batch_size, len(rows))
    batch_at = make_batch_at(rows, batch_size=size, seed=config.seed, buckets=config.rows.buckets)
    return float(np.mean([batch_at(number).ids_bt.shape[1] for number in range(_BATCHES)]))


def _scaled(count: float, sample: Sample) -> int:
    return round(count / sample.share)
