# SPDX-License-Identifier: Apache-2.0
"""Exported models behind HTTP: requests that come together are read together.

    POST /v1/predict   {"texts": [...], "model": name} -> {"model", "results", "milliseconds"};
                       {"questions": [{"question", "context"}, ...]} of a model that answers them
    GET  /v1/models    names and tasks
    GET  /health       200 once the models are loaded
    GET  /metrics      Prometheus
    GET  /openapi.json the interface; /docs shows it, with scripts from the internet
    GET  /             a page to paste text into

What is too slow, too large, too long or too much is answered 408, 413, 422 or 429 before any work
is done.
"""

import asyncio
import contextlib
import importlib.resources
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

from edad_jax.runtime.limits import AdmissionControl, Limits, refusal
from edad_jax.runtime.models import QuestionAnswerer, as_json

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Question(BaseModel):
    """A question, and where its answer may be."""

    question: str = Field(examples=["What causes renal failure?"])
    context: str = Field(examples=["Cisplatin may cause renal failure."])


class Request(BaseModel):
    """The body of POST /v1/predict: texts, or questions for a model that answers them."""

    # fail_fast: while every mistake of a large body is sought, no other request is answered.
    texts: list[str] | None = Field(
        None,
        min_length=1,
        fail_fast=True,
        description="What to read.",
        examples=[["Cisplatin may cause renal failure."]],
    )
    questions: list[Question] | None = Field(
        None, min_length=1, fail_fast=True, description="What to answer."
    )
    model: str | None = Field(None, description="A name of /v1/models; the first one if not given.")


class Answer(BaseModel):
    """What POST /v1/predict gives."""

    model: str
    results: list[dict[str, Any]] = Field(
        description="One for each text: entities, or label and scores, or a vector, or answers."
    )
    milliseconds: float = Field(description="From the request to the answer, on the server.")


class Refusal(BaseModel):
    """What a request that is not answered gets."""

    detail: str = Field(description="What came, what was expected and what to do.")


def create_app(models: Mapping[str, Any], limits: Limits | None = None) -> FastAPI:
    """Returns the ASGI application.

    Args:
      models: {name: Tagger, Classifier, Encoder or QuestionAnswerer}; the first one is the default.
      limits: what to take; None for the defaults.

    Raises:
      ValueError: no model.
    """
    if not models:
        raise ValueError("got no model, expected at least one")
    service = _Service(models, limits or Limits())
    app = FastAPI(title="edad-jax", lifespan=service.run_batchers, redoc_url=None)
    app.add_middleware(AdmissionControl, limits=service.limits, waiting=service.waiting)
    app.middleware("http")(service.count)
    app.exception_handler(RequestValidationError)(_refuse_invalid)
    app.post("/v1/predict", response_model=Answer, responses={"4XX": {"model": Refusal}})(
        service.predict
    )
    app.get("/v1/models")(service.list_models)
    app.get("/health")(health)
    app.get("/metrics", include_in_schema=False)(service.metrics)
    app.get("/", include_in_schema=False)(service.show_page)
    return app


class _Service:
    """The models, what reads them, and what is counted; its methods are routes of the server."""

    def __init__(self, models: Mapping[str, Any], limits: Limits):
        self.models, self.limits = models, limits
        self.batchers = {name: _Batcher(model, limits) for name, model in models.items()}
        static = importlib.resources.files("edad_jax.runtime") / "static"
        self.page = (static / "page.html").read_text("utf-8")
        registry = self.registry = CollectorRegistry()
        self.answered = Counter(
            "edad_requests", "Requests by status.", ["status"], registry=registry
        )
        self.texts = Counter("edad_texts", "Texts read.", ["model"], registry=registry)
        self.seconds = Histogram(
            "edad_seconds", "Seconds of a request.", ["model"], registry=registry
        )
        self.waiting = Gauge("edad_waiting", "Requests under way.", registry=registry)

    @contextlib.asynccontextmanager
    async def run_batchers(self, _: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(batcher.run()) for batcher in self.batchers.values()]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def count(self, request, call_next):
        try:
            response = await call_next(request)
        except Exception:
            self.answered.labels("500").inc()
            raise
        self.answered.labels(str(response.status_code)).inc()
        return response

    async def predict(self, request: Request) -> Answer:
        """Reads texts, and says what is in them; or answers questions."""
        name = request.model or next(iter(self.models))
        if name not in self.models:
            raise HTTPException(404, f"got model {name!r}, expected one of {list(self.models)}")
        asked = _asked(request, name, isinstance(self.models[name], QuestionAnswerer))
        _check_sizes(asked, self.limits)
        start = time.perf_counter()
        results = await self.batchers[name].read(asked)
        elapsed = time.perf_counter() - start
        self.seconds.labels(name).observe(elapsed)
        self.texts.labels(name).inc(len(results))
        return Answer(model=name, results=results, milliseconds=round(1e3 * elapsed, 3))

    async def list_models(self) -> dict[str, list[dict[str, str]]]:
        """Names the models."""
        kinds = [re.sub("(?<=[a-z])(?=[A-Z])", "_", type(m).__name__) for m in self.models.values()]
        named = zip(self.models, kinds, strict=True)
        return {"models": [{"name": name, "kind": kind.lower()} for name, kind in named]}

    async def metrics(self) -> Response:
        return Response(generate_latest(self.registry), media_type=_METRICS_TYPE)

    async def show_page(self) -> HTMLResponse:
        return HTMLResponse(self.page)


async def health() -> dict[str, str]:
    """Says that the models are loaded."""
    return {"status": "ok"}


async def _refuse_invalid(request, error):
    return refusal(422, _what_is_wrong(error, request.headers.get("content-type")))


def _what_is_wrong(error: RequestValidationError, content_type: str | None) -> str:
    """Returns where a body is wrong, and how; nothing of the body, which JSON may not hold."""
    if isinstance(error.body, bytes):  # left as it came, since its header does not say JSON
        return f"got a body of content type {content_type!r}, expected application/json; say so"
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return "; ".join([*told, "/openapi.json says what is expected"])


def _asked(request: Request, name: str, answers_questions: bool) -> list:
    """Returns the texts, or the pairs of question and context, that the model is to read."""
    wanted, other = ("questions", "texts") if answers_questions else ("texts", "questions")
    if getattr(request, wanted) is None or getattr(request, other) is not None:
        raise HTTPException(422, f"got no {wanted} or also {other}; model {name!r} reads {wanted}")
    if answers_questions:
        return [(each.question, each.context) for each in request.questions]
    return request.texts


def _check_sizes(texts: Sequence[str | tuple[str, str]], limits: Limits) -> None:
    if len(texts) > limits.texts:
        raise HTTPException(
            413, f"got {len(texts)} texts, expected {limits.texts} at most; send several requests"
        )
    longest = max(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)
    if longest > limits.text_characters:
        raise HTTPException(
            413,
            f"got a text of {longest:,} characters, expected {limits.text_characters:,} at most; "
            "cut it up",
        )


class _Batcher:
    """Reads what several requests ask for in one go. One thread, so a model is never entered twice.

    The queue has at most as many requests as the server admits.
    """

    def __init__(self, model: Any, limits: Limits):
        self.model, self.limits = model, limits
        self.queue: asyncio.Queue = asyncio.Queue()

    async def read(self, texts: Sequence[str]) -> list[dict]:
        """Returns a result for each text, once their turn has come."""
        done = asyncio.get_running_loop().create_future()
        await self.queue.put((texts, done))
        return await done

    async def run(self) -> None:
        """Serves the queue until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                requests = await self._gather()
                texts = [text for texts, _ in requests for text in texts]
                try:
                    results = await loop.run_in_executor(thread, self._read, texts)
                except Exception:
                    # One of them did it; each alone, so that the others have their answers.
                    for request in requests:
                        await self._read_alone(loop, thread, *request)
                    continue
                for texts, done in requests:
                    mine, results = results[: len(texts)], results[len(texts) :]
                    if not done.done():  # who asked may be gone
                        done.set_result(mine)

    async def _read_alone(self, loop, thread, texts, done):
        try:
            results = await loop.run_in_executor(thread, self._read, texts)
        except Exception as error:  # told to who asked; the server goes on
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(results)

    def _read(self, texts):
        return [as_json(result) for result in self.model(texts)]

    async def _gather(self):
        """Returns the first request, and those that come while it waits."""
        requests = [await self.queue.get()]
        count = len(requests[0][0])
        limit = asyncio.get_running_loop().time() + self.limits.gather_seconds
        while count < self.limits.batch_texts:
            left = limit - asyncio.get_running_loop().time()
            try:
                if self.queue.empty() and left <= 0:
                    break
                requests.append(await asyncio.wait_for(self.queue.get(), max(left, 0.0001)))
            except TimeoutError:
                break
            count += len(requests[-1][0])
        return requests
