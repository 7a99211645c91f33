# SPDX-License-Identifier: Apache-2.0
"""The edge command: texts in, one on each line, and JSON lines out."""

import io
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edad_jax.export import formats
from edad_jax.runtime import __main__ as command
from edad_jax.runtime import models, windows
from tests.runtime.stand_ins import DRUG, GENE
from tests.tiny_exports import tiny_model

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds after which a process counts as stuck
WINDOWS = ("--max-length", "16", "--overlap", "2")


def test_it_needs_no_other_package_and_works_as_a_command(folders):
    code = (
        "import sys\n"
        "allowed = {'numpy', 'onnxruntime', 'tokenizers', 'edad_jax', 'google', 'packaging',"
        " 'flatbuffers', 'huggingface_hub'}\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        root = name.partition('.')[0]\n"
        "        if root in sys.stdlib_module_names or root in allowed or root[0] == '_':\n"
        "            return None\n"
        "        raise ImportError(f'{name} is not on the small machine')\n"
        "sys.meta_path.insert(0, Only())\n"
        "sys.path.insert(0, '.')\n"
        "from edad_jax.runtime import __main__ as command\n"
        f"command.main([{str(folders['tagging'])!r}, '--max-length', '16', '--overlap', '2'])\n"
        "assert not {'jax', 'torch', 'transformers', 'flax'} & set(sys.modules)\n"
    )
    text = f"{DRUG} x\n\n\xff bad \x80\n".encode("latin-1") + b"last"
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [set(line) for line in lines] == [{"entities"}] * 4


def as_command(folder, *options, **settings):
    """Returns the runtime as a command that was started, with pipes, or as settings say."""
    words = [sys.executable, "-m", "edad_jax.runtime", str(folder), *WINDOWS, *options]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Unbuffered, every write would be seen at once, whether or not it is flushed.
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(words, cwd=ROOT, **({"env": usual} | pipes | settings))


def run(folder, text, *options, **settings):
    """Returns (exit status, JSON lines, standard error) of the command."""
    with as_command(folder, *options, **settings) as process:
        try:
            output, errors = process.communicate(text, timeout=PATIENCE)
        finally:
            process.kill()
    lines = [json.loads(line) for line in output.decode("utf-8").splitlines()]
    return process.returncode, lines, errors.decode()


@pytest.fixture
def run_here(monkeypatch):
    """Returns run(folder, text, *options) -> (JSON lines, message at its end), in this process."""

    def run(folder, text, *options):
        output, message = io.BytesIO(), ""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output))
        try:
            command.main([str(folder), *WINDOWS, *options])
        except SystemExit as end:
            message = str(end.code)
        sys.stdout.flush()
        return [json.loads(line) for line in output.getvalue().decode().splitlines()], message

    return run


def json_lines(*pairs):
    return "".join(
        json.dumps({"question": question, "context": context}) + "\n" for question, context in pairs
    ).encode()


PAIRS = [("who?", f"{DRUG} x {GENE} y"), ("", GENE), ("what?", "안녕 뇌 세포"), ("what?", "")]


def test_the_command_answers_questions_alike_for_any_batch_and_threads(folders, run_here):
    answerer = models.QuestionAnswerer(folders["answering"], max_length=16, overlap=2)
    expected = [models.as_json(answers) for answers in answerer(PAIRS)]
    assert [len(each["answers"]) for each in expected] == [1, 1, 1, 0]
    for options in ((), ("--batch-size", "1", "--threads", "1")):
        lines, message = run_here(folders["answering"], json_lines(*PAIRS), *options)
        assert (len(lines), message) == (len(PAIRS), "")
        for line, wanted in zip(lines, expected, strict=True):
            for one, other in zip(line["answers"], wanted["answers"], strict=True):
                assert one == other | {"score": pytest.approx(other["score"], abs=2e-4)}


def test_batch_size_and_threads_reach_the_model(folders, run_here, monkeypatch):
    opened = []

    def open_model(*arguments, **options):
        opened.append(models.Tagger(*arguments, **options))
        return opened[0]

    monkeypatch.setattr(command, "open_model", open_model)
    run_here(folders["tagging"], b"x\n", "--batch-size", "5", "--threads", "3")
    (model,) = opened
    assert (model.max_length, model.overlap, model.batch_size) == (16, 2, 5)
    assert model.session.get_session_options().intra_op_num_threads == 3


def test_the_command_tells_what_it_cannot_do(folders, tmp_path):
    status, lines, errors = run(folders["answering"], b"", "--batch-size", "0")
    assert (status, lines) == (1, []) and "a batch of 1 or more" in errors
    status, lines, errors = run(tmp_path, b"")
    assert status == 1 and "lacks model.onnx" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "got ''"),
        (b"who?", "Expecting value"),
        (b'"who?"', "TypeError"),
        (b'{"question": "who?"}', "KeyError: 'context'"),
        (b"[" * 100_000, "RecursionError"),
    ],
)
def test_a_line_that_is_no_question_is_named_by_its_number(folders, run_here, line, says):
    text = json_lines(*PAIRS[:2]) + line + b"\n" + json_lines(*PAIRS)
    lines, message = run_here(folders["answering"], text)
    assert len(lines) == 2  # those before it are answered
    assert "line 3: got " in message and says in message and len(message) < 1_000
    assert 'expected {"question": ..., "context": ...}' in message


def test_the_command_writes_utf8_whatever_the_locale_is(folders):
    latin = os.environ | {"PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "0"}
    text = '{"question": "?", "context": "안녕"}\n'.encode()
    status, (line,), errors = run(folders["answering"], text, env=latin)
    assert status == 0, errors
    assert line["answers"][0]["text"] == "안녕"


def test_results_are_written_chunk_by_chunk(tagger, monkeypatch):
    written, seen = io.BytesIO(), []

    class Lines(io.BytesIO):
        def __next__(self):
            seen.append(written.getvalue().count(b"\n"))
            return super().__next__()

    monkeypatch.setattr(windows, "CHUNK", 500)  # five texts, since each counts as 100 letters more
    monkeypatch.setattr(command, "open_model", lambda *_, **__: tagger)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Lines(f"{GENE}\n".encode() * 20)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    command.main(["folder"])
    assert max(number - count for number, count in enumerate(seen)) == 5
    assert written.getvalue().count(b"\n") == 20


@pytest.mark.parametrize("kind", ["tagging", "answering"])
def test_a_line_is_answered_before_the_next_is_there(folders, kind):
    line = f"{GENE}\n".encode() if kind == "tagging" else json_lines(PAIRS[0])
    with as_command(folders[kind], "--each-line") as process:
        limit = threading.Timer(PATIENCE, process.kill)
        limit.start()
        try:
            for _ in range(2):
                process.stdin.write(line)
                process.stdin.flush()
                assert json.loads(process.stdout.readline())
        finally:
            limit.cancel()
            process.kill()


def test_a_reader_of_the_output_may_go_as_head_does(folders, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json_lines(*PAIRS) * 2_000)  # more than a pipe holds
    with path.open("rb") as pairs, as_command(folders["answering"], stdin=pairs) as process:
        limit = threading.Timer(PATIENCE, process.kill)
        limit.start()
        try:
            assert json.loads(process.stdout.readline() or "{}")["answers"]
            process.stdout.close()
            assert b"Error" not in process.stderr.read()
            assert process.wait() == 1
        finally:
            limit.cancel()
            process.kill()


def test_a_terminal_sees_how_far_the_command_is(tagger, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (tmp_path / "texts.txt").write_bytes(f"{GENE}\n".encode() * 3)
    now = iter(range(100))  # a second for each look at the clock
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(command, "open_model", lambda *_, **__: tagger)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with (tmp_path / "texts.txt").open(encoding="utf-8") as texts:
        monkeypatch.setattr(sys, "stdin", texts)
        command.main(["folder"])
    shown = [line.strip() for line in sys.stderr.getvalue().split("\r")]
    assert shown == [
        "",
        "1 texts, 0.0 MB, 1 texts/s, 33%, 0:02 left",
        "2 texts, 0.0 MB, 1 texts/s, 67%, 0:01 left",
        "3 texts, 0.0 MB, 1 texts/s, 100%, 0:00 left",
        "3 texts, 0.0 MB, 1 texts/s, 100%, 0:00 left",
    ]
    assert sys.stderr.getvalue().endswith("\n")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_line_of_a_megabyte_and_thousands_of_lines_go_through_the_command(folders, run_here):
    last = f"{DRUG} {GENE} last"
    text = f"{GENE} {'x' * 490} " * 2_100 + "\n" + f"{GENE} {'x' * 490}\n" * 2_100 + last
    assert len(text) > 2_000_000
    lines, message = run_here(folders["tagging"], text.encode())
    assert (len(lines), message) == (2_102, "")
    (spans,) = models.Tagger(folders["tagging"], max_length=16, overlap=2)([last])
    assert [each["start"] for each in lines[-1]["entities"]] == [span.start for span in spans]


@pytest.mark.skipif(
    "EDAD_JAX_OTHER_PYTHON" not in os.environ,
    reason="names no interpreter of another machine type: see docs/raspberry-pi.md",
)
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_another_machine_type_gives_the_same_numbers(tmp_path, tokenizer_dir, name):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "encoder"))
    folder = formats.export(model, name, tmp_path / name)
    text = "\n".join(f"{DRUG} x {GENE} " * count for count in (1, 2, 9)).encode()

    def vectors(interpreter):
        done = subprocess.run(
            [*interpreter, "-m", "edad_jax.runtime", str(folder), *WINDOWS],
            input=text,
            capture_output=True,
            cwd=ROOT,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line)["vector"] for line in done.stdout.decode().splitlines()]

    here = vectors([sys.executable])
    there = vectors(shlex.split(os.environ["EDAD_JAX_OTHER_PYTHON"]))
    assert np.shape(here) == (3, model.config.base.hidden_size)
    np.testing.assert_allclose(there, here, atol=2e-5)
