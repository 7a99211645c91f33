# SPDX-License-Identifier: Apache-2.0
r"""What a server does to others when a client goes, sends much, or when it is told to end.

    python benchmarks/server_campaign.py --out runs/server_campaign.json
    python benchmarks/server_campaign.py --model runs/ner/model-onnx-int8 --out ...

Starts launch/serve.py anew for each of these, and measures by the clock:

  dropped   posts that are sent whole and whose connections are closed: how long a one-word request
            waits that comes then
  largest   the largest request that is not refused: how long one-word requests wait behind it, one
            after the other, and how long itself takes
  ended     as many of these as the server admits are under way, then SIGTERM: seconds until the
            process is gone

Without --model, a random encoder of 4 x 384 is served.
"""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from edad_jax.command import run_command
from edad_jax.files import write_json

ROOT = Path(__file__).resolve().parents[1]
WORD = {"texts": ["word"]}
STARTING = 120  # seconds a server may take to answer for the first time

MODEL = flags.DEFINE_string("model", "", "Folder of launch/export.py; '': a random encoder.")
OUT = flags.DEFINE_string("out", None, "JSON file to write.")
PATIENCE = flags.DEFINE_float("patience", 150.0, "Seconds after which a measurement is given up.")
OPTIONS = flags.DEFINE_multi_string("option", [], "Of launch/serve.py, as in --option=--threads=1.")
POSTS = flags.DEFINE_multi_string(
    "posts", ["12x40", "64x200"], "Posts that are dropped: how many, and of how many kB each."
)
HOLD = flags.DEFINE_float("hold_seconds", 2.0, "Until their connections are closed.")
SIZES = flags.DEFINE_list(
    "sizes", ["960", "480", "240", "200", "160", "120", "80", "40", "20", "10"], "kB tried."
)
BEHIND = flags.DEFINE_integer("behind", 20, "One-word requests behind the largest, at most.")
UNDER_WAY = flags.DEFINE_integer("under_way", 8, "Requests that SIGTERM meets.")
LAYERS = flags.DEFINE_integer("layers", 4, "Of the random encoder.")
WIDTH = flags.DEFINE_integer("width", 384, "Of the random encoder.")


class Server:
    """launch/serve.py as a process, at a free port."""

    def __init__(self, model: str, options: list[str]):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [sys.executable, "launch/serve.py", f"--models={model}", f"--port={self.port}"]
        self.process = subprocess.Popen([*words, *options], cwd=ROOT)
        limit = time.monotonic() + STARTING
        while True:
            try:
                self.ask(WORD)
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    self.process.kill()
                    raise ValueError("the server does not answer; see what it says above") from None
                time.sleep(0.1)

    def ask(self, body: dict[str, Any]) -> tuple[int, dict[str, Any], float]:
        """Returns (status, answer, seconds); the status is 0 where none came in --patience."""
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE.value)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            try:
                connection.request("POST", "/v1/predict", json.dumps(body), headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except TimeoutError:
                return 0, {"detail": "no answer"}, time.monotonic() - start
            return answer.status, content, time.monotonic() - start

    def begin(self, body: dict[str, Any]) -> socket.socket:
        """Returns a connection that has sent a request whole and waits for its answer."""
        content = json.dumps(body).encode()
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE.value)
        connection.sendall(head.encode() + content)
        return connection

    def end(self) -> tuple[float, int | None]:
        """Returns (seconds from SIGTERM to the end, exit status or None if it did not end)."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE.value)
        except subprocess.TimeoutExpired:
            status = None
        return time.monotonic() - start, status


@contextlib.contextmanager
def serving(model: str, options: list[str]) -> Iterator[Server]:
    """Gives a server, and kills it in the end if it is still there."""
    server = Server(model, options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def body_of(kilobytes: int) -> dict[str, Any]:
    """Returns a request of that size: words of five letters, up to 64 texts of 100 kB at most."""
    text = "cells " * (1_000 * kilobytes // 6)
    count = min(64, max(1, kilobytes // 15))
    size = -(-len(text) // count)
    return {"texts": [text[start : start + size] for start in range(0, len(text), size)]}


def measure_dropped(server: Server, posts: int, kilobytes: int, hold: float) -> dict[str, Any]:
    """Returns how long the next one waits after so many connections were closed unanswered."""
    body = body_of(kilobytes)
    alone = server.ask(WORD)[2]
    connections = [server.begin(body) for _ in range(posts)]
    time.sleep(hold)
    for connection in connections:
        connection.close()
    start, refused = time.monotonic(), 0
    while True:
        status, _, _ = server.ask(WORD)
        waited = time.monotonic() - start
        if status in (0, 200) or waited > PATIENCE.value:
            break
        refused += 1
        time.sleep(0.05)
    return {
        "posts": posts,
        "kilobytes": kilobytes,
        "hold_seconds": hold,
        "seconds_alone": round(alone, 4),
        "status_of_next": status,
        "refused_before": refused,
        "seconds_of_next": round(waited, 3),
    }


def measure_largest(server: Server, sizes: list[int], behind: int) -> dict[str, Any]:
    """Returns how long one-word requests wait behind the largest request that is taken."""
    refused = {}
    for kilobytes in sizes:
        found: dict[str, Any] = {}

        def ask(kilobytes=kilobytes, found=found):
            body = body_of(kilobytes)
            found["status"], found["answer"], found["seconds"] = server.ask(body)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)  # it is being read now
        waits = []
        while thread.is_alive() and len(waits) < behind:
            waits.append(server.ask(WORD)[2])
        thread.join()
        if found["status"] in (0, 200):
            return {
                "kilobytes": kilobytes,
                "status": found["status"],
                "seconds": round(found["seconds"], 3),
                "seconds_behind": [round(wait, 4) for wait in waits],
                "longest_behind": round(max(waits, default=0.0), 3),
                "refused": refused,
            }
        refused[str(kilobytes)] = f"{found['status']} {found['answer']['detail']}"
    raise ValueError(f"every size was refused ({refused}); give smaller --sizes")


def measure_ended(server: Server, kilobytes: int, under_way: int) -> dict[str, Any]:
    """Returns how long a server takes to end while it reads."""
    connections = [server.begin(body_of(kilobytes)) for _ in range(under_way)]
    time.sleep(1.0)
    seconds, status = server.end()
    answered = []
    for connection in connections:
        with connection:
            connection.settimeout(1.0)
            try:
                answered.append(connection.recv(12).decode() or "closed")
            except OSError as error:
                answered.append(type(error).__name__)
    return {
        "under_way": under_way,
        "kilobytes": kilobytes,
        "seconds_to_end": round(seconds, 3),
        "exit_status": status,
        "answers": {line: answered.count(line) for line in sorted(set(answered))},
    }


def run_campaign(model: str) -> dict[str, Any]:
    """Returns the report of all parts."""
    report: dict[str, Any] = {"model": model, "options": OPTIONS.value, "dropped": []}
    for each in POSTS.value:
        posts, _, kilobytes = each.partition("x")
        with serving(model, OPTIONS.value) as server:
            measured = measure_dropped(server, int(posts), int(kilobytes), HOLD.value)
            report["dropped"].append(measured)
            print(json.dumps(measured), flush=True)
    with serving(model, OPTIONS.value) as server:
        report["largest"] = measure_largest(server, list(map(int, SIZES.value)), BEHIND.value)
        print(json.dumps(report["largest"]), flush=True)
    with serving(model, OPTIONS.value) as server:
        largest = report["largest"]["kilobytes"]
        report["ended"] = measure_ended(server, largest, UNDER_WAY.value)
        print(json.dumps(report["ended"]), flush=True)
    return report


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = MODEL.value
        if not model:
            from benchmarks.random_models import SIZES as KNOWN
            from benchmarks.random_models import write_random

            sizes = _small(KNOWN["bert-base"], LAYERS.value, WIDTH.value)
            model = str(write_random(Path(folder) / "encoder", sizes, int8=False))
        report = run_campaign(model)
    if not MODEL.value:
        report["model"] = f"random encoder of {LAYERS.value} x {WIDTH.value}"
    write_json(Path(OUT.value), report)


def _small(config, layers, width):
    """Returns sizes of so many layers of that width, and a vocabulary that is soon written."""
    import dataclasses

    base = dataclasses.replace(
        config.base,
        vocab_size=1_000,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
    )
    return dataclasses.replace(config, base=base)


if __name__ == "__main__":
    run_command(main, required=["out"])
