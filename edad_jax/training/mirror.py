# SPDX-License-Identifier: Apache-2.0
"""Copies of a run's checkpoints and metrics in object storage, for machines that come and go.

A checkpoint is written to the workdir first, then copied with the checksums that it has there, in
the thread that made them. Object storage has no renaming: a step is there once its checksums are,
which are written last, and are the first to go.

    gs://bucket/run/
      8/                    the files of step 8
      checksums/8.json      as in the workdir; written last
      metrics.jsonl config.json frozen_sha256.json
      student/ teacher/ training.png summary.json     once the run is done

With an empty workdir the run goes on from there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from absl import logging

from edad_jax.data.stages import differences
from edad_jax.files import RemoteError, RemotePath, as_path, read_json, write_file
from edad_jax.training.manifest import differs, find_faults
from edad_jax.training.metrics import FILE_NAME
from edad_jax.training.workdir import MAY_CHANGE, has_begun

_BESIDE = (FILE_NAME, "config.json", "frozen_sha256.json")
_RESULTS = ("student", "teacher", "training.png", "summary.json")


class Mirror:
    """The copies of one run; used by process 0 alone.

    Args:
      url: config.checkpoint.directory; a run has one of its own.
      workdir: the folder of the run.
      keep: how many of the newest steps stay there.

    Raises:
      ValueError: not a URL.
    """

    def __init__(self, url: str, workdir: Path, *, keep: int) -> None:
        there = as_path(url)
        if not isinstance(there, RemotePath):
            raise ValueError(
                f"config.checkpoint.directory={url!r}: got a path, expected a URL such as "
                "gs://bucket/run; on this machine checkpoints are in --workdir"
            )
        self._there, self._workdir, self._keep = there, workdir, keep

    def fetch(self) -> None:
        """Copies the newest whole step to the workdir, unless the workdir has it or a newer one.

        Goes on where it was stopped: a file that is there and right is not copied again.

        Raises:
          ValueError: the copies are of another configuration than the workdir, or there are some
            but none is whole.
          RemoteError: the storage does not answer, or not to us.
        """
        steps = self._list_steps()
        if not steps:
            return
        self._check_same_run()
        checkpoints = self._workdir / "checkpoints"
        names = [path.stem for path in checkpoints.glob("checksums/*.json")]
        here = [step for step in map(int, names) if not find_faults(checkpoints, step)]
        messages = []
        for step in reversed(steps):
            if step <= max(here, default=-1):
                return
            try:
                self._fetch_step(step, checkpoints / str(step))
            except RemoteError:
                raise
            except (OSError, ValueError) as error:
                messages.append(str(error))
                logging.warning("Checkpoint passed over: %s", error)
                continue
            return
        if not here:
            raise ValueError(
                f"{self._there}: got no whole checkpoint, expected at least one; put back what is "
                "broken, or choose another --config.checkpoint.directory to start again:\n  "
                + "\n  ".join(messages)
            )

    def store(self, step: int) -> None:
        """Returns when a step that is whole in the workdir is there; a failure is logged only."""
        try:
            self._store_step(step)
        except (OSError, ValueError) as error:
            logging.error(
                "The checkpoint of step %d is not in %s: %s. It is whole in %s, training goes on, "
                "and the next one is tried again.",
                *(step, self._there, error, self._workdir),
            )

    def store_results(self) -> None:
        """Returns when what the run leaves is there too, the summary last; a failure is logged."""
        try:
            for name in _RESULTS:
                path = self._workdir / name
                for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    if each.is_file():
                        (self._there / each.relative_to(self._workdir).as_posix()).upload(each)
        except (OSError, ValueError) as error:
            logging.error(
                "The results are in %s, but not all in %s: %s. Run the same command again.",
                *(self._workdir, self._there, error),
            )

    def _list_steps(self) -> list[int]:
        names = [path.name for path in (self._there / "checksums").list_files()]
        return sorted(int(name.removesuffix(".json")) for name in names if name[0].isdecimal())

    def _check_same_run(self) -> None:
        path = self._workdir / "config.json"
        if not has_begun(self._workdir) or not path.exists():
            return  # the copy takes its place, and is then compared with what is asked for
        expected = "a run's configuration; choose another --config.checkpoint.directory"
        there = read_json(self._there / "config.json", expected=expected)
        here = read_json(path, expected="a run's configuration")
        if differing := differences(there, here, may_change=MAY_CHANGE):
            raise ValueError(
                f"{self._there} belongs to a run with another configuration than {self._workdir}; "
                "choose another --config.checkpoint.directory:\n  "
                + "\n  ".join(
                    f"config.{key}: got {new!r}, there {old!r}" for key, old, new in differing
                )
            )

    def _fetch_step(self, step: int, folder: Path) -> None:
        manifest = self._there / "checksums" / f"{step}.json"
        content = manifest.read_bytes()
        listed = json.loads(content)["files"]
        for path in folder.rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in listed:
                path.unlink()
        for name, entry in listed.items():
            path, there = folder / name, self._there / str(step) / name
            if path.exists() and not differs(path, entry):
                continue
            there.download(path)
            if fault := differs(path, entry):
                shutil.rmtree(folder)
                raise ValueError(f"{there}: {fault}")
        for name in _BESIDE:
            (self._there / name).download(self._workdir / name)
        write_file(folder.parent / "checksums" / manifest.name, content)
        logging.info("Going on from the copy of step %d in %s.", step, self._there)

    def _store_step(self, step: int) -> None:
        folder = self._workdir / "checkpoints"
        manifest = self._there / "checksums" / f"{step}.json"
        content = (folder / "checksums" / manifest.name).read_bytes()
        manifest.unlink(missing_ok=True)  # of a step that was broken
        for name in json.loads(content)["files"]:
            (self._there / str(step) / name).upload(folder / str(step) / name)
        for name in _BESIDE:
            if (self._workdir / name).exists():
                # Not `upload`: the metrics may grow meanwhile.
                (self._there / name).write_bytes((self._workdir / name).read_bytes())
        manifest.write_bytes(content)
        done = [each for each in self._list_steps() if each <= step]
        for old in done[: -self._keep]:
            (self._there / "checksums" / f"{old}.json").unlink(missing_ok=True)
            for path in (self._there / str(old)).list_files():
                path.unlink(missing_ok=True)
