# SPDX-License-Identifier: Apache-2.0
"""Timing models in turn, each in a process of its own."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from benchmarks import turns
from benchmarks.edge import benchmark_edge
from benchmarks.random_models import SIZES, write_random
from benchmarks.timing import TORCH_SIZES
from benchmarks.turns import Candidate, Cases, TimedModel, ratios, time_in_turn
from configs import edad
from edad_jax.export import formats
from tests.test_launch import assert_dies
from tests.tiny_exports import tiny_model
from tests.tiny_models import tiny_exbert_config
from tests.tiny_run import run_command

FAST = Cases([1, 2], [8, 16, 128], seconds=0.01, turns=3)


@pytest.mark.parametrize("kind", ["tagging", "answering"])
def test_models_are_timed_and_drawn(tmp_path, tokenizer_dir, kind):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, kind))
    ballast = bytearray(b"x" * 600_000_000)  # of this process, and not of those that are timed
    del ballast
    candidates = [
        Candidate(name, "onnx", str(formats.export(model, name, tmp_path / name)), 20)
        for name in ("onnx", "onnx-int8")
    ]
    rows = benchmark_edge(candidates, FAST, out=tmp_path / "edge", threads=1)
    for row in rows:
        cases = [(cell["batch"], cell["length"]) for cell in row["cells"]]
        assert cases == [(1, 8), (1, 16), (2, 8), (2, 16)]  # 128 is beyond its positions
        assert all(0 < cell["median_ms"] <= cell["p95_ms"] for cell in row["cells"])
        assert all(cell["calls"] >= len(cell["turn_ms"]) == 3 for cell in row["cells"])
        assert 0 < row["cold_start"] < 60 and 5 < row["memory_mb"] <= row["peak_memory_mb"] < 400
    assert rows[1]["file_mb"] < rows[0]["file_mb"]
    saved = json.loads((tmp_path / "edge" / "edge.json").read_text())
    assert saved["models"] == rows and saved["machine"]["cores"] == 1
    text = (tmp_path / "edge" / "edge.md").read_text(encoding="utf-8")
    assert "| onnx-int8 " in text and "cold start (s)" in text
    assert f"| {rows[0]['peak_memory_mb']:.0f} " in text


def test_the_command_times_random_models_like_others(tmp_path):
    folders = [
        str(write_random(tmp_path / name, tiny_exbert_config(**changes), int8=name != "float32"))
        for name, changes in (("float32", {}), ("int8", {}), ("no-types", {"type_vocab_size": 0}))
    ]
    done = run_command(
        f"--models={','.join(folders)}",
        *("--batches=1,2", "--lengths=8", "--seconds=0.01", "--turns=2", "--threads=1"),
        f"--out={tmp_path / 'edge'}",
        script="benchmark_edge.py",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "edge" / "edge.md").read_text(encoding="utf-8") + "\n"
    saved = json.loads((tmp_path / "edge" / "edge.json").read_text())
    assert (saved["batches"], saved["lengths"], saved["turns"]) == ([1, 2], [8], 2)
    assert [row["name"].split("/")[-1] for row in saved["models"]] == [
        "float32",
        "int8",
        "no-types",
    ]
    assert saved["models"][1]["file_mb"] < saved["models"][0]["file_mb"]
    for row in saved["models"]:
        assert [cell["batch"] for cell in row["cells"]] == [1, 2]
        assert all(cell["median_ms"] > 0 for cell in row["cells"])
    assert sorted(path.name for path in (tmp_path / "edge").iterdir()) == ["edge.json", "edge.md"]


def test_random_models_have_the_sizes_of_those_whose_names_they_bear():
    transformers = pytest.importorskip("transformers")
    bert, distilbert = transformers.BertConfig(), transformers.DistilBertConfig()
    names = (
        "vocab_size",
        "max_position_embeddings",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "layer_norm_eps",
    )
    ours, smaller = SIZES["bert-base"].base, SIZES["distilbert"].base
    assert [getattr(ours, name) for name in names] == [getattr(bert, name) for name in names]
    assert [getattr(smaller, name) for name in names[:5]] == [
        getattr(distilbert, name) for name in names[:5]
    ]
    assert smaller.intermediate_size == distilbert.hidden_dim
    student = edad.get_config().student
    mine = SIZES["edad-student"]
    assert all(getattr(mine.base, name) == student[name] for name in names[1:])
    assert dataclasses.asdict(mine.extension) == student.extension.to_dict()
    assert mine.extension_vocab_size == edad.get_config().vocabulary.size
    in_torch = TORCH_SIZES["edad-student"][-1]
    assert in_torch["vocab_size"] == mine.vocab_size == 48_180
    for name, size in in_torch.items():
        if name.startswith("extension_") and name != "extension_vocab_size":
            assert size == student.extension[name.removeprefix("extension_")]
        elif name in names[2:]:
            assert size == student[name]
    assert set(SIZES) == set(TORCH_SIZES)


def test_ratios_are_taken_turn_by_turn_so_that_a_machine_that_slows_down_changes_none():
    slowing = np.array([1.0, 2.0, 4.0])
    first, other = ({"turn_ms": list(slowing * ms)} for ms in (10.0, 2.5))
    np.testing.assert_allclose(ratios(first, other), 4.0)


def time_instantly(monkeypatch, candidates, cases, times=lambda turn: [1.0]):
    """Returns what is measured of models that answer at once, and the jobs that they were given."""
    asked = []

    class Instant:
        def __init__(self, candidate, threads, stack):
            self.name, self.ready = candidate.name, {"cold_start": 0.1, "memory_mb": 1.0}
            self.turn = -1

        def ask(self, job):
            asked.append((self.name, job["length"], job["is_first"]))
            self.turn += 1
            return {"times_ms": times(self.turn), "peak_memory_mb": 2.0}

    monkeypatch.setattr(turns, "TimedModel", Instant)
    candidates = [Candidate(name, "onnx", "", 20) for name in candidates]
    return time_in_turn(candidates, cases, threads=1), asked


def test_models_take_turns_and_are_warmed_up_fully_in_the_first(monkeypatch):
    _, asked = time_instantly(monkeypatch, "ab", Cases([1], [8, 16], 1.0, turns=2))
    assert asked == [
        (name, length, turn == 0) for length in (8, 16) for turn in range(2) for name in "ab"
    ]


def test_a_turn_counts_once_however_many_calls_it_had(monkeypatch):
    turns_ms = [[1.0] * 100, [3.0], [3.0, 5.0, 3.0]]
    cases = Cases([6], [8], 1.0, turns=3)
    [row], _ = time_instantly(monkeypatch, "a", cases, turns_ms.__getitem__)
    [cell] = row["cells"]
    assert cell["turn_ms"] == [1.0, 3.0, 3.0] and cell["median_ms"] == 3.0
    assert cell["rows_per_second"] == 2_000 and cell["calls"] == 104


def test_a_model_that_was_killed_before_its_turn_says_so(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    with pytest.raises(ValueError, match=r"killed: timing it failed \(status -9\)"):
        with contextlib.ExitStack() as stack:
            process = TimedModel(Candidate("killed", "onnx", str(folder), 20), 1, stack)
            process.process.kill()
            process.process.wait()
            process.ask({"batch": 1, "length": 8, "seconds": 0.01, "is_first": True})


def test_a_model_that_dies_during_its_turn_says_why(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    with pytest.raises(ValueError, match=r"(?s)short: timing it failed \(status 1\):.*"):
        time_in_turn(
            [Candidate("short", "onnx", str(folder), 4_096)],  # it has 20 positions
            Cases([1], [4_096], 0.01, turns=1),
            threads=1,
        )


def test_lengths_that_no_model_has_are_told_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="short has 20 positions, got lengths .128"):
        benchmark_edge(
            [Candidate("short", "onnx", "", 20)],
            FAST._replace(lengths=[128]),
            out=tmp_path,
            threads=1,
        )


def test_a_model_that_cannot_be_timed_says_why(tmp_path):
    candidate = Candidate("nothing", "onnx", str(tmp_path), 20)
    with pytest.raises(ValueError, match="(?s)nothing: timing it failed.*lacks model.onnx"):
        benchmark_edge([candidate], FAST, out=tmp_path / "edge", threads=1)


def test_wrong_flags_are_told_before_anything_runs(tmp_path):
    for flag, told in (
        ("--torch=gpt-7", "got gpt-7, expected bert-base, distilbert, edad-student or a folder"),
        ("--lengths=a", "--lengths: got a, expected whole numbers"),
        (f"--models={tmp_path}", "which has no model.onnx"),
    ):
        assert_dies(run_command("--torch=bert-base", flag, script="benchmark_edge.py"), told)
