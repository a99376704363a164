"""Endpoints that follow a script, and the wire to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from hookline.core.model import Millis
from hookline.ports import ErrorClass, Outcome, Request
from tests.simulation.virtual import EPOCH

LATENCY = 0.01
"""Seconds that an endpoint takes to answer, unless the script says otherwise."""


class Reply(Struct, frozen=True):
    """One answer, ``after`` seconds; or the ``error`` that comes instead."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = LATENCY
    error: ErrorClass | None = None
    body: bytes = b""

    def outcome(self, total_timeout: float) -> Outcome:
        if self.after > total_timeout:
            return Outcome(error=ErrorClass.TIMEOUT, detail="no answer in time")
        if self.error is not None:
            return Outcome(error=self.error, detail="as the script says")
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return Outcome(
            status=self.status,
            headers=f"HTTP/1.1 {self.status} Scripted\r\n{head}\r\n".encode(),
            body=self.body,
            total_us=int(self.after * 1e6),
            address="192.0.2.1:443",
        )


class Arrival(Struct, frozen=True):
    """A request as the endpoint got it, ``at`` seconds of virtual time."""

    at: float
    request: Request

    @property
    def millis(self) -> Millis:
        """By the wall clock."""
        return EPOCH + int(self.at * 1000)

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        pairs = (line.split(": ", 1) for line in self.request.headers)
        return {name.lower(): value for name, value in pairs}

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def sequence(self) -> int:
        return int(self.headers["hookline-sequence"])

    @property
    def attempt(self) -> int:
        return int(self.headers["hookline-attempt"])

    @property
    def body(self) -> Any:
        """Decoded."""
        return msgspec.json.decode(self.request.body or b"")

    @property
    def type(self) -> str:
        return self.body["type"]


class Endpoint:
    """A receiver. It answers first as was scripted for the event, then as scripted for all, then ``usual``."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.url = f"https://{host}/hook"
        self.usual = Reply()
        self.arrivals: list[Arrival] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._next: deque[Reply] = deque()
        self._by_event: dict[str, deque[Reply]] = {}
        self._held: asyncio.Event | None = None

    # --- the script

    def answers(self, *replies: int | Reply) -> None:
        """Give these to the next requests, whatever they are."""
        self._next.extend(map(_reply, replies))

    def always(self, reply: int | Reply) -> None:
        """Give this when nothing else is scripted."""
        self.usual = _reply(reply)

    def answers_event(self, event_id: str, *replies: int | Reply) -> None:
        """Give these to the next requests that carry this event."""
        self._by_event.setdefault(event_id, deque()).extend(map(_reply, replies))

    def hold(self) -> None:
        """Answer nothing until ``release``."""
        self._held = asyncio.Event()

    def release(self) -> None:
        """Answer what came in meanwhile."""
        assert self._held is not None
        self._held.set()
        self._held = None

    async def serve(self, request: Request) -> Outcome:
        arrival = Arrival(asyncio.get_running_loop().time(), request)
        self.arrivals.append(arrival)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        reply = self._choose(arrival)
        if self._held is not None:
            await self._held.wait()
        await asyncio.sleep(min(reply.after, request.total_timeout))
        self.in_flight -= 1
        return reply.outcome(request.total_timeout)

    def _choose(self, arrival: Arrival) -> Reply:
        own = self._by_event.get(arrival.headers.get("webhook-id", ""))
        if own:
            return own.popleft()
        return self._next.popleft() if self._next else self.usual

    # --- what it saw

    @property
    def ids(self) -> list[str]:
        """The events in the order of their arrival, each time they came."""
        return [arrival.event_id for arrival in self.arrivals]

    @property
    def sequences(self) -> list[int]:
        """In the order of arrival."""
        return [arrival.sequence for arrival in self.arrivals]

    @property
    def types(self) -> list[str]:
        """In the order of arrival."""
        return [arrival.type for arrival in self.arrivals]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one arrival and the next."""
        times = [arrival.at for arrival in self.arrivals]
        return [round(later - earlier, 3) for earlier, later in pairwise(times)]

    def arrivals_of(self, event_id: str) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.event_id == event_id]


def _reply(given: int | Reply) -> Reply:
    return Reply(given) if isinstance(given, int) else given


class Wire:
    """Fills ``Sender`` for one process: what it sent outlives it, but no answer reaches the dead."""

    def __init__(self, endpoints: dict[str, Endpoint], alive: Callable[[], bool]) -> None:
        self._endpoints = endpoints
        self._alive = alive
        self._exchanges: set[asyncio.Task[None]] = set()

    def start(self, request: Request, done: Callable[[Outcome], None]) -> None:
        if self._alive():
            task = asyncio.get_running_loop().create_task(self._exchange(request, done))
            self._exchanges.add(task)
            task.add_done_callback(self._exchanges.discard)

    async def _exchange(self, request: Request, done: Callable[[Outcome], None]) -> None:
        outcome = await self._endpoints[urlsplit(request.url).hostname or ""].serve(request)
        if self._alive():
            done(outcome)

    async def close(self) -> None:
        for task in self._exchanges:
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
