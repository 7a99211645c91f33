# SPDX-License-Identifier: Apache-2.0
"""What is written comes back bit for bit, or is named as broken: never silently something else."""

import json
import logging
import os
import resource
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging
from jax.sharding import NamedSharding, PartitionSpec

from edad_jax.files import file_checksum
from edad_jax.training import checkpoint
from edad_jax.training.checkpoint import Checkpointer, find_faults


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


def replicated() -> NamedSharding:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())


def make_state(step: int, width: int = 64) -> State:
    random = np.random.default_rng(step)
    state = State(
        step=np.int32(step),
        params={
            "kernel": random.normal(size=(width, width)).astype(np.float32),
            "scale": random.normal(size=width).astype(jnp.bfloat16),
        },
        opt_state=({"mu": random.normal(size=width).astype(np.float32)}, ()),
    )
    return jax.device_put(state, replicated())


def assert_same_bits(got: State, expected: State):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, a.sharding) == (b.dtype, b.shape, b.sharding)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_steps(directory: Path, *steps: int, keep: int = 5) -> None:
    with Checkpointer(directory, keep=keep) as checkpointer:
        checkpointer.restore(make_state(0))
        for step in steps:
            checkpointer.save(step, make_state(step))
        checkpointer.wait()
        assert checkpointer.last_error is None


def steps_on_disk(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def largest_file(directory: Path) -> Path:
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip_bit(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@contextmanager
def files_no_longer_than(size_bytes: int):
    """Every write past this size fails, for any user: as a full disk does, and as really."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(directory: Path, size_kib: int):
    """A disk of its own, where the user may mount one."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a disk needs root")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
def warnings_logged():
    """What checkpoint.py itself warns of; orbax has a word for every thread beside."""
    lines = []

    class Listener(logging.Handler):
        def emit(self, record):
            if Path(record.pathname) == Path(checkpoint.__file__):
                lines.append(record.getMessage())

    listener = Listener(logging.WARNING)
    absl_logging.get_absl_logger().addHandler(listener)
    yield lines
    absl_logging.get_absl_logger().removeHandler(listener)


def test_restored_state_has_the_same_bits_and_shardings(tmp_path):
    save_steps(tmp_path, 3, 7)
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        step, state = checkpointer.restore(make_state(0))
        assert step == 7
        assert_same_bits(state, make_state(7))
        assert checkpointer.messages == []


def test_abstract_state_may_be_shapes_and_its_sharding_is_obeyed(tmp_path):
    save_steps(tmp_path, 3)
    sharded = NamedSharding(replicated().mesh, PartitionSpec("data"))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state(0))
    shapes.params["kernel"] = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=sharded)
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        _, state = checkpointer.restore(shapes)
    assert state.params["kernel"].sharding == sharded
    assert state.params["scale"].devices() == {jax.devices()[0]}
    assert np.array_equal(state.params["kernel"], make_state(3).params["kernel"])


def test_empty_directory_restores_nothing(tmp_path):
    with Checkpointer(tmp_path / "new" / "checkpoints", keep=1) as checkpointer:
        assert checkpointer.restore(make_state(0)) is None


def test_relative_directory_is_resolved_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpointer("run", keep=1) as checkpointer:
        monkeypatch.chdir("/")
        checkpointer.save(1, make_state(1))
    assert find_faults(tmp_path / "run", 1) == []


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 7, state), donate_argnums=0)
    state = make_state(5, width=512)
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(5, state)
        for _ in range(10):
            state = overwrite(state)
        jax.block_until_ready(state)
        _, restored = checkpointer.restore(make_state(0, width=512))
    assert_same_bits(restored, make_state(5, width=512))


def test_only_the_newest_steps_are_kept(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, 5, keep=2)
    assert steps_on_disk(tmp_path) == [4, 5]
    assert sorted(path.name for path in (tmp_path / "checksums").iterdir()) == ["4.json", "5.json"]


def test_the_old_step_goes_only_after_the_new_one_has_its_checksums(tmp_path, monkeypatch):
    save_steps(tmp_path, 1, keep=1)
    seen = []
    write = checkpoint.write_manifest

    def write_and_look(directory, step):
        seen.append(steps_on_disk(directory))
        write(directory, step)

    monkeypatch.setattr(checkpoint, "write_manifest", write_and_look)
    save_steps(tmp_path, 2, keep=1)
    assert seen == [[1, 2]]
    assert steps_on_disk(tmp_path) == [2]


def test_step_that_is_already_saved_is_not_written_again(tmp_path):
    save_steps(tmp_path, 4)
    before = largest_file(tmp_path / "4").stat()
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        checkpointer.restore(make_state(0))
        checkpointer.save(4, make_state(4))
        checkpointer.wait()
        assert checkpointer.last_error is None
    assert largest_file(tmp_path / "4").stat() == before


def test_every_flipped_bit_and_truncation_is_found(tmp_path):
    save_steps(tmp_path, 4, 8)
    files = [path for path in (tmp_path / "8").rglob("*") if path.is_file()]
    files.append(tmp_path / "checksums" / "8.json")
    whole = {path: path.read_bytes() for path in files}
    files = [path for path in files if whole[path]]
    random = np.random.default_rng(0)
    missed = []
    for trial in range(250):
        path = files[random.integers(len(files))]
        size = len(whole[path])
        if trial < 200:
            flip_bit(path, random.integers(size), random.integers(8))
        else:
            os.truncate(path, random.integers(size))
        faults = find_faults(tmp_path, 8)
        is_named = any(path.name in fault or path.name == "8.json" for fault in faults)
        if not is_named:  # in the checksums themselves a flip may look like a change of a file
            missed.append((trial, path))
        path.write_bytes(whole[path])
    assert missed == []
    assert find_faults(tmp_path, 8) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "extra"])
def test_broken_step_is_named_and_the_one_before_is_used(tmp_path, warnings_logged, damage):
    save_steps(tmp_path, 4, 8)
    path = largest_file(tmp_path / "8")
    if damage == "flip":
        flip_bit(path, 1000, 3)
    elif damage == "truncate":
        os.truncate(path, 1000)
    elif damage == "missing":
        path.unlink()
    else:
        path = path.with_name("stranger")
        path.write_bytes(b"?")
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        step, state = checkpointer.restore(make_state(0))
        assert step == 4
        assert_same_bits(state, make_state(4))
        [message] = checkpointer.messages
    assert message.startswith(f"{path}: got ") and ", expected " in message
    assert message in warnings_logged[0] and "step 4" in warnings_logged[1]


def test_restore_changes_nothing_on_disk(tmp_path):
    save_steps(tmp_path, 4, 8)
    flip_bit(largest_file(tmp_path / "8"), 1000, 3)
    before = sorted(tmp_path.rglob("*"))
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.restore(make_state(0))
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_step_is_moved_aside_so_that_it_can_be_saved_again(tmp_path, warnings_logged):
    save_steps(tmp_path, 4, 8)
    flip_bit(largest_file(tmp_path / "8"), 1000, 3)
    for _ in range(2):  # twice: the name 8.broken is then taken
        with Checkpointer(tmp_path, keep=1) as checkpointer:
            assert checkpointer.restore(make_state(0))[0] == 4
            checkpointer.save(6, make_state(6))  # with keep=1, 8 must not count as the newest
            checkpointer.wait()
            assert find_faults(tmp_path, 6) == []
            checkpointer.save(8, make_state(8))
            checkpointer.wait()
            assert checkpointer.last_error is None
        assert (tmp_path / "8.broken").is_dir()
        assert find_faults(tmp_path, 8) == []
        with Checkpointer(tmp_path, keep=1) as checkpointer:
            step, state = checkpointer.restore(make_state(0))
        assert step == 8
        assert_same_bits(state, make_state(8))
        if steps_on_disk(tmp_path) == [8]:
            (tmp_path / "8").rename(tmp_path / "kept_8")
            (tmp_path / "checksums" / "8.json").unlink()
            save_steps(tmp_path, 4)
            (tmp_path / "kept_8").rename(tmp_path / "8")
    assert any("8.broken" in line for line in warnings_logged)


def test_no_good_step_is_an_error_that_says_why_for_each(tmp_path):
    save_steps(tmp_path, 4, 8)
    os.truncate(largest_file(tmp_path / "8"), 10)
    (tmp_path / "checksums" / "4.json").unlink()
    with (
        Checkpointer(tmp_path, keep=5) as checkpointer,
        pytest.raises(ValueError, match="no good checkpoint") as raised,
    ):
        checkpointer.restore(make_state(0))
    assert "got 10 bytes" in str(raised.value) and "4.json" in str(raised.value)


def test_a_kill_during_the_very_first_save_lets_the_run_begin_again(tmp_path):
    save_steps(tmp_path, 4)
    (tmp_path / "checksums" / "4.json").unlink()  # killed after orbax's commit, before this
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        assert checkpointer.restore(make_state(0)) is None
        assert "4.json" in checkpointer.messages[0]
        checkpointer.save(4, make_state(4))
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        assert checkpointer.restore(make_state(0))[0] == 4


def test_kill_between_commit_and_checksums_falls_back(tmp_path):
    program = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests import conftest
        from tests.training import test_checkpoint
        from edad_jax.training import checkpoint
        write = checkpoint.write_manifest
        def write_or_die(directory, step):
            if step == 8:
                assert (directory / "8" / "_CHECKPOINT_METADATA").exists()
                os.kill(os.getpid(), 9)
            write(directory, step)
        checkpoint.write_manifest = write_or_die
        test_checkpoint.save_steps(checkpoint.Path({str(tmp_path)!r}), 4, 8)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    assert steps_on_disk(tmp_path) == [4, 8]
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        step, state = checkpointer.restore(make_state(0))
        assert step == 4
        assert_same_bits(state, make_state(4))
        assert "8.json" in checkpointer.messages[0]
        checkpointer.save(8, make_state(8))
        assert checkpointer.restore(make_state(0))[0] == 8


def test_half_written_step_of_a_killed_run_is_removed(tmp_path):
    save_steps(tmp_path, 4)
    leftover = tmp_path / "8.orbax-checkpoint-tmp"
    (leftover / "default").mkdir(parents=True)
    save_steps(tmp_path, 9)
    assert not leftover.exists()
    assert steps_on_disk(tmp_path) == [4, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": jnp.zeros(64)}, r"params/scale: got bfloat16\[64\], expected float32\[64\]"),
        ({"kernel": jnp.zeros((64, 63))}, r"params/kernel: got float32\[64, 64\], expected .*63\]"),
        ({"bias": jnp.zeros(3)}, "params/bias: got nothing, expected an array"),
    ],
)
def test_other_dtype_shape_or_name_is_an_error_with_the_path(tmp_path, change, message):
    save_steps(tmp_path, 4)
    state = make_state(0)
    state = state._replace(params=state.params | change)
    with Checkpointer(tmp_path, keep=5) as checkpointer, pytest.raises(ValueError, match=message):
        checkpointer.restore(state)


def test_array_that_is_no_longer_wanted_is_an_error_with_the_path(tmp_path):
    save_steps(tmp_path, 4)
    state = make_state(0)
    del state.params["scale"]
    with (
        Checkpointer(tmp_path, keep=5) as checkpointer,
        pytest.raises(ValueError, match="params/scale: got an array, expected nothing"),
    ):
        checkpointer.restore(state)


def test_saving_over_another_run_is_an_error(tmp_path):
    save_steps(tmp_path, 4)
    with Checkpointer(tmp_path, keep=5) as checkpointer, pytest.raises(ValueError, match="restore"):
        checkpointer.save(5, make_state(5))


def check_failed_save_leaves_the_old_and_later_ones_succeed(directory, disk_full, warnings_logged):
    with Checkpointer(directory, keep=2) as checkpointer:
        checkpointer.save(4, make_state(4, width=512))
        checkpointer.wait()
        with disk_full():
            checkpointer.save(8, make_state(8, width=512))
            checkpointer.wait()
        assert checkpointer.last_error is not None
        [line] = warnings_logged
        assert "step 8 was not saved" in line and "that of step 4" in line and "space" in line
        assert steps_on_disk(directory) == [4]
        step, state = checkpointer.restore(make_state(0, width=512))
        assert step == 4
        assert_same_bits(state, make_state(4, width=512))
        checkpointer.save(8, make_state(8, width=512))  # the same step, and a later one
        checkpointer.save(12, make_state(12, width=512))
        checkpointer.wait()
        assert checkpointer.last_error is None
    with Checkpointer(directory, keep=2) as checkpointer:
        step, state = checkpointer.restore(make_state(0, width=512))
        assert step == 12
        assert_same_bits(state, make_state(12, width=512))
    assert sorted(path.name for path in directory.iterdir()) == ["12", "8", "checksums"]


def test_failed_write_costs_the_step_and_nothing_else(tmp_path, warnings_logged):
    check_failed_save_leaves_the_old_and_later_ones_succeed(
        tmp_path, lambda: files_no_longer_than(100_000), warnings_logged
    )


def test_full_disk_costs_the_step_and_nothing_else(tmp_path, warnings_logged):
    with small_disk(tmp_path / "disk", size_kib=8_000) as disk:

        @contextmanager
        def disk_full():
            ballast = disk / "ballast"
            with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                while True:
                    file.write(bytes(100_000))
            os.truncate(ballast, ballast.stat().st_size - 300_000)  # enough to begin, not to end
            yield
            ballast.unlink()

        check_failed_save_leaves_the_old_and_later_ones_succeed(
            disk / "run", disk_full, warnings_logged
        )


def test_checksums_that_cannot_be_written_cost_the_step(tmp_path, monkeypatch, warnings_logged):
    write = checkpoint.write_manifest

    @contextmanager
    def disk_full():
        def fail(directory, step):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "write_manifest", fail)
        yield
        monkeypatch.setattr(checkpoint, "write_manifest", write)

    check_failed_save_leaves_the_old_and_later_ones_succeed(tmp_path, disk_full, warnings_logged)


def test_read_only_disk_still_restores_and_training_goes_on(tmp_path, warnings_logged):
    with small_disk(tmp_path / "disk", size_kib=8_000) as disk:
        save_steps(disk / "run", 4)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Checkpointer(disk / "run", keep=2) as checkpointer:
            assert checkpointer.restore(make_state(0))[0] == 4
            checkpointer.save(8, make_state(8))
            assert "Read-only" in str(checkpointer.last_error)
            assert checkpointer.restore(make_state(0))[0] == 4
        with pytest.raises(ValueError, match="choose another workdir"):
            Checkpointer(disk / "other", keep=2)


def test_keeping_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="keep: got 0, expected at least 1"):
        Checkpointer(tmp_path, keep=0)


def test_step_that_orbax_did_not_write_gets_no_checksums(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no files, expected a checkpoint"):
        checkpoint.write_manifest(tmp_path, 8)
    assert not (tmp_path / "checksums").exists()


def test_manifest_names_every_file_with_its_size(tmp_path):
    save_steps(tmp_path, 4)
    manifest = json.loads((tmp_path / "checksums" / "4.json").read_text())
    sizes = {
        path.relative_to(tmp_path / "4").as_posix(): path.stat().st_size
        for path in (tmp_path / "4").rglob("*")
        if path.is_file()
    }
    assert manifest["step"] == 4
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == sizes


def test_checkpoints_of_earlier_versions_have_sha256_and_are_compared_with_it(tmp_path):
    save_steps(tmp_path, 4)
    path = tmp_path / "checksums" / "4.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        del entry["xxh3_128"]
        entry["sha256"] = file_checksum(tmp_path / "4" / name)
    path.write_text(json.dumps(manifest))
    assert find_faults(tmp_path, 4) == []
    flip_bit(largest_file(tmp_path / "4"), 1000, 3)
    (fault,) = find_faults(tmp_path, 4)
    assert "got sha256" in fault
    del manifest["files"][name]["sha256"]
    path.write_text(json.dumps(manifest))
    (fault,) = find_faults(tmp_path, 4)
    assert "4.json: got ValueError('no checksum among bytes, expected one of xxh3_128" in fault


def test_a_save_that_a_kill_cut_short_leaves_nothing_behind(tmp_path):
    save_steps(tmp_path, 4, 8, keep=2)
    # As it is between orbax's commit and the checksums; and between those and the removal of 4.
    (tmp_path / "checksums" / "8.saving").write_bytes(b"")
    (tmp_path / "checksums" / "8.json").unlink()
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        assert checkpointer.restore(make_state(0))[0] == 4
        checkpointer.save(8, make_state(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8", "checksums"]
    assert [path.name for path in (tmp_path / "checksums").iterdir()] == ["8.json"]


def test_the_end_of_a_run_removes_what_a_kill_in_its_last_save_left(tmp_path):
    save_steps(tmp_path, 4, 8, keep=2)
    (tmp_path / "checksums" / "8.saving").write_bytes(b"")
    (tmp_path / "12.orbax-checkpoint-tmp-0").mkdir()
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.tidy()
        assert steps_on_disk(tmp_path) == [4, 8]  # nothing was restored: not this run's
        assert checkpointer.restore(make_state(0))[0] == 8
        checkpointer.tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8", "checksums"]
    assert [path.name for path in (tmp_path / "checksums").iterdir()] == ["8.json"]


def test_the_form_of_an_earlier_version_is_restored_as_such(tmp_path):
    save_steps(tmp_path, 4)
    larger = {"state": make_state(0), "losses": np.zeros(3, np.float32)}
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        step, restored = checkpointer.restore(larger, earlier=[make_state(0)])
        assert step == 4
        assert_same_bits(restored, make_state(4))
        with pytest.raises(ValueError, match="of another model or optimiser"):
            checkpointer.restore(larger)
        arrays = checkpointer.read(4)
    kernel = arrays["params/kernel"]
    assert kernel.tobytes() == np.asarray(make_state(4).params["kernel"]).tobytes()
