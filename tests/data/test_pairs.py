# SPDX-License-Identifier: Apache-2.0
"""Documents to rows: BERT's pairs, exact ids, and the same bytes whatever happens on the way."""

import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from configs import edad
from edad_jax.data import rows as rows_on_disk
from edad_jax.data import segments
from edad_jax.data.pairs import make_rows
from edad_jax.data.pieces import PieceTable, split_words
from edad_jax.data.rows import RowSettings
from edad_jax.data.segments import Documents
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.tokenizer import load_tokenizer
from tests.tiny_text import TINY_ROWS, make_documents, write_tokenizer

NASTY = (
    "plain text, (with) punctuation... and [SEP] [MASK] <b>tags</b>",
    "a\x00b\x0bc\x0cd\x1ce\x1ff\x85g\u200bh\u200di\ufeffj\ufffdk\xadl",
    "no\xa0break\u2003em\u3000wide\u2028line\u2029par\u1680ogham\u202fnarrow\u205fmath",
    "É e\u0301 ñ n\u0303 \u0301 ŵ İ ı ſ ﬁ Σσς ΌΣΟΣ ß ẞ",
    "안녕하세요 뇌세포 \u1112\u1161\u11ab 한국어는",
    "中文字符。日本語テキスト ـعربيـ हिन्दी ไทย",
    "\U0001f600 \U0001f468\u200d\U0001f469 \ue000\ue001 x\ue000y \ue001 \U000f0000",
    "\r\n\t tabs\tand\rreturns\n",
    "x" * 300 + " " + "뇌" * 150,
    "",
    " \u200b ",
)


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def make(documents, tokenizer_dir, out, *, workers=0, report=None, **changes):
    settings = dataclasses.replace(TINY_ROWS, **changes)
    return make_rows(
        documents, tokenizer_dir, out, settings, workers=workers, progress=False, report=report
    )


def load(folder):
    return np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("lower", "config"),
    [(True, {}), (False, {}), (False, {"strip_accents": False, "tokenize_chinese_chars": False})],
)
def test_cached_ids_equal_the_tokenizer_on_nasty_text(tmp_path, lower, config):
    folder = write_tokenizer(tmp_path, lower=lower, **config)
    tokenizer = load_tokenizer(folder).backend_tokenizer
    table = PieceTable(tokenizer)
    tokenizer.encode_special_tokens = True  # as BERT's own code, which knows none in the text
    candidates = [
        c
        for c in map(chr, range(0x110000))
        if c.isspace() or not c.isprintable() and ord(c) < 0x3100
    ]
    texts = [*NASTY, *(f"ab{c}cell {c} {c}\u0301the." for c in candidates)]
    for _ in range(2):  # the second time everything is known
        pieces = table.encode([split_words(text) for text in texts])
        for number, text in enumerate(texts):
            start, stop = pieces.sentence_starts[number : number + 2]
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert pieces.ids[start:stop].tolist() == expected, ascii(text)


def test_table_that_starts_afresh_gives_the_same_ids(tokenizer_dir, monkeypatch):
    tokenizer = load_tokenizer(tokenizer_dir).backend_tokenizer
    sentences = [split_words(text) for text in make_documents(10)]
    expected = PieceTable(tokenizer).encode(sentences).ids
    monkeypatch.setattr("edad_jax.data.pieces.CACHED_CHARACTERS", 10)
    table = PieceTable(tokenizer)
    for _ in range(3):
        np.testing.assert_array_equal(table.encode(sentences).ids, expected)


def reference_pairs(documents, max_length, short_seq_prob, generator):
    """Devlin's create_instances_from_document, written plainly over lists of lists."""
    longest, found = max_length - 3, []
    for number, document in enumerate(documents):
        target = longest
        if generator.random() < short_seq_prob:
            target = generator.randint(2, longest)
        chunk, i = [], 0
        while i < len(document):
            chunk.append(document[i])
            if i == len(document) - 1 or sum(map(len, chunk)) >= target:
                a_end = 1 if len(chunk) == 1 else generator.randint(1, len(chunk) - 1)
                a = sum(chunk[:a_end], [])
                b = []
                if len(chunk) == 1 or generator.random() < 0.5:
                    label = 1
                    other = number
                    while other == number:
                        other = generator.randrange(len(documents))
                    start = generator.randrange(len(documents[other]))
                    for sentence in documents[other][start:]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                else:
                    label = 0
                    b = sum(chunk[a_end:], [])
                while len(a) + len(b) > longest:
                    cut = a if len(a) > len(b) else b
                    del cut[0 if generator.random() < 0.5 else -1]
                found.append((len(a), len(b), label))
                chunk = []
            i += 1
    return found


def numbered_documents(count, seed):
    """Documents whose pieces are 0, 1, 2, ...: a piece says where it stands."""
    generator, starts, position = random.Random(seed), [], 0
    for _ in range(count):
        document = [position]
        for _ in range(generator.randrange(1, 25)):
            position += generator.randrange(1, 30)
            document.append(position)
        starts.append(document)
    return Documents(np.arange(position, dtype=np.int32), starts)


def test_pairs_follow_devlin_in_distribution():
    documents = numbered_documents(300, seed=0)
    nested = [
        [list(range(a, b)) for a, b in zip(starts[:-1], starts[1:], strict=True)]
        for starts in documents.starts
    ]
    ours, theirs = [], []
    for seed in range(5):
        pairs = segments.next_sentence_pairs(
            documents, max_length=64, short_seq_prob=0.1, generator=random.Random(seed)
        )
        ours += [(a1 - a0, b1 - b0, label) for a0, a1, b0, b1, label in pairs]
        theirs += reference_pairs(nested, 64, 0.1, random.Random(seed + 100))
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert abs(len(ours) / len(theirs) - 1) < 0.03
    for column in range(3):
        a, b = ours[:, column], theirs[:, column]
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4 * error
        assert abs(a.std() / b.std() - 1) < 0.06


def test_label_says_whether_b_follows_a():
    documents = numbered_documents(200, seed=1)
    bounds = [(starts[0], starts[-1]) for starts in documents.starts]

    def document_of(position):
        return next(i for i, (start, stop) in enumerate(bounds) if start <= position < stop)

    pairs = segments.next_sentence_pairs(
        documents, max_length=64, short_seq_prob=0.1, generator=random.Random(0)
    )
    labels = Counter()
    for a_start, a_stop, b_start, b_stop, label in pairs:
        assert a_start < a_stop and b_start < b_stop
        assert a_stop - a_start + b_stop - b_start <= 61
        assert (document_of(a_start) == document_of(b_start)) == (label == 0)
        if label == 0:
            assert a_stop <= b_start
            if a_stop - a_start + b_stop - b_start < 61:  # nothing was cut off
                assert a_stop == b_start
        labels[label] += 1
    assert 0.4 < labels[1] / labels.total() < 0.75


def test_every_sentence_is_used_and_unused_ones_are_put_back():
    documents = numbered_documents(100, seed=2)
    pairs = segments.next_sentence_pairs(
        documents, max_length=10_000, short_seq_prob=0.0, generator=random.Random(0)
    )
    used = np.zeros(len(documents.ids), bool)
    for a_start, a_stop, b_start, b_stop, label in pairs:
        used[a_start:a_stop] = True
        if label == 0:
            used[b_start:b_stop] = True
    assert used.all()


def test_truncation_cuts_the_longer_side_as_one_piece_at_a_time_would():
    generator = random.Random(0)
    for _ in range(500):
        a, b, longest = (generator.randrange(1, 60) for _ in range(3))
        longest = max(2, longest)
        a_left, b_left = a, b
        while a_left + b_left > longest:
            if a_left > b_left:
                a_left -= 1
            else:
                b_left -= 1
        cut = segments._truncate(0, a, 100, 100 + b, longest, generator)
        assert (cut[1] - cut[0], cut[3] - cut[2]) == (a_left, b_left)
        assert 0 <= cut[0] and cut[1] <= a and 100 <= cut[2] and cut[3] <= 100 + b


def test_rows_are_cls_a_sep_b_sep_padded(tokenizer_dir, tmp_path):
    texts = make_documents(40)
    manifest = make(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, max_length=256)
    tokenizer = load_tokenizer(tokenizer_dir)
    stream = " ".join(" ".join(tokenizer.tokenize(line)) for line in "\n".join(texts).split("\n"))
    rows = load(tmp_path / "train")
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
    make(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, mode="single")
    rows = load(tmp_path / "train")
    tokenizer = load_tokenizer(tokenizer_dir)
    assert (rows["segment_b_start"] == rows["length"]).all()
    assert not rows["next_sentence"].any()
    found = [row["ids"][1 : row["length"] - 1].tolist() for row in rows]
    ids = tokenizer(" ".join(texts), add_special_tokens=False).input_ids
    stream = ",".join(map(str, ids))
    assert all(",".join(map(str, part)) in stream for part in found)
    assert sum(map(len, found)) > 0.9 * len(ids)  # short ends are dropped


def test_wide_vocabulary_gets_wide_ids():
    assert rows_on_disk.row_type(65_536, 128)["ids"].base == np.uint16
    assert rows_on_disk.row_type(65_537, 128)["ids"].base == np.uint32


def test_rows_do_not_depend_on_the_number_of_workers(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make(texts, tokenizer_dir, tmp_path / "none", workers=0)
    make(texts, tokenizer_dir, tmp_path / "two", workers=2)
    assert content_of(tmp_path / "none") == content_of(tmp_path / "two")


def test_held_out_documents_are_not_in_training(tokenizer_dir, tmp_path):
    texts = [f"Number {n} is here.\n" * 4 + f"And so {n}.\n" * 4 for n in range(1000, 1400)]
    manifest = make(texts, tokenizer_dir, tmp_path)
    tokenizer = load_tokenizer(tokenizer_dir)

    def numbers(folder):
        decoded = tokenizer.batch_decode(load(folder)["ids"], skip_special_tokens=True)
        return {word for text in decoded for word in text.split() if word.isdigit()}

    train, heldout = numbers(tmp_path / "train"), numbers(tmp_path / "heldout")
    assert len(heldout) > 20 and len(train) > 300
    # Cut pieces of numbers aside ("##01" of 1001 when a sentence is truncated in it).
    assert not {n for n in train if len(n) == 4} & {n for n in heldout if len(n) == 4}
    assert manifest["heldout"]["rows"] > 0


PROGRAM = """
import sys, time
from pathlib import Path
from edad_jax.data.pairs import make_rows
from tests.tiny_text import TINY_ROWS, make_documents
def slow():
    for number, text in enumerate(make_documents(100)):
        if number == 60:
            print("far", flush=True)
        time.sleep(0.5 * (number > 60))  # slow enough to be killed on the way
        yield text
make_rows(slow(), Path(sys.argv[1]), Path(sys.argv[2]), TINY_ROWS, workers=2, progress=False)
"""


def test_run_after_kill_9_keeps_shards_and_gives_the_same_bytes(tokenizer_dir, tmp_path):
    make(make_documents(100), tokenizer_dir, tmp_path / "whole")
    out = tmp_path / "killed"
    run = [sys.executable, "-c", PROGRAM, str(tokenizer_dir), str(out)]
    with subprocess.Popen(run, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"far\n"
        deadline = time.monotonic() + 30
        first = out / "train" / "rows-00000.json"
        while not first.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert first.exists() and not (out / "manifest.json").exists()
    before = first.stat().st_mtime_ns
    make(make_documents(100), tokenizer_dir, out)
    assert first.stat().st_mtime_ns == before
    assert content_of(out) == content_of(tmp_path / "whole")


def test_only_changed_text_is_done_again(tokenizer_dir, tmp_path, monkeypatch):
    texts = make_documents(100)
    make(texts, tokenizer_dir, tmp_path / "out")
    changed = [*texts[:-1], "Another end. It is new. It has sentences."]
    made = []
    original = segments.encode_documents
    monkeypatch.setattr(
        segments, "encode_documents", lambda t, *rest: made.append(len(t)) or original(t, *rest)
    )
    make(changed, tokenizer_dir, tmp_path / "out")
    assert 0 < sum(made) < 50
    monkeypatch.setattr(segments, "encode_documents", original)
    make(changed, tokenizer_dir, tmp_path / "fresh")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "fresh")


def test_damaged_shard_is_made_again(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make(texts, tokenizer_dir, tmp_path / "out")
    before = content_of(tmp_path / "out")
    for damage in (lambda c: c[:-5], lambda c: c[:300] + b"!" + c[301:]):
        path = tmp_path / "out" / "train" / "rows-00001.npy"
        path.write_bytes(damage(path.read_bytes()))
        make(texts, tokenizer_dir, tmp_path / "out")
        assert content_of(tmp_path / "out") == before


def test_shards_of_a_longer_corpus_go(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make(texts, tokenizer_dir, tmp_path / "out")
    make(texts[:30], tokenizer_dir, tmp_path / "out")
    make(texts[:30], tokenizer_dir, tmp_path / "fresh")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "fresh")


def test_folder_of_other_settings_is_an_error_that_names_the_key(tokenizer_dir, tmp_path):
    make(make_documents(50), tokenizer_dir, tmp_path)
    with pytest.raises(ValueError, match="max_length: got 64, has 32"):
        make(make_documents(50), tokenizer_dir, tmp_path, max_length=64)


def test_full_disk_says_so_and_keeps_finished_shards(tokenizer_dir, tmp_path, monkeypatch):
    texts = make_documents(100)
    make(texts, tokenizer_dir, tmp_path / "whole")
    written, original = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match="No space left on device.*run the same command again"
    ) as caught:
        make(texts, tokenizer_dir, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "out/train/rows-00000.json").exists()
    assert not list((tmp_path / "out").rglob("*.partial"))
    monkeypatch.undo()
    make(texts, tokenizer_dir, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_folder_that_may_not_be_written_is_a_clear_error(tokenizer_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*settings.json.*choose another folder"):
        make(make_documents(5), tokenizer_dir, tmp_path / "file" / "out")


def test_no_documents_no_rows_and_no_held_out_rows_are_errors(tokenizer_dir, tmp_path):
    with pytest.raises(ValueError, match="got 0 documents, expected text"):
        make([], tokenizer_dir, tmp_path / "a")
    with pytest.raises(ValueError, match="no rows from 1 documents"):
        make(["One sentence."], tokenizer_dir, tmp_path / "b", heldout_fraction=0.0)
    with pytest.raises(ValueError, match="no held-out rows from 10 documents"):
        make(make_documents(10), tokenizer_dir, tmp_path / "c", heldout_fraction=1e-6)


def test_short_and_empty_documents_are_counted(tokenizer_dir, tmp_path):
    texts = [*make_documents(30, sentences=20), "One sentence.", "\u200b", "Two. Sentences."]
    report = ReadReport(problems={"line skipped: not JSON": 3})
    manifest = make(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0, report=report)
    assert manifest["train"]["documents_without_pieces"] == 1
    assert manifest["train"]["documents_of_one_sentence"] >= 1
    assert manifest["reading"]["problems"] == {"line skipped: not JSON": 3}


def test_single_document_gives_true_pairs_only(tokenizer_dir, tmp_path):
    text = "The cell. A gene. The brain of a patient.\n" * 50
    manifest = make([text], tokenizer_dir, tmp_path, heldout_fraction=0.0)
    assert manifest["train"]["rows"] > 3 and manifest["train"]["random_next"] == 0


def test_text_without_full_stops_is_not_lost(tokenizer_dir, tmp_path):
    texts = ["the cell of a neuron " * 500, *make_documents(3)]
    manifest = make(texts, tokenizer_dir, tmp_path, heldout_fraction=0.0)
    assert manifest["train"]["tokens"] > 2500


def test_duplicates_use_a_document_again_otherwise(tokenizer_dir, tmp_path):
    texts = make_documents(40)
    once = make(texts, tokenizer_dir, tmp_path / "1", heldout_fraction=0.0)
    thrice = make(texts, tokenizer_dir, tmp_path / "3", heldout_fraction=0.0, duplicates=3)
    assert 2.7 < thrice["train"]["rows"] / once["train"]["rows"] < 3.3
    assert len(np.unique(load(tmp_path / "3" / "train"))) > 2.5 * once["train"]["rows"]


def test_worker_that_is_killed_is_a_clear_error(tokenizer_dir, tmp_path, monkeypatch):
    from edad_jax.data import workers

    original = workers._start_worker

    def start_and_kill(recipe):
        process = original(recipe)
        process.kill()
        process.wait()
        return process

    monkeypatch.setattr(workers, "_start_worker", start_and_kill)
    with pytest.raises(OSError, match="exit code -9.*use fewer workers"):
        make(make_documents(30), tokenizer_dir, tmp_path, workers=1)


def test_workers_import_neither_jax_nor_torch_nor_transformers():
    program = (
        "import sys, edad_jax.data.workers, edad_jax.data.batches, edad_jax.data.pairs\n"
        "print([m for m in ('jax', 'torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "other"}, "config.rows.mode='other' is not one of pairs, single"),
        ({"max_length": 3}, "got config.rows.max_length=3, expected 8 to 65535 pieces"),
        ({"max_length": 65_536}, "got config.rows.max_length=65536"),
        ({"short_seq_prob": -0.1}, "got config.rows.short_seq_prob=-0.1, expected 0 to 1"),
        ({"duplicates": 0}, "got config.rows.duplicates=0, expected 1 or more"),
        ({"mode": "single", "duplicates": 2}, "single segments have no random choices"),
        ({"heldout_fraction": 1.5}, "got config.heldout.fraction=1.5, expected 0 or more, below 1"),
    ],
)
def test_impossible_settings_are_errors_that_name_the_option(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY_ROWS, **wrong)


def test_a_negative_number_of_workers_is_an_error(tokenizer_dir, tmp_path):
    with pytest.raises(ValueError, match="got config.rows.workers=-1, expected 0 or more"):
        make(make_documents(2), tokenizer_dir, tmp_path, workers=-1)


def test_settings_are_those_of_the_configuration():
    config = edad.get_config()
    config.rows.update(max_length=64, short_seq_prob=0.2, duplicates=3)
    config.heldout.fraction, config.seed = 0.25, 7
    assert RowSettings.from_config(config) == RowSettings(
        max_length=64, short_seq_prob=0.2, duplicates=3, heldout_fraction=0.25, seed=7
    )
