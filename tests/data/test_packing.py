# SPDX-License-Identifier: Apache-2.0
"""Several documents in a row: nothing lost, hardly any padding, and told apart."""

import itertools
import random

import numpy as np
import pytest

from edad_jax.data import masking
from edad_jax.data.batches import POOL, Rows, make_batch_at, padded_batches
from edad_jax.data.packing import pack
from edad_jax.data.segments import SHORTEST_SINGLE, Documents
from edad_jax.data.tokenizer import load_tokenizer
from tests.tiny_text import load_rows, make_documents, make_tiny_rows


def skewed(count, seed):
    """Returns documents of a few sentences, and now and then one that is far longer than a row."""
    generator, place, starts = random.Random(seed), 0, []
    for _ in range(count):
        sentences = int(generator.paretovariate(0.9)) + generator.randrange(4)
        sizes = (generator.randrange(3, 40) for _ in range(min(sentences, 60) + 1))
        starts.append(list(itertools.accumulate(sizes, initial=place)))
        place = starts[-1][-1]
    return Documents(np.arange(place, dtype=np.int32), starts)


@pytest.mark.parametrize(
    ("length", "most"), [(32, 0.03), (64, 0.02), (128, 0.01), (512, 0.01), (1024, 0.01)]
)
def test_each_piece_is_in_one_row_and_padding_is_hardly_any(length, most):
    documents = skewed(3_000, seed=length)
    rows = pack(documents, max_length=length)
    long_enough = [d for d in documents.starts if d[-1] - d[0] > SHORTEST_SINGLE]
    ranges = sorted(itertools.chain.from_iterable(rows))
    found = [place for start, stop in ranges for place in range(start, stop)]
    assert found == [place for d in long_enough for place in range(d[0], d[-1])]
    sizes = [sum(stop - start + 2 for start, stop in row) for row in rows]
    assert max(sizes) <= length
    assert 1 - sum(sizes) / (length * len(rows)) < most
    assert min(stop - start for start, stop in ranges) > SHORTEST_SINGLE
    # No part has pieces of two documents.
    ends = np.array([d[-1] for d in documents.starts])
    first, last = np.searchsorted(ends, np.array(ranges) - [[0, 1]], side="right").T
    assert (first == last).all()
    assert sum(len(row) > 1 for row in rows) > 0.05 * len(rows)


def test_a_cut_is_moved_to_the_end_of_a_sentence_that_is_near():
    documents = Documents(np.arange(300, dtype=np.int32), [[0, 120, 125, 300]])
    assert pack(documents, max_length=128)[0] == [(0, 125)]  # 126 fit
    documents = Documents(np.arange(300, dtype=np.int32), [[0, 120, 123, 300]])
    assert pack(documents, max_length=128)[0] == [(0, 126)]  # three pieces are too many to leave


def test_a_rest_is_never_too_short_for_a_row():
    documents = Documents(np.arange(130, dtype=np.int32), [[0, 130]])
    assert pack(documents, max_length=128) == [[(0, 120)], [(120, 130)]]


@pytest.fixture(scope="module")
def folder(tokenizer_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    texts = make_documents(60, sentences=6)
    settings = {"mode": "single", "packed": True, "heldout_fraction": 0.0, "max_length": 60}
    make_tiny_rows(texts, tokenizer_dir, out, **settings)
    return out / "train"


def test_rows_are_documents_between_cls_and_sep_and_say_where_each_begins(tokenizer_dir, folder):
    tokenizer = load_tokenizer(tokenizer_dir)
    rows = Rows(folder)
    assert rows.packed
    batch = make_batch_at(rows, batch_size=len(rows), seed=0)(0)
    stored = load_rows(folder)[batch.row_b]
    np.testing.assert_array_equal(batch.ids_bt, stored["ids"])
    np.testing.assert_array_equal(batch.segment_b_start_b, batch.length_b)
    assert not batch.next_sentence_b.any() and batch.documents_bt.dtype == np.int32
    texts = make_documents(60, sentences=6)
    stream = ",".join(map(str, tokenizer("\n".join(texts), add_special_tokens=False).input_ids))
    for ids, numbers, length in zip(batch.ids_bt, batch.documents_bt, batch.length_b, strict=True):
        assert (ids[length:] == tokenizer.pad_token_id).all()
        assert set(np.diff(numbers)) <= {0, 1} and numbers[0] == 1
        for number in range(1, numbers[-1] + 1):
            first, *middle, last = ids[:length][numbers[:length] == number]
            assert (first, last) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            assert len(middle) > SHORTEST_SINGLE and ",".join(map(str, middle)) in stream
    assert batch.documents_bt.max() > 2


def test_batches_that_are_cut_or_filled_up_keep_their_documents(folder):
    rows = Rows(folder)
    batch_at = make_batch_at(rows, batch_size=2, seed=0, buckets=(59,))
    batches = [batch_at(step) for step in range(POOL)]
    assert {batch.ids_bt.shape[1] for batch in batches} == {59, 60}
    assert all(batch.documents_bt.shape == batch.ids_bt.shape for batch in batches)
    (filled,) = padded_batches(rows, batch_size=8, max_rows=5)
    assert filled.documents_bt.shape == (8, 60) and not filled.length_b[5:].any()
    masked = masking.leave_unmasked(filled)
    np.testing.assert_array_equal(masked.documents_bt > 0, masked.mask_bt)
    assert masked.seen_bt is masked.documents_bt
