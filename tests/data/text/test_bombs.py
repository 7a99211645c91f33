# SPDX-License-Identifier: Apache-2.0
"""Small files that unfold to gigabytes: read so far, named, and never held whole."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from edad_jax.data.text import bombs
from edad_jax.data.text.articles import read_articles
from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.reading import ReadReport

TOLD = "unfolds to over 500 times its size: the rest skipped"
LINE = b"The cell binds.\n\n"


def tarred(content):
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("a.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return file.getvalue()


def zipped(content):
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", content)
            archive.writestr("b.txt", LINE)
        return file.getvalue()


def in_parquet(content):
    table = pyarrow.table({"text": [content.decode()]})
    with io.BytesIO() as file:
        with pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd") as writer:
            for _ in range(4):
                writer.write_table(table)
        return file.getvalue()


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(bombs, "UNPACKED_UNASKED", 1 << 16)


def read(path, content):
    path.write_bytes(content)
    report = ReadReport()
    documents = list(read_documents([path], report=report, may_be_empty=True))
    return documents, report.problems


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.txt.gz", gzip.compress),
        ("a.txt.xz", lzma.compress),
        ("a.txt.bz2", bz2.compress),
        ("a.txt.zst", lambda content: pyarrow.compress(content, "zstd", asbytes=True)),
        ("a.jsonl.gz", gzip.compress),
        ("a.nxml.gz", gzip.compress),
        ("a.tar.gz", lambda content: gzip.compress(tarred(content))),
        ("a.zip", zipped),
        ("a.parquet", in_parquet),
    ],
)
def test_what_unfolds_to_too_much_ends_there_and_is_named(tmp_path, small_limit, name, pack):
    # By gzip zeros are a thousandth; a smaller part unfolds before the limit asks.
    documents, problems = read(tmp_path / name, pack(bytes(4 << 20)))
    assert problems[TOLD] == 1
    if name == "a.zip":  # what stands beside a bomb is read
        assert documents == [LINE.decode().strip()]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.bz2"])
def test_ordinary_text_is_never_a_bomb(tmp_path, small_limit, name):
    pack = gzip.compress if name.endswith("gz") else bz2.compress
    varied = b"".join(b"Cell %d binds %d.\n\n" % (n * n, n) for n in range(20_000))
    documents, problems = read(tmp_path / name, pack(varied))
    assert len(documents) == 20_000 and not problems


def test_a_hole_in_a_tar_archive_is_not_read(tmp_path):
    size = 10**13
    member = tarfile.TarInfo("a.txt")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(size),
        "GNU.sparse.map": f"{size},0",
    }
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(member, io.BytesIO())
        _, problems = read(tmp_path / "a.tar", file.getvalue())
    assert problems["member of the archive skipped"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<article><front a='" + b"a" * (5 << 20) + b"'/></article>", "a tag or comment of over"),
        (b"<article><!--" + b"a" * (5 << 20) + b"--></article>", "a tag or comment of over"),
        (b"<article>" + b"<p>" * 20_000, "over 10,000 elements in each other"),
    ],
    ids=["attribute", "comment", "depth"],
)
def test_xml_that_takes_memory_without_an_end_is_refused(content, told):
    size = 1 << 16
    report = ReadReport()
    blocks = (content[i : i + size] for i in range(0, len(content), size))
    assert list(read_articles(blocks, "a.xml", report)) == []
    assert report.problems["article skipped: broken XML"] == 1 and told in report.messages[0]


def test_xml_of_letters_that_it_cannot_hold_is_read_in_one_go():
    """A call for each of them took minutes for a file that unfolds to some hundred megabytes."""
    body = b"\0" * (3 << 20)
    content = b"<article><body><p>Ce" + body + b"ll.</p></body></article>"
    size = 1 << 16
    report = ReadReport()
    blocks = (content[i : i + size] for i in range(0, len(content), size))
    assert list(read_articles(blocks, "a.xml", report)) == ["Cell."]
    assert f"{3 << 20:,} times" in report.messages[0]
