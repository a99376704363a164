"""What lies between the processes: storage that fails, is slow or loses its answer, and endpoints of all characters."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from random import Random
from typing import Any, Protocol

from msgspec import Struct

from hookline.core.errors import StorageUnavailable
from hookline.ports import ErrorClass, Outcome, Request
from hookline.storage.memory import MemoryStorage
from tests.simulation.plan import Weather
from tests.simulation.traffic import Flight, Traffic
from tests.simulation.virtual import EPOCH, Process
from tests.simulation.witness import Witness

# --- storage -----------------------------------------------------------------------------------------

CRASH_POINTS = frozenset({"append", "record"})


class Link:
    """One process's connection to the storage: fills ``Storage``, with the faults of the weather."""

    def __init__(
        self,
        process: Process,
        storage: MemoryStorage,
        witness: Witness,
        weather: Weather,
        random: Random,
        crash: Callable[[Process], None],
    ) -> None:
        self._process = process
        self._storage = storage
        self._witness = witness
        self._weather = weather
        self._random = random
        self._crash = crash
        self.shards = storage.shards
        self.slices = storage.slices

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._storage, name)

        async def call(*args: Any, **named: Any) -> Any:
            return await self._call(name, method, args, named)

        setattr(self, name, call)
        return call

    async def _call(self, name: str, method: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        await self._way_there(name)
        result = await method(*args, **named)
        self._witness.committed(self._process, name, (*args, *named.values()), result)
        await self._way_back(name)
        return result

    async def _way_there(self, name: str) -> None:
        weather, random = self._weather, self._random
        if weather.storage_down:
            await asyncio.sleep(random.uniform(0, 2))
            raise StorageUnavailable("the storage is down")
        await self._delay()
        if random.random() < weather.refused:
            raise StorageUnavailable("the request was lost")
        await self._maybe_crash(name)

    async def _way_back(self, name: str) -> None:
        weather, random = self._weather, self._random
        await self._maybe_crash(name)
        await self._delay()
        if random.random() < weather.unanswered:
            raise StorageUnavailable("the answer was lost")

    async def _delay(self) -> None:
        if self._weather.latency and self._random.random() < 0.5:
            await asyncio.sleep(self._random.random() ** 3 * self._weather.latency)
        if not self._process.alive:
            await asyncio.get_running_loop().create_future()

    async def _maybe_crash(self, name: str) -> None:
        if name in CRASH_POINTS and self._random.random() < self._weather.crash:
            self._crash(self._process)
            await asyncio.get_running_loop().create_future()


# --- endpoints ---------------------------------------------------------------------------------------


class Reply(Struct, frozen=True):
    """How an endpoint treats one request. ``status`` of 0: it breaks off without an answer; ``processed``
    then says whether it had taken the request in."""

    delay: float
    status: int = 200
    headers: bytes = b""
    error: ErrorClass | None = None
    processed: bool = True


class Mood(Protocol):
    """How an endpoint answers for a while."""

    def __call__(self, random: Random, now: float) -> Reply: ...


def healthy(random: Random, now: float) -> Reply:
    return Reply(random.uniform(0.005, 0.1))


def slow(random: Random, now: float) -> Reply:
    return Reply(random.uniform(1, 30))


def flaky(random: Random, now: float) -> Reply:
    return Reply(random.uniform(0.005, 0.3), random.choice((200, 200, 500, 302, 400)))


def failing(random: Random, now: float) -> Reply:
    return Reply(0.02, random.choice((500, 503, 404)))


def dead(random: Random, now: float) -> Reply:
    error = random.choice((ErrorClass.CONNECT, ErrorClass.DNS, ErrorClass.CONNECT_TIMEOUT))
    return Reply(random.choice((0.001, 5.0)), 0, error=error, processed=False)


def throttling(random: Random, now: float) -> Reply:
    """429 or 503, with every kind of ``Retry-After`` that receivers send, and some that nobody should."""
    date = formatdate(EPOCH / 1000 + now + random.uniform(1, 90), usegmt=True)
    wish = random.choice(("1", "20", date, "999999999", "soon", "-5", "", "0"))
    headers = (
        f"HTTP/1.1 429 Slow Down\r\nRetry-After: {wish}\r\n\r\n" if wish else "HTTP/1.1 429 Slow Down\r\n\r\n"
    )
    return Reply(0.01, random.choice((200, 429, 429, 503)), headers.encode())


def vanishing(random: Random, now: float) -> Reply:
    """Takes the request in, and its answer never arrives."""
    if random.random() < 0.6:
        return Reply(random.uniform(0.01, 1), 0, error=ErrorClass.RESET)
    return healthy(random, now)


def lying(random: Random, now: float) -> Reply:
    """Answers 200 for a while, then 500 to everything."""
    return Reply(0.01, 200 if now % 60 < 30 else 500)


def gone(random: Random, now: float) -> Reply:
    return Reply(0.01, random.choice((200, 200, 200, 410)))


MOODS: tuple[Mood, ...] = (
    healthy, healthy, healthy, slow, flaky, flaky, failing, dead, dead, throttling, vanishing, lying, gone
)  # fmt: skip


class Endpoints:
    """All receivers, by host; each has a mood."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.moods: dict[str, Mood] = {}

    def change(self) -> str:
        """Give one endpoint another mood; says what happened."""
        host = self._random.choice(list(self.moods))
        self.moods[host] = self._random.choice(MOODS)
        return f"{host} becomes {self.moods[host].__name__}"  # type: ignore[attr-defined]

    def heal(self) -> None:
        """All are well from now on."""
        for host in self.moods:
            self.moods[host] = healthy

    def reply(self, host: str, now: float) -> Reply:
        return self.moods.setdefault(host, healthy)(self._random, now)


class Wire:
    """Fills ``Sender`` for one process. What is on the wire outlives the process that sent it."""

    def __init__(
        self,
        process: Process,
        endpoints: Endpoints,
        traffic: Traffic,
        random: Random,
        outside: contextvars.Context,
    ) -> None:
        self._process = process
        self._endpoints = endpoints
        self._traffic = traffic
        self._random = random
        self._outside = outside

    def start(self, request: Request, done: Callable[[Outcome], None]) -> None:
        if not self._process.alive:
            return
        loop = asyncio.get_running_loop()
        flight = self._traffic.sending(self._process, request, loop.time())
        if flight is not None:
            way = self._random.uniform(0.0005, 0.01)
            loop.call_later(way, self._arrive, flight, done, context=self._outside)

    async def close(self) -> None:
        """Nothing to free."""

    def _arrive(self, flight: Flight, done: Callable[[Outcome], None]) -> None:
        if not self._process.alive and self._random.random() < 0.5:
            return
        loop = asyncio.get_running_loop()
        reply = self._endpoints.reply(flight.request.url.split("/")[2], loop.time())
        if reply.processed:
            self._traffic.arrived(flight, reply.status or 200)
        left = flight.request.total_timeout - (loop.time() - flight.sent_at)
        outcome = Outcome(
            status=reply.status, error=reply.error, headers=reply.headers, total_us=int(reply.delay * 1e6)
        )
        if reply.delay > left:
            outcome = Outcome(error=ErrorClass.TIMEOUT, detail="no answer in time")
        loop.call_later(min(reply.delay, left), self._answer, flight, outcome, done, context=self._outside)

    def _answer(self, flight: Flight, outcome: Outcome, done: Callable[[Outcome], None]) -> None:
        asyncio.get_running_loop().call_soon(self._done, flight, outcome, done, context=self._process.context)

    def _done(self, flight: Flight, outcome: Outcome, done: Callable[[Outcome], None]) -> None:
        """Runs in the sending process, so not while it is frozen."""
        if self._process.alive:
            self._traffic.answered(flight, outcome, asyncio.get_running_loop().time())
            done(outcome)
