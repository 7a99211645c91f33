# SPDX-License-Identifier: Apache-2.0
"""Small files that unfold to gigabytes, each read in a process whose memory is bounded."""

import bz2
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEMORY_BYTES = 1 << 30  # that a reader may take above what its process has after its imports
_MEGABYTE = 1 << 20
_READ = r"""
import json, resource, sys, time
from pathlib import Path
from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.reading import ReadReport
import pyarrow.parquet

page = resource.getpagesize()
most = int(Path("/proc/self/statm").read_text().split()[0]) * page + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
report, characters, start = ReadReport(), 0, time.monotonic()
before = int(Path("/proc/self/statm").read_text().split()[1]) * page

def peak_bytes():  # ru_maxrss would begin with that of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

try:
    for document in read_documents([sys.argv[1]], report=report):
        characters += len(document)
except ValueError as error:
    assert report.problems, error
peak = peak_bytes() - before
print(json.dumps({
    "problems": report.problems, "characters": characters,
    "peak_megabytes": peak // 10**6, "seconds": round(time.monotonic() - start, 1),
}))
"""


def run_all(megabytes: int) -> list[dict]:
    """Returns what became of a bomb of each kind that unfolds to so many megabytes.

    "bounded and named": the reader ended in its memory, and its report has a problem.
    """
    found = []
    for name, write in BOMBS.items():
        with tempfile.TemporaryDirectory(prefix="edad-jax-bomb-") as folder:
            path = Path(folder) / name
            write(path, megabytes)
            found.append({"bomb": name, "bytes": path.stat().st_size} | read(path))
            print(json.dumps(found[-1], ensure_ascii=False), file=sys.stderr, flush=True)
    return found


def read(path: Path) -> dict:
    """Returns what a bounded process says of a file, and the outcome."""
    # Arrow's own allocator asks for a gigabyte of addresses at once, whatever it needs.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    words = [sys.executable, "-c", _READ, str(path), str(MEMORY_BYTES)]
    limit = 3600
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"outcome": f"not done after {limit} s"}
    if done.returncode:
        return {"outcome": (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}
    said = json.loads(done.stdout.splitlines()[-1])
    return {"outcome": "bounded and named" if said["problems"] else "nothing said"} | said


def _zeros(megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield bytes(_MEGABYTE)


def _compressed(make: Callable, content: Callable[[int], Iterator[bytes]] = _zeros) -> Callable:
    """Returns what writes a single compressed stream."""

    def write(path, megabytes):
        encoder = make()
        with open(path, "wb") as file:
            for block in content(megabytes):
                file.write(encoder.compress(block))
            file.write(encoder.flush())

    return write


def _members(make: Callable) -> Callable:
    """Returns what writes a chain of streams, as `cat` joins them; each is compressed once."""

    def write(path, megabytes):
        each = min(100, megabytes)
        encoder = make()
        member = encoder.compress(bytes(each * _MEGABYTE)) + encoder.flush()
        with open(path, "wb") as file:
            for _ in range(max(1, megabytes // each)):
                file.write(member)

    return write


def _gzip():
    return zlib.compressobj(6, wbits=31)


def _tar(megabytes: int) -> Iterator[bytes]:
    member = tarfile.TarInfo("a.txt")
    member.size = megabytes * _MEGABYTE
    yield member.tobuf(tarfile.GNU_FORMAT)
    yield from _zeros(megabytes)


def _write_zip(path: Path, megabytes: int) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.txt", "w", force_zip64=True) as member,
    ):
        for block in _zeros(megabytes):
            member.write(block)


def _write_zstd(path: Path, megabytes: int) -> None:
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file:
        with pyarrow.CompressedOutputStream(file, "zstd") as stream:
            for block in _zeros(megabytes):
                stream.write(block)


def _write_strings(path: Path, megabytes: int) -> None:
    """Writes rows that are 100 MB each, in row groups of their own."""
    import pyarrow
    import pyarrow.parquet

    each = min(100, megabytes)
    table = pyarrow.table({"text": ["0" * (each * _MEGABYTE)]})
    options = {"compression": "zstd", "use_dictionary": False}
    with pyarrow.parquet.ParquetWriter(path, table.schema, **options) as writer:
        for _ in range(max(1, megabytes // each)):
            writer.write_table(table)


def _write_one_string(path: Path, megabytes: int) -> None:
    """Writes rows that all point to one string of 20 MB."""
    import pyarrow
    import pyarrow.parquet

    each = min(20, megabytes)
    rows = pyarrow.array([0] * max(1, megabytes // each), pyarrow.int32())
    strings = pyarrow.DictionaryArray.from_arrays(rows, ["0" * (each * _MEGABYTE)])
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30}
    pyarrow.parquet.write_table(pyarrow.table({"text": strings}), path, **options)


def _write_sparse(path: Path, megabytes: int) -> None:
    """Writes a tar archive of one file that is a hole."""
    member = tarfile.TarInfo("a.txt")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(megabytes * _MEGABYTE),
        "GNU.sparse.map": f"{megabytes * _MEGABYTE},0",
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO())


def _attribute(megabytes: int) -> Iterator[bytes]:
    yield b"<article><front a='"
    for _ in range(megabytes):
        yield b"a" * _MEGABYTE
    yield b"'/></article>"


def _attributes(megabytes: int) -> Iterator[bytes]:
    yield b"<article><front "
    for number in range(megabytes):
        yield b" ".join(b"a%d_%d=''" % (number, each) for each in range(_MEGABYTE // 16)) + b" "
    yield b"/></article>"


BOMBS: dict[str, Callable[[Path, int], None]] = {
    "zeros.txt.gz": _compressed(_gzip),
    "zeros in members.txt.gz": _members(_gzip),
    "zeros.jsonl.gz": _members(_gzip),
    "zeros.nxml.gz": _members(_gzip),
    "zeros in members.txt.xz": _members(lzma.LZMACompressor),
    "zeros.txt.xz": _compressed(lambda: lzma.LZMACompressor(preset=0)),
    "zeros in members.txt.bz2": _members(bz2.BZ2Compressor),
    "zeros.txt.zst": _write_zstd,
    "zeros.tar.gz": _compressed(_gzip, _tar),
    "zeros.zip": _write_zip,
    "holes.tar": _write_sparse,
    "long strings.parquet": _write_strings,
    "one string.parquet": _write_one_string,
    "one attribute.nxml.gz": _compressed(_gzip, _attribute),
    "many attributes.nxml.gz": _compressed(_gzip, _attributes),
}
