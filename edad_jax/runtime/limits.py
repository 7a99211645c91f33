# SPDX-License-Identifier: Apache-2.0
"""What a server lets in: how many requests at once, how large, and how slowly they may come."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from prometheus_client import Gauge


@dataclass(frozen=True)
class Limits:
    """What one server takes."""

    body_bytes: int = 1_000_000
    body_seconds: float = 10.0  # that a body may take to come
    text_characters: int = 100_000
    texts: int = 64  # of one request
    waiting: int = 64  # requests at once; the next one is answered 429
    batch_texts: int = 64  # that are read together
    gather_seconds: float = 0.002  # how long a request waits for others


class AdmissionControl:
    """ASGI middleware: lets in as many requests as are read at once, with bodies small and quick.

    A request counts from before its body is read until its answer begins, so that no more bodies
    wait in memory than the server admits.
    """

    def __init__(self, app: Any, limits: Limits, waiting: Gauge):
        self.app, self.limits, self.waiting = app, limits, waiting
        self.under_way = 0

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http" or scope["method"] != "POST":  # no other body is ever read
            await self.app(scope, receive, send)
            return
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

            refused, replay = await self._hold_body(scope, receive)
            await (refused or self.app)(scope, replay, answer)

    def _count(self, more):
        self.under_way += more
        self.waiting.set(self.under_way)

    async def _hold_body(self, scope, receive):
        """Returns (what refuses the body or None, a `receive` that gives it once more).

        A small body is held whole, so that it is refused before any work.
        """
        limits = self.limits
        too_large = refusal(
            413, f"got a body of more than {limits.body_bytes:,} bytes; send less at once"
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limits.body_bytes:
            return too_large, receive
        messages, size, more = [], 0, True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    messages.append(message)
                    size += len(message.get("body", b""))
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    if size > limits.body_bytes:
                        return too_large, receive
        except TimeoutError:
            detail = (
                f"got {size:,} bytes of a body in {limits.body_seconds:g} seconds, expected all "
                "of it; send less at once"
            )
            return refusal(408, detail, {"Connection": "close"}), receive
        held = iter(messages)

        async def replay():
            message = next(held, None)
            return message if message is not None else await receive()

        return None, replay


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns the answer to a request that is not let in."""
    return JSONResponse({"detail": detail}, status, headers)
