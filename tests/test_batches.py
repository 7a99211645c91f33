# SPDX-License-Identifier: Apache-2.0
"""Batches of any step, from rows on disk."""

import json
import time

import numpy as np
import pytest

from edad_jax.data.batches import Rows, make_batch_at, permuted
from edad_jax.data.pairs import make_rows
from tests.tiny_text import make_documents, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rows")
    make_rows(
        make_documents(120),
        write_tokenizer(root / "tokenizer"),
        root / "out",
        max_length=32,
        heldout_fraction=0.1,
        seed=1,
        workers=0,
        progress=False,
        chunk_characters=20_000,
        chunks_in_shard=2,
    )
    return root / "out" / "train"


def test_each_epoch_covers_every_row_once_whatever_the_batch_size(folder):
    rows = Rows(folder)
    assert len(rows.manifest["shards"]) > 1
    batch_at = make_batch_at(rows, batch_size=7, seed=3)
    steps = 3 * len(rows) // 7 + 1
    batches = [batch_at(step) for step in range(steps)]
    row_b = np.concatenate([batch.row_b for batch in batches])
    epoch_b = np.concatenate([batch.epoch_b for batch in batches])
    for epoch in range(3):
        assert sorted(row_b[epoch_b == epoch]) == list(range(len(rows)))
    assert list(row_b[: len(rows)]) != list(row_b[len(rows) : 2 * len(rows)])


def test_batch_holds_the_rows_it_names(folder):
    rows = Rows(folder)
    batch = make_batch_at(rows, batch_size=64, seed=3)(5)
    shards = [np.load(folder / f"rows-{s['number']:05d}.npy") for s in rows.manifest["shards"]]
    stored = np.concatenate(shards)[batch.row_b]
    np.testing.assert_array_equal(batch.ids_bt, stored["ids"])
    np.testing.assert_array_equal(batch.length_b, stored["length"])
    np.testing.assert_array_equal(batch.segment_b_start_b, stored["segment_b_start"])
    np.testing.assert_array_equal(batch.next_sentence_b, stored["next_sentence"])
    assert all(field.dtype == np.int32 for field in batch)


def test_processes_share_the_same_global_batch(folder):
    rows = Rows(folder)
    whole = make_batch_at(rows, batch_size=12, seed=3)(4)
    parts = [
        make_batch_at(rows, batch_size=12, seed=3, process_index=i, process_count=3)(4)
        for i in range(3)
    ]
    for field, *split in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(field, np.concatenate(split))


def test_seed_changes_the_order_and_nothing_else_does(folder):
    rows = Rows(folder)
    first = make_batch_at(rows, batch_size=16, seed=3)(9)
    again = make_batch_at(Rows(folder), batch_size=16, seed=3)(9)
    other = make_batch_at(rows, batch_size=16, seed=4)(9)
    np.testing.assert_array_equal(first.row_b, again.row_b)
    assert (first.row_b != other.row_b).any()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1024, 5000])
def test_permutation_is_a_permutation(count):
    for epoch in range(3):
        position_b = np.arange(count)
        row_b = permuted(position_b, np.full(count, epoch), count=count, seed=7)
        assert sorted(row_b) == list(range(count))


def test_permutation_looks_random():
    count, places = 1000, []
    for seed in range(300):
        places.append(permuted(np.array([0, 1]), np.array([0, 0]), count=count, seed=seed))
    first, second = np.array(places).T
    assert 420 < first.mean() < 580  # 500 +- 4.8 standard errors
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.25
    assert len(set((second - first) % count)) > 200
    row_b = permuted(np.arange(count), np.zeros(count, int), count=count, seed=0)
    moved = np.corrcoef(row_b, np.arange(count))[0, 1]
    assert np.abs(moved) < 0.15
    neighbours = np.abs(np.diff(row_b)).mean()
    assert 280 < neighbours < 390  # a third of 1000


def test_seek_to_example_ten_to_the_ninth_is_instant():
    start = time.perf_counter()
    row_b = permuted(np.arange(128) + 10**9, np.full(128, 2), count=3 * 10**9, seed=0)
    assert time.perf_counter() - start < 0.1
    assert len(set(row_b.tolist())) == 128


def test_batch_takes_about_a_millisecond(folder):
    batch_at = make_batch_at(Rows(folder), batch_size=128, seed=0)
    batch_at(0)
    times = []
    for step in range(20):
        start = time.perf_counter()
        batch_at(step)
        times.append(time.perf_counter() - start)
    assert sorted(times)[len(times) // 2] < 0.002  # 0.5 ms measured on a quiet machine


def test_batch_size_must_divide_among_processes(folder):
    with pytest.raises(ValueError, match="batch_size=10 for 4 processes"):
        make_batch_at(Rows(folder), batch_size=10, seed=0, process_count=4)
    with pytest.raises(ValueError, match="process_index=4"):
        make_batch_at(Rows(folder), batch_size=8, seed=0, process_index=4, process_count=4)


def test_unfinished_truncated_or_altered_rows_are_named(folder, tmp_path):
    import shutil

    with pytest.raises(ValueError, match="not a finished row set"):
        Rows(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    Rows(copy).verify()
    shard = copy / "rows-00001.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="sha256.*rows-00001.npy"):
        Rows(copy).verify()
    shard.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"rows-00001.npy is damaged: got [\d,]+ bytes, expected"):
        Rows(copy)
    shard.unlink()
    with pytest.raises(ValueError, match="rows-00001.npy is damaged"):
        Rows(copy)


def test_other_format_version_is_an_error(folder, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text()) | {"format_version": 99}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="got row format 99, expected 1"):
        Rows(tmp_path)
