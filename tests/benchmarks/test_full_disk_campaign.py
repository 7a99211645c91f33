# SPDX-License-Identifier: Apache-2.0
"""The campaign of full disks at tiny count: what goes on is compared, and what breaks is told."""

import functools

import pytest

from benchmarks import full_disk_campaign
from edad_jax.data.prepare import prepare_folder
from tests.tiny_run import make_inputs, tiny_config


@pytest.fixture
def can_mount(tmp_path):
    try:
        with full_disk_campaign.disk_of(tmp_path / "disk", 1 << 20):
            pass
    except SystemExit:
        pytest.skip("mounting a disk needs root")


def test_rows_are_made_on_a_disk_that_grows(can_mount, tmp_path):
    config = tiny_config(make_inputs(tmp_path / "inputs"))
    prepare = functools.partial(prepare_folder, config)
    full, room, new, begun = full_disk_campaign.try_command("prepare", prepare, tmp_path, 2)
    for trial in (full, room, new, begun):
        assert trial["faults"] == [] and trial["then"] == "done"
    assert "Make room" in full["first"] and room["first"] == "done"
    assert "--out=" in new["first"] and "Read-only file system" in new["first"]
    assert "Read-only file system" in begun["first"]


def test_what_ends_otherwise_is_a_fault(can_mount, tmp_path):
    def careless(out):
        out.mkdir(exist_ok=True)
        if not (out / "a.npy").exists():
            (out / "a.npy").write_bytes(bytes(100_000))

    full, room, *read_only = full_disk_campaign.try_command("careless", careless, tmp_path, 2)
    assert full["faults"] == ["differs: a.npy"] and room["faults"] == []
    found = full_disk_campaign.find_faults("broke: Exception: os error 28", tmp_path)
    assert found == ["a trace"]
    (tmp_path / ".rows.partial.npy").write_bytes(b"")
    found = full_disk_campaign.find_faults("ValueError: no", tmp_path)
    assert found == ["does not say what is full", "left .rows.partial.npy"]
