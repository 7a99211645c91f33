# SPDX-License-Identifier: Apache-2.0
"""Rows made by many machines: one machine's bytes, and a word for whatever is not as it should."""

import dataclasses
import functools
import json
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from edad_jax.data import parts
from edad_jax.data.parts import join_parts, make_part
from edad_jax.data.prepare import join_prepared, learn_vocabulary, prepare_folder, prepare_part
from edad_jax.data.text.reading import ReadReport
from edad_jax.files import is_whole, unsealed
from tests.tiny_run import make_inputs, run_command, tiny_config, write_config_file, write_corpus
from tests.tiny_text import TINY_ROWS, make_documents, make_tiny_rows, read_files

MADE_OF = {"corpus": "the tiny one", "seed": 1}


def pieces_of(texts, count):
    """Returns the text in so many pieces; every third has a line that could not be read."""

    def read(number, report):
        if number % 3 == 0:
            report.add_problem("line skipped: not JSON", f"{number}.jsonl:1")
        for text in texts[number * len(texts) // count : (number + 1) * len(texts) // count]:
            report.add_document(text)
            yield text

    return [functools.partial(read, number) for number in range(count)]


@pytest.fixture(scope="module")
def whole(tokenizer_dir, tmp_path_factory):
    """Returns (texts, in pieces, the rows' files as one machine makes them)."""
    texts = make_documents(100)
    pieces, report = pieces_of(texts, 40), ReadReport()
    out = tmp_path_factory.mktemp("whole")
    make_tiny_rows(
        (t for piece in pieces for t in piece(report)), tokenizer_dir, out, report=report
    )
    return texts, pieces, read_files(out)


def run_part(pieces, tokenizer_dir, folder, part, count, *, made_of=MADE_OF, **changes):
    settings = dataclasses.replace(TINY_ROWS, **changes)
    return make_part(
        pieces, tokenizer_dir, folder / "parts", settings, part=part, parts=count,
        made_of=made_of, workers=0, progress=False,
    )  # fmt: skip


def join(pieces, tokenizer_dir, folder, *, made_of=MADE_OF):
    return join_parts(
        pieces, tokenizer_dir, folder / "parts", folder / "rows", TINY_ROWS, made_of=made_of
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 64])
def test_any_number_of_parts_gives_the_bytes_of_one_machine(whole, tokenizer_dir, tmp_path, count):
    _, pieces, expected = whole
    rows = [run_part(pieces, tokenizer_dir, tmp_path, n, count) for n in reversed(range(count))]
    manifest = join(pieces, tokenizer_dir, tmp_path)
    assert read_files(tmp_path / "rows") == expected
    assert sum(each["train"] for each in rows) == manifest["train"]["rows"]
    assert len(manifest["reading"]["messages"]) == 14
    if count <= 3:
        assert all(each["train"] for each in rows)  # each did some of the work


@pytest.mark.parametrize(
    "changes",
    [
        {"heldout_fraction": 0.5},
        {"heldout_fraction": 0.0},
        {"mode": "single"},
        {"mode": "single", "packed": True},
        {"duplicates": 2},
    ],
    ids=str,
)
def test_whatever_the_settings_the_bytes_are_one_machines(tokenizer_dir, tmp_path, changes):
    texts = make_documents(60)
    report, settings = ReadReport(), dataclasses.replace(TINY_ROWS, **changes)
    pieces = pieces_of(texts, 5)
    counted = (text for piece in pieces for text in piece(report))
    make_tiny_rows(counted, tokenizer_dir, tmp_path / "one", report=report, **changes)
    for part in range(3):
        run_part(pieces, tokenizer_dir, tmp_path, part, 3, **changes)
    join_parts(
        pieces, tokenizer_dir, tmp_path / "parts", tmp_path / "rows", settings, made_of=MADE_OF
    )
    assert read_files(tmp_path / "rows") == read_files(tmp_path / "one")


def test_text_in_one_piece_and_more_parts_than_chunks_are_right_too(whole, tokenizer_dir, tmp_path):
    texts, _, _ = whole
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "one", report=(report := ReadReport()))
    assert not report.documents  # nobody counted
    silent = [lambda report: iter(texts)]
    for part in range(30):
        run_part(silent, tokenizer_dir, tmp_path, part, 30)
    join(silent, tokenizer_dir, tmp_path)
    assert read_files(tmp_path / "rows") == read_files(tmp_path / "one")


def test_parts_share_the_measuring_and_each_reads_its_own_pieces_only(
    whole, tokenizer_dir, tmp_path
):
    _, pieces, _ = whole
    read = []

    def noting(number, report):
        read.append(number)
        return pieces[number](report)

    noted = [functools.partial(noting, number) for number in range(len(pieces))]
    for part in range(4):
        read.clear()
        run_part(noted, tokenizer_dir, tmp_path, part, 4, heldout_fraction=0.0)
        if part == 0:
            assert set(read) == set(range(len(pieces)))  # it was alone, and measured all
        else:
            assert len(read) < len(pieces) / 2


def test_a_part_that_is_done_is_not_made_again_and_a_damaged_one_is(
    whole, tokenizer_dir, tmp_path, monkeypatch
):
    _, pieces, expected = whole
    for part in range(2):
        run_part(pieces, tokenizer_dir, tmp_path, part, 2)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "make_shards", None)  # would be an error to call
        assert run_part(pieces, tokenizer_dir, tmp_path, 1, 2)["train"] > 0
    shard = tmp_path / "parts" / "00001" / "train" / "rows-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"rows-00000.npy is missing or damaged.*--part=1 --parts"):
        join(pieces, tokenizer_dir, tmp_path)
    run_part(pieces, tokenizer_dir, tmp_path, 1, 2)
    join(pieces, tokenizer_dir, tmp_path)
    assert read_files(tmp_path / "rows") == expected


def test_missing_and_half_written_parts_are_named(whole, tokenizer_dir, tmp_path):
    _, pieces, _ = whole
    with pytest.raises(ValueError, match="got no parts there.*run --part=0 --parts=N"):
        join(pieces, tokenizer_dir, tmp_path)
    for part in (0, 2, 3):
        run_part(pieces, tokenizer_dir, tmp_path, part, 5)
    (tmp_path / "parts" / "00003" / "manifest.json").unlink()  # as after a kill
    with pytest.raises(
        ValueError, match="got 2 of 5 parts, expected all; .*--parts=5 with --part=1,3,4"
    ):
        join(pieces, tokenizer_dir, tmp_path)
    assert not (tmp_path / "rows").exists()


def test_lengths_that_are_lost_are_measured_again(whole, tokenizer_dir, tmp_path):
    _, pieces, expected = whole
    for part in range(2):
        run_part(pieces, tokenizer_dir, tmp_path, part, 2)
    (tmp_path / "parts/text/00003.npy").write_bytes(b"")
    (tmp_path / "parts/text/00004.npy").unlink()
    with pytest.raises(ValueError, match="got 2 of 2 parts, expected all with the lengths.*part=0"):
        join(pieces, tokenizer_dir, tmp_path)
    run_part(pieces, tokenizer_dir, tmp_path, 0, 2)
    join(pieces, tokenizer_dir, tmp_path)
    assert read_files(tmp_path / "rows") == expected


def test_parts_of_something_else_are_an_error_that_says_what(whole, tokenizer_dir, tmp_path):
    _, pieces, _ = whole
    for part in range(2):
        run_part(pieces, tokenizer_dir, tmp_path, part, 2)
    other = MADE_OF | {"seed": 2}
    with pytest.raises(ValueError, match="(?s)has parts of something else.*seed: got 2, .*have 1"):
        run_part(pieces, tokenizer_dir, tmp_path, 1, 2, made_of=other)
    with pytest.raises(ValueError, match="parts: got 3, the parts have 2"):
        run_part(pieces, tokenizer_dir, tmp_path, 1, 3)
    with pytest.raises(ValueError, match="seed: got 2, the parts have 1"):
        join(pieces, tokenizer_dir, tmp_path, made_of=other)
    with pytest.raises(ValueError, match="got --part=2 --parts=2, expected a part from 0 to 1"):
        run_part(pieces, tokenizer_dir, tmp_path, 2, 2)


def test_a_part_made_of_something_else_in_a_race_is_not_joined(whole, tokenizer_dir, tmp_path):
    """Two parts that begin at once may both find no settings.json; their files tell them apart."""
    _, pieces, _ = whole
    run_part(pieces, tokenizer_dir, tmp_path / "other", 1, 2, made_of=MADE_OF | {"seed": 2})
    run_part(pieces, tokenizer_dir, tmp_path, 0, 2)
    shutil.copytree(tmp_path / "other/parts/00001", tmp_path / "parts/00001")
    with pytest.raises(ValueError, match="got 1 of 2 parts.*--part=1"):
        join(pieces, tokenizer_dir, tmp_path)


def test_text_that_changes_after_it_was_measured_is_an_error(whole, tokenizer_dir, tmp_path):
    texts, _, _ = whole
    run_part(pieces_of(texts, 4), tokenizer_dir, tmp_path, 0, 2)
    for changed in (texts[:-1], [*texts[:-1], "Short."], [*texts, "More."]):
        with pytest.raises(ValueError, match="the text has other documents than when"):
            run_part(
                [lambda report, t=changed: iter(t)] * 1 + pieces_of(changed, 4)[1:],
                tokenizer_dir,
                tmp_path,
                1,
                2,
            )


def test_the_same_part_twice_at_the_same_time_corrupts_nothing(whole, tokenizer_dir, tmp_path):
    _, pieces, expected = whole
    errors = []

    def work(part):
        try:
            run_part(pieces, tokenizer_dir, tmp_path, part, 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n % 2,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    join(pieces, tokenizer_dir, tmp_path)
    assert read_files(tmp_path / "rows") == expected


PROGRAM = """
import sys, time
from pathlib import Path
from tests.data.test_parts import pieces_of, run_part
from tests.tiny_text import make_documents
tokenizer, out = map(Path, sys.argv[1:])
texts = make_documents(100)
shard = out / "parts/00000/train/rows-00000.json"
passes = [0]
def stopping(report):  # measured once; then stops once its first shard is there
    passes[0] += 1
    for text in texts:
        yield text
        if passes[0] == 2 and shard.exists():
            print("far", flush=True)
            time.sleep(1000)
run_part([stopping], tokenizer, out, 0, 2)
"""


def test_a_part_that_is_killed_goes_on_with_its_shards(whole, tokenizer_dir, tmp_path):
    texts, _, _ = whole
    text = [lambda report: iter(texts)]
    command = [sys.executable, "-c", PROGRAM, str(tokenizer_dir), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"far\n"
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
    first = tmp_path / "parts" / "00000" / "train" / "rows-00000.json"
    before = first.stat().st_mtime_ns
    assert not (tmp_path / "parts" / "00000" / "manifest.json").exists()
    for part in range(2):
        run_part(text, tokenizer_dir, tmp_path, part, 2)
    assert first.stat().st_mtime_ns == before
    join(text, tokenizer_dir, tmp_path)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "one")
    assert read_files(tmp_path / "rows") == read_files(tmp_path / "one")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Returns a folder with a teacher, and a corpus of several files in more/."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    (folder / "more").mkdir()
    for number in range(5):
        write_corpus(folder / "more" / f"{number}.txt", documents=20, seed=number)
    (folder / "more" / "bad.jsonl").write_text('{"text": "Fine. It is."}\nnot JSON\n')
    return folder


def read_results(folder):
    """Returns the files of a prepared folder but for its parts, and seconds as 0."""
    content = {name: each for name, each in read_files(folder).items() if name[:6] != "parts/"}
    record = json.loads(content["vocabulary.stage.json"])
    assert is_whole(record)
    record = unsealed(record)
    record["facts"]["seconds"] = 0
    return content | {"vocabulary.stage.json": record}


def test_the_commands_leave_what_one_command_leaves(inputs, tmp_path):
    more = str(inputs / "more")
    config = str(write_config_file(tmp_path / "tiny.py", inputs, corpus__files=more))

    def run(*options):
        words = ["--config", config, "--out", str(tmp_path / "many"), *options]
        done = run_command(*words, script="prepare.py")
        assert "Traceback" not in done.stderr
        return done

    assert "go on with --part=I --parts=N" in run("--vocabulary").stdout
    assert "part 1 of 2: " in run("--part=1", "--parts=2").stdout
    wrong = run("--part=0", "--join")
    assert "expected --vocabulary, or --part=I and --parts=N" in wrong.stderr
    prepare_part(tiny_config(inputs, corpus__files=more), tmp_path / "many", 0, 2)
    joined = run("--join")
    assert f"train with --config.prepared={tmp_path / 'many'}" in joined.stdout, joined.stderr
    facts = prepare_folder(tiny_config(inputs, corpus__files=more), tmp_path / "one")
    assert facts["rows"]["documents"] == 101
    assert read_results(tmp_path / "many") == read_results(tmp_path / "one")


def test_a_part_wants_the_vocabulary_and_the_configuration_of_the_others(inputs, tmp_path):
    config = tiny_config(inputs, corpus__files=str(inputs / "more"))
    with pytest.raises(ValueError, match="got no finished vocabulary.*with --vocabulary instead"):
        prepare_part(config, tmp_path, 0, 2)
    learn_vocabulary(config, tmp_path)
    prepare_part(config, tmp_path, 0, 2)
    config.rows.max_length = 16
    with pytest.raises(ValueError, match="max_length: got 16, the parts have 32"):
        prepare_part(config, tmp_path, 1, 2)
    config.rows.max_length = 32
    prepare_part(config, tmp_path, 1, 2)
    joined = join_prepared(config, tmp_path)
    shutil.rmtree(tmp_path / "parts")  # not needed any more
    assert join_prepared(config, tmp_path) == joined
