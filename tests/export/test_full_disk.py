# SPDX-License-Identifier: Apache-2.0
"""Each file of a model or a tokenizer does not fit: one line, and what was there stays."""

import contextlib
import hashlib
import logging

import pytest

from edad_jax.data.tokenizer import load_tokenizer, pieces_in_order, save_tokenizer
from edad_jax.export import formats
from tests.tiny_tasks import write_exbert

resource = pytest.importorskip("resource")  # POSIX only


@contextlib.contextmanager
def files_of_at_most(size):
    """Lets every write past this size fail in the block, for any user, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    paths = [path for path in folder.parent.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check_each_file(write, folder):
    """Fails at each file of the folder in turn, and checks what is said and what is left."""
    write()
    before = contents(folder)
    sizes = sorted({path.stat().st_size for path in folder.iterdir()})
    for size in sizes:
        with files_of_at_most(size - 1), pytest.raises(OSError) as raised:
            write()
        said = str(raised.value)
        assert "cannot write" in said and str(folder) in said and "unchanged" in said
        assert "Make room" in said and "\n" not in said
        assert contents(folder) == before
    assert len(sizes) > 2
    write()
    assert contents(folder) == before


@pytest.fixture(autouse=True)
def no_look_at_the_disk(monkeypatch):
    """As if the look before the work had found room."""
    monkeypatch.setattr("edad_jax.data.disk.check_writable", lambda *_, **__: None)
    logging.getLogger("edad_jax").setLevel(logging.ERROR)


@pytest.mark.parametrize("kind", ["hf", "onnx"])
def test_an_export_that_does_not_fit_leaves_the_one_before(tmp_path, kind):
    model = formats.load(str(write_exbert(tmp_path / "models" / "student")))
    out = tmp_path / "exports" / kind
    check_each_file(lambda: formats.export(model, kind, out), out)


def test_a_tokenizer_that_does_not_fit_leaves_the_one_before(tmp_path, tokenizer_dir):
    tokenizer = load_tokenizer(tokenizer_dir)
    pieces = [*pieces_in_order(tokenizer.backend_tokenizer), "hippocampus"]
    out = tmp_path / "out" / "tokenizer"
    check_each_file(lambda: save_tokenizer(tokenizer, pieces, out), out)
