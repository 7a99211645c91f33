# SPDX-License-Identifier: Apache-2.0
"""Models behind HTTP, over a real socket."""

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn

from edad_jax.runtime.limits import Limits
from edad_jax.runtime.models import Prediction, Score, Span, Tagger, as_json
from edad_jax.runtime.server import create_app
from tests.runtime.stand_ins import Counter, EchoAnswerer, Long, Told
from tests.tiny_text import WORDS

PATIENCE = 300  # seconds after which something counts as stuck
LIMITS = Limits(body_bytes=5_000, text_characters=200, texts=4, waiting=8, gather_seconds=0.01)


def request_of(body):
    """Returns the bytes of a request for prediction, after which its connection ends."""
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer_of(received):
    """Returns (status, body) of the bytes of an answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def rest_of(connection):
    """Returns (status, body) of the answer that a connection gets."""
    with connection, connection.makefile("rb") as answer:
        return answer_of(answer.read())


class Server:
    """The application in a thread, at a free port."""

    def __init__(self, models, limits=LIMITS, **settings):
        app = create_app(models, limits)
        settings = uvicorn.Config(app, port=0, log_level="critical", **settings)
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            method = method or ("GET" if body is None else "POST")
            given = {"Content-Type": "application/json"} | (headers or {})
            given = {name: value for name, value in given.items() if value is not None}
            is_chunked = "Transfer-Encoding" in given
            connection.request(method, path, body, given, encode_chunked=is_chunked)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def begin(self, body):
        """Returns a connection after it has sent a request for prediction but for its last byte."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(request_of(body)[:-1])
        return connection

    def predict(self, *texts, **others):
        status, _, body = self.ask("/v1/predict", json.dumps({"texts": texts} | others))
        return status, json.loads(body)


@pytest.fixture(scope="module")
def server():
    with Server({"first": Counter(), "second": Counter(), "reader": EchoAnswerer()}) as running:
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
        (" me", 6, 4),
        ("abc", 0, 1),
    ]
    pairs[0]["context"] = "x" * 197
    status, _, body = server.ask("/v1/predict", json.dumps({"questions": pairs, "model": "reader"}))
    assert status == 413 and "201 characters" in body


def test_models_health_metrics_page_and_interface_are_there(server):
    models = json.loads(server.ask("/v1/models")[2])["models"]
    assert models[1:] == [
        {"name": "second", "kind": "counter"},
        {"name": "reader", "kind": "echo_answerer"},
    ]
    assert server.ask("/health")[0] == 200
    server.predict("a")
    metrics = server.ask("/metrics")[2]
    assert 'edad_requests_total{status="200"}' in metrics and "edad_seconds_bucket" in metrics
    assert "/v1/predict" in json.loads(server.ask("/openapi.json")[2])["paths"]
    for path, has in (("/", "v1/predict"), ("/docs", "POST /v1/predict</code>")):
        status, headers, page = server.ask(path)
        assert status == 200 and headers["content-type"].startswith("text/html")
        assert has in page and not re.search("(src|href)=.?(https?:)?//", page)


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
        (b"\xff\xfe", 422, "JSON"),
        (b'{"texts": ["\xff"]}', 400, "parsing the body"),
        ('{"texts": [NaN]}', 422, "body.texts.0: Input should be a valid string"),
        ('{"texts": [1e999]}', 422, "body.texts.0: Input should be a valid string"),
        ('{"texts": "\\ud800"}', 422, "body.texts: Input should be a valid list"),
        ('{"texts": ["a"], "model": "\\ud800"}', 404, "got model"),
        ('{"questions": [{"\\ud800": 1}]}', 422, "body.questions.0.question: Field required"),
        (
            json.dumps({"texts": [1] * 1_000}),
            422,
            "body.texts.0: Input should be a valid string; /openapi.json says",
        ),
        ('{"texts": ["\\ud800"]}', 200, "length 1"),  # json allows it, so the models do
    ],
)
def test_what_is_wrong_with_a_request_is_told(server, body, status, says):
    got, _, answer = server.ask("/v1/predict", body)
    assert got == status, answer
    assert says in (answer if status == 200 else json.loads(answer)["detail"])
    assert server.predict("still there")[0] == 200


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
@pytest.mark.parametrize("body", [b'{"texts": ["secret"]}', b"secret \xff\xfe"])
def test_a_body_that_is_not_sent_as_json_is_told_so_and_not_repeated(server, body, content_type):
    status, _, answer = server.ask("/v1/predict", body, headers={"Content-Type": content_type})
    assert status == 422
    told = json.loads(answer)["detail"]
    assert f"content type {content_type!r}, expected application/json" in told
    assert "secret" not in told


def test_the_interface_says_what_a_refusal_looks_like(server):
    route = json.loads(server.ask("/openapi.json")[2])["paths"]["/v1/predict"]["post"]
    assert set(route["responses"]) == {"200", "4XX"}


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


async def ask_at_once(port, bodies):
    """Returns (status, body) for each; all are connected before the first one is sent."""

    async def finish(reader, writer, body):
        writer.write(request_of(body))
        try:
            return answer_of(await reader.read())
        finally:
            writer.close()

    async with asyncio.timeout(PATIENCE):
        connections = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in bodies)
        )
        return await asyncio.gather(
            *(finish(*ends, body) for ends, body in zip(connections, bodies, strict=True))
        )


@pytest.mark.parametrize("admitted", [16, 200])
def test_of_many_requests_at_once_none_is_lost_and_none_fails(admitted):
    model = Counter(seconds=0.002)
    bodies = [json.dumps({"texts": ["x" * (number % 90)]}).encode() for number in range(200)]
    with Server({"only": model}, Limits(waiting=admitted)) as running:
        answers = asyncio.run(ask_at_once(running.port, bodies))
        assert "edad_waiting 0.0" in running.ask("/metrics")[2]
    statuses = [status for status, _ in answers]
    assert len(statuses) == 200 and set(statuses) <= {200, 429}
    assert statuses.count(200) >= admitted
    assert statuses.count(429) > 0 or admitted == 200
    for number, (status, answer) in enumerate(answers):
        if status == 200:
            assert json.loads(answer)["results"][0]["label"] == f"length {number % 90}"
        else:
            assert "requests are under way; try again" in answer
    assert max(model.batches) > 1  # those that came together were read together
    assert sum(model.batches) == statuses.count(200)


def wait_until(is_so):
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


@contextlib.contextmanager
def begin_all(server, body):
    """Gives as many connections as the server admits, each with a request but for its last byte."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.begin(body)) for _ in range(LIMITS.waiting)]
        wait_until(lambda: f"edad_waiting {LIMITS.waiting}.0" in server.ask("/metrics")[2])
        yield connections


def test_one_request_too_many_is_refused_before_its_body_has_come(server):
    body = json.dumps({"texts": ["abc"]}).encode()
    with begin_all(server, body) as connections:
        before = server.ask("/metrics")[2].count('edad_requests_total{status="429"}')
        status, answer = rest_of(server.begin(body))
        assert before == 0 and 'requests_total{status="429"} 1.0' in server.ask("/metrics")[2]
        assert status == 429 and f"{LIMITS.waiting} requests are under way" in answer
        for connection in connections:
            connection.sendall(body[-1:])
        answers = [rest_of(connection) for connection in connections]
    assert [status for status, _ in answers] == [200] * LIMITS.waiting
    assert server.predict("a")[0] == 200


def test_a_client_that_goes_leaves_its_place(server):
    with begin_all(server, b'{"texts": ["abc"]}'):
        pass
    wait_until(lambda: "edad_waiting 0.0" in server.ask("/metrics")[2])
    assert server.predict("a")[0] == 200


def test_what_nobody_waits_for_is_not_read_and_short_ones_overtake_long_ones():
    model, whole = Long(), 200_000  # rows, of a millisecond each
    with Server({"only": model}, Limits(pieces=2 * whole)) as running:
        body = json.dumps({"texts": [str(whole)]}).encode()
        with running.begin(body) as connection:
            connection.sendall(body[-1:])
            wait_until(lambda: model.seen)
            assert running.predict("1")[0] == 200  # and the long one is under way still
            assert "edad_waiting 1.0" in running.ask("/metrics")[2]
        wait_until(lambda: 'edad_requests_total{status="499"} 1.0' in running.ask("/metrics")[2])
        assert "edad_waiting 0.0" in running.ask("/metrics")[2]
        assert running.predict("2")[0] == 200
        assert model.seen[-2:] == ["2", "2"] and model.seen.count("1") == 1
        assert len(model.seen) < whole


def test_a_server_that_ends_tells_those_whom_it_cannot_answer():
    body = json.dumps({"texts": ["200000"]}).encode()
    limits = Limits(pieces=200_000)
    with Server({"only": Long()}, limits, timeout_graceful_shutdown=0.2) as running:
        connection = running.begin(body)
        connection.sendall(body[-1:])
        wait_until(lambda: "edad_waiting 1.0" in running.ask("/metrics")[2])
    status, answer = rest_of(connection)
    assert status == 503 and "the server is ending" in answer


def test_a_request_of_too_many_pieces_is_refused_before_any_is_read():
    model = Long()
    with Server({"only": model}, Limits(pieces=100)) as running:
        status, answer = running.predict("60", "41", "30")
        assert status == 413
        assert "got 101 word pieces in 2 of 3 texts, expected 100 in all" in answer["detail"]
        assert not model.seen
        assert running.predict("60", "40")[0] == 200


def test_pairs_are_scored_and_other_models_do_not_read_them(server):
    class PairScorer(Long):
        def begin(self, item):
            return Told(lambda pair: Score(len(pair[0]) - len(pair[1]))).begin(item)

    body = json.dumps({"pairs": [["abc", "a"], ["", "ab"]]})
    with Server({"only": PairScorer()}) as running:
        status, _, answer = running.ask("/v1/predict", body)
        assert status == 200 and json.loads(answer)["results"] == [{"score": 2}, {"score": -2}]
        assert running.ask("/v1/predict", '{"pairs": [["abc"]]}')[0] == 422
    status, _, answer = server.ask("/v1/predict", body)
    assert status == 422 and "got pairs; model 'first' reads texts" in answer


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body(server, path):
    status, headers, body = server.ask(path, method="HEAD")
    assert (status, body) == (200, "")
    assert headers["content-type"] == server.ask(path)[1]["content-type"]


def test_a_slow_body_is_given_up():
    with Server({"only": Counter()}, Limits(body_seconds=0.2)) as running:
        connection = running.begin(b'{"texts": ["abc"]}')
        start = time.monotonic()
        status, answer = rest_of(connection)  # read to its end: the server closes it
        assert time.monotonic() - start > 0.1
        assert status == 408 and "got 17 bytes of a body in 0.2 seconds" in answer
        assert "edad_waiting 0.0" in running.ask("/metrics")[2]
        assert running.predict("a")[0] == 200


def test_a_client_that_does_not_read_its_answer_holds_no_place():
    long = Prediction("a" * 20_000_000, 1.0, {})  # more than any socket's buffers hold
    with Server({"only": Told(lambda text: long)}, Limits(waiting=1)) as running:
        body = b'{"texts": ["abc"]}'
        with running.begin(body) as connection:
            connection.sendall(body[-1:])
            assert connection.recv(8) == b"HTTP/1.1"
            assert running.ask("/v1/predict", "[]")[0] == 422


def test_a_real_tagger_says_over_http_what_it_says_alone(folders):
    tagger = Tagger(folders["tagging"], max_length=12, overlap=4, threads=1)
    texts = [" ".join((WORDS * 3)[number : number + 1 + number % 30]) for number in range(40)]
    texts += ["", "\0", "😀 é\u0301", "안녕 뇌"]
    expected = [as_json(spans)["entities"] for spans in tagger(texts)]
    assert sum(map(len, expected)) > 20
    bodies = [json.dumps({"texts": [text]}).encode() for text in texts]
    with Server({"tagger": tagger}, Limits()) as running:
        answers = asyncio.run(ask_at_once(running.port, bodies))
    for (status, answer), entities in zip(answers, expected, strict=True):
        assert status == 200, answer
        assert json.loads(answer)["results"] == [
            {"entities": [each | {"score": pytest.approx(each["score"])} for each in entities]}
        ]


def find_after_smiley(text):
    """Returns what a model found that finds whatever stands after a smiley."""
    at = text.index("\U0001f600") + 2
    return [Span("Disease", at, len(text), text[at:], 0.9)]


def shown_at(address, folder):
    """Returns a page as Chromium has it once its scripts have run."""
    return subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


NEEDS_CHROMIUM = pytest.mark.skipif(
    not shutil.which("chromium"), reason="needs Debian's package chromium"
)


def test_the_interface_says_routes_with_an_example_that_works(server):
    status, _, interface = server.ask("/openapi.json")
    assert status == 200
    interface = json.loads(interface)
    assert {"/v1/predict", "/v1/models", "/health"} <= interface["paths"].keys()
    properties = interface["components"]["schemas"]["Request"]["properties"]
    body = json.dumps({"texts": properties["texts"]["examples"][0]})
    assert server.ask("/v1/predict", body)[0] == 200
    assert properties["model"]["enum"] == ["first", "second", "reader"]
    one_of = interface["components"]["schemas"]["Request"]["oneOf"]
    assert one_of == [{"required": [kind]} for kind in ("texts", "questions", "pairs")]
    assert server.ask("/redoc")[0] == 404


@NEEDS_CHROMIUM
def test_the_page_marks_what_each_model_finds(tmp_path):
    model = Told(find_after_smiley)
    with Server({"student": model, "teacher": model}) as running:
        query = urllib.parse.urlencode({"text": "\U0001f600 <b>유방암</b>"})
        shown = shown_at(f"http://127.0.0.1:{running.port}/?{query}", tmp_path)
    assert shown.count('<section class="box"') == 2
    assert len(re.findall(r"<mark[^>]*>&lt;b&gt;유방암&lt;/b&gt;<small>Disease", shown)) == 2
    assert shown.count('<div class="text" lang="ko">') == 2
    assert shown.count('<td>Disease</td><td class="number">90.0%</td>') == 2
    assert len(re.findall(r"<span[^>]*>[\d.]+ ms</span>", shown)) == 2


@NEEDS_CHROMIUM
def test_the_page_shows_answers_classes_scores_and_vectors(tmp_path):
    def tell(name, function, kind=Told):
        """Returns a stand-in of a class of that name, which is what the page goes by."""
        told = Told(function)
        parts = {"__init__": lambda self: None, "batch_size": told.batch_size}
        model = type(name, (kind,), parts)()
        model.begin, model.read_batch = told.begin, told.read_batch
        return model

    models = {
        "reader": EchoAnswerer(),
        "topics": tell("Classifier", lambda _: Prediction("b", 0.75, {"a": 0.25, "b": 0.75})),
        "scorer": tell("Scorer", lambda item: Score(len(item) / 8), Long),
        "vectors": tell("Encoder", lambda text: np.array([3.0, 4.0 if len(text) > 4 else 0.0])),
    }
    asked = {"text": "\U0001f600 <b>it</b> was me", "question": "who?", "second": "you"}
    with Server(models) as running:
        query = urllib.parse.urlencode(asked)
        shown = shown_at(f"http://127.0.0.1:{running.port}/?{query}", tmp_path)
    assert re.search(r"&lt;/b&gt; was<mark[^>]*> me<small>answer</small></mark>", shown)
    assert re.search(r'<th[^>]*> me</th><td class="number">400.0%</td>', shown)
    assert "Likeliest: <strong>b</strong>" in shown
    assert re.search(r'<th[^>]*>a</th><td class="bar">.*?<td class="number">25.0%</td>', shown)
    assert "Score of both texts together: <strong>0.2500</strong>" in shown  # a pair has length 2
    assert "The two texts are alike by <strong>0.600</strong>" in shown
    assert "2 numbers and the length 5.000" in shown
    assert "Done: 18 characters, 4 models." in shown


@NEEDS_CHROMIUM
def test_the_page_tells_in_place_what_was_not_read(tmp_path):
    def fail(text):
        raise RuntimeError("a bug of the model")

    with Server({"only": Told(fail), "reader": EchoAnswerer()}) as running:
        address = f"http://127.0.0.1:{running.port}/"
        shown = shown_at(f"{address}?text=a&question=", tmp_path)
        empty = shown_at(f"{address}?text=%20", tmp_path)
    assert '<p class="error">Not read: Internal Server Error (500)</p>' in shown
    assert "Not read: it needs a question; ask one above" in shown
    assert "2 could not read it" in shown
    assert "There is no text to read." in empty and 'aria-invalid="true"' in empty
    assert '<section class="box"' not in empty


def test_no_model_is_an_error():
    with pytest.raises(ValueError, match="got no model"):
        create_app({})
