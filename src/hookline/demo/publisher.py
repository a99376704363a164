"""The shop's side: publishes the day at its pace, over a few keep-alive connections.

Events with one key always go over one connection, so the log gets them in the order they happened. Now and
then an event is sent twice, as a careful publisher does that lost an answer: the server must say
``duplicate``.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import groupby

import msgspec
from msgspec import Raw, Struct

from hookline.demo.catalogue import Json
from hookline.demo.client import Client, Reply, Unreachable
from hookline.demo.ledger import Ledger
from hookline.demo.receipts import digest_of
from hookline.demo.shop import DAY, PlannedEvent

CONNECTIONS = 8
QUEUE = 256
"""Events that may wait for one connection; the day stands still when it is full."""
DUPLICATE_SHARE = 0.02
PATIENCE = 20.0
"""Seconds for which a request is repeated that got no answer, or a 503."""


class _Ready(Struct, frozen=True):
    """An event as it goes over the wire: encoded once, so that a second sending is the same bytes."""

    event: PlannedEvent
    digest: str
    body: Raw


class Publisher:
    """Publishes one day. ``seconds`` is how long the day takes; 0 means as fast as the server takes it."""

    def __init__(self, port: int, key: str, ledger: Ledger, seconds: float) -> None:
        self._port = port
        self._key = key
        self._ledger = ledger
        self._seconds = seconds
        self._queues: list[asyncio.Queue[list[_Ready] | None]] = [
            asyncio.Queue(QUEUE) for _ in range(CONNECTIONS)
        ]

    async def run(self, day: Sequence[PlannedEvent], progress: Callable[[int], None]) -> None:
        """Publish all of it; ``progress`` hears how many events have been handed out so far."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for queue in self._queues:
                client = await stack.enter_async_context(Client(self._port, self._key))
                group.create_task(self._drain(queue, client))
            await self._feed(day, progress)

    async def _feed(self, day: Sequence[PlannedEvent], progress: Callable[[int], None]) -> None:
        begin, handed_out = time.monotonic(), 0
        for parcel in _parcels(day):
            due = begin + parcel[0].at / DAY * self._seconds if self._seconds else 0.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            lane = zlib.crc32(parcel[0].key.encode()) % CONNECTIONS
            await self._queues[lane].put([_ready(event) for event in parcel])
            handed_out += len(parcel)
            progress(handed_out)
        for queue in self._queues:
            await queue.put(None)

    async def _drain(self, queue: asyncio.Queue[list[_Ready] | None], client: Client) -> None:
        while (parcel := await queue.get()) is not None:
            if len(parcel) > 1:
                await self._publish_batch(client, parcel)
            else:
                await self._publish_one(client, parcel[0])

    async def _publish_one(self, client: Client, ready: _Ready) -> None:
        sent_at = time.time_ns() // 1000
        reply = await self._send(client, "/v1/events", ready.body)
        if not self._taken(reply, ready.event.id):
            return
        self._ledger.publish(ready.event, sent_at, ready.digest)
        if zlib.crc32(ready.event.id.encode()) / 2**32 < DUPLICATE_SHARE:
            await self._publish_again(client, ready)

    async def _publish_again(self, client: Client, ready: _Ready) -> None:
        book = self._ledger.book
        book.duplicates_sent += 1
        reply = await self._send(client, "/v1/events", ready.body)
        if self._taken(reply, ready.event.id):
            book.duplicates_refused += reply.json()["duplicate"] is True

    async def _publish_batch(self, client: Client, parcel: Sequence[_Ready]) -> None:
        sent_at = time.time_ns() // 1000
        body = Raw(msgspec.json.encode([ready.body for ready in parcel]))
        reply = await self._send(client, "/v1/events/batch", body)
        if not self._taken(reply, f"batch of {len(parcel)}"):
            return
        self._ledger.book.batches += 1
        for ready, result in zip(parcel, reply.json()["data"], strict=True):
            if result["status"] == 202:
                self._ledger.publish(ready.event, sent_at, ready.digest)
            else:
                self._ledger.book.refused.append(f"{ready.event.id} in a batch: {result}")

    def _taken(self, reply: Reply, what: str) -> bool:
        if 200 <= reply.status < 300:
            return True
        text = reply.body[:300].decode("utf-8", "replace")
        self._ledger.book.refused.append(f"{what}: {reply.status} {text}")
        return False

    async def _send(self, client: Client, path: str, body: Raw) -> Reply:
        """Sending again is safe: the event's id makes the second time a duplicate."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                reply = await client.send("POST", path, bytes(body))
            except Unreachable as error:
                reply = Reply(503, str(error).encode())
            if reply.status != 503 or time.monotonic() > give_up:
                return reply
            self._ledger.book.repeated += 1
            await asyncio.sleep(0.2)


def _parcels(day: Iterable[PlannedEvent]) -> Iterator[list[PlannedEvent]]:
    """Single events, and the neighbours of one bulk together."""
    for bulk, events in groupby(day, key=lambda event: event.bulk):
        if bulk:
            yield list(events)
        else:
            yield from ([event] for event in events)


def _ready(event: PlannedEvent) -> _Ready:
    data = msgspec.json.encode(event.data)
    return _Ready(event, digest_of(data), Raw(msgspec.json.encode(_body(event, Raw(data)))))


def _body(event: PlannedEvent, data: Raw) -> Json:
    """The event as the native API takes it (``POST /v1/events``)."""
    return {
        "id": event.id,
        "type": event.type,
        "data": data,
        "object": {"type": event.object_type, "id": event.object_id},
        "source": {"application": event.application, "user_id": event.user},
        "key": event.key,
        "correlation_id": event.correlation_id,
        "occurred_at": event.occurred_at,
    }
