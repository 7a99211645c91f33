# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there: written beside their place and renamed; JSON; checksums.

What is damaged afterwards, by a bit that flips or an end that is lost, is found by checksums: of a
folder in its SHA256SUMS (`sha256sum -c` reads it too), of a JSON object in itself (`seal`).

Whatever stops a write, a kill, a full disk or a power cut, what was there before stays. An object
in a bucket (`RemotePath`) appears whole or not at all, but there is no renaming: what several
objects make up is there once the one that is written last is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fnmatch
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; for a public bucket "
    "FSSPEC_S3_ANON=true; for another service than Amazon's AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`; for a "
    "public bucket FSSPEC_GS_TOKEN=anon",
}
# What tells one content of an object from another, in the words of the several stores.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "created")

SUMS = "SHA256SUMS"
_NO_SUMS = (SUMS, "README.md")  # people write on in a model's card
_SEAL = "sealed_sha256"

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class RemoteError(OSError):
    """Object storage that does not answer, or not to us; says what to give."""


@dataclasses.dataclass(frozen=True)
class RemotePath:
    """A file or folder in object storage, by its URL: those methods of a Path that it can have.

    Raises (all methods):
      ValueError: the package for this kind of storage is not installed; says which.
      RemoteError: it cannot be reached, or credentials are missing; names the URL.
      FileNotFoundError: nothing there.
    """

    url: str
    info: dict | None = dataclasses.field(default=None, compare=False, repr=False)  # of a listing

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rpartition('/')[0]}/{name}")

    def with_suffix(self, suffix: str) -> RemotePath:
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def exists(self) -> bool:
        with self._reached() as (system, path):
            return system.exists(path)

    def size_and_version(self) -> tuple[int, str]:
        """Returns the bytes of the object, and what changes when its content does."""
        info = self.info
        if info is None:
            with self._reached() as (system, path):
                info = system.info(path)
        return info["size"], str(next((info[key] for key in _VERSIONS if info.get(key)), ""))

    def open(self) -> IO[bytes]:
        """Returns the object to read from, a few megabytes at a time."""
        with self._reached() as (system, path):
            return system.open(path, "rb")

    def read_bytes(self) -> bytes:
        with self._reached() as (system, path):
            return system.cat_file(path)

    def write_bytes(self, content: bytes | memoryview) -> None:
        with self._reached() as (system, path):
            system.pipe_file(path, bytes(content))

    def unlink(self, *, missing_ok: bool = False) -> None:
        with contextlib.suppress(*[FileNotFoundError] * missing_ok), self._reached() as there:
            there[0].rm_file(there[1])

    def download(self, path: Path) -> None:
        """Copies the object to a local file, which is there once it is whole."""
        with path_beside(path) as beside, self._reached() as (system, there):
            system.get_file(there, str(beside))

    def upload(self, path: Path) -> None:
        """Copies a local file to the object."""
        with self._reached() as (system, there):
            system.put_file(str(path), there)

    def list_files(self) -> list[RemotePath]:
        """Returns the files that the URL names, sorted: itself, a glob's, or all below it."""
        found = {}
        with contextlib.suppress(FileNotFoundError), self._reached() as (system, path):
            is_glob = any(letter in path for letter in "*?[")
            found = (system.glob if is_glob else system.find)(path, detail=True)
        start = self.url.partition("://")[0] + "://"
        return [
            RemotePath(start + name.lstrip("/"), info)
            for name, info in sorted(found.items())
            if info["type"] == "file" and not name.endswith("/")
        ]

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """Yields fsspec's file system and the path in it; its many errors become these three."""
        import fsspec

        kind = self.url.partition("://")[0]
        try:
            # No memory of listings: other machines write while this one reads.
            system = fsspec.filesystem(kind, use_listings_cache=False)
            yield system, system._strip_protocol(self.url)
        except FileNotFoundError as error:
            raise FileNotFoundError(2, "No such file or object", self.url) from error
        except ImportError as error:
            package = _PACKAGES.get(kind, f"fsspec's for {kind}://")
            raise ValueError(
                f"{self.url}: got no package that reads {kind}://, expected one; install it: "
                f"pip install {package}"
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise  # of the local side of a copy
            advice = ""
            if kind in _PACKAGES or not isinstance(error, ValueError):
                known = _CREDENTIALS.get(kind, "see fsspec's documentation of it")
                advice = f"; expected access: check the network, and the credentials ({known})"
            raise RemoteError(f"{self.url}: got {type(error).__name__}: {error}{advice}") from error


def as_path(path: str | os.PathLike[str] | RemotePath) -> Path | RemotePath:
    """Returns a local path, or, of a URL such as s3://bucket/folder, one in object storage."""
    if isinstance(path, RemotePath):
        return path
    is_url = isinstance(path, str) and "://" in path and not path.startswith("file://")
    return RemotePath(path.rstrip("/")) if is_url else Path(str(path).removeprefix("file://"))


@contextlib.contextmanager
def path_beside(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """Yields the path of a new file, of the same ending, that becomes `path` when the block ends.

    Args:
      path: of the file.
      shared: whether another process may write the same file at the same time: each then has a
        file of its own beside it, which a kill leaves behind.

    Raises:
      OSError: it cannot be written; says that what was there is unchanged.
    """
    path = Path(path)
    unique = f".{uuid.uuid4().hex}" if shared else ""
    beside = path.with_name(f".{path.stem}{unique}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        flush_file(beside)
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        is_disk = isinstance(error, OSError) and not isinstance(error, RemoteError)
        if is_disk and _is_of(error, beside, path.parent):
            raise _not_written(path, error) from error
        raise


@contextlib.contextmanager
def open_beside(
    path: str | os.PathLike[str], mode: str = "w", *, shared: bool = False
) -> Iterator[IO]:
    """Yields an open file that becomes `path` when the block ends; text is UTF-8, as it is given.

    Raises:
      OSError: as `path_beside`.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with path_beside(path, shared=shared) as beside, open(beside, mode, **text) as file:
        yield file


def write_file(
    path: str | os.PathLike[str] | RemotePath,
    content: bytes | memoryview,
    *,
    shared: bool = False,
) -> None:
    """Writes a whole file; `shared` as in `path_beside`.

    Raises:
      OSError: as `path_beside`.
    """
    if isinstance(path, RemotePath):
        path.write_bytes(content)
        return
    with open_beside(path, "wb", shared=shared) as file:
        file.write(content)


def write_json(
    path: str | os.PathLike[str] | RemotePath, value: Any, *, shared: bool = False
) -> None:
    """Writes a JSON file that people can read too; `shared` as in `path_beside`.

    Raises:
      ValueError: a number is not finite, which JSON cannot say.
      OSError: as `path_beside`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, text.encode() + b"\n", shared=shared)


def read_json(path: str | os.PathLike[str] | RemotePath, *, expected: str) -> Any:
    """Returns what a JSON file holds.

    Args:
      path: of the file.
      expected: what should be there and what to do, for the error.

    Raises:
      ValueError: it cannot be read or is not JSON; says the line.
    """
    path = as_path(path)
    try:
        return json.loads(path.read_bytes())
    except RemoteError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; expected {expected}") from error
    except json.JSONDecodeError as error:
        where, why = f"{path}:{error.lineno}", error.msg
        raise ValueError(f"{where}: got damaged JSON ({why}); expected {expected}") from error
    except ValueError as error:  # not UTF-8
        raise ValueError(f"{path}: got no text ({error}); expected {expected}") from error
    except RecursionError as error:
        raise ValueError(
            f"{path}: got JSON that is nested too deep; expected {expected}"
        ) from error


def read_json_or_none(path: str | os.PathLike[str] | RemotePath) -> Any:
    """Returns what a JSON file holds; None where it is missing or damaged.

    Raises:
      RemoteError: nobody can tell, since object storage does not answer.
    """
    try:
        return json.loads(as_path(path).read_bytes())
    except RemoteError:
        raise
    except (OSError, ValueError, RecursionError):
        return None


def file_checksum(path: str | os.PathLike[str] | RemotePath) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    if isinstance(path, RemotePath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Writes the checksums of a folder's files into its SHA256SUMS."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    lines = [f"{file_checksum(folder / name)}  {name}\n" for name in names if name not in _NO_SUMS]
    write_file(folder / SUMS, "".join(lines).encode())


def check_sums(folder: Path, *patterns: str) -> None:
    """Compares the files of these names with the folder's SHA256SUMS, where it has one.

    Raises:
      ValueError: a file is another than when it was written, or SHA256SUMS is damaged; names it.
    """
    if not (folder / SUMS).is_file():
        return
    for number, line in enumerate((folder / SUMS).read_bytes().splitlines(), start=1):
        expected, _, name = line.decode("utf-8", "replace").partition("  ")
        if len(expected) != 64 or not name or "/" in name:
            raise ValueError(
                f"{folder / SUMS}:{number}: got {line[:90]!r}, expected a sha256, two blanks and a "
                "name; the folder is damaged: fetch or export it again"
            )
        path = folder / name
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns) or not path.is_file():
            continue
        if (got := file_checksum(path)) != expected:
            raise ValueError(
                f"{path}: got sha256 {got}, {SUMS} says {expected}: the file is damaged, or was "
                "changed; fetch or export it again, or, if it was you who changed it, delete "
                f"{folder / SUMS}"
            )


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with the checksum of all that is in it."""
    return {**value, _SEAL: _seal_of(value)}


def is_whole(value: Any) -> bool:
    """Returns whether a JSON object is the one that was sealed, or never was sealed."""
    return isinstance(value, dict) and (_SEAL not in value or value[_SEAL] == _seal_of(value))


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object without its seal."""
    return {key: each for key, each in value.items() if key != _SEAL}


def _seal_of(value: Mapping[str, Any]) -> str:
    text = json.dumps(unsealed(value), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def replaced_folder(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside `directory`, which takes its place when the block ends.

    Raises:
      OSError: the files cannot be written, or another program is writing there; says that what was
        there is unchanged.
    """
    directory = Path(directory).resolve()
    beside = directory.with_name(f".{directory.name}.new")
    try:
        if beside.exists():
            with held_folder(beside):  # else a kill has left it
                shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    except BlockingIOError as error:
        raise OSError(
            errno.EBUSY,
            f"another program is writing {directory}; wait until it has ended, or choose another "
            "folder",
        ) from error
    except OSError as error:
        raise _not_written(directory, error) from error
    try:
        with held_folder(beside):
            yield beside
            for path in beside.rglob("*"):
                if path.is_file():
                    flush_file(path)
            _put_in_place(beside, directory)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(directory, error) from error
        raise


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Holds a folder that is there, so that no other program does; a kill lets go of it.

    The folder itself is locked, and no file is left behind. On storage without locks nothing holds.

    Raises:
      BlockingIOError: another program holds it.
    """
    with contextlib.ExitStack() as at_end:
        try:
            import fcntl  # not on every system

            number = os.open(folder, os.O_RDONLY)
            at_end.callback(os.close, number)
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except (ImportError, OSError):
            pass
        yield


def recover_folder(directory: Path) -> None:
    """Brings back the old folder, where a process died in the moment of replacing it."""
    aside = directory.with_name(f".{directory.name}.old")
    if aside.exists():
        if directory.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, directory)


def flush_file(path: str | os.PathLike[str]) -> None:
    """Returns when a file is on the disk, so that a power cut cannot empty it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _is_of(error, *paths):
    """Returns whether an error of the system is about one of the paths, or does not say."""
    return error.filename is None or Path(os.fsdecode(error.filename)) in paths


def _not_written(path, error):
    return OSError(
        error.errno,
        f"cannot write {path} ({error.strerror or error}); what was there before is unchanged. "
        "Make room, or choose another folder, and run the same command again",
    )


def _put_in_place(beside, directory):
    """Renames `beside` to `directory`, whose old content stays whole until then.

    A directory cannot be renamed over a full one, so the old one steps aside for a moment;
    should the process die in that moment, `recover_folder` brings it back.
    """
    aside = directory.with_name(f".{directory.name}.old")
    recover_folder(directory)
    if directory.exists():
        os.rename(directory, aside)
    try:
        os.rename(beside, directory)
    except BaseException:
        recover_folder(directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)
