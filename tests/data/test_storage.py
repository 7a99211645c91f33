# SPDX-License-Identifier: Apache-2.0
"""Text and rows in object storage: what they are on a disk, and clear errors where they are not."""

import gzip
import io
import json
import lzma
import shutil
import sys
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from edad_jax.data.prepare import (
    join_prepared,
    learn_vocabulary,
    prepare,
    prepare_folder,
    prepare_part,
)
from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.files import list_files
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.text.source import describe_source
from edad_jax.files import RemoteError, as_path
from tests.tiny_run import make_inputs, tiny_config, write_corpus
from tests.tiny_storage import failing, put, read_bucket
from tests.tiny_text import read_files


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns a folder with a teacher, a corpus of two files, and run/: what is made of them."""
    inputs = make_inputs(tmp_path_factory.mktemp("finished"))
    (inputs / "text").mkdir()
    (inputs / "corpus.txt").rename(inputs / "text" / "a.txt")
    write_corpus(inputs / "text" / "b.txt", documents=30, seed=1)
    config = tiny_config(inputs, corpus__files=str(inputs / "text"))
    prepare_folder(config, inputs / "run")
    return inputs


def upload(folder, url):
    for name, content in read_files(folder).items():
        put(f"{url}/{name}", content)


def rows_of(files):
    """Returns what of prepared files does not name the corpus, which a URL names otherwise."""
    return {name: each for name, each in files.items() if name.startswith(("rows/", "vocabulary/"))}


def archive(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(member := tarfile.TarInfo("inside.txt"), None)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parquet(texts):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": texts}), buffer)
    return buffer.getvalue()


def test_every_format_is_read_as_from_a_disk(bucket, tmp_path):
    text = "\n\n".join(f"Document {number}. It is here." for number in range(50)).encode()
    lines = b"".join(json.dumps({"text": f"Line {n}."}).encode() + b"\n" for n in range(20))
    contents = {
        "a.txt": text,
        "b.txt.gz": gzip.compress(text),
        "c.txt.xz": lzma.compress(text),
        "d.jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
        "e.parquet": parquet([f"Row {n}." for n in range(10)]),
        "f.tar.gz": archive(text),
        "g.txt.gz": gzip.compress(text)[:-30],  # damaged, which is nothing to stop for
        "h.txt": b"",
        "sub/i.txt": text,
        "sub/notes.pdf": b"not text",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        put(f"{bucket}/pmc/{name}", content)
    here, there = ReadReport(), ReadReport()
    expected = list(read_documents(list_files(tmp_path), report=here))
    assert list(read_documents(list_files(f"{bucket}/pmc"), report=there)) == expected
    assert len(expected) > 200
    assert there.problems == here.problems and there.file_bytes == here.file_bytes
    assert there.messages == [
        each.replace(f"{tmp_path}", f"{bucket}/pmc") for each in here.messages
    ]


def test_patterns_name_what_they_name_on_a_disk(bucket):
    for name in ("a.txt", "b.txt", "c.jsonl", "sub/d.txt", "e.odd"):
        put(f"{bucket}/pmc/{name}", b"Text.")

    def names(pattern):
        return [str(each).removeprefix(f"{bucket}/pmc/") for each in list_files(pattern)]

    assert names(f"{bucket}/pmc/*.txt") == ["a.txt", "b.txt"]
    assert names(f"{bucket}/pmc/**/*.txt") == ["a.txt", "b.txt", "sub/d.txt"]
    assert names(f"{bucket}/pmc") == names(f"{bucket}/pmc/") == [
        "a.txt", "b.txt", "c.jsonl", "sub/d.txt",
    ]  # fmt: skip
    assert names([f"{bucket}/pmc/e.odd", f"{bucket}/pmc/[ab].txt"]) == ["e.odd", "a.txt", "b.txt"]
    with pytest.raises(ValueError, match=f"got no file for '{bucket}/none/\\*.txt', expected text"):
        list_files(f"{bucket}/none/*.txt")


def test_an_object_that_changes_is_another_corpus(bucket, tmp_path):
    config = tiny_config(tmp_path, corpus__files=f"{bucket}/*.txt")
    put(f"{bucket}/a.txt", b"Text.")
    first = describe_source(config.corpus)
    assert describe_source(config.corpus) == first
    assert first["files"][0][:2] == [f"{bucket}/a.txt", 5]
    put(f"{bucket}/a.txt", b"Next.")
    assert describe_source(config.corpus) != first


def test_storage_that_fails_in_the_middle_of_a_file_does_not_shorten_the_text(monkeypatch):
    put("memory://middle/a.txt", b"A document. It has words.\n\n" * 20_000)
    put("memory://middle/b.txt", b"Another one.\n")
    documents = read_documents(list_files("memory://middle"), report=ReadReport())
    next(documents)
    read = fsspec.implementations.memory.MemoryFile.read

    def fail(self, *size):
        if self.tell() > 100_000:
            raise ConnectionError("reset by peer")
        return read(self, *size)

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", fail, raising=False)
    with pytest.raises(RemoteError, match="memory://middle/a.txt: got ConnectionError: reset by"):
        list(documents)


def test_missing_packages_and_credentials_are_errors_that_say_what_to_give(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # not installed
    assert "gs" not in fsspec.registry, "a test has imported gcsfs before"
    with pytest.raises(ValueError, match="gs://b/a.txt: got no package.*pip install gcsfs"):
        list_files("gs://b/a.txt")
    with pytest.raises(
        RemoteError, match=r"^nosuch://b/\*.txt: got ValueError: Protocol not known"
    ):
        list_files("nosuch://b/*.txt")
    with failing(monkeypatch, "info", PermissionError("Forbidden")):
        with pytest.raises(
            RemoteError, match="memory://b/a: got PermissionError: Forbidden; expec"
        ):
            as_path("memory://b/a").size_and_version()


def test_s3_without_credentials_says_which(s3_server, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RemoteError, match="s3://no/a.txt: got .*redentials.*AWS_ACCESS_KEY_ID"):
        list_files("s3://no/a.txt")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_rows_made_of_a_bucket_in_a_bucket_are_those_of_a_disk(finished, bucket):
    expected = rows_of(read_files(finished / "run"))
    upload(finished / "text", f"{bucket}/text")
    config = tiny_config(finished, corpus__files=f"{bucket}/text/*.txt")
    facts = prepare_folder(config, as_path(f"{bucket}/one"))
    assert rows_of(read_bucket(f"{bucket}/one")) == expected
    assert prepare_folder(config, as_path(f"{bucket}/one")) == facts  # from before
    many = as_path(f"{bucket}/many")
    learn_vocabulary(config, many)
    with pytest.raises(ValueError, match="got no parts there"):
        join_prepared(config, many)
    for part in (2, 0, 1, 1):
        prepare_part(config, many, part, 3)
    join_prepared(config, many)
    assert rows_of(read_bucket(f"{bucket}/many")) == expected


def test_rows_in_a_bucket_are_copied_to_the_workdir_once(finished, bucket, tmp_path):
    upload(finished / "run", f"{bucket}/rows-of-text")
    config = tiny_config(finished, prepared=f"{bucket}/rows-of-text/", corpus__files="")
    prepared = prepare(config, tmp_path)
    here = prepare(tiny_config(finished, prepared=str(finished / "run")), tmp_path)
    copied, run = read_files(tmp_path / "prepared"), read_files(finished / "run")
    assert copied.items() <= run.items()
    assert all("rows-0" in name or name == "rows/settings.json" for name in run.keys() - copied)
    rows = np.arange(len(here.train))
    assert (prepared.train[rows] == here.train[rows]).all()
    files = [path for path in (tmp_path / "prepared").rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files}
    assert len(times) == len(copied)
    prepare(config, tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_copy_that_was_stopped_goes_on_and_damage_is_named(finished, tmp_path):
    url = "memory://stopped"
    upload(finished / "run", url)
    config = tiny_config(finished, prepared=url, corpus__files="")
    shard, damaged = f"{url}/rows/heldout/rows-00000.npy", tmp_path / "prepared/rows/heldout"
    content = read_bucket(url)["rows/heldout/rows-00000.npy"]
    put(shard, content[:-1] + b"!")
    with pytest.raises(ValueError, match=f"{shard}: got sha256 .*it is damaged: prepare the rows"):
        prepare(config, tmp_path)
    assert (
        not list(damaged.glob("*.npy")) and not (tmp_path / "prepared/rows/manifest.json").exists()
    )
    put(shard, content)
    train = tmp_path / "prepared/rows/train/rows-00000.npy"
    before = train.stat().st_mtime_ns
    prepare(config, tmp_path)
    assert train.stat().st_mtime_ns == before
    put(f"{url}/rows/manifest.json", b"{}")
    with pytest.raises(ValueError, match="got other rows than those that were copied to .*before"):
        prepare(config, tmp_path)
    shutil.rmtree(tmp_path / "prepared")
    with pytest.raises(ValueError, match="config.prepared='memory://none': got no finished rows"):
        prepare(tiny_config(finished, prepared="memory://none", corpus__files=""), tmp_path)
