# SPDX-License-Identifier: Apache-2.0
"""Object storage for tests: fsspec's own in memory, and a local S3 server where it is installed."""

import contextlib
import itertools
import os

import fsspec
import pytest

_NUMBERS = itertools.count()


@pytest.fixture(params=["memory", "s3"])
def bucket(request):
    """Returns the URL of an empty bucket."""
    name = f"bucket-{next(_NUMBERS)}"
    if request.param == "memory":
        yield f"memory://{name}"
        return
    request.getfixturevalue("s3_server")
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    yield f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server():
    """Runs a server on this machine for as long as the tests run, and points s3:// to it."""
    why = "pip install 'edad-jax[test-s3]'"
    server_module = pytest.importorskip("moto.server", reason=why)
    pytest.importorskip("s3fs", reason=why)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        for key in ("http_proxy", "HTTP_PROXY"):
            patch.delenv(key, raising=False)
        yield os.environ["AWS_ENDPOINT_URL"]
    server.stop()


def put(url, content):
    """Writes an object."""
    system, path = fsspec.core.url_to_fs(url)
    system.pipe_file(path, content)


def read_bucket(url):
    """Returns the content of all objects below a URL, by their names after it."""
    system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    names = system.find(path)
    return {name.removeprefix(path).lstrip("/"): system.cat_file(name) for name in names}


@contextlib.contextmanager
def failing(monkeypatch, name, error):
    """Has a method of the file system in memory raise `error` for as long as the block lasts."""

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.get_filesystem_class("memory"), name, fail)
        yield
