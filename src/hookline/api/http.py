"""HTTP over bare ASGI: headers, bodies with a limit, answers."""

from __future__ import annotations

import asyncio
import itertools
import re
from base64 import b32encode
from typing import cast

import msgspec
from starlette.types import Message, Receive, Scope, Send

from hookline.api.problems import Headers, RequestTimeout, UnsupportedMediaType, encode_problem
from hookline.core.errors import HooklineError, TooLarge
from hookline.observe import log

JSON_TYPES = frozenset({b"application/json", b""})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")
_NO_CONTENT_LENGTH = frozenset({204, 304})


class Disconnected(Exception):
    """The client went away before its request had arrived; nobody waits for an answer."""


class RequestIds:
    """Ids of requests: the client's own if it is harmless, else a new one, unique over processes by its start."""

    def __init__(self, entropy: bytes) -> None:
        self._start = b"req_" + b32encode(entropy).rstrip(b"=").lower() + b"-"
        self._numbers = itertools.count(1)

    def choose(self, offered: bytes) -> bytes:
        """The id that the answer carries in ``X-Request-Id``."""
        if offered and _REQUEST_ID.fullmatch(offered):
            return offered
        return self._start + b"%d" % next(self._numbers)


def header(scope: Scope, name: bytes) -> bytes:
    """The first header of this (lower-case) name, or empty."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return b""


def media_type(value: bytes) -> bytes:
    """A Content-Type without its parameters, in lower case."""
    return value.partition(b";")[0].strip().lower()


def require_json(content_type: bytes) -> None:
    """Raises ``UnsupportedMediaType``. No Content-Type at all counts as JSON."""
    if media_type(content_type) not in JSON_TYPES:
        raise UnsupportedMediaType("send the body as Content-Type: application/json")


class Patience:
    """A time-out for many short waits at a time: one timer looks after them all, since one for each request
    would cost more than all the rest of the reading. A wait ends up to a quarter late."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[object]:
        """The current task may be waiting from now on; ``end`` must follow."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._until[task] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds / 4, self._look)
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """The wait is over; whether it was ended because it took too long."""
        return self._until.pop(task, None) is None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task in [task for task, until in self._until.items() if until <= loop.time()]:
            del self._until[task]
            task.cancel()
        self._timer = loop.call_later(self.seconds / 4, self._look) if self._until else None


async def read_body(receive: Receive, length: bytes, limit: int, patience: Patience) -> bytes:
    """The whole body. ``length`` is the Content-Length, which may already say that it is too much.

    Raises ``TooLarge``, ``RequestTimeout``, and ``Disconnected`` if the client is gone.
    """
    if length.isdigit() and int(length) > limit:
        raise TooLarge(f"the body has {int(length)} bytes; the limit is {limit}")
    task = patience.begin()
    try:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            return _within(message.get("body", b""), limit)
        return await _read_parts(receive, message, limit)
    except asyncio.CancelledError:
        if not patience.end(task) or task.uncancel():
            raise
        raise RequestTimeout(f"the body did not arrive within {patience.seconds:g} seconds") from None
    finally:
        patience.end(task)


async def _read_parts(receive: Receive, message: Message, limit: int) -> bytes:
    parts = bytearray()
    while True:
        if message["type"] != "http.request":
            raise Disconnected
        parts += message.get("body", b"")
        if len(parts) > limit:
            raise TooLarge(f"the body is larger than the limit of {limit} bytes")
        if not message.get("more_body", False):
            return bytes(parts)
        message = await receive()


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLarge(f"the body has {len(body)} bytes; the limit is {limit}")
    return body


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send one whole answer."""
    if status not in _NO_CONTENT_LENGTH:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_problem(send: Send, error: HooklineError, request_id: bytes) -> None:
    """Answer with an error."""
    status, headers, body = encode_problem(error, request_id.decode("ascii"))
    headers.append((b"x-request-id", request_id))
    await respond(send, status, headers, body)


async def respond_crash(send: Send, error: Exception, request_id: bytes) -> None:
    """Answer what nobody foresaw: the log has everything, the client the request id alone."""
    log.error("request_failed", request_id=request_id.decode("ascii"), exc_info=error)
    await respond_problem(send, HooklineError(), request_id)


def encode(value: object) -> bytes:
    """JSON for the wire."""
    return msgspec.json.encode(value)
