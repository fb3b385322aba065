"""What every HTTP request meets first, in the process that listens: an ASGI middleware without Ray.

It reads the body, within a size and a time, before anything behind it hears of the request: a slow client
holds nothing but its own connection, and the whole request then travels in one message. It counts what is
under way, turns new requests away when there are too many or the server stops, asks once more when a replica
was lost, and gives whatever the proxy says by itself the form of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from tome_export.serving.http import BODY, error_response, too_large
from tome_export.serving.options import Limits
from tome_export.serving.refusal import FAILED, Refusal, malformed

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_PATH, METRICS_PATH = "/-/drain", "/metrics"
DRAIN_HEADER, CLOSE = b"x-tome-drain", b"close"
_HEALTH_SECONDS = 2.0
_DISCARD_SECONDS = 2.0
LOST = "the replica that had this request was lost; try again"


class _Gone(Exception):
    """The client closed the connection."""


class Gate:
    """Who is inside, over HTTP and gRPC together. `closers`: what stops HTTP's listening, to be called last;
    over gRPC a connection that breaks is UNAVAILABLE anyway."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.inside = 0
        self.draining = False
        self.closers: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def pass_through(self):
        """For the time of a request. Raises Refusal: 503."""
        if self.draining:
            raise Refusal(503, "the server is shutting down")
        if self.inside >= self.limits.requests:
            raise Refusal(503, f"{self.limits.requests} requests are under way; try again later")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class Guard:
    """In front of the ASGI `app`. secret: of whoever may drain. metrics: the body of /metrics."""

    def __init__(
        self, app: App, gate: Gate, secret: str = "", metrics: Callable[[], Awaitable[bytes]] | None = None
    ):
        self._app, self._gate, self._metrics = app, gate, metrics
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
                return
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except _Gone:
            pass
        except Refusal as refusal:
            # The rest of a body that was not read would be taken for the next request.
            headers = {"connection": "close"} if refusal.status in (408, 413, 503) else {}
            if refusal.status == 503:
                headers["retry-after"] = "1"
            await error_response(refusal, headers)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, draining = scope["path"], self._gate.draining
        if path == DRAIN_PATH and self._secret and (DRAIN_HEADER, self._secret) in scope["headers"]:
            self._gate.draining = True
            if scope["query_string"] == CLOSE:
                for close in self._gate.closers:
                    close()
            await Response(str(self._gate.inside))(scope, receive, send)
        elif path == "/v2/health/live":
            await Response()(scope, receive, send)
        elif path == METRICS_PATH and self._metrics is not None:
            body = await self._metrics()
            await Response(body, media_type="text/plain; version=0.0.4")(scope, receive, send)
        elif path.startswith("/v2/health/"):
            if draining:
                raise Refusal(503, "the server is shutting down")
            await self._ask(scope | {BODY: b""}, receive, send, _HEALTH_SECONDS)
        else:
            with self._gate.pass_through():
                body = await self._body(scope, receive)
                await self._ask(scope | {BODY: body}, receive, send, self._gate.limits.answer_seconds)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limits = self._gate.limits
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.body_bytes:
            await _discard(receive)
            raise too_large(limits.body_bytes)
        parts, size = [], 0
        deadline = time.monotonic() + limits.body_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise Refusal(
                    408, f"the body did not arrive within {limits.body_seconds:g} seconds"
                ) from None
            if message["type"] == "http.disconnect":
                raise _Gone
            size += len(message.get("body", b""))
            if size > limits.body_bytes:
                parts.clear()
                await _discard(receive)
                raise too_large(limits.body_bytes)
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _ask(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        """Have the application answer; once more if it ends without an answer, which is how Ray's proxy says
        that a replica was lost. A model has no memory, so asking twice does no harm."""
        deadline = time.monotonic() + seconds
        client = _Bodiless(receive)
        for _ in range(2):
            answer = _Answer(send, lambda: self._gate.draining)
            asking = self._app(dict(scope), client.start(), answer)
            try:
                await asyncio.wait_for(asking, deadline - time.monotonic())
            except asyncio.TimeoutError:
                if answer.started:
                    return
                raise Refusal(504, f"no answer within {seconds:g} seconds") from None
            if answer.started or client.gone:
                return
            if answer.refusal is not None:
                raise answer.refusal
        raise Refusal(503, LOST)


class _Answer:
    """Passes an application's messages on, but for the proxy's own errors, which are plain text: those become
    `refusal`."""

    def __init__(self, send: Send, closing: Callable[[], bool]):
        self._send, self._closing = send, closing
        self.started = False
        self.refusal: Refusal | None = None

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.refusal = _translated(message)
            if self.refusal is None:
                self.started = True
                if self._closing():
                    message = message | {"headers": [*message["headers"], (b"connection", b"close")]}
        if self.refusal is None:
            await self._send(message)


def _translated(start: dict[str, Any]) -> Refusal | None:
    kind = dict((bytes(name).lower(), bytes(value)) for name, value in start["headers"])
    if start["status"] < 400 or not kind.get(b"content-type", b"").startswith(b"text/plain"):
        return None
    known = {
        404: Refusal(404, "no such path"),
        408: Refusal(504, "no answer in time"),
        500: Refusal(500, FAILED),
        503: Refusal(503, "no replica can take this request; try again later"),
    }
    return known.get(start["status"], malformed("the request was refused"))


class _Bodiless:
    """A client whose body was read before: its end, and then what the client does, which is to wait or to
    go."""

    def __init__(self, receive: Receive):
        self._receive = receive
        self.gone = False

    def start(self) -> Receive:
        """For one asking."""
        told = False

        async def receive() -> dict[str, Any]:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive()
            self.gone = self.gone or message["type"] == "http.disconnect"
            return message

        return receive


async def _discard(receive: Receive) -> None:
    """Read on without keeping anything, for a while: a client that is still sending when the connection
    closes would not see why."""

    async def read() -> None:
        while (await receive()).get("more_body", False):
            pass

    with contextlib.suppress(asyncio.TimeoutError):  # asyncio.timeout is not in Python 3.10
        await asyncio.wait_for(read(), _DISCARD_SECONDS)
