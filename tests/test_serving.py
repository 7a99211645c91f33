# SPDX-License-Identifier: Apache-2.0
"""Models behind HTTP, over a real socket."""

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from edad_jax.export.runtime import Answer, Answers, Prediction, Reader, Span
from edad_jax.serving import Limits, create_app

LIMITS = Limits(body_bytes=5_000, text_characters=200, texts=4, waiting=8, gather_seconds=0.01)


class Counter:
    """A model that counts letters, and how it was called; "fail" makes it fail."""

    def __init__(self, seconds=0.0):
        self.seconds, self.batches = seconds, []

    def __call__(self, texts):
        self.batches.append(len(texts))
        time.sleep(self.seconds)
        for text in texts:
            if text == "fail":
                raise RuntimeError("a bug of the model")
            yield Prediction(f"length {len(text)}", 1.0, {})


class Echo(Reader):
    """Answers with the question's length and the context's last letters."""

    def __init__(self):
        pass

    def __call__(self, pairs):
        for question, context in pairs:
            yield Answers([Answer(context[-3:], len(context) - 3, len(context), len(question))])


class Server:
    """The application in a thread, at a free port."""

    def __init__(self, models, limits=LIMITS):
        settings = uvicorn.Config(create_app(models, limits), port=0, log_level="critical")
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()

    def ask(self, path, body=None, *, method=None, headers=None):
        """Returns (status, headers, body as text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            method = method or ("GET" if body is None else "POST")
            given = {"Content-Type": "application/json"} | (headers or {})
            is_chunked = "Transfer-Encoding" in given
            connection.request(method, path, body, given, encode_chunked=is_chunked)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def predict(self, *texts, **others):
        status, _, body = self.ask("/v1/predict", json.dumps({"texts": texts} | others))
        return status, json.loads(body)


@pytest.fixture(scope="module")
def server():
    with Server({"first": Counter(), "second": Counter(), "reader": Echo()}) as running:
        yield running


def test_texts_are_answered_in_their_order(server):
    status, answer = server.predict("a", "", "é😀", model="second")
    assert status == 200 and answer["model"] == "second" and answer["milliseconds"] > 0
    assert [result["label"] for result in answer["results"]] == ["length 1", "length 0", "length 2"]
    assert server.predict("a")[1]["model"] == "first"


def test_questions_are_answered_from_their_contexts(server):
    pairs = [{"question": "who?", "context": "it was me"}, {"question": "?", "context": "abc"}]
    status, _, body = server.ask("/v1/predict", json.dumps({"questions": pairs, "model": "reader"}))
    assert status == 200
    answers = [result["answers"][0] for result in json.loads(body)["results"]]
    assert [(each["text"], each["start"], each["score"]) for each in answers] == [
        (" me", 6, 4), ("abc", 0, 1),
    ]  # fmt: skip
    pairs[0]["context"] = "x" * 197
    status, _, body = server.ask("/v1/predict", json.dumps({"questions": pairs, "model": "reader"}))
    assert status == 413 and "201 characters" in body


def test_models_health_metrics_page_and_interface_are_there(server):
    assert json.loads(server.ask("/v1/models")[2])["models"][1]["name"] == "second"
    assert server.ask("/health")[0] == 200
    server.predict("a")
    metrics = server.ask("/metrics")[2]
    assert 'edad_requests_total{status="200"}' in metrics and "edad_seconds_bucket" in metrics
    assert "/v1/predict" in json.loads(server.ask("/openapi.json")[2])["paths"]
    status, headers, page = server.ask("/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "v1/predict" in page


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("{", 422, "JSON"),
        ("[]", 422, "dictionary"),
        ("{}", 422, "got no texts"),
        ('{"questions": [{"question": "a", "context": "b"}]}', 422, "'first' reads texts"),
        ('{"questions": [{"question": "a"}]}', 422, "context"),
        ('{"texts": ["a"], "model": "reader"}', 422, "'reader' reads questions"),
        ('{"texts": "a"}', 422, "list"),
        ('{"texts": [1]}', 422, "string"),
        ('{"texts": []}', 422, "at least 1"),
        (
            '{"texts": ["a"], "model": "third"}',
            404,
            "expected one of ['first'",
        ),
        (json.dumps({"texts": ["a"] * 5}), 413, "got 5 texts, expected 4 at most"),
        (json.dumps({"texts": ["a" * 201]}), 413, "201 characters, expected 200"),
        (json.dumps({"texts": ["a" * 6_000]}), 413, "more than 5,000 bytes"),
        (b"\xff\xfe", 422, ""),
        ('{"texts": ["\\ud800"]}', 200, "length 1"),  # json allows it, so the models do
    ],
)
def test_what_is_wrong_with_a_request_is_told(server, body, status, says):
    got, _, answer = server.ask("/v1/predict", body)
    assert got == status, answer
    assert says in answer
    assert server.predict("still there")[0] == 200


def test_a_large_body_is_refused_whatever_its_header_says(server):
    chunks = (b"x" * 1_000 for _ in range(20))
    headers = {"Transfer-Encoding": "chunked"}
    assert server.ask("/v1/predict", chunks, headers=headers)[0] == 413
    assert server.ask("/v1/predict", method="PUT")[0] == 405
    assert server.ask("/nowhere")[0] == 404


def test_a_failing_model_fails_that_request_alone(server):
    with ThreadPoolExecutor(6) as threads:
        texts = ["a", "fail", "bb", "ccc", "fail", "d"]
        bodies = [json.dumps({"texts": [text]}) for text in texts]
        statuses = [each[0] for each in threads.map(lambda b: server.ask("/v1/predict", b), bodies)]
    assert statuses == [200, 500, 200, 200, 500, 200]
    assert 'edad_requests_total{status="500"} 2.0' in server.ask("/metrics")[2]


def test_of_a_thousand_requests_none_is_lost_and_none_fails():
    model = Counter(seconds=0.002)
    limits = Limits(waiting=16)
    with Server({"only": model}, limits) as running, ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda n: running.predict("x" * (n % 90)), range(1_000)))
    statuses = [status for status, _ in answers]
    assert len(statuses) == 1_000 and set(statuses) <= {200, 429}
    assert statuses.count(200) > 100 and statuses.count(429) > 0
    for number, (status, answer) in enumerate(answers):
        if status == 200:
            assert answer["results"][0]["label"] == f"length {number % 90}"
    assert max(model.batches) > 1  # those that came together were read together
    assert sum(model.batches) == statuses.count(200)


class OneSpan:
    """A model that finds whatever stands after a smiley."""

    def __call__(self, texts):
        for text in texts:
            at = text.index("\U0001f600") + 2
            yield [Span("Disease", at, len(text), text[at:], 0.9)]


def shown_at(address, folder):
    """Returns a page as Chromium has it once its scripts have run."""
    return subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu",
            f"--user-data-dir={folder}", "--virtual-time-budget=10000", "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip


NEEDS_CHROMIUM = pytest.mark.skipif(
    not shutil.which("chromium"), reason="needs Debian's package chromium"
)


def test_the_interface_loads_nothing_from_elsewhere(server):
    status, headers, page = server.ask("/docs")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert 'fetch("openapi.json")' in page
    assert not re.search(r"https?:|//[a-z]+\.|<link|src=", page)
    assert server.ask("/redoc")[0] == 404


@NEEDS_CHROMIUM
def test_the_interface_shows_routes_with_an_example_that_works(server, tmp_path):
    shown = shown_at(f"http://127.0.0.1:{server.port}/docs", tmp_path)
    for route in ("POST /v1/predict", "GET /v1/models", "GET /health"):
        assert f"<h2><code>{route}</code></h2>" in shown
    assert "<code>questions</code></td><td>list of Question or null</td>" in shown
    (body,) = re.findall(r"/v1/predict -H '.*' -d '(.*)'</pre>", shown)
    assert server.ask("/v1/predict", body)[0] == 200
    assert json.loads(body)["texts"]


@NEEDS_CHROMIUM
def test_the_page_marks_what_each_model_finds(tmp_path):
    with Server({"student": OneSpan(), "teacher": OneSpan()}) as running:
        query = urllib.parse.urlencode({"text": "\U0001f600 <b>fever</b>"})
        shown = shown_at(f"http://127.0.0.1:{running.port}/?{query}", tmp_path)
    assert shown.count("<section>") == 2
    assert len(re.findall(r"<mark[^>]*>&lt;b&gt;fever&lt;/b&gt;<small>Disease", shown)) == 2
    assert len(re.findall(r"<span>[\d.]+ ms</span>", shown)) == 2


def test_no_model_is_an_error():
    with pytest.raises(ValueError, match="got no model"):
        create_app({})
