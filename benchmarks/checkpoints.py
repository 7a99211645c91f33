# SPDX-License-Identifier: Apache-2.0
"""What checkpoints cost a training loop: how long it stands still, and how much slower it goes."""

import tempfile
import threading
import time

import jax
import numpy as np

from benchmarks.step import WARM_UP, Case, Loop
from edad_jax.training.checkpoint import Checkpointer

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
