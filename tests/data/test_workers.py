# SPDX-License-Identifier: Apache-2.0
"""Processes that make rows: the same bytes, and none outlives the program or dies unnoticed."""

import os
import signal
import subprocess
import sys

import pytest

from tests.tiny_text import make_documents, make_tiny_rows, read_files


def test_rows_do_not_depend_on_the_number_of_workers(tokenizer_dir, tmp_path):
    texts = make_documents(100)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "none", workers=0)
    make_tiny_rows(texts, tokenizer_dir, tmp_path / "two", workers=2)
    assert read_files(tmp_path / "none") == read_files(tmp_path / "two")


PROGRAM = """
import signal, sys, time
from pathlib import Path
from tests.tiny_text import make_documents, make_tiny_rows
# Tests that run in the background ignore Ctrl-C, and so would this program.
signal.signal(signal.SIGINT, signal.default_int_handler)
def stopping(first):
    yield from make_documents(100)
    while not first.exists():
        time.sleep(0.05)
    print("far", flush=True)
    while True:
        time.sleep(0.05)
tokenizer, out = map(Path, sys.argv[1:])
make_tiny_rows(stopping(out / "train/rows-00000.json"), tokenizer, out, workers=2)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["kill-9", "ctrl-c"])
def test_a_program_that_is_stopped_leaves_no_worker_and_its_shards_are_kept(
    tokenizer_dir, tmp_path, stop
):
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(tokenizer_dir), str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == b"far\n"
            # A terminal sends Ctrl-C to a whole group of processes.
            (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
            # The pipe for errors ends when all who may write to it are gone, the workers included.
            errors = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
    told = (errors.count("Traceback"), errors.count("\nKeyboardInterrupt"))
    assert told == ((1, 1) if stop == signal.SIGINT else (0, 0)), errors
    first = out / "train" / "rows-00000.json"
    before = first.stat().st_mtime_ns
    assert not (out / "manifest.json").exists()
    make_tiny_rows(make_documents(100), tokenizer_dir, out)
    assert first.stat().st_mtime_ns == before
    make_tiny_rows(make_documents(100), tokenizer_dir, tmp_path / "whole")
    assert read_files(out) == read_files(tmp_path / "whole")


def test_worker_that_is_killed_is_a_clear_error(tokenizer_dir, tmp_path, monkeypatch):
    class Killed(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.kill()

    monkeypatch.setattr(subprocess, "Popen", Killed)
    with pytest.raises(OSError, match="exit code -9.*use fewer workers"):
        make_tiny_rows(make_documents(30), tokenizer_dir, tmp_path, workers=1)


def test_workers_import_neither_jax_nor_torch_nor_transformers():
    program = (
        "import sys, edad_jax.data.workers, edad_jax.data.batches, edad_jax.data.pairs\n"
        "print([m for m in ('jax', 'torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_a_negative_number_of_workers_is_an_error(tokenizer_dir, tmp_path):
    with pytest.raises(ValueError, match="got config.rows.workers=-1, expected 0 or more"):
        make_tiny_rows(make_documents(2), tokenizer_dir, tmp_path, workers=-1)
