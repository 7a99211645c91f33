# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from edad_jax.data.stages import run_stage
from edad_jax.files import write_json
from edad_jax.training.workdir import hold_workdir, open_workdir

CONFIG = {
    "seed": 0,
    "names": ("a", "b"),
    "student": {"layers": 4, "rate": None},
    "rows": {"max_length": 128, "workers": 0},
    "checkpoint": {"every_steps": 10, "keep": 2},
    "parallel": {"engine": "auto", "process_index": 0},
    "progress": True,
    "log_every_steps": 10,
}


@pytest.fixture
def begun(tmp_path):
    """Returns the workdir of a run of CONFIG that has begun to train."""
    workdir = open_workdir(tmp_path / "run", CONFIG)
    (workdir / "checkpoints").mkdir()
    return workdir


def test_a_new_workdir_records_the_configuration(tmp_path):
    workdir = open_workdir(tmp_path / "a" / "b", CONFIG)
    assert workdir == (tmp_path / "a" / "b").resolve()
    recorded = json.loads((workdir / "config.json").read_text())
    assert recorded["student"] == {"layers": 4, "rate": None}
    assert recorded["names"] == ["a", "b"]
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_workdir_is_held_by_one_program_until_it_ends_and_no_file_says_so(tmp_path):
    with hold_workdir(tmp_path / "run"):
        with pytest.raises(ValueError, match="another program is at work there; wait"):
            with hold_workdir(tmp_path / "run"):
                pass
        with hold_workdir(tmp_path / "other"):
            pass
    with hold_workdir(tmp_path / "run"):
        assert not list((tmp_path / "run").iterdir())


def test_a_relative_workdir_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_workdir("run", CONFIG) == tmp_path.resolve() / "run"


def test_the_same_configuration_opens_it_again(begun):
    before = (begun / "config.json").read_bytes()
    assert open_workdir(begun, CONFIG) == begun
    assert (begun / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "config.seed: got 1, the run has 0"),
        ({"names": ("a",)}, r"config.names: got \['a'\], the run has \['a', 'b'\]"),
        ({"student": {"layers": 3, "rate": None}}, "config.student.layers: got 3, the run has 4"),
        ({"student": {"layers": 4, "rate": 0.0}}, "config.student.rate: got 0.0, the run has None"),
        ({"new": 1}, "config.new: got 1, the run has None"),
        ({"rows": {"max_length": 64, "workers": 0}}, "config.rows.max_length: got 64"),
    ],
)
def test_another_configuration_is_an_error_that_names_the_key(begun, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_workdir(begun, CONFIG | change)
    assert str(caught.value).count("config.") == 1
    assert json.loads((begun / "config.json").read_text())["seed"] == 0


def test_devices_and_habits_may_change(begun):
    changes = {
        "parallel": {"engine": "shard_map", "process_index": 1},
        "checkpoint": {"every_steps": 1, "keep": 1},
        "log_every_steps": 1,
        "progress": False,
        "rows": {"max_length": 128, "workers": 4},
    }
    assert open_workdir(begun, CONFIG | changes) == begun


@pytest.mark.parametrize("begins_with", ["checkpoints", "metrics.jsonl"])
def test_before_training_a_mistake_in_the_configuration_may_be_mended(tmp_path, begins_with):
    workdir = open_workdir(tmp_path, CONFIG)
    (workdir / "rows").mkdir()
    open_workdir(workdir, CONFIG | {"seed": 1})
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1
    (workdir / begins_with).mkdir()
    with pytest.raises(ValueError, match="config.seed: got 2, the run has 1"):
        open_workdir(workdir, CONFIG | {"seed": 2})


def test_a_damaged_config_json_is_an_error_with_file_and_line(begun):
    (begun / "config.json").write_text('{\n "seed": 0,\n oops')
    with pytest.raises(ValueError, match=r"config.json:3: got damaged JSON"):
        open_workdir(begun, CONFIG)


def test_a_workdir_that_is_a_file_is_an_error_that_names_the_option(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="--workdir=.*run: got File exists, expected a folder"):
        open_workdir(tmp_path / "run", CONFIG)


def test_a_stage_is_done_once(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        folder.mkdir()
        return {"rows": 7}

    for _ in range(2):
        facts = run_stage(tmp_path / "rows", {"seed": 0, "files": ("a",)}, build)
        assert facts == {"rows": 7}
    assert calls == [tmp_path / "rows"]


def test_a_stage_of_something_else_is_an_error_that_says_what(tmp_path):
    build = lambda folder: folder.mkdir() or {}  # noqa: E731
    run_stage(tmp_path / "rows", {"seed": 0, "corpus": {"text_key": "text"}}, build)
    with pytest.raises(ValueError, match="(?s)delete it.*corpus.text_key: got 'body', then 'text'"):
        run_stage(tmp_path / "rows", {"seed": 0, "corpus": {"text_key": "body"}}, build)


def test_a_stage_that_failed_is_done_again(tmp_path):
    def fail(folder):
        folder.mkdir()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run_stage(tmp_path / "rows", {"seed": 0}, fail)
    assert run_stage(tmp_path / "rows", {"seed": 1}, lambda folder: {"rows": 1}) == {"rows": 1}


def test_a_stage_whose_folder_was_deleted_is_done_again(tmp_path):
    build = lambda folder: folder.mkdir() or {}  # noqa: E731
    run_stage(tmp_path / "rows", {"seed": 0}, build)
    (tmp_path / "rows").rmdir()
    run_stage(tmp_path / "rows", {"seed": 1}, build)
    assert (tmp_path / "rows").is_dir()


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"word": "뇌"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"word": "뇌"}
    with pytest.raises(TypeError):
        write_json(path, {"a": 1, "b": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"word": "뇌"}


def test_of_thousands_of_files_the_error_names_those_that_differ(tmp_path):
    files = [[f"/data/{number}.txt", number] for number in range(1000)]
    run_stage(tmp_path / "rows", {"files": files}, lambda out: out.mkdir() or {})
    changed = [*files[:500], ["/data/500.txt", 7], *files[501:]]
    with pytest.raises(ValueError, match="other") as raised:
        run_stage(tmp_path / "rows", {"files": changed}, lambda out: {})
    assert "got [['/data/500.txt', 7]], then [['/data/500.txt', 500]]" in str(raised.value)
    assert len(str(raised.value)) < 1_000
