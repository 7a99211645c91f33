# SPDX-License-Identifier: Apache-2.0
"""Pushing an exported folder: to a hub of our own that speaks as the real one does."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

from edad_jax.export import hub


class FakeHub(BaseHTTPRequestHandler):
    """Makes repositories, takes small files in commits; says no to who is not "good"."""

    def do_POST(self):  # noqa: N802, the library's name
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state = self.server.state
        if self.headers.get("Authorization") != "Bearer good":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            state["created"] = json.loads(body)
            return self._answer(200, {"url": f"{state['address']}/someone/tagger"})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            said = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self._answer(200, {"files": said})
        if self.path.endswith("/commit/main"):
            state["commit"] = (self.path, [json.loads(line) for line in body.splitlines()])
            return self._answer(
                200,
                {
                    "commitUrl": f"{state['address']}/c/1",
                    "commitOid": "1",
                    "hookOutput": "",
                    "success": True,
                },
            )
        return self._answer(200, {"errors": [], "warnings": []})  # validates the card

    def do_GET(self):  # noqa: N802
        self._answer(200, {"id": "someone/tagger", "sha": "0", "siblings": []})

    def _answer(self, status, values):
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def state(monkeypatch):
    """What the fake hub was sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    address = f"http://127.0.0.1:{server.server_port}"
    server.state = {"address": address}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "good")
    yield server.state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(b"\x08\x0a weights")
    (tmp_path / "out" / "config.json").write_text("{}")
    return tmp_path / "out"


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_is_made_and_has_the_folders_files(state, folder, private):
    address = hub.push(folder, "someone/tagger", private=private)
    assert address == f"{state['address']}/someone/tagger"
    made = state["created"]
    assert (made["name"], made["organization"]) == ("tagger", "someone")
    is_private = made.get("private", False) or made.get("visibility") == "private"
    assert is_private == private  # by the version of the client
    path, lines = state["commit"]
    assert path == "/api/models/someone/tagger/commit/main"
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    assert files == {"model.onnx": b"\x08\x0a weights", "config.json": b"{}"}


def test_what_the_hub_refuses_is_told(state, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(ValueError, match="(?s)someone/tagger cannot be written.*401"):
        hub.push(folder, "someone/tagger")
    assert "commit" not in state


@pytest.mark.parametrize("name", ["tagger", "a/b/c", "someone/", "some one/tagger", "/data/out"])
def test_a_bad_name_is_told_before_anything_is_sent(state, folder, name):
    with pytest.raises(ValueError, match="expected USER/NAME"):
        hub.push(folder, name)
    assert set(state) == {"address"}


def test_no_token_is_told_before_anything_is_sent(state, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match="no token .*`hf auth login`, or set HF_TOKEN"):
        hub.push(folder, "someone/tagger")
    assert set(state) == {"address"}


def test_a_hub_that_is_not_there_is_told(state, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="someone/tagger cannot be written: .*offline mode"):
        hub.push(folder, "someone/tagger")
