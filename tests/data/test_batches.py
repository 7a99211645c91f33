# SPDX-License-Identifier: Apache-2.0
"""Batches of any step, from rows on disk."""

import json
import shutil
import sys
import tracemalloc

import numpy as np
import pytest

from edad_jax.data.batches import POOL, Rows, make_batch_at, permuted
from edad_jax.data.piece_counts import masking_weights, token_counts
from edad_jax.files import unsealed
from tests.tiny_text import make_documents, make_tiny_rows


@pytest.fixture(scope="module")
def folder(tokenizer_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    make_tiny_rows(make_documents(120), tokenizer_dir, out)
    return out / "train"


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
    assert batch.documents_bt is None
    assert all(field.dtype == np.int32 for field in batch[:-1])


def test_processes_share_the_same_global_batch(folder):
    rows = Rows(folder)
    whole = make_batch_at(rows, batch_size=12, seed=3)(4)
    parts = [
        make_batch_at(rows, batch_size=12, seed=3, process_index=i, process_count=3)(4)
        for i in range(3)
    ]
    for field, *split in zip(*(each[:-1] for each in (whole, *parts)), strict=True):
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


def test_no_permutation_is_written_out():
    tracemalloc.start()
    try:
        row_b = permuted(np.arange(128) + 10**9, np.full(128, 2), count=3 * 10**9, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # the whole one has 24 GB
    assert len(set(row_b.tolist())) == 128


def test_rows_of_a_batch_are_fetched_together_not_one_by_one(folder):
    def lines_run(batch_size):
        count, tracer = 0, sys.gettrace()

        def note(frame, event, argument):
            nonlocal count
            count += event == "line"
            return note

        batch_at = make_batch_at(Rows(folder), batch_size=batch_size, seed=0)
        sys.settrace(note)
        try:
            batch_at(3)
        finally:
            sys.settrace(tracer)
        return count

    assert 20 < lines_run(256) < 2 * lines_run(16)


def test_batch_size_must_divide_among_processes(folder):
    with pytest.raises(ValueError, match="batch_size=10 for 4 processes"):
        make_batch_at(Rows(folder), batch_size=10, seed=0, process_count=4)
    with pytest.raises(ValueError, match="process_index=4"):
        make_batch_at(Rows(folder), batch_size=8, seed=0, process_index=4, process_count=4)


def test_unfinished_truncated_or_altered_rows_are_named(folder, tmp_path):
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda manifest: manifest | {"sealed_sha256": None}, "its checksum is another"),
        (lambda manifest: {**manifest, "shards": [{"number": 0}]}, "no number for rows, bytes"),
        (lambda manifest: manifest | {"shards": ["a"]}, "no number for number, rows, bytes"),
        (lambda manifest: manifest | {"shards": 1}, "no list of shards"),
        (lambda manifest: {k: v for k, v in manifest.items() if k != "rows"}, "no number for rows"),
    ],
)
def test_a_manifest_that_lacks_what_is_read_is_an_error(folder, tmp_path, change, told):
    manifest = unsealed(json.loads((folder / "manifest.json").read_text()))
    (tmp_path / "manifest.json").write_text(json.dumps(change(manifest)))
    with pytest.raises(ValueError, match=f"manifest.json is damaged: .*{told}"):
        Rows(tmp_path)
    (tmp_path / "manifest.json").write_text("true")
    with pytest.raises(ValueError, match="got no readable manifest.json"):
        Rows(tmp_path)


@pytest.fixture(scope="module")
def short_folder(tokenizer_dir, tmp_path_factory):
    """Rows of 10 to 32 pieces."""
    out = tmp_path_factory.mktemp("short")
    texts = (" ".join(str(number) for number in range(8 + n % 23)) for n in range(400))
    make_tiny_rows(texts, tokenizer_dir, out, mode="single")
    return out / "train"


def test_buckets_cut_padding_and_lose_no_row(short_folder):
    rows = Rows(short_folder)
    batch_at = make_batch_at(rows, batch_size=4, seed=3, buckets=(8, 16, 24))
    batches = [batch_at(step) for step in range(POOL)]
    lengths = {batch.ids_bt.shape[1] for batch in batches}
    assert lengths <= {8, 16, 24, 32} and len(lengths) > 1
    for batch in batches:
        assert batch.length_b.max() <= batch.ids_bt.shape[1]
    plain = [make_batch_at(rows, batch_size=4, seed=3)(step) for step in range(POOL)]
    numbers = [
        sorted(
            zip(
                np.concatenate([b.epoch_b for b in each]),
                np.concatenate([b.row_b for b in each]),
                strict=True,
            )
        )
        for each in (batches, plain)
    ]
    assert numbers[0] == numbers[1]
    cells = [sum(batch.ids_bt.size for batch in each) for each in (batches, plain)]
    assert cells[0] < cells[1]
    sizes = [batch.ids_bt.shape[1] for batch in batches]
    assert sizes != sorted(sizes)  # short ones do not all come first


def test_processes_see_one_length_and_share_the_batch_of_a_bucket(short_folder):
    rows = Rows(short_folder)
    whole = make_batch_at(rows, batch_size=8, seed=3, buckets=(16,))(POOL + 5)
    parts = [
        make_batch_at(
            rows, batch_size=8, seed=3, buckets=(16,), process_index=index, process_count=2
        )(POOL + 5)
        for index in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate([p.ids_bt for p in parts]), whole.ids_bt)
    np.testing.assert_array_equal(np.concatenate([p.row_b for p in parts]), whole.row_b)


def test_a_bucket_longer_than_the_rows_is_an_error(short_folder):
    with pytest.raises(ValueError, match=r"rows.buckets has \[64\], expected lengths .*=32"):
        make_batch_at(Rows(short_folder), batch_size=4, seed=3, buckets=(64,))


def test_counts_are_those_of_the_real_pieces_and_are_kept(short_folder, tmp_path):
    rows = Rows(short_folder)
    counts = token_counts(rows, tmp_path / "counts")
    found = rows[np.arange(len(rows))]
    expected = np.zeros(rows.manifest["vocabulary_size"], np.int64)
    for ids, length in zip(found["ids"], found["length"], strict=True):
        np.add.at(expected, ids[:length], 1)
    np.testing.assert_array_equal(counts, expected)
    assert (tmp_path / "counts.stage.json").exists()
    np.testing.assert_array_equal(token_counts(rows, tmp_path / "counts"), expected)
    assert masking_weights(np.array([0, 1, 128]), 0.7).tolist() == pytest.approx(
        [1, 1, 128**-0.7], rel=1e-6
    )
