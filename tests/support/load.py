"""Publishers that do not give up: what they were promised is what a test may ask for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.http import Answer, Connection
from tests.support.server import Api, ServerProcess
from tests.support.waiting import until

TYPES = ("order:created", "stock:adjusted", "order:paid")
KEYS = 7
PAUSE_AFTER_FAILURE = 0.05


@dataclass(frozen=True)
class Sent:
    """An event as it was published."""

    id: str
    type: str
    key: str
    body: bytes


def make_event(publisher: int, number: int) -> Sent:
    """The ``number``-th event of a publisher: always the same one."""
    event = f"p{publisher}-{number}"
    kind, key = TYPES[number % len(TYPES)], f"key-{(publisher + number) % KEYS}"
    data = {"publisher": publisher, "number": number, "price": "12.50", "text": "Müller & Söhne " * 10}
    fields = {"id": event, "type": kind, "key": key, "data": data}
    return Sent(event, kind, key, json.dumps(fields).encode())


@dataclass
class Load:
    """What the publishers did: every event in here was answered with 202."""

    accepted: dict[str, Sent] = field(default_factory=dict[str, Sent])
    at: dict[str, int] = field(default_factory=dict[str, int])
    """When the (last) request was sent, in monotonic nanoseconds."""
    retried: int = 0
    """Requests that got no answer, or 503."""
    already_stored: int = 0
    """Events whose first answer was lost: they were told ``duplicate: true`` when they tried again."""

    async def more(self, count: int) -> None:
        """Return once so many more events were accepted."""
        target = len(self.accepted) + count
        await until(
            lambda: len(self.accepted) >= target, lambda: f"{count} more accepted ({len(self.accepted)})"
        )


class Publisher:
    """One client on a keep-alive connection, which it opens again whenever it breaks."""

    def __init__(self, number: int, server: ServerProcess, api: Api, load: Load, pace: float) -> None:
        self._number = number
        self._server = server
        self._headers = api.headers
        self._load = load
        self._pace = pace
        self._connection: Connection | None = None

    async def run(self, stopped: Callable[[], bool]) -> None:
        """Publish one event after the other; each until it is accepted."""
        number = 0
        try:
            while not stopped():
                await self.insist(make_event(self._number, number))
                number += 1
                await asyncio.sleep(self._pace)
        finally:
            await self._hang_up()

    async def insist(self, event: Sent) -> None:
        """Publish until the answer is 202."""
        load = self._load
        while True:
            load.at[event.id] = time.monotonic_ns()
            answer = await self._try(event)
            if answer is not None and answer.status == 202:
                assert answer.json["id"] == event.id
                load.already_stored += answer.json["duplicate"]
                load.accepted[event.id] = event
                return
            assert answer is None or answer.status == 503, answer
            load.retried += 1
            await asyncio.sleep(PAUSE_AFTER_FAILURE)

    async def _try(self, event: Sent) -> Answer | None:
        try:
            if self._connection is None:
                self._connection = await Connection.open(self._server.port)
            return await self._connection.request("POST", "/v1/events", event.body, self._headers)
        except OSError:
            await self._hang_up()
            return None

    async def _hang_up(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


@asynccontextmanager
async def publishing(
    server: ServerProcess, api: Api, publishers: int, pace: float = 0.01
) -> AsyncGenerator[Load]:
    """Publishers at work, ``pace`` seconds between the events of each; at the end each finishes its last one."""
    load, stopped = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(publishers):
            publisher = Publisher(number, server, api, load, pace)
            tasks.create_task(publisher.run(stopped.is_set), name=f"publisher-{number}")
        try:
            yield load
        finally:
            stopped.set()
