# SPDX-License-Identifier: Apache-2.0
"""Prepared vocabulary and rows from object storage to this machine.

Training maps rows into memory and reads them in random order, some hundred bytes at a time; each
would be a request of its own to object storage. So they are copied once, to the workdir.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edad_jax import files
from edad_jax.data.pairs import SETS
from edad_jax.data.rows import MANIFEST, shard_path

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def local_folder(folder: Path | files.RemotePath) -> Iterator[Path]:
    """Yields the folder, or, of one in object storage, a copy for as long as the block lasts."""
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as here:
        _copy_all(folder, Path(here))
        yield Path(here)


def fetch_prepared(url: str, folder: Path) -> Path:
    """Returns `folder`, once it has what launch/prepare.py left at a URL.

    Shards whose checksum is right are kept, so that it goes on after a kill; the manifest is
    written last, and where it is there already nothing else is asked for.

    Raises:
      ValueError: no finished rows at the URL, others than those in `folder`, or an object that
        has another checksum than the manifest says.
      RemoteError: the storage cannot be reached, or not without credentials.
    """
    source = files.as_path(url)
    try:
        content = (source / "rows" / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"config.prepared={url!r}: got no finished rows there, expected a folder that "
            "launch/prepare.py has filled"
        ) from error
    done = folder / "rows" / MANIFEST
    if done.exists():
        if done.read_bytes() != content:
            raise ValueError(
                f"config.prepared={url!r}: got other rows than those that were copied to {folder} "
                "before; delete that folder, or choose another --workdir"
            )
        return folder
    LOG.info("Copying the rows at %s to %s.", url, folder)
    _copy_all(source / "vocabulary", folder / "vocabulary")
    for name in SETS:
        manifest = source / "rows" / name / MANIFEST
        expected = files.read_json(manifest, expected="the manifest of finished rows")
        for shard in expected["shards"]:
            _fetch_shard(source / "rows" / name, folder / "rows" / name, shard)
        manifest.download(folder / "rows" / name / MANIFEST)
    for name in ("vocabulary", "rows"):
        (source / f"{name}.stage.json").download(folder / f"{name}.stage.json")
    files.write_file(done, content)
    return folder


def _fetch_shard(source, folder, shard):
    path = shard_path(folder, shard["number"])
    if path.exists() and files.file_checksum(path) == shard["sha256"]:
        return
    there = shard_path(source, shard["number"])
    there.download(path)
    if (got := files.file_checksum(path)) != shard["sha256"]:
        path.unlink()
        raise ValueError(
            f"{there}: got sha256 {got}, expected {shard['sha256']}; it is damaged: prepare the "
            "rows again (the other shards are kept)"
        )


def _copy_all(source, folder):
    for each in source.list_files():
        each.download(folder / each.url.removeprefix(f"{source.url}/"))
