"""The embedded store: one file, one writing thread, a few reading ones."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from msgspec.structs import replace

from hookline.core.errors import Overloaded, StorageUnavailable
from hookline.core.model import (
    ApiKey,
    Appended,
    Attempt,
    Definition,
    DefinitionVersion,
    DeliveryState,
    Event,
    EventType,
    LaneState,
    Millis,
    NewEvent,
    Position,
    Replay,
    Retention,
    SchemaMode,
    Subscription,
    SubscriptionState,
    Tenant,
    Unsettled,
    Usage,
)
from hookline.ports import (
    Delivery,
    DeliveryQuery,
    EventQuery,
    Lease,
    LogPage,
    Node,
    Progress,
    Record,
    ShardState,
)
from hookline.storage.sqlite import (
    config,
    deliveries,
    log,
    nodes,
    queries,
    replays,
    retention,
    subscriptions,
)
from hookline.storage.sqlite import lease as leases
from hookline.storage.sqlite import shard as shards
from hookline.storage.sqlite.connection import connect_reader, connect_writer, prepare, told
from hookline.storage.sqlite.gate import FileLock
from hookline.storage.sqlite.threads import Readers, Writer

T = TypeVar("T")


TAIL = 1000
"""Events behind the log's end that are read without a thread."""


class _Threads:
    """The parts that exist while the storage is open, and what is to be done with them."""

    def __init__(self, path: Path, *, readers: int, queue_limit: int, patience: float) -> None:
        self.write_lock = FileLock(path.with_name(path.name + ".write.lock"))
        self.delivery_lock = FileLock(path.with_name(path.name + ".delivery.lock"))
        self.writer = Writer(lambda: connect_writer(path), self.write_lock, queue_limit, patience)
        self.readers = Readers(
            "hookline-sqlite-reader", lambda: connect_reader(path), readers, queue_limit, patience
        )
        self.tail = connect_reader(path)

    async def close(self) -> None:
        try:
            await self.readers.close()
            await self.writer.close()
        finally:
            self.tail.close()
            self.delivery_lock.close()
            self.write_lock.close()


class SqliteStorage:
    """Fills ``Storage`` with one shard, 0.

    Waiting writes share a transaction (one sync for all). Up to ``queue_limit`` reads and as many writes may
    wait; then ``Overloaded`` is raised. Work that is not begun within ``patience`` seconds is given up with
    ``StorageUnavailable``. Several processes may have the file open. The lease goes to one that holds the lock on
    ``<path>.delivery.lock``: while it lives, no other process gets the lease, and once it is dead, any gets it at
    once, with the next epoch.
    """

    shards = 1
    slices = 1

    def __init__(
        self, path: Path, *, readers: int = 2, queue_limit: int = 10_000, patience: float = 30.0
    ) -> None:
        self._path = path
        self._readers = readers
        self._queue_limit = queue_limit
        self._patience = patience
        self._threads: _Threads | None = None
        self._lease: leases.Taken | None = None
        self._leasing = asyncio.Lock()
        self._tenants: dict[int, int] = {}

    # --- life ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the file and its folder if there is none, and check or migrate the schema."""
        try:
            await asyncio.to_thread(self._prepare)
            self._threads = _Threads(
                self._path, readers=self._readers, queue_limit=self._queue_limit, patience=self._patience
            )
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise told(error) from error

    def _prepare(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # secrets inside: nobody else reads it
        prepare(self._path)

    async def close(self) -> None:
        if self._threads is not None:
            threads, self._threads = self._threads, None
            self._lease = None
            await threads.close()

    async def ping(self) -> None:
        try:
            await self._write(lambda db: db.execute("UPDATE config SET pings = pings + 1"))
        except Overloaded as error:
            raise StorageUnavailable("too many writes are waiting") from error

    def _opened(self) -> _Threads:
        if self._threads is None:
            raise StorageUnavailable("the storage is not open")
        return self._threads

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._opened().writer.run(work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._opened().readers.run(work)

    # --- the log -------------------------------------------------------------------------------------

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        return await self._write(lambda db: log.append(db, events, now))

    async def read_log(
        self, shard: int, after: Position, limit: int, changes_after: int, tenant_no: int | None = None
    ) -> LogPage:
        if tenant_no is None:
            page = self._read_tail(after, limit, changes_after)
            if page is not None:
                return page
        return await self._read(lambda db: log.read_log(db, after, limit, changes_after, tenant_no))

    def _read_tail(self, after: Position, limit: int, changes_after: int) -> LogPage | None:
        """A page right behind the log's end, read without a thread; None if it is further back.

        What was just written is in memory, so reading it takes less time than waking a thread, and a thread would
        fight with the loop for the interpreter at every row.
        """
        try:
            return log.read_tail(self._opened().tail, after, min(limit, TAIL), changes_after, TAIL)
        except Exception as error:
            raise told(error) from error

    async def read_events(self, shard: int, positions: Sequence[Position]) -> list[Event]:
        return await self._read(lambda db: log.read_events(db, positions))

    async def position_at(self, shard: int, time: Millis) -> Position:
        return await self._read(lambda db: log.position_at(db, time))

    async def head(self, shard: int) -> Position:
        return await self._read(log.head)

    # --- deliveries ---------------------------------------------------------------------------------------

    async def beat(self, node: Node, now: Millis, seconds: float) -> list[Node]:
        return await self._write(lambda db: nodes.beat(db, node, now, seconds))

    async def nodes(self, now: Millis, seconds: float) -> list[Node]:
        return await self._read(lambda db: nodes.nodes(db, now, seconds))

    async def leave(self, node_id: str) -> None:
        await self._write(lambda db: nodes.leave(db, node_id))

    async def leases(self, now: Millis) -> list[Lease]:
        async with self._leasing:
            lock = self._opened().delivery_lock
            free = not lock.held and lock.try_acquire()
            if free:
                lock.release()
        held = await self._read(nodes.leases)
        return [replace(lease, owner="") if free else lease for lease in held]

    async def progress(self, now: Millis) -> list[Progress]:
        (lease,) = await self.leases(now)
        return [await self._read(lambda db: nodes.progress(db, lease))]

    async def lease(
        self, shard: int, owner: str, now: Millis, seconds: float, slice: int = 0
    ) -> Lease | None:
        async with self._leasing:
            lock = self._opened().delivery_lock
            free = not lock.held
            if not lock.try_acquire():
                return None
            try:
                lease = await self._write(lambda db: leases.take(db, shard, owner, now, seconds, self._lease))
            except BaseException:
                if free:
                    lock.release()
                raise
            if lease is not None:
                self._lease = (lease.owner, lease.epoch)
            return lease

    async def renew(self, held: Sequence[Lease], now: Millis, seconds: float) -> list[Lease]:
        return []  # there is one at most

    async def release(self, lease: Lease) -> None:
        async with self._leasing:
            if await self._write(lambda db: leases.release(db, lease)):
                self._lease = None
                self._opened().delivery_lock.release()

    async def load_shard(self, shard: int, epoch: int, slice: int = 0) -> ShardState:
        return await self._read(lambda db: shards.load(db, shard, epoch))

    async def record(self, batch: Record) -> None:
        await self._write(lambda db: deliveries.record(db, batch, self._tenants))

    async def due(self, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
        return await self._read(lambda db: deliveries.due(db, subscription_no, now, limit))

    async def waiting(self, subscription_no: int) -> tuple[int, Millis]:
        return await self._read(lambda db: deliveries.waiting(db, subscription_no))

    async def resend(self, subscription_no: int, positions: Sequence[Position], now: Millis) -> int:
        return await self._write(lambda db: deliveries.resend(db, subscription_no, positions, now))

    async def drop_unsettled(self, subscription_no: int, now: Millis, state: DeliveryState) -> int:
        return await self._write(lambda db: deliveries.drop_unsettled(db, subscription_no, now, state))

    async def create_replay(self, replay: Replay) -> None:
        await self._write(lambda db: replays.create(db, replay))

    async def step_replay(
        self, replay_id: str, limit: int, due_at: Millis, interval: float, now: Millis
    ) -> Replay:
        return await self._write(lambda db: replays.step(db, replay_id, limit, due_at, interval, now))

    async def cancel_replay(self, replay_id: str, now: Millis) -> Replay:
        return await self._write(lambda db: replays.cancel(db, replay_id, now))

    async def get_replay(self, replay_id: str) -> Replay:
        return await self._read(lambda db: replays.get(db, replay_id))

    async def list_replays(self, subscription_no: int, limit: int) -> list[Replay]:
        return await self._read(lambda db: replays.newest(db, subscription_no, limit))

    async def count_settled(
        self, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
    ) -> int:
        return await self._read(
            lambda db: deliveries.count_settled(db, subscription_no, after, until, states)
        )

    # --- configuration ------------------------------------------------------------------------------------

    async def version(self) -> int:
        return await self._read(subscriptions.version)

    async def create_tenant(
        self, tenant_id: str, name: str, profile: str, key: ApiKey, now: Millis
    ) -> Tenant:
        return await self._write(lambda db: config.create_tenant(db, tenant_id, name, profile, key, now))

    async def update_tenant(
        self,
        tenant_no: int,
        name: str,
        profile: str,
        schema_mode: SchemaMode,
        retention: Retention | None,
        webhooks: bool = True,
    ) -> Tenant:
        return await self._write(
            lambda db: config.update_tenant(db, tenant_no, name, profile, schema_mode, retention, webhooks)
        )

    async def list_tenants(self, after: str, limit: int) -> list[Tenant]:
        return await self._read(lambda db: config.list_tenants(db, after, limit))

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        return await self._read(lambda db: config.find_tenant(db, tenant_id))

    async def get_tenant(self, tenant_no: int) -> Tenant:
        return await self._read(lambda db: config.get_tenant(db, tenant_no))

    async def add_key(self, key: ApiKey) -> None:
        await self._write(lambda db: config.add_key(db, key))

    async def add_session(self, session: ApiKey, most: int, now: Millis) -> None:
        await self._write(lambda db: config.add_session(db, session, most, now))

    async def list_keys(self, tenant_no: int | None) -> list[ApiKey]:
        return await self._read(lambda db: config.list_keys(db, tenant_no))

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._read(lambda db: config.find_key(db, digest))

    async def revoke_key(self, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
        return await self._write(lambda db: config.revoke_key(db, tenant_no, key_id, now))

    async def put_event_type(self, event_type: EventType) -> None:
        await self._write(lambda db: config.put_event_type(db, event_type))

    async def get_event_type(self, tenant_no: int, name: str) -> EventType | None:
        return await self._read(lambda db: config.get_event_type(db, tenant_no, name))

    async def list_event_types(self, tenant_no: int, after: str, limit: int) -> list[EventType]:
        return await self._read(lambda db: config.list_event_types(db, tenant_no, after, limit))

    async def create_subscription(
        self,
        subscription_id: str,
        tenant_no: int,
        definition: Definition,
        sealed: bytes,
        now: Millis,
        state: SubscriptionState = SubscriptionState.ACTIVE,
        start_after: Position | None = None,
    ) -> Subscription:
        return await self._write(
            lambda db: subscriptions.create(
                db, subscription_id, tenant_no, definition, sealed, now, state, start_after
            )
        )

    async def update_subscription(
        self, subscription_no: int, expected_version: int, definition: Definition, sealed: bytes, now: Millis
    ) -> Subscription:
        return await self._write(
            lambda db: subscriptions.update(db, subscription_no, expected_version, definition, sealed, now)
        )

    async def set_subscription_state(
        self, subscription_no: int, state: SubscriptionState, reason: str, now: Millis, skip: bool = False
    ) -> Subscription:
        return await self._write(
            lambda db: subscriptions.set_state(db, subscription_no, state, reason, now, skip)
        )

    async def get_subscription(self, tenant_no: int, subscription_id: str) -> Subscription:
        return await self._read(lambda db: subscriptions.by_id(db, tenant_no, subscription_id))

    async def subscription_by_no(self, subscription_no: int) -> Subscription:
        return await self._read(lambda db: subscriptions.by_no(db, subscription_no))

    async def list_subscriptions(
        self, tenant_no: int, after: int, limit: int, search: str = "", event: str = "", url: str = ""
    ) -> list[Subscription]:
        return await self._read(
            lambda db: subscriptions.search(db, tenant_no, after, limit, search, event, url)
        )

    async def definition_versions(self, subscription_no: int) -> list[DefinitionVersion]:
        return await self._read(lambda db: subscriptions.versions(db, subscription_no))

    async def reseal(self, reseal: Callable[[bytes, str], bytes]) -> int:
        return await self._write(lambda db: subscriptions.reseal(db, reseal))

    # --- questions ----------------------------------------------------------------------------------------

    async def find_event(self, tenant_no: int, event_id: str) -> Event | None:
        return await self._read(lambda db: log.find(db, tenant_no, event_id))

    async def list_events(self, query: EventQuery) -> list[Event]:
        return await self._read(lambda db: queries.list_events(db, query))

    async def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        return await self._read(lambda db: queries.list_deliveries(db, query))

    async def get_delivery(self, subscription_no: int, position: Position) -> Delivery | None:
        return await self._read(lambda db: queries.get_delivery(db, subscription_no, position))

    async def event_deliveries(self, tenant_no: int, position: Position) -> list[Delivery]:
        return await self._read(lambda db: queries.event_deliveries(db, tenant_no, position))

    async def list_attempts(self, subscription_no: int, position: Position) -> list[Attempt]:
        return await self._read(lambda db: queries.list_attempts(db, subscription_no, position))

    async def get_attempt(self, subscription_no: int, position: Position, number: int) -> Attempt | None:
        return await self._read(lambda db: queries.get_attempt(db, subscription_no, position, number))

    async def lane_state(self, subscription_no: int) -> LaneState | None:
        return await self._read(lambda db: queries.lane_state(db, subscription_no))

    async def usage(self, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
        return await self._read(lambda db: queries.usage(db, tenant_no, since_day, until_day))

    # --- retention ----------------------------------------------------------------------------------------

    async def remove_events(self, tenant_no: int, before: Millis, until: Position, limit: int) -> int:
        return await self._write(lambda db: retention.remove_events(db, tenant_no, before, until, limit))

    async def remove_attempts(self, tenant_no: int, before: Millis, limit: int) -> int:
        expired = await self._read(lambda db: retention.find_expired(db, tenant_no, before, limit))
        return await self._write(lambda db: retention.remove_expired(db, expired))

    async def remove_bodies(self, tenant_no: int, before: Millis, limit: int) -> int:
        return await self._write(lambda db: retention.remove_bodies(db, tenant_no, before, limit))

    async def drop_partitions(self, events: Millis, attempts: Millis, bodies: Millis) -> int:
        return 0

    async def oldest_needed(self, tenant_no: int) -> Position:
        return await self._read(lambda db: retention.oldest_needed(db, tenant_no))
