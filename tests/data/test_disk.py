# SPDX-License-Identifier: Apache-2.0
"""Whether a folder can be written and has room: asked first, and never wrong where it is odd."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from edad_jax.data import disk
from edad_jax.data.stages import run_stage
from edad_jax.files import RemotePath
from tests.tiny_run import make_inputs, tiny_config

GB = 10**9


@pytest.fixture
def refuse(monkeypatch):
    """Returns what lets every write to a folder fail with an error of that number."""

    def refuse(number):
        def fail(**_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(tempfile, "TemporaryFile", fail)

    return refuse


@pytest.fixture
def free(monkeypatch):
    """Returns what lets every disk say that it has so many bytes free, of so many."""

    def free(size, total=1000 * GB):
        usage = shutil._ntuple_diskusage(total, total - size, size)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return free


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_takes_nothing_is_refused_with_its_option(tmp_path, refuse, number):
    refuse(number)
    with pytest.raises(ValueError, match=rf"--out=\S+: got {os.strerror(number)}, .*choose ano"):
        disk.check_writable(tmp_path / "not" / "there", option="--out")


def test_a_folder_that_can_be_written_stays_as_it_was(tmp_path):
    disk.check_writable(tmp_path / "not" / "there", option="--out")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="got Not a directory, expected a folder"):
            disk.check_writable(folder, option="--workdir")


def test_an_odd_file_system_is_not_judged(tmp_path, refuse, free):
    refuse(errno.EOPNOTSUPP)
    disk.check_writable(tmp_path, option="--out")
    for size, total in ((0, 0), (5, 0), (-1, 10)):
        free(size, total)
        disk.check_free(tmp_path, {"rows": GB}, option="--out")


def test_object_storage_has_room_and_is_asked_by_writing(free):
    free(0)
    folder = RemotePath("memory://disk/out")
    disk.check_free(folder, {"rows": GB}, option="--out")
    disk.check_writable(folder, option="--out")
    assert folder.list_files() == []


def test_too_little_room_names_what_takes_it(tmp_path, free):
    free(2 * GB)
    disk.check_free(tmp_path, {"rows": 1.5 * GB}, option="--out")
    told = r"got 2 GB free on its disk, expected at least 2.3 GB \(1.5 GB of rows, 800 MB of nets\)"
    with pytest.raises(ValueError, match=told):
        disk.check_free(tmp_path / "new", {"rows": 1.5e9, "nets": 8e8, "": 0}, option="--out")


def test_rows_are_estimated_low_whatever_holds_the_text():
    def estimate(*names):
        source = {"files": [[f"/data/{name}", 12 * GB, 0] for name in names]}
        return disk.rows_bytes(source, duplicates=1) / GB

    assert estimate("a.txt") == pytest.approx(2)
    assert estimate("a.txt.gz") == pytest.approx(4)
    assert estimate("a.jsonl", "b.nxml") == pytest.approx(0.4)
    assert estimate("a.pdf") == 0
    assert disk.rows_bytes({"packages": {}}, duplicates=1) == 0


def test_rows_that_are_there_need_no_room(tmp_path, free):
    config = tiny_config(make_inputs(tmp_path))
    free(10)
    with pytest.raises(ValueError, match=r"expected at least .*of rows"):
        disk.check_rows_folder(config, tmp_path / "out", option="--out")
    run_stage(tmp_path / "out" / "rows", {}, lambda out: out.mkdir(parents=True) or {})
    disk.check_rows_folder(config, tmp_path / "out", option="--out")
    # Those that were begun count too.
    half = Path(tmp_path / "begun" / "rows" / "train" / "rows-00000.npy")
    half.parent.mkdir(parents=True)
    half.write_bytes(bytes((tmp_path / "corpus.txt").stat().st_size))
    disk.check_rows_folder(config, tmp_path / "begun", option="--out")
