# SPDX-License-Identifier: Apache-2.0
"""What checkpoints cost a training loop: how long it stands still, and how much slower it goes."""

import os
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.step import WARM_UP, Case, Loop
from edad_jax.files import write_json
from edad_jax.training import checkpoint
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.manifest import quick_checksum

EVERY_SECONDS = 60.0
_SAVES = 3  # the first one also starts orbax, once in a run


def time_saves(case: Case, *, repeats: int) -> dict:
    """Returns what saving the state of this step costs, with the checkpoints of a real run.

    They go into the system's folder for temporary files (TMPDIR chooses another disk).

    Args:
      case: which step.
      repeats: updates to time without saving.

    Returns:
      "state_gb", "step_seconds" (median, without saving), "hold_up_seconds" (the loop waits for
      the copy), "background_seconds" (until the files and their checksums are on disk),
      "slower_seconds" (what the updates made meanwhile took longer), "share_of_a_minute": held up
      and slower, if there is a save every 60 s. Medians of all saves but the first; "saves" has
      them all.
    """
    loop = Loop(case)
    for _ in range(WARM_UP):
        loop.update()
    usual = float(np.median([loop.update() for _ in range(repeats)]))
    with (
        tempfile.TemporaryDirectory(prefix="edad-jax-checkpoints-") as folder,
        Checkpointer(folder, keep=1) as checkpoints,
    ):
        saves = [_time_save(loop, checkpoints, number, usual) for number in range(1, _SAVES + 1)]
        if checkpoints.last_error is not None:
            raise OSError(f"the checkpoint could not be saved: {checkpoints.last_error}")
    typical = {name: float(np.median([save[name] for save in saves[1:]])) for name in saves[0]}
    lost = typical["hold_up_seconds"] + max(0.0, typical["slower_seconds"])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(loop.state))
    return typical | {
        "state_gb": size / 1e9,
        "step_seconds": usual,
        "share_of_a_minute": lost / EVERY_SECONDS,
        "saves": saves,
    }


def _time_save(loop, checkpoints, number, usual):
    ended = []

    def watch():
        while checkpoints.is_writing:
            time.sleep(0.005)
        ended.append(time.perf_counter())

    start = time.perf_counter()
    checkpoints.save(number, loop.to_save())
    held_up = time.perf_counter() - start
    watcher = threading.Thread(target=watch)
    watcher.start()
    updates = []
    while checkpoints.is_writing:
        updates.append(loop.update())
    watcher.join()
    return {
        "hold_up_seconds": held_up,
        "background_seconds": ended[0] - start - held_up,
        "slower_seconds": sum(updates) - len(updates) * usual,
    }


def time_checksums(folder: Path, megabytes: int, *, saves: int = 5) -> dict:
    """Returns what checksums cost beside saving, with the checkpoints of a real run.

    Args:
      folder: where they go.
      megabytes: of float32 arrays of 16 MB, as of large layers.
      saves: how many are timed with checksums, and as many without, in turn.

    Returns:
      Medians: "hold_up_seconds" (the loop waits for the copy), "save_seconds" (until all is on the
      disk, with checksums), "end_seconds" with and "flush_seconds" without them (from orbax's
      commit until then), "share" of a save that checksums make longer; and "hash_cpu_seconds" of
      "save_cpu_seconds" of all threads.
    """
    random = np.random.default_rng(0)
    arrays = [
        random.normal(size=(4096, 1024)).astype(np.float32) for _ in range(max(1, megabytes // 16))
    ]
    state = {str(number): jax.numpy.asarray(array) for number, array in enumerate(arrays)}
    timed: dict[str, list] = {"with": [], "without": []}
    write_manifest = checkpoint.write_manifest

    def flush(directory, step):
        for path in (directory / str(step)).rglob("*"):
            if path.is_file():
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
        write_json(directory / "checksums" / f"{step}.json", {"step": step, "files": {}})

    try:
        with Checkpointer(folder, keep=1) as checkpoints:
            for step in range(2 * saves + 2):
                kind = ("with", "without")[step % 2]
                ends: list[float] = []

                def end(directory, step, kind=kind, ends=ends):
                    start = time.perf_counter()
                    (write_manifest if kind == "with" else flush)(directory, step)
                    ends.append(time.perf_counter() - start)

                checkpoint.write_manifest = end
                start, cpu = time.perf_counter(), time.process_time()
                checkpoints.save(step, state)
                held_up = time.perf_counter() - start
                checkpoints.wait()
                total, cpu = time.perf_counter() - start, time.process_time() - cpu
                timed[kind].append((held_up, total, *ends, cpu))
    finally:
        checkpoint.write_manifest = write_manifest
    # The first of each also starts orbax.
    held_up, total, end_with, cpu = np.median(timed["with"][1:], axis=0).tolist()
    end_without = float(np.median(timed["without"][1:], axis=0)[2])
    start = time.process_time()
    for path in folder.glob("[0-9]*/**/*"):
        if path.is_file():
            quick_checksum(path)
    return {
        "megabytes": sum(array.nbytes for array in arrays) / 1e6,
        "saves": saves,
        "hold_up_seconds": held_up,
        "save_seconds": total,
        "end_seconds": end_with,
        "flush_seconds": end_without,
        "share": (end_with - end_without) / total,
        "hash_cpu_seconds": time.process_time() - start,
        "save_cpu_seconds": cpu,
    }
