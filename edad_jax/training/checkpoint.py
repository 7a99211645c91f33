# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or are not used: orbax, plus a checksum of every file.

Orbax writes a step beside and renames it, so a kill never leaves a half step in place. It does
not notice what happens afterwards: a flipped bit mostly restores silently as other weights. So
every step has a manifest, and a step without one, or that disagrees with it, is not good:

    checkpoints/
      4/ 8/               steps, as orbax writes them
      checksums/8.json    bytes and XXH3 of every file under 8/; written last, renamed into place
      checksums/8.saving  there from before a save until it has its checksums: a step with it and
                          without them is no damage, but what a kill has left
      12.broken/          a step that failed its check, moved aside when training went past it

This is the only file that imports orbax.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from edad_jax.training.manifest import (
    find_faults,
    list_steps,
    manifest_path,
    saving_path,
    write_manifest,
)

_NONE_AT_ALL, _NONE_GOOD = -1, -2  # what process 0 tells the others instead of a step


class Checkpointer:
    """Saves and restores states of one run; leaving its `with` block waits for the last save.

    With several processes each makes one, on a directory that all of them see, and all call
    `save` and `restore` together; process 0 alone writes and checks the checksums.

    Attributes:
      directory: absolute path of the checkpoints.
      last_error: what stopped the newest save, or None if the newest save is whole.
      messages: what the last `restore` found broken, one sentence each.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int,
        on_saved: Callable[[int], None] | None = None,
    ):
        """Opens the directory, making it if it is not there.

        Args:
          directory: where the checkpoints are; a relative path is resolved now.
          keep: how many of the newest good steps stay on disk.
          on_saved: called in process 0, in the background, with each step that is whole.

        Raises:
          ValueError: if `keep` is less than 1, or the directory cannot be made.
        """
        if keep < 1:
            raise ValueError(f"keep: got {keep}, expected at least 1 checkpoint to be kept")
        self.directory = Path(directory).resolve()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoint directory {self.directory}: got {error.strerror}, expected one "
                "that can be made and written to; choose another workdir"
            ) from error
        self.last_error: Exception | None = None
        self.messages: list[str] = []
        self._keep, self._on_saved = keep, on_saved
        self._good_step: int | None = None  # the step that this run last restored or saved
        self._looked = self._cleared = False
        self._thread: threading.Thread | None = None
        # Orbax is told to keep every step. It would delete an old step as soon as the new one is
        # committed, before the new one has its checksums: with keep=1 a kill in between would
        # leave nothing good. `_remove_old` does it afterwards. And it makes the step's directory
        # before `save` returns: on a read-only disk its threads would wait for it for minutes.
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                save_root_metadata=False,
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *exception_info) -> None:
        self.wait()
        self._manager.close()

    @property
    def is_writing(self) -> bool:
        """Returns whether a save is still on its way to the disk."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, step: int, state: Any) -> None:
        """Returns as soon as `state` is copied; writing and checksums follow in the background.

        A disk that is full or read-only stops nothing: the error is logged, kept in `last_error`,
        and the next save tries again. The step that is already the newest good one is not
        written twice. Waits for the save before, if that is still being written.

        Args:
          step: updates completed; larger than any step saved or restored before.
          state: a pytree of arrays; it may be donated once this returns.

        Raises:
          ValueError: if the directory has checkpoints that were not restored from first.
        """
        self.wait()
        step = int(step)
        if step == self._good_step:
            return
        if not self._looked and list_steps(self.directory):
            raise ValueError(
                f"{self.directory}: got checkpoints of steps {list_steps(self.directory)} from "
                "another run, expected none; call restore first, or choose another workdir"
            )
        self._looked = True
        try:
            self._clear_the_way()
            if jax.process_index() == 0:
                saving_path(self.directory, step).parent.mkdir(exist_ok=True)
                saving_path(self.directory, step).touch()
            # force: whether to save at this step has been decided by the caller.
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
        except OSError as error:
            self._note_failure(step, error)
            return
        self._thread = threading.Thread(target=self._finish, args=(step,), name="checksums")
        self._thread.start()

    def restore(
        self, abstract_state: Any, *, earlier: Sequence[Any] = ()
    ) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest good checkpoint, or None if there is none at all.

        Every file of a step is checked first. What is broken is warned about, kept in `messages`,
        and the step before is tried. Nothing on disk changes.

        Args:
          abstract_state: a pytree of arrays or `jax.ShapeDtypeStruct`s; the restored arrays get
            their shardings (the first local device where there is none).
          earlier: likewise, what checkpoints of earlier versions may hold instead. The one that has
            the leaves of the checkpoint is restored.

        Raises:
          ValueError: if there are checkpoints but none is good, with the reason for each; if the
            good one has another structure, shape or dtype than `abstract_state`, with the path.
        """
        self.wait()
        self._looked = True
        step = self._newest_good_step()
        if step == _NONE_AT_ALL:
            return None
        if step == _NONE_GOOD:
            raise ValueError(
                f"{self.directory}: got no good checkpoint, expected at least one; put back "
                "what is broken, or choose another workdir to start again:\n  "
                + "\n  ".join(self.messages or ["process 0 says which files are broken"])
            )
        self._manager.reload()
        saved = _flatten(self._manager.item_metadata(step))
        forms = [abstract_state, *earlier]
        same = [form for form in forms if _flatten(form).keys() == saved.keys()]
        abstract_state = jax.tree.map(_to_abstract, (same or forms)[0])
        _check_same_leaves(saved, _flatten(abstract_state), self.directory / str(step))
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
        self._good_step = step
        return step, restored

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Returns all arrays of a checkpoint by their paths, without knowing what it is of."""
        self._manager.reload()
        leaves = self._manager.item_metadata(step).tree
        abstract = jax.tree.map(lambda x: _to_abstract(np.zeros(x.shape, x.dtype)), leaves)
        tree = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        flat = ocp.tree.to_flat_dict(tree)
        return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flat.items()}

    def wait(self) -> None:
        """Returns when the last save is on disk with its checksums, or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            # Orbax raises a failure once in every thread that asks; `_finish` has noted it.
            with contextlib.suppress(Exception):
                self._manager.wait_until_finished()

    def tidy(self) -> None:
        """Removes what a kill has left, once the last save is on disk; to be called at the end.

        The next save would do so; after the last one there is none.
        """
        self.wait()
        if jax.process_index() == 0 and self._good_step is not None:
            self._remove_unfinished()
            self._remove_old()

    def _newest_good_step(self) -> int:
        step = _NONE_AT_ALL
        if jax.process_index() == 0:
            self.messages = []
            for candidate in reversed(list_steps(self.directory)):
                faults = find_faults(self.directory, candidate)
                if not faults:
                    step = candidate
                    break
                # A step without a manifest was being saved when the run was killed. Where that
                # is all there is, nothing is lost by beginning again; damage is another matter.
                if manifest_path(self.directory, candidate).exists():
                    step = _NONE_GOOD
                self.messages += faults
            for message in self.messages:
                logging.warning("Checkpoint passed over: %s", message)
            if self.messages and step >= 0:
                logging.warning("Falling back to the checkpoint of step %d.", step)
        if jax.process_count() > 1:
            step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        return step

    def _clear_the_way(self) -> None:
        """Removes what is half-written; the first time, moves aside what restore found broken."""
        if jax.process_index() == 0:
            self._remove_unfinished()
        if self._cleared:
            return
        if jax.process_index() == 0:
            newest_good = -1 if self._good_step is None else self._good_step
            for step in list_steps(self.directory):
                if step > newest_good:
                    aside = self.directory / f"{step}.broken"
                    shutil.rmtree(aside, ignore_errors=True)  # at most one of each step is kept
                    manifest_path(self.directory, step).unlink(missing_ok=True)
                    (self.directory / str(step)).rename(aside)
                    logging.warning("The broken checkpoint of step %d is now %s.", step, aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("edad_jax.checkpoint: the way is clear")
        self._manager.reload()
        self._cleared = True

    def _remove_unfinished(self) -> None:
        """Removes the steps whose saving was never finished, and the marks of those that was."""
        for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for mark in self.directory.glob("checksums/*.saving"):
            if not manifest_path(self.directory, int(mark.stem)).exists():
                shutil.rmtree(self.directory / mark.stem, ignore_errors=True)
            mark.unlink(missing_ok=True)

    def _finish(self, step: int) -> None:
        """Runs in a thread: waits for orbax's commit, then adds the checksums."""
        try:
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                write_manifest(self.directory, step)
                saving_path(self.directory, step).unlink(missing_ok=True)
        except Exception as error:  # orbax wraps a full disk in several kinds of error
            self._note_failure(step, error)
            return
        self._good_step, self.last_error = step, None
        if jax.process_index() == 0:
            if self._on_saved is not None:
                self._on_saved(step)
            self._remove_old()

    def _note_failure(self, step: int, error: Exception) -> None:
        self.last_error = error
        if jax.process_index() == 0:
            for path in (str(step), *(p.name for p in self.directory.glob(f"{step}.orbax-*"))):
                shutil.rmtree(self.directory / path, ignore_errors=True)
            with contextlib.suppress(OSError):
                saving_path(self.directory, step).unlink(missing_ok=True)
        logging.error(
            "The checkpoint of step %d was not saved: %s. Training goes on; the newest whole "
            "checkpoint in %s is that of step %s. Free some space there, or make it writable: the "
            "next save tries again.",
            *(step, str(error).split("\n")[0], self.directory, self._good_step),
        )

    def _remove_old(self) -> None:
        steps = list_steps(self.directory)
        good = [step for step in steps if manifest_path(self.directory, step).exists()]
        for step in steps:
            if step < good[-self._keep :][0]:
                manifest_path(self.directory, step).unlink(missing_ok=True)
                shutil.rmtree(self.directory / str(step), ignore_errors=True)


def farewell(done: int, total_steps: int, save_error: Exception | None) -> str:
    """Returns what a run says that a signal has stopped after a checkpoint."""
    where = f"stopped by a signal at step {done} of {total_steps}"
    if save_error is not None:
        return f"{where}; its checkpoint could not be saved ({save_error}), the one before is whole"
    return f"{where}; the checkpoint is saved, and the same command goes on from there"


def _to_abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def _flatten(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves = ocp.tree.to_flat_dict(getattr(tree, "tree", tree)).items()
    return {"/".join(p): (tuple(leaf.shape), str(np.dtype(leaf.dtype))) for p, leaf in leaves}


def _check_same_leaves(saved: dict, expected: dict, where: Path) -> None:
    """Raises ValueError naming every path that differs; orbax itself would cast dtypes silently."""
    faults = [f"{path}: got nothing, expected an array" for path in expected.keys() - saved.keys()]
    faults += [f"{path}: got an array, expected nothing" for path in saved.keys() - expected.keys()]
    for path in expected.keys() & saved.keys():
        if saved[path] != expected[path]:
            (got_shape, got), (shape, dtype) = saved[path], expected[path]
            faults.append(f"{path}: got {got}{list(got_shape)}, expected {dtype}{list(shape)}")
    if faults:
        raise ValueError(
            f"the checkpoint {where} is of another model or optimiser; use the config it was made "
            "with, or another workdir:\n  " + "\n  ".join(sorted(faults))
        )
