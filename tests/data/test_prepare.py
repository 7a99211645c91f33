# SPDX-License-Identifier: Apache-2.0
"""Text, vocabulary and rows: made once, from what the configuration says, or an error."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edad_jax.data.batches import Rows
from edad_jax.data.prepare import prepare, prepare_folder
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.text.source import describe_source, read_text
from tests.tiny_run import (
    ADDED_WORDS,
    make_inputs,
    run_command,
    tiny_config,
    write_config_file,
    write_corpus,
)
from tests.tiny_text import make_documents, read_files


class Finished(NamedTuple):
    """What `prepare` made, once for all tests, which change nothing of it."""

    inputs: Path  # corpus.txt and teacher/
    workdir: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    inputs = make_inputs(tmp_path_factory.mktemp("finished"))
    prepare(tiny_config(inputs), inputs / "run")
    return Finished(inputs, inputs / "run")


@pytest.fixture
def inputs(finished, tmp_path):
    """Returns a copy of text and teacher; the file's time is the same, as in a backup."""
    folder = tmp_path / "inputs"
    shutil.copytree(finished.inputs / "teacher", folder / "teacher")
    shutil.copy2(finished.inputs / "corpus.txt", folder / "corpus.txt")
    return folder


def mtimes(workdir):
    files = [*(workdir / "rows").rglob("*"), *(workdir / "vocabulary").rglob("*")]
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def test_rows_and_vocabulary_are_what_the_configuration_asks_for(finished):
    prepared = prepare(tiny_config(finished.inputs), finished.workdir)
    base = (finished.inputs / "teacher" / "vocab.txt").read_text("utf-8").splitlines()
    vocabulary = prepared.vocabulary
    assert (vocabulary.base_size, vocabulary.size) == (len(base), len(base) + ADDED_WORDS)
    assert vocabulary.added_size == ADDED_WORDS
    ids = (vocabulary.mask_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.unk_id)
    assert [base[i] for i in ids] == ["[MASK]", "[CLS]", "[SEP]", "[UNK]"]
    assert prepared.train.max_length == 32
    row = prepared.train[np.array([0])][0]
    assert row["ids"][0] == vocabulary.cls_id
    assert row["ids"][row["length"] - 1] == vocabulary.sep_id
    assert prepared.facts["rows"]["documents"] == 60
    assert prepared.facts["rows"]["train"]["rows"] == len(prepared.train)
    assert prepared.facts["rows"]["heldout"]["rows"] == len(prepared.heldout) > 0
    assert prepared.facts["vocabulary"]["added"] == ADDED_WORDS


def test_what_is_there_is_not_made_again(inputs, tmp_path):
    config = tiny_config(inputs)
    workdir = tmp_path / "run"
    workdir.mkdir()
    first = prepare(config, workdir)
    before = mtimes(workdir)
    config.rows.workers = 2  # says nothing of the rows
    config.optimizer.student_learning_rate = 1.0
    second = prepare(config, workdir)
    assert mtimes(workdir) == before
    assert second.facts == first.facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, corpus: os.utime(corpus, ns=(1, 1)), "corpus.files.*corpus.txt"),
        (lambda config, corpus: write_corpus(corpus, seed=1), "corpus.files.*corpus.txt"),
        (lambda config, corpus: config.vocabulary.update(size=10), "size: got 10, then 20"),
        (lambda config, corpus: config.rows.update(max_length=16), "max_length: got 16, then 32"),
        (lambda config, corpus: config.update(seed=3), "seed: got 3, then 0"),
    ],
)
def test_a_stage_made_of_something_else_is_an_error_that_names_it(
    finished, tmp_path, change, message
):
    inputs, workdir = tmp_path / "inputs", tmp_path / "run"
    workdir.mkdir()
    shutil.copytree(finished.inputs / "teacher", inputs / "teacher")
    write_corpus(inputs / "corpus.txt")
    config = tiny_config(inputs)
    prepare(config, workdir)
    before = mtimes(workdir)
    change(config, inputs / "corpus.txt")
    with pytest.raises(ValueError, match=f"(?s)made from something else; delete it.*{message}"):
        prepare(config, workdir)
    assert mtimes(workdir) == before


def test_prepared_rows_of_another_folder_are_used_where_they_are(finished, tmp_path):
    before = mtimes(finished.workdir)
    config = tiny_config(finished.inputs, prepared=str(finished.workdir), corpus__files="")
    prepared = prepare(config, tmp_path)
    assert prepared.tokenizer_dir == finished.workdir / "vocabulary"
    assert prepared.train.folder == finished.workdir / "rows" / "train"
    assert list(tmp_path.iterdir()) == []
    assert mtimes(finished.workdir) == before


def test_a_prepared_folder_without_rows_is_an_error_that_names_the_option(tmp_path):
    for folder in (tmp_path, tmp_path / "mistyped"):
        config = tiny_config(tmp_path, prepared=str(folder))
        with pytest.raises(ValueError, match="config.prepared=.*got no finished rows there"):
            prepare(config, tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_prepared_rows_of_another_length_are_an_error_that_gives_the_right_one(finished, tmp_path):
    config = tiny_config(finished.inputs, prepared=str(finished.workdir), rows__max_length=24)
    with pytest.raises(ValueError, match="give --config.rows.max_length=32"):
        prepare(config, tmp_path)


def test_prepared_rows_of_another_vocabulary_are_an_error(finished, inputs, tmp_path):
    words = inputs / "teacher" / "vocab.txt"
    words.write_text(words.read_text("utf-8").replace("\nneuron\n", "\nnephron\n"), "utf-8")
    config = tiny_config(inputs, prepared=str(finished.workdir))
    with pytest.raises(ValueError, match="made with another vocabulary than that of"):
        prepare(config, tmp_path)


def test_another_base_vocabulary_under_the_same_name_is_noticed(finished, inputs):
    config = tiny_config(inputs, corpus__files=str(finished.inputs / "corpus.txt"))
    prepare(config, finished.workdir)  # the copy of the teacher is as good as the teacher
    words = inputs / "teacher" / "vocab.txt"
    words.write_text(words.read_text("utf-8").replace("\nneuron\n", "\nnephron\n"), "utf-8")
    with pytest.raises(ValueError, match="(?s)vocabulary was made from something else.*base_sha"):
        prepare(config, finished.workdir)


def test_several_patterns_are_read_in_the_order_given(tmp_path):
    for name, text in (("b.txt", "From b."), ("a.txt", "From a.")):
        (tmp_path / name).write_text(text)
    config = tiny_config(tmp_path, corpus__files=f"{tmp_path}/b.txt, {tmp_path}/*.txt")
    report = ReadReport()
    assert list(read_text(config.corpus, report)) == ["From b.", "From a."]
    assert report.documents == 2


def test_lines_that_are_documents_share_no_row_and_some_are_held_out(inputs, tmp_path):
    lines = [f"the cell {number} binds a protein and acts with the brain" for number in range(40)]
    (inputs / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    config = tiny_config(inputs, vocabulary__size=0, rows__mode="single", corpus__lines=True)
    workdir = tmp_path / "run"
    prepared = prepare(config, workdir)
    assert prepared.facts["rows"]["documents"] == 40
    assert len(prepared.train) + len(prepared.heldout) == 40
    assert len(prepared.heldout) > 0
    config.corpus.lines = False
    with pytest.raises(ValueError, match="(?s)made from something else.*lines: got False, then Tr"):
        prepare(config, workdir)
    with pytest.raises(ValueError, match="got no .*rows from 1 documents"):
        prepare(config, tmp_path / "one")


def test_packages_are_told_apart_by_their_versions(tmp_path):
    config = tiny_config(tmp_path, corpus__files="", corpus__packages=("numpy",))
    assert describe_source(config.corpus) == {"packages": {"numpy": np.__version__}}
    config.corpus.packages = ("no_such_package",)
    with pytest.raises(ValueError, match="config.corpus.packages: 'no_such_package' is not inst"):
        describe_source(config.corpus)


def test_the_vocabulary_is_learned_from_so_many_megabytes(inputs, tmp_path):
    total = (inputs / "corpus.txt").stat().st_size
    config = tiny_config(inputs)
    with config.ignore_type():
        config.vocabulary.max_megabytes = total / 2 / 1e6  # an integer on the command line
    workdir = tmp_path / "run"
    workdir.mkdir()
    learned = prepare(config, workdir).facts["vocabulary"]["text_bytes"]
    assert 0.4 * total < learned < 0.7 * total
    record = json.loads((workdir / "vocabulary.stage.json").read_text())
    assert record["fingerprint"]["max_megabytes"] == total / 2 / 1e6


def test_the_command_prepares_what_training_reads_and_says_how_to_go_on(finished, tmp_path):
    config = str(write_config_file(tmp_path / "tiny.py", finished.inputs))
    done = run_command("--config", config, "--out", str(tmp_path / "out"), script="prepare.py")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = (len(Rows(finished.workdir / "rows" / name)) for name in ("train", "heldout"))
    assert "{:,} rows to train on, {:,} held out, ".format(*rows) in done.stdout
    assert f"train with --config.prepared={tmp_path / 'out'}" in done.stdout
    for folder in ("vocabulary", "rows"):
        assert read_files(tmp_path / "out" / folder) == read_files(finished.workdir / folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n\n".join(make_documents(200, sentences=1)),
            "documents are one sentence, and where a",
        ),
        ("\n".join(make_documents(30)), "comes from another document, and there is none"),
        (
            "\n\n".join(" ".join(f"{j * k % 997}" for j in range(60)) + "." for k in range(1, 60)),
            "most sentences fill a row (config.rows.max_length=32)",
        ),
    ],
    ids=["sentences", "one document", "long sentences"],
)
def test_rows_whose_next_sentences_mean_nothing_are_told(inputs, tmp_path, caplog, text, message):
    path = tmp_path / "corpus.txt"
    path.write_text(text, encoding="utf-8")
    heldout = 0.3 if "\n\n" in text else 0.0
    config = tiny_config(inputs, corpus__files=str(path), heldout__fraction=heldout)
    with caplog.at_level(logging.WARNING):
        prepare_folder(config, tmp_path / "rows")
    assert message in caplog.text and "--config.rows.mode=single" in caplog.text


def test_rows_of_ordinary_text_are_not_warned_of(inputs, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare_folder(tiny_config(inputs), tmp_path / "rows")
    assert "random next sentence" not in caplog.text


def test_text_that_the_tokenizer_cannot_read_is_an_error(inputs, tmp_path):
    path = tmp_path / "corpus.txt"
    known = make_documents(20)
    path.write_text("\n\n".join([*known, *(["नमस्ते दुनिया. " * 40] * 80)]), encoding="utf-8")
    config = tiny_config(inputs, corpus__files=str(path), vocabulary__size=0)
    with pytest.raises(ValueError, match=r"does not know many .*\(train \d+.\d\d%, .*max_unknown"):
        prepare(config, tmp_path / "run")
    config.rows.max_unknown_share = 1.0
    prepare(config, tmp_path / "run")


def test_the_share_of_unknown_pieces_is_always_told(finished, caplog):
    with caplog.at_level(logging.INFO):
        prepare(tiny_config(finished.inputs), finished.workdir)
    assert "does not know ([UNK]): train 0.00%, held-out 0.00%." in caplog.text


@pytest.mark.parametrize(
    "name", ["rows/train/rows-00000.npy", "rows/heldout/rows-00000.npy", "rows/train/manifest.json"]
)
def test_a_flipped_bit_in_the_rows_ends_the_run_before_it_trains(finished, tmp_path, name):
    shutil.copytree(finished.workdir, tmp_path / "run")
    content = bytearray((tmp_path / "run" / name).read_bytes())
    place = content.index(b'"tokens": ') + 10 if name.endswith("json") else len(content) // 2
    content[place] ^= 1
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*prepare the rows again"):
        prepare(tiny_config(finished.inputs, prepared=str(tmp_path / "run")), tmp_path)


def test_a_flipped_bit_in_the_vocabulary_is_named(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    path = tmp_path / "run" / "vocabulary" / "tokenizer_config.json"
    path.write_bytes(path.read_bytes().replace(b'"do_lower_case": true', b'"do_lower_case": trud'))
    with pytest.raises(ValueError, match="tokenizer_config.json: got sha256"):
        prepare(tiny_config(finished.inputs, prepared=str(tmp_path / "run")), tmp_path)


def test_a_damaged_header_of_rows_is_named_in_one_line(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    path = tmp_path / "run" / "rows" / "train" / "rows-00000.npy"
    content = bytearray(path.read_bytes())
    content[content.index(b"(")] ^= 1 << 7  # numpy: tokenize.TokenError
    path.write_bytes(content)
    with pytest.raises(ValueError, match="rows-00000.npy is damaged: .*prepare the rows again"):
        prepare(tiny_config(finished.inputs, prepared=str(tmp_path / "run")), tmp_path)
