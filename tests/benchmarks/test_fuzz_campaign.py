# SPDX-License-Identifier: Apache-2.0
"""The campaign of damaged files at tiny count: what breaks a promise fails, with its file."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import fuzz_bombs, fuzz_kinds
from tests.tiny_run import ROOT


def turn(folder, kind, examples, *, code=""):
    """Returns what a turn of the campaign prints, after `code` has been run in its process."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from benchmarks import fuzz_campaign\n{code}\n"
        f"fuzz_campaign.run_turn({kind!r}, 3, {examples})\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=os.environ | {"TMPDIR": str(folder)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", fuzz_kinds.kind_names())
def test_every_kind_is_read_while_it_is_whole(kind, tmp_path):
    made = fuzz_kinds.make_kind(kind)
    assert made.name == kind and set(made.targets) <= set(made.files)
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(made.pack(content))
    made.read(tmp_path)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="memory is bounded on Linux only"
)
def test_a_reader_that_breaks_a_promise_is_a_failure_with_its_file(tmp_path):
    pytest.importorskip("hypothesis")
    said = turn(tmp_path, "jsonl", 20)
    assert said["failure"] is None and said["counts"]["failed"] == 0
    assert said["counts"]["read"] + said["counts"]["refused"] >= 20
    code = (  # a reader that cannot bear a line without its end
        "from edad_jax.data.text import json_values\n"
        "decode = json_values.decode_line\n"
        "json_values.decode_line = lambda raw, *rest: {b'}': decode}[raw[-1:]](raw, *rest)"
    )
    said = turn(tmp_path, "jsonl", 60, code=code)
    assert said["counts"]["failed"] >= 1
    assert said["failure"]["error"].startswith("KeyError at ")
    assert bytes.fromhex(said["failure"]["file"])


def test_a_bomb_is_bounded_and_named(tmp_path):
    path = tmp_path / "holes.tar"
    fuzz_bombs.BOMBS["holes.tar"](path, 100_000)
    assert fuzz_bombs.read(path)["outcome"] == "bounded and named"
