# SPDX-License-Identifier: Apache-2.0
"""Documents to rows: BERT's pairs, exact ids, and the same bytes whatever happens on the way."""

import dataclasses
import errno
import os

import numpy as np
import pytest

from edad_jax.data import segments
from edad_jax.data.pairs import split_chunks
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.tokenizer import load_tokenizer
from tests.tiny_text import TINY_ROWS, load_rows, make_documents, make_tiny_rows, read_files


def test_rows_are_cls_a_sep_b_sep_padded(tokenizer_dir, tmp_path):
    texts = make_documents(40)
    manifest = make_tiny_rows(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, max_length=256)
    tokenizer = load_tokenizer(tokenizer_dir)
    stream = " ".join(" ".join(tokenizer.tokenize(line)) for line in "\n".join(texts).split("\n"))
    rows = load_rows(tmp_path / "train")
    assert rows.dtype["ids"].base == np.uint16
    assert len(rows) == manifest["train"]["rows"] > 100
    assert manifest["train"]["tokens"] == rows["length"].sum()
    assert 0.3 < rows["next_sentence"].mean() < 0.8
    for row in rows[:100]:
        ids, length, start = row["ids"].tolist(), int(row["length"]), int(row["segment_b_start"])
        assert ids[0] == tokenizer.cls_token_id
        assert ids[start - 1] == ids[length - 1] == tokenizer.sep_token_id
        assert ids[length:] == [tokenizer.pad_token_id] * (256 - length)
        for part in (ids[1 : start - 1], ids[start : length - 1]):
            assert part and " ".join(tokenizer.convert_ids_to_tokens(part)) in stream


def test_single_segments_hold_each_piece_once_in_order(tokenizer_dir, tmp_path):
    texts = make_documents(20)
    make_tiny_rows(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, mode="single")
    rows = load_rows(tmp_path / "train")
    tokenizer = load_tokenizer(tokenizer_dir)
    assert (rows["segment_b_start"] == rows["length"]).all()
    assert not rows["next_sentence"].any()
    found = [row["ids"][1 : row["length"] - 1].tolist() for row in rows]
    ids = tokenizer(" ".join(texts), add_special_tokens=False).input_ids
    stream = ",".join(map(str, ids))
    assert all(",".join(map(str, part)) in stream for part in found)
    assert sum(map(len, found)) > 0.9 * len(ids)  # short ends are dropped


def test_held_out_documents_are_not_in_training(tokenizer_dir, tmp_path):
    texts = [f"Number {n} is here.\n" * 4 + f"And so {n}.\n" * 4 for n in range(1000, 1400)]
    manifest = make_tiny_rows(texts, tokenizer_dir, tmp_path)
    tokenizer = load_tokenizer(tokenizer_dir)

    def numbers(folder):
        decoded = tokenizer.batch_decode(load_rows(folder)["ids"], skip_special_tokens=True)
        return {word for text in decoded for word in text.split() if word.isdigit()}

    train, heldout = numbers(tmp_path / "train"), numbers(tmp_path / "heldout")
    assert len(heldout) > 20 and len(train) > 300
    # Cut pieces of numbers aside ("##01" of 1001 when a sentence is truncated in it).
    assert not {n for n in train if len(n) == 4} & {n for n in heldout if len(n) == 4}
    assert manifest["heldout"]["rows"] > 0


def test_only_changed_text_is_done_again(tokenizer_dir, tmp_path, monkeypatch):
    texts = make_documents(100)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
    changed = [*texts[:-1], "Another end. It is new. It has sentences."]
    made = []
    original = segments.encode_documents
    monkeypatch.setattr(
        segments, "encode_documents", lambda t, *rest: made.append(len(t)) or original(t, *rest)
    )
    make_tiny_rows(changed, tokenizer_dir, tmp_path / "out")
    assert 0 < sum(made) < 50
    monkeypatch.setattr(segments, "encode_documents", original)
    make_tiny_rows(changed, tokenizer_dir, tmp_path / "fresh")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "fresh")


def test_damaged_shard_is_made_again(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
    before = read_files(tmp_path / "out")
    for damage in (lambda c: c[:-5], lambda c: c[:300] + b"!" + c[301:]):
        path = tmp_path / "out" / "train" / "rows-00001.npy"
        path.write_bytes(damage(path.read_bytes()))
        make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
        assert read_files(tmp_path / "out") == before


def test_shards_of_a_longer_corpus_go(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
    make_tiny_rows(texts[:30], tokenizer_dir, tmp_path / "out")
    make_tiny_rows(texts[:30], tokenizer_dir, tmp_path / "fresh")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "fresh")


def test_folder_of_other_settings_is_an_error_that_names_the_key(tokenizer_dir, tmp_path):
    make_tiny_rows(make_documents(50), tokenizer_dir, tmp_path)
    with pytest.raises(ValueError, match="max_length: got 64, has 32"):
        make_tiny_rows(make_documents(50), tokenizer_dir, tmp_path, max_length=64)


def test_full_disk_says_so_and_keeps_finished_shards(tokenizer_dir, tmp_path, monkeypatch):
    texts = make_documents(100)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "whole")
    written, original = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*the same command") as caught:
        make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "out/train/rows-00000.json").exists()
    assert not list((tmp_path / "out").rglob("*.partial"))
    monkeypatch.undo()
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "out")
    assert read_files(tmp_path / "out") == read_files(tmp_path / "whole")


def test_folder_that_may_not_be_written_is_a_clear_error(tokenizer_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*settings.json.*choose another folder"):
        make_tiny_rows(make_documents(5), tokenizer_dir, tmp_path / "file" / "out")


def test_no_documents_no_rows_and_no_held_out_rows_are_errors(tokenizer_dir, tmp_path):
    with pytest.raises(ValueError, match="got 0 documents, expected text"):
        make_tiny_rows([], tokenizer_dir, tmp_path / "a")
    with pytest.raises(ValueError, match="no rows to train on from 1 documents"):
        make_tiny_rows(["One sentence."], tokenizer_dir, tmp_path / "b", heldout_fraction=0.0)
    with pytest.raises(ValueError, match="no held-out rows from 10 documents"):
        make_tiny_rows(make_documents(10), tokenizer_dir, tmp_path / "c", heldout_fraction=1e-6)


def test_one_long_document_is_not_called_too_short(tokenizer_dir, tmp_path):
    words = "hippocampus " * 300  # a dozen pieces each, and no full stop
    for name, text, fraction, told in (
        ("a", words, 0.0, "a pair takes two sentences .* or one of another document"),
        ("b", words, 0.2, "a pair takes two sentences .* or one of another document"),
        ("c", words.replace(" ", " . ", 99), 1e-6, "no held-out rows from 1 .* as a whole"),
        ("d", words.replace(" ", " . ", 99), 0.9999, "to train on from 1 .* as a whole"),
    ):
        with pytest.raises(ValueError, match=told) as raised:
            make_tiny_rows([text], tokenizer_dir, tmp_path / name, heldout_fraction=fraction)
        assert "short" not in str(raised.value)


def test_short_and_empty_documents_are_counted(tokenizer_dir, tmp_path):
    texts = [*make_documents(30, sentences=20), "One sentence.", "\u200b", "Two. Sentences."]
    report = ReadReport(problems={"line skipped: not JSON": 3})
    manifest = make_tiny_rows(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, report=report)
    assert manifest["train"]["documents_without_pieces"] == 1
    assert manifest["train"]["documents_of_one_sentence"] >= 1
    assert manifest["reading"]["problems"] == {"line skipped: not JSON": 3}


def test_single_document_gives_true_pairs_only(tokenizer_dir, tmp_path):
    text = "The cell. A gene. The brain of a patient.\n" * 50
    manifest = make_tiny_rows([text], tokenizer_dir, tmp_path, heldout_fraction=0.0)
    assert manifest["train"]["rows"] > 3 and manifest["train"]["random_next"] == 0


def test_text_without_full_stops_is_not_lost(tokenizer_dir, tmp_path):
    texts = ["the cell of a neuron " * 500, *make_documents(3)]
    manifest = make_tiny_rows(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0)
    assert manifest["train"]["tokens"] > 2500


def test_duplicates_use_a_document_again_otherwise(tokenizer_dir, tmp_path):
    texts = make_documents(40)
    once, thrice = (
        make_tiny_rows(
            texts, tokenizer_dir, tmp_path / str(times), heldout_fraction=0.0, duplicates=times
        )["train"]["rows"]
        for times in (1, 3)
    )
    assert 2.7 < thrice / once < 3.3
    assert len(np.unique(load_rows(tmp_path / "3" / "train"))) > 2.5 * once


def numbered(documents):
    return ((number, len(text), text) for number, text in enumerate(documents))


@pytest.mark.parametrize("count", [2, 5, 8])
def test_a_random_next_sentence_is_found_wherever_there_is_another_document(
    tokenizer_dir, tmp_path, count
):
    """Documents of a chunk's size each: none of them is alone, the last one neither."""
    documents = ["\n".join(make_documents(20, seed=seed)) for seed in range(count)]
    changes = {"heldout_fraction": 0.0, "chunk_characters": 2_000, "max_length": 128}
    assert min(map(len, documents)) > changes["chunk_characters"]
    settings = dataclasses.replace(TINY_ROWS, **changes)
    chunks = [texts for _, texts in split_chunks(numbered(documents), settings)]
    assert sum(chunks, []) == documents
    assert min(map(len, chunks)) >= 2
    counts = make_tiny_rows(documents, tokenizer_dir, tmp_path, **changes)["train"]
    assert 0.3 < counts["random_next"] / counts["rows"] < 0.8


def test_a_lone_document_at_the_end_joins_those_before_it():
    settings = dataclasses.replace(TINY_ROWS, heldout_fraction=0.0, chunk_characters=10)
    texts = ["a" * 6] * 5

    def sizes(texts):
        return [len(chunk) for _, chunk in split_chunks(numbered(texts), settings)]

    assert sizes(texts) == [2, 3]
    assert sizes(texts[:4]) == [2, 2]
    assert sizes(texts[:1]) == [1]


def test_a_document_that_is_held_out_is_not_too_short(tokenizer_dir, tmp_path):
    with pytest.raises(
        ValueError, match=r"from 2 documents: .*fraction=0.99\d* all of them are held"
    ):
        make_tiny_rows(make_documents(2), tokenizer_dir, tmp_path, heldout_fraction=0.999)
