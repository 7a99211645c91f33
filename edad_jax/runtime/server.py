# SPDX-License-Identifier: Apache-2.0
"""Exported models behind HTTP: requests that come together are read together.

    POST /v1/predict   {"texts": [...], "model": name} -> {"model", "results", "milliseconds"};
                       {"questions": [{"question", "context"}, ...]} of a model that answers them,
                       {"pairs": [[text, text], ...]} of one that scores them
    GET  /v1/models    names and tasks
    GET  /health       200 once the models are loaded
    GET  /metrics      Prometheus
    GET  /openapi.json the interface; /docs shows it
    GET  /             a page to paste text into

What is too slow, too large, too long or too much is answered 408, 413, 422 or 429 before any work
is done. What nobody waits for any longer is not done either, and long requests are read in slices,
between which short ones are answered: see `batcher`.
"""

import asyncio
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

from edad_jax.runtime.batcher import Batcher, TooManyPiecesError
from edad_jax.runtime.interface import make_interface_page
from edad_jax.runtime.limits import AdmissionControl, Limits, refusal
from edad_jax.runtime.models import QuestionAnswerer, Scorer
from edad_jax.runtime.page import make_page

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Question(BaseModel):
    """A question, and where its answer may be."""

    question: str = Field(examples=["What causes renal failure?"])
    context: str = Field(examples=["Cisplatin may cause renal failure."])


class Request(BaseModel):
    """The body of POST /v1/predict: texts; questions or pairs for a model that reads these."""

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
    pairs: list[tuple[str, str]] | None = Field(
        None,
        min_length=1,
        fail_fast=True,
        description="Two texts each, what a cross-encoder compares.",
        examples=[[["what causes renal failure?", "Cisplatin may cause renal failure."]]],
    )
    model: str | None = Field(None, description="A name of /v1/models; the first one if not given.")


class Answer(BaseModel):
    """What POST /v1/predict gives."""

    model: str
    results: list[dict[str, Any]] = Field(
        description="One for each text: entities; label and scores; score; vector; or answers."
    )
    milliseconds: float = Field(description="From the request to the answer, on the server.")


class Refusal(BaseModel):
    """What a request that is not answered gets."""

    detail: str = Field(description="What came, what was expected and what to do.")


def create_app(models: Mapping[str, Any], limits: Limits | None = None) -> FastAPI:
    """Returns the ASGI application.

    Args:
      models: {name: what `models.open_model` gives}; the first one is the default.
      limits: what to take; None for the defaults.

    Raises:
      ValueError: no model.
    """
    if not models:
        raise ValueError("got no model, expected at least one")
    service = _Service(models, limits or Limits())
    app = FastAPI(title="edad-jax", lifespan=service.run_batchers, docs_url=None, redoc_url=None)
    app.add_middleware(
        AdmissionControl,
        limits=service.limits,
        waiting=service.waiting,
        answered=service.answered,
    )
    app.exception_handler(RequestValidationError)(_refuse_invalid)
    app.post("/v1/predict", response_model=Answer, responses={"4XX": {"model": Refusal}})(
        service.predict
    )
    app.get("/v1/models")(service.list_models)
    app.get("/health")(health)
    app.get("/metrics", include_in_schema=False)(service.metrics)
    app.get("/", include_in_schema=False)(service.show_page)
    app.get("/docs", include_in_schema=False)(service.show_interface)  # FastAPI's fetches scripts
    interface = app.openapi()
    _describe(interface["components"]["schemas"]["Request"], list(models))
    service.interface_page = make_interface_page(interface)
    return app


def _describe(schema: dict[str, Any], names: list[str]) -> None:
    """Has the interface say what pydantic cannot: the models' names, and one kind of text each."""
    kinds = ("texts", "questions", "pairs")
    for name in (*kinds, "model"):
        of_value, _ = schema["properties"][name].pop("anyOf")  # or null, as if it were not given
        schema["properties"][name] |= of_value
    schema["properties"]["model"]["enum"] = names
    schema["oneOf"] = [{"required": [kind]} for kind in kinds]


class _Service:
    """The models, what reads them, and what is counted; its methods are routes of the server."""

    def __init__(self, models: Mapping[str, Any], limits: Limits):
        self.models, self.limits = models, limits
        self.batchers = {name: Batcher(model, limits) for name, model in models.items()}
        self.page, self.interface_page = make_page(), ""
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

    async def predict(self, request: Request) -> Response:
        """Reads texts, and says what is in them; or answers questions."""
        name = request.model or next(iter(self.models))
        if name not in self.models:
            raise HTTPException(404, f"got model {name!r}, expected one of {list(self.models)}")
        asked = _asked(request, name, self.models[name])
        _check_sizes(asked, self.limits)
        start = time.perf_counter()
        try:
            results = await self.batchers[name].read(asked)
        except TooManyPiecesError as error:
            raise HTTPException(413, str(error)) from None
        elapsed = time.perf_counter() - start
        self.seconds.labels(name).observe(elapsed)
        self.texts.labels(name).inc(len(results))
        # They are JSON already, made by the batcher's thread: the event loop must not be held up.
        rest = json.dumps({"model": name, "milliseconds": round(1e3 * elapsed, 3)})
        content = f'{{"results":[{",".join(results)}],{rest[1:]}'
        return Response(content.encode("utf-8", "replace"), media_type="application/json")

    async def list_models(self) -> dict[str, list[dict[str, str]]]:
        """Names the models."""
        kinds = [re.sub("(?<=[a-z])(?=[A-Z])", "_", type(m).__name__) for m in self.models.values()]
        named = zip(self.models, kinds, strict=True)
        return {"models": [{"name": name, "kind": kind.lower()} for name, kind in named]}

    async def metrics(self) -> Response:
        return Response(generate_latest(self.registry), media_type=_METRICS_TYPE)

    async def show_page(self) -> HTMLResponse:
        return HTMLResponse(self.page)

    async def show_interface(self) -> HTMLResponse:
        return HTMLResponse(self.interface_page)


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


def _asked(request: Request, name: str, model: Any) -> list:
    """Returns the texts, or the pairs of them, that the model is to read."""
    read = ["texts"]
    if isinstance(model, QuestionAnswerer):
        read = ["questions"]
    elif isinstance(model, Scorer):
        read = ["texts", "pairs"]
    given = [field for field in ("texts", "questions", "pairs") if getattr(request, field)]
    if len(given) != 1 or given[0] not in read:
        raise HTTPException(
            422,
            f"got {' and '.join(given) or 'no texts'}; model {name!r} reads {' or '.join(read)}",
        )
    if given == ["questions"]:
        return [(each.question, each.context) for each in request.questions]
    return getattr(request, given[0])


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


def serve(
    models: Mapping[str, Any],
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    shutdown_seconds: float = 30.0,
) -> None:
    """Serves until SIGTERM or SIGINT; says where it listens once it does.

    Then no more requests are taken, and those under way have until shortly before
    `shutdown_seconds` to be answered; the others are told so (503). What hinders the process from
    ending in that time, such as a run of the net, is cut off.

    Args:
      models: as for `create_app`.
      limits: likewise.
      host: address to listen at.
      port: 0 for one that is free.
      shutdown_seconds: from the signal to the end of the process, at most.

    Raises:
      ValueError: no model.
      SystemExit: nothing can listen there.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            if self.started:
                address, number = self.servers[0].sockets[0].getsockname()[:2]
                address = f"[{address}]" if ":" in address else address
                print(f"serving {', '.join(models)} at http://{address}:{number}/", flush=True)

        def handle_exit(self, sig, frame):
            if not self.should_exit:
                last = threading.Timer(shutdown_seconds, os._exit, (1,))
                last.daemon = True
                last.start()
            super().handle_exit(sig, frame)

    grace = max(shutdown_seconds - 1.0, 0.5 * shutdown_seconds)
    settings = uvicorn.Config(
        create_app(models, limits),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=grace,
    )
    Server(settings).run()
