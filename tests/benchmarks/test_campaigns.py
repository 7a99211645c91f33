# SPDX-License-Identifier: Apache-2.0
"""The campaigns of kills and of damage, at a size that shows that they find what there is."""

import json
import random
import subprocess
import sys

import numpy as np

from benchmarks import corruption_campaign, run_digest
from benchmarks.damaged_files import Target
from edad_jax.files import seal, write_json
from tests.tiny_run import ROOT


def test_a_command_that_is_killed_and_given_again_ends_in_the_same_bits(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/crash_campaign.py", "--commands=export-onnx-int8"),
            *("--kills=3", f"--out={tmp_path / 'report.json'}"),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    result = report["commands"]["export-onnx-int8"]
    assert report["kills"] == len(result["kills"]) == 3
    assert report["differences"] == report["failures"] == 0
    assert {kill["kind"] for kill in result["kills"]} == {"by the clock", "before a file operation"}
    assert all(kill["phase"] for kill in result["kills"])
    (run, *_) = result["runs"]
    assert run["compared"]["files"] > 5 and run["compared"]["bytes"] > 10_000


def leave(folder, *, seconds, loss=0.5, weight=1.0):
    folder.mkdir()
    line = {"step": 1, "time": seconds, "loss": loss, "train/seconds": seconds}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    write_json(folder / "rows.stage.json", seal({"facts": {"rows": 3, "seconds": seconds}}))
    (folder / "README.md").write_text(f"| loss | {loss} |\n| nets.rows_per_second | {seconds} |\n")
    np.save(folder / "weights.npy", np.full(3, weight, np.float32))
    return run_digest.digest_folder(folder)


def test_ends_that_differ_in_time_alone_are_the_same_and_others_are_told(tmp_path):
    expected = leave(tmp_path / "one", seconds=1.0)
    assert run_digest.differences(leave(tmp_path / "two", seconds=2.0), expected) == []
    other = leave(
        tmp_path / "three", seconds=1.0, loss=0.25, weight=np.nextafter(1.0, 2.0, dtype="f4")
    )
    assert [said.split(":")[0] for said in run_digest.differences(other, expected)] == [
        "README.md",
        "metrics.jsonl",
        "weights.npy",
    ]
    (tmp_path / "two" / ".weights.partial.npy").write_bytes(b"")
    (tmp_path / "two" / "weights.npy").unlink()
    assert run_digest.differences(run_digest.digest_folder(tmp_path / "two"), expected) == [
        "weights.npy: is missing",
        ".weights.partial.npy: is left over",
    ]


def test_damage_to_every_kind_of_file_is_found_or_changes_nothing(tmp_path):
    report = corruption_campaign.campaign(tmp_path, trials=100, seed=3)
    assert report["faults"] == 0, report["found"]
    assert sum(sum(counts.values()) for counts in report["outcomes"].values()) == 100
    found = set().union(*report["outcomes"].values())
    assert found == {"named", "last good", "made again", "no effect"}
    assert report["by_kind"].keys() == {"bit", "cut"}


def test_damage_that_nothing_finds_is_a_fault(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(256)))

    def read():
        content = path.read_bytes()
        if len(content) < 128:
            raise KeyError("not a file of ours")
        if len(content) < 256:
            raise ValueError("too short")
        return content

    target = Target("no checksum", 1, [path], read)
    seen = {
        corruption_campaign.damage(target, random.Random(seed))["outcome"] for seed in range(40)
    }
    assert seen == {
        "silently something else",
        "not named: too short",
        "KeyError: 'not a file of ours'",
    }
    assert path.read_bytes() == bytes(range(256))
