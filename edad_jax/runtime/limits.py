# SPDX-License-Identifier: Apache-2.0
"""What a server lets in: how many requests at once, how large, and how slowly they may come."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from prometheus_client import Counter, Gauge


@dataclass(frozen=True)
class Limits:
    """What one server takes."""

    body_bytes: int = 1_000_000
    body_seconds: float = 10.0  # that a body may take to come
    text_characters: int = 100_000
    texts: int = 64  # of one request
    pieces: int = 50_000  # of one request, all its texts together
    waiting: int = 64  # requests at once; the next one is answered 429
    gather_seconds: float = 0.002  # how long a request waits for others


class AdmissionControl:
    """ASGI middleware, the outermost: what comes in, what is dropped, and what was answered.

    It lets in as many requests as are read at once, with bodies small and quick. A request counts
    from before its body is read until its answer begins, so that no more bodies wait in memory than
    the server admits; one too many costs nothing but its answer. A request whose client hangs up
    is cancelled, and counts as status 499, as nginx has it. HEAD is GET without a body.

    Args:
      app: the application.
      limits: what it takes.
      waiting: how many requests are under way.
      answered: requests by status.
    """

    def __init__(self, app: Any, limits: Limits, waiting: Gauge, answered: Counter):
        self.app, self.limits, self.waiting, self.answered = app, limits, waiting, answered
        self.under_way = 0

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        statuses: list[int] = []

        async def answer(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif is_head and message["type"] == "http.response.body":
                message = message | {"body": b""}
            await send(message)

        try:
            if scope["method"] == "POST":  # no other body is ever read
                await self._admit(scope, receive, answer)
            else:
                await self.app(scope | {"method": "GET"} if is_head else scope, receive, answer)
        except Exception:
            statuses[:] = [500]
            raise
        except asyncio.CancelledError:
            # The server ends and can wait no longer.
            if statuses:
                raise
            detail = "the server is ending; send it again, there or elsewhere"
            await refusal(503, detail, {"Connection": "close"})(scope, receive, answer)
        finally:
            self.answered.labels(str(statuses[0] if statuses else 499)).inc()

    async def _admit(self, scope, receive, send):
        if self.under_way >= self.limits.waiting:
            detail = f"{self.under_way} requests are under way; try again"
            await refusal(429, detail, {"Retry-After": "1"})(scope, receive, send)
            return
        with contextlib.ExitStack() as place:
            self._count(1)
            place.callback(self._count, -1)

            async def answer(message):
                place.close()  # how long a client takes to read its answer is its own affair
                await send(message)

            refused, held = await self._hold_body(scope, receive)
            if refused:
                await refused(scope, receive, answer)
            else:
                await self._work(scope, held, receive, answer)

    async def _work(self, scope, held, receive, send):
        """Runs the application on a request whose body is held, until its client hangs up."""
        is_begun, gone, held = False, asyncio.Event(), iter(held)

        async def replay():
            message = next(held, None)
            if message is None:
                await gone.wait()
                message = {"type": "http.disconnect"}
            return message

        async def answer(message):
            nonlocal is_begun
            is_begun = True
            await send(message)

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work = asyncio.ensure_future(self.app(scope, replay, answer))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait((work, watching), return_when=asyncio.FIRST_COMPLETED)
            if work.done() or is_begun:
                await work
        finally:
            for task in (work, watching):
                task.cancel()
            await asyncio.gather(work, watching, return_exceptions=True)

    def _count(self, more):
        self.under_way += more
        self.waiting.set(self.under_way)

    async def _hold_body(self, scope, receive):
        """Returns (what refuses the body or None, the messages of the body).

        A small body is held whole, so that it is refused before any work.
        """
        limits = self.limits
        too_large = refusal(
            413, f"got a body of more than {limits.body_bytes:,} bytes; send less at once"
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limits.body_bytes:
            return too_large, []
        messages, size, more = [], 0, True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    messages.append(message)
                    size += len(message.get("body", b""))
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    if size > limits.body_bytes:
                        return too_large, []
        except TimeoutError:
            detail = (
                f"got {size:,} bytes of a body in {limits.body_seconds:g} seconds, expected all "
                "of it; send less at once"
            )
            return refusal(408, detail, {"Connection": "close"}), []
        return None, messages


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns the answer to a request that is not let in."""
    return JSONResponse({"detail": detail}, status, headers)
