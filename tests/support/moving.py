"""An installation with something of everything, and all that a storage says of one: for the tests of moves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hookline.core.model import (
    Definition,
    DeliveryState,
    EventType,
    NewEvent,
    Order,
    Retention,
    SchemaMode,
    Subscription,
    SubscriptionState,
    Tenant,
)
from hookline.core.sharding import shard_of, slice_of
from hookline.core.vault import AesGcmVault
from hookline.ports import DeliveryQuery, EventQuery, LanePosition, Record, Storage
from hookline.storage.common import effective_cursor
from hookline.storage.move import Moved, Wish, move
from hookline.storage.move.target import Filling
from hookline.storage.postgres import PostgresStorage
from hookline.storage.sqlite import SqliteStorage
from tests.contract.make import DAY, NOW, api_key, attempt, lane, replay, settled, unsettled

VAULT = AesGcmVault([bytes(32)], os.urandom)
HOUR = 3_600_000
EVENTS = 60
TENANTS = ("acme", "béton", "ciel", "drops")
WORDS = "Grüße, 世界 🛒 \u202e"
LARGE = 3 << 20
"""Bytes of the largest event: several times what asyncpg sends at once."""
QUIET = 0.0
"""For ``Wish.seconds`` where no node was ever there."""


def now() -> int:
    return time.time_ns() // 1_000_000


async def move_now(source: str | Path, target: str, **wish: Any) -> Moved:
    """Move a file or a database."""
    address = f"sqlite:///{source}" if isinstance(source, Path) else source
    return await move(Wish(address, target, seconds=QUIET, **wish), VAULT, now)


def copy_of(path: Path, folder: Path) -> Path:
    """The file and what belongs to it, in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in path.parent.glob(f"{path.name}*"):
        shutil.copy(each, folder / each.name)
    return folder / path.name


@asynccontextmanager
async def opened(storage: Storage) -> AsyncGenerator[Storage]:
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


# --- something of everything -----------------------------------------------------------------------------


class Furnisher:
    """Fills a SQLite file as months of use would."""

    def __init__(self, storage: SqliteStorage) -> None:
        self.storage = storage
        self.tenants: list[Tenant] = []
        self.subscriptions: list[Subscription] = []
        self.epoch = 0

    async def fill(self) -> None:
        await self._configure()
        await self._publish()
        await self._deliver()
        await self._change()
        await self._forget()

    async def _configure(self) -> None:
        storage = self.storage
        await storage.add_key(api_key("operator"))
        for name in TENANTS:
            self.tenants.append(
                await storage.create_tenant(name, f"{name} {WORDS}", "standard", api_key(name), NOW)
            )
        first, second = self.tenants[:2]
        await storage.update_tenant(
            first.no, "Acme", "avvyr", SchemaMode.STRICT, Retention(9, 8, 7), webhooks=False
        )
        await storage.add_key(api_key("second", first.no))
        await storage.revoke_key(first.no, "key_second", NOW + 1)
        session = replace(api_key("session", second.no), expires_at=NOW + HOUR, session_of="key_béton")
        await storage.add_session(session, 3, NOW)
        for number in range(3):
            schema = b'{"type": "object"}' if number else None
            one = EventType(
                first.no, f"order:{number}", WORDS, number + 1, NOW, NOW + number, "g", "u", schema, schema
            )
            await storage.put_event_type(one if number else replace(one, deprecated_at=NOW))

    async def _subscribe(self, tenant: Tenant, name: str, **fields: Any) -> Subscription:
        definition = Definition(url=f"https://{name}.test/h", metadata={"note": WORDS + "\0"}, **fields)
        sealed = VAULT.seal(b'{"keys": []}', f"sub_{name}")
        made = await self.storage.create_subscription(
            f"sub_{name}", tenant.no, definition, sealed, NOW, start_after=0
        )
        self.subscriptions.append(made)
        return made

    async def _publish(self) -> None:
        """On three days, in turn for the tenants; what follows is as a worker would leave it."""
        for tenant in self.tenants:
            await self._subscribe(tenant, f"plain-{tenant.no}")
            await self._subscribe(tenant, f"keyed-{tenant.no}", order=Order.KEY)
        for number in range(EVENTS):
            await self.storage.append([self._event(number)], NOW + number * HOUR)

    def _event(self, number: int) -> NewEvent:
        tenant = self.tenants[number % len(TENANTS)]
        data = {"n": number, "text": WORDS, "zero": "\0"}
        encoded = msgspec.json.encode(data) + b" " * (LARGE if number == 7 else 0)
        return NewEvent(
            tenant.no,
            f"evt_{number}",
            f"order:{number % 3}",
            encoded,
            occurred_at=NOW - number if number % 2 else None,
            object_type="order" if number % 3 else None,
            object_id=f"№{number % 5}" if number % 3 else None,
            source_application="shop" if number % 4 else None,
            source_user=f"u\0{number}" if number == 9 else None,
            key=f"k{number % 2}" if number % 5 else None,
            correlation_id=f"c{number % 7}" if number % 2 else None,
        )

    async def _deliver(self) -> None:
        lease = await self.storage.lease(0, "worker", NOW, 10)
        assert lease is not None
        self.epoch = lease.epoch
        for number in range(EVENTS):
            await self._record(number + 1, self.tenants[number % len(TENANTS)], NOW + number * HOUR)
        await self.storage.record(Record(0, self.epoch, NOW + 3 * DAY, EVENTS - 5, lanes=self._lanes()))
        again = attempt(self.subscriptions[0].no, 1, started_at=NOW + 40)  # its body is left behind
        await self.storage.record(Record(0, self.epoch, NOW + 3 * DAY, EVENTS - 5, attempts=[again]))
        await self.storage.release(lease)

    def _lanes(self) -> list[Any]:
        """Live ones that lean on the watermark, one above it, one that stands back, and some that never were."""
        numbers = [each.no for each in self.subscriptions]
        return [
            lane(numbers[0], 3, sequence=15, live=True),
            lane(numbers[1], EVENTS, sequence=15, live=True, ahead=True),
            lane(numbers[2], 20, sequence=5, failing_since=NOW, warned_at=NOW + 5),
            lane(numbers[3], 0, sequence=15, live=True),
            lane(numbers[5], 40, sequence=10, ahead=True),
        ]

    async def _record(self, position: int, tenant: Tenant, time: int) -> None:
        plain, keyed = (each.no for each in self.subscriptions if each.tenant_no == tenant.no)
        sequence = (position - 1) // len(TENANTS) + 1
        state = (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED)[position % 3]
        done = settled(
            plain, position, state, sequence=sequence, settled_at=time + DAY * (position % 2), error="x\0y"
        )
        attempts = [
            attempt(
                plain, position, number, started_at=time + number, detail=WORDS + "\0", response_headers=b"a: \xff\0",
                response_body=b"\0body" * 1000 if (position + number) % 3 else b"", response_truncated=number == 2,
            )
            for number in (1, 2)
        ]  # fmt: skip
        waits = [
            unsettled(keyed, position, time + DAY, sequence=sequence, key=f"k{position % 2}", error="t\0")
        ]
        batch = Record(
            0,
            self.epoch,
            time,
            position - 1,
            attempts=attempts,
            settled=[done],
            unsettled=waits[: position % 2],
        )
        await self.storage.record(batch)

    async def _change(self) -> None:
        """What people do."""
        storage, (first, second, third, fourth, *_) = self.storage, self.subscriptions
        changed = await storage.update_subscription(
            first.no, 1, Definition(url="https://new.test/"), first.sealed, NOW + 3 * DAY
        )
        await storage.update_subscription(
            first.no, changed.version, changed.definition, first.sealed, NOW + 3 * DAY
        )
        await storage.set_subscription_state(
            second.no, SubscriptionState.PAUSED, f"why\0{WORDS}", NOW, skip=True
        )
        await storage.set_subscription_state(third.no, SubscriptionState.DISABLED, "", NOW)
        await storage.set_subscription_state(fourth.no, SubscriptionState.DELETED, "", NOW)
        await storage.drop_unsettled(fourth.no, NOW + 3 * DAY, DeliveryState.EXPIRED)
        await storage.resend(first.no, [1, 5], NOW + 3 * DAY)
        for number, one in enumerate((first, first, third)):
            await storage.create_replay(replay(one.no, f"rpl_{number}", 0, EVENTS, rate=0.1 * number))
        await storage.step_replay("rpl_0", 2, NOW, 0.5, NOW)
        await storage.step_replay("rpl_2", 100, NOW, 0.5, NOW)
        await storage.cancel_replay("rpl_1", NOW)

    async def _forget(self) -> None:
        """What retention leaves: holes in the log, and records of events that are gone."""
        _, second, third, _ = self.tenants
        await self.storage.remove_events(second.no, NOW + 20 * HOUR, EVENTS, 3)
        await self.storage.remove_events(third.no, NOW + 9 * DAY, EVENTS, EVENTS)
        await self.storage.remove_attempts(second.no, NOW + 9 * HOUR, 2)
        await self.storage.remove_bodies(second.no, NOW + DAY, 2)


async def furnish(path: Path) -> Path:
    """Make the file."""
    async with opened(storage := SqliteStorage(path)):
        await Furnisher(storage).fill()
    return path


# --- all that a storage says -----------------------------------------------------------------------------


async def told(storage: Storage) -> dict[str, Any]:
    """Every answer about every tenant, to be compared: without shards, and NUL as it is after a move."""
    tenants = await storage.list_tenants("", 100)
    answers: dict[str, Any] = {
        "tenants": tenants,
        "version": await storage.version(),
        "keys": await storage.list_keys(None),
    }
    for tenant in tenants:
        answers[tenant.id] = await _of_tenant(storage, tenant)
    text = msgspec.json.encode(answers).decode().replace("\\u0000", "\ufffd")
    return msgspec.json.decode(text)


async def _of_tenant(storage: Storage, tenant: Tenant) -> dict[str, Any]:
    events = await storage.list_events(EventQuery(tenant.no, limit=1000))
    assert [event.position for event in events] == sorted((event.position for event in events), reverse=True)
    numbers = [no for no in range(1, 13) if await _owner(storage, no) == tenant.no]
    return {
        "keys": await storage.list_keys(tenant.no),
        "sessions": [await storage.find_key(api_key(name).digest) for name in ("session", tenant.id)],
        "types": await storage.list_event_types(tenant.no, "", 100),
        "events": [replace(event, shard=0) for event in events],
        "found": [await _whole(storage, tenant, event.id, event.position) for event in events],
        "by label": [
            [event.id for event in await storage.list_events(query)]
            for query in (
                EventQuery(tenant.no, type="order:1"),
                EventQuery(tenant.no, object_type="order"),
                EventQuery(tenant.no, object_id="№1"),
                EventQuery(tenant.no, correlation_id="c1"),
                EventQuery(tenant.no, since=NOW + 10 * HOUR, until=NOW + 30 * HOUR),
            )
        ],
        "head": await storage.head(shard_of(tenant.no, storage.shards)),
        "needed": await storage.oldest_needed(tenant.no),
        "usage": await storage.usage(tenant.no, "2000-01-01", "2100-01-01"),
        "subscriptions": [await _of_subscription(storage, no) for no in numbers],
        "listed": [each.id for each in await storage.list_subscriptions(tenant.no, 0, 100)],
    }  # fmt: skip


async def _owner(storage: Storage, no: int) -> int:
    try:
        return (await storage.subscription_by_no(no)).tenant_no
    except Exception:  # noqa: BLE001 - there is none with this number
        return 0


async def _whole(storage: Storage, tenant: Tenant, event_id: str, position: int) -> list[Any]:
    found = await storage.find_event(tenant.no, event_id)
    assert found is not None
    return [replace(found, shard=0), await storage.event_deliveries(tenant.no, position)]


async def _of_subscription(storage: Storage, no: int) -> dict[str, Any]:
    deliveries = await storage.list_deliveries(DeliveryQuery(no, limit=1000))
    return {
        "subscription": replace(await storage.subscription_by_no(no), shard=0),
        "versions": await storage.definition_versions(no),
        "deliveries": deliveries,
        "failed": await storage.list_deliveries(
            DeliveryQuery(no, limit=1000, states=(DeliveryState.FAILED,))
        ),
        "attempts": [await storage.list_attempts(no, position) for position in range(1, EVENTS + 1)],
        "attempt": await storage.get_attempt(no, deliveries[0].position, 1) if deliveries else None,
        "lane": await storage.lane_state(no),
        "due": await storage.due(no, NOW + 99 * DAY, 1000),
        "waiting": await storage.waiting(no),
        "replays": await storage.list_replays(no, 100),
        "countable": await storage.count_settled(no, 0, EVENTS, ()),
    }


# --- what a new owner starts from -------------------------------------------------------------------------


async def started(storage: Storage, numbers: Sequence[int]) -> dict[str, Any]:
    """Lanes, replays and what was resent, as workers find them that take over all slices."""
    lanes: dict[str, Any] = {}
    replays: list[Any] = []
    requeued: set[int] = set()
    for shard in range(storage.shards):
        for number in range(storage.slices):
            lease = await storage.lease(shard, "heir", now(), 60, number)
            assert lease is not None
            state = await storage.load_shard(shard, lease.epoch, number)
            for subscription in state.changes.subscriptions:
                assert shard_of(subscription.tenant_no, storage.shards) == shard
                assert slice_of(subscription.no, storage.slices) == number
            lanes |= {
                str(each.state.subscription_no): _settled_up_to(each, state.watermark) for each in state.lanes
            }
            replays += state.replays
            requeued |= set(state.changes.requeued)
            await storage.release(lease)
    assert requeued <= set(numbers)
    plain = {
        "lanes": lanes,
        "replays": sorted(replays, key=lambda each: each.id),
        "requeued": sorted(requeued),
    }
    return msgspec.json.decode(msgspec.json.encode(plain))


def _settled_up_to(place: LanePosition, watermark: int) -> dict[str, Any]:
    state = replace(place.state, cursor=effective_cursor(place.state, watermark))
    return {
        "state": state,
        "recorded": sorted(place.recorded),
        "waiting": place.waiting,
        "next_due": place.next_due,
        "blocked": list(place.blocked_keys),
    }


async def open_postgres(url: str, **options: Any) -> PostgresStorage:
    storage = PostgresStorage(url, connections=3, query_connections=2, **options)
    await storage.open()
    return storage


# --- a process that dies -----------------------------------------------------------------------------------


async def _move_and_die(source: str, target: str, when: str) -> None:
    """Kill -9 for this process at a point of the move: once that share of the rows is done, when all but the commit is
    done (``finish``), or right behind the commit (``committed``)."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(done: int, total: int) -> None:
        if when.startswith("0.") and done >= total * float(when):
            die()

    finish = Filling.finish

    async def finish_and_die(self: Filling, now: int) -> None:
        await finish(self, now)
        if when == "finish":
            die()

    Filling.finish = finish_and_die
    await move(Wish(source, target, seconds=QUIET), VAULT, now, watch)
    die()


if __name__ == "__main__":
    asyncio.run(_move_and_die(*sys.argv[1:]))
