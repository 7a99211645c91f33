# SPDX-License-Identifier: Apache-2.0
"""The commands that export a model, serve it and make it smaller, as a user types them."""

import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_launch import assert_dies
from tests.tiny_exports import tiny_model
from tests.tiny_run import ROOT, command, environment, run_command
from tests.tiny_tasks import write_tagging
from tests.tiny_text import write_tokenizer

PATIENCE = 300  # seconds after which something counts as stuck


VOWELS = ("O", "B-Vowel", "I-Vowel", "B-Other")  # of `write_tagging`'s data


class Exported(NamedTuple):
    """A tagger that launch/export.py wrote, once for all tests; they change nothing."""

    model: Path
    data: Path
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("commands")
    write_tokenizer(root / "tokenizer")
    model = Path(
        tiny_model(root / "model", root / "tokenizer", "tagging", blocks=False, labels=VOWELS)
    )
    data = write_tagging(root / "data")
    done = run_command(
        "--model",
        str(model),
        "--format=onnx",
        "--rows=2",
        "--data",
        str(data),
        "--data_rows=2",
        script="export.py",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Exported(model, data, root / "model-onnx", done.stdout)


def test_an_export_says_what_it_wrote_and_how_near_it_is(exported):
    assert f"{exported.folder}: model.onnx has 0.1 MB" in exported.printed
    found = re.search("from Flax on 2 random rows: (.+)", exported.printed)
    assert float(found[1]) < 2e-5
    found = re.search("entity F1 on the test split: (.+) before, (.+) after", exported.printed)
    assert found[1] == found[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=hf", "--data=DATA"], "--data is for --format=onnx or onnx-int8, got hf"),
        (["--format=stablehlo", "--data=DATA"], "--data is for --format=onnx or onnx-int8, got st"),
        (
            ["--format=onnx", "--reduce_range"],
            "--reduce_range is for --format=onnx-int8 or transformers.js, got onnx",
        ),
        (
            ["--format=onnx", "--calibrate=DATA"],
            "--calibrate is for --format=onnx-int8 or transformers.js, got onnx",
        ),
    ],
)
def test_options_of_other_formats_are_refused_first(tmp_path, options, message):
    done = run_command("--model", str(tmp_path / "none"), *options, script="export.py")
    assert_dies(done, message)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("encoder", ["--data=DATA"], "has no task to score; leave --data out"),
        ("answering", ["--calibrate=DATA"], "export it without --calibrate"),
    ],
)
def test_options_of_other_kinds_of_model_are_refused_before_the_export(
    exported, tmp_path, kind, options, message
):
    model = tiny_model(tmp_path / "model", exported.model, kind)
    done = run_command("--model", model, "--format=onnx-int8", *options, script="export.py")
    assert_dies(done, message)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("a={0},a={0}", "--models: got a twice; give names, as in student=FOLDER"),
        ("{0},{0}", "--models: got model-onnx twice"),
        ("a={0}/none", "none lacks model.onnx"),
    ],
)
def test_models_that_cannot_be_served_are_told(exported, models, message):
    models = models.format(exported.folder)
    assert_dies(run_command("--models", models, script="serve.py"), message)


def test_models_are_served_under_their_names(exported, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "lr=1e-4").symlink_to(exported.folder)
    models = f"student={exported.folder},{exported.folder},{tmp_path}/lr=1e-4"
    words = command("--models", models, f"--port={port}", script="serve.py")
    with subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE) as server:
        try:
            found = wait_for(f"http://127.0.0.1:{port}/v1/models", server)
        finally:
            server.terminate()
        told = f"serving student, model-onnx, lr=1e-4 at http://127.0.0.1:{port}/\n"
        assert server.stdout.read().decode() == told
        assert server.wait(PATIENCE) == -signal.SIGTERM  # all was answered: it ends at once
    assert found["models"] == [
        {"name": "student", "kind": "tagger"},
        {"name": "model-onnx", "kind": "tagger"},
        {"name": "lr=1e-4", "kind": "tagger"},
    ]


def wait_for(address, server):
    """Returns the JSON at an address, once the server answers; it has a minute."""
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{address} does not answer")


def test_smaller_models_are_written_and_their_table_is_printed(exported, tmp_path):
    done = run_command(
        "--model",
        str(exported.model),
        "--data",
        str(exported.data),
        "--out",
        str(tmp_path),
        "--seconds=0.01",
        script="compress.py",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "compression.md").read_text(encoding="utf-8") in done.stdout
    assert len(list(tmp_path.glob("*/model.onnx"))) == 6
