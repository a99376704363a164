"""The store of large installations: one PostgreSQL, any number of processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from hookline.core.errors import HooklineError, Overloaded, StorageUnavailable
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
from hookline.observe import log as logger
from hookline.ports import (
    Changes,
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
from hookline.storage.postgres import (
    config,
    deliveries,
    log,
    partitions,
    queries,
    replays,
    retention,
    schema,
    subscriptions,
)
from hookline.storage.postgres import lease as leases
from hookline.storage.postgres import shard as shards_
from hookline.storage.postgres.connection import Connection, Link, is_taken, is_unwritable
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.deliveries import Homes
from hookline.storage.postgres.pool import Pool, Work
from hookline.storage.postgres.tail import Tail

T = TypeVar("T")

KEEP_AHEAD = 3600.0
"""Seconds between looks whether there are partitions for the days to come."""
REPLICA_SECONDS = 3.0
"""How long a list waits for the replica before it goes to the primary."""
REPLICA_PAUSE = 10.0
"""Seconds for which a replica that failed is left alone; then one list tries it."""
CONTROL = 2
"""Connections for leases and health checks alone: a pool that is full must not cost a worker its shards."""
LEASE_LOCK_SECONDS = 0.2
"""How long the renewal of a lease waits for a record that is being written. One that hangs must not hold up the renewal
of the other leases until they run out."""
CONTROL_SECONDS = 5.0
"""How long their statements may take: within the life of a lease there must be time for another try."""
PARTS = 16
"""Rows in which the usage of a tenant's day is counted: one for the log, the others for those who record."""
RACES = 3
"""How often a batch is recorded anew because others stored its operational events at the same time."""


class _Open:
    """The parts that exist while the storage is open."""

    def __init__(
        self, link: Link, replica: Link | None, sizes: tuple[int, int], limit: int, patience: float
    ) -> None:
        self.hot = Pool(link, size=sizes[0], limit=limit, patience=patience, mend=self.make_day)
        self.control = Pool(
            replace(link, timeout=min(link.timeout, CONTROL_SECONDS), lock_timeout=LEASE_LOCK_SECONDS),
            size=CONTROL,
            limit=limit,
            patience=patience,
        )
        self.queries = Pool(link, size=sizes[1], limit=limit, patience=patience)
        self.replica = (
            None if replica is None else Pool(replica, size=sizes[1], limit=limit, patience=patience)
        )
        self.replica_from = 0.0
        """The time from which on a replica that failed may be tried again; 0 if it answered."""
        self.tail = Tail(lambda asked: self.hot.read(lambda db: log.ends(db, asked)))
        self.ahead = asyncio.create_task(self._keep_ahead(), name="partitions")

    async def make_day(self, *days: int) -> None:
        """Make the partitions of these days."""
        await self.queries.write(lambda db: partitions.make(db, days))

    async def make_ahead(self) -> None:
        """Make the partitions of today and the days to come."""
        today = partitions.day_of(int(time.time() * 1000))
        await self.make_day(*range(today, today + 1 + partitions.AHEAD))

    async def _keep_ahead(self) -> None:
        """What is not made ahead is made on demand: a failure costs time, nothing else."""
        while True:
            await asyncio.sleep(KEEP_AHEAD)
            try:
                await self.make_ahead()
            except (StorageUnavailable, Overloaded) as error:
                logger.warning("partitions_delayed", reason=error.detail)

    async def query(self, work: Work[T]) -> T:
        """A list for people: from the replica if there is one and it answers."""
        if self.replica is not None and self._may_ask():
            try:
                async with asyncio.timeout(REPLICA_SECONDS):
                    found = await self.replica.read(work)
            except Exception as error:  # it may lack our tables or functions, or the right to read them
                if isinstance(error, HooklineError) and not isinstance(
                    error, StorageUnavailable | Overloaded
                ):
                    raise
                self.replica_from = time.monotonic() + REPLICA_PAUSE
                reason = str(error) or type(error).__name__
                logger.warning("replica_left_alone", seconds=REPLICA_PAUSE, reason=reason)
            else:
                self.replica_from = 0.0
                return found
        return await self.queries.read(work)

    def _may_ask(self) -> bool:
        """Whether this list goes to the replica. While one tries whether it is back, the others wait for nothing."""
        now = time.monotonic()
        if now < self.replica_from:
            return False
        if self.replica_from:
            self.replica_from = now + REPLICA_PAUSE
        return True

    async def close(self) -> None:
        self.ahead.cancel()
        await asyncio.wait([self.ahead])
        await self.tail.close()
        for pool in (self.hot, self.queries, self.control, self.replica):
            if pool is not None:
                await pool.close()


class PostgresStorage:
    """Fills ``Storage`` on PostgreSQL 15 or newer.

    ``shards`` and ``slices`` cut the log of a new database (64 and 1 unless given); with one that exists they must be
    what it was made with, or None. ``connections`` are for publishing and delivering, ``query_connections`` for lists
    and looks from outside, which go to ``replica_dsn`` where that is given and answers. Up to ``queue_limit`` callers
    wait for a connection, each ``patience`` seconds; statements end after ``timeout`` seconds.

    With ``pooler``, nothing depends on a session, so that a pooler may lend connections for one transaction at a time.
    """

    def __init__(
        self,
        dsn: str,
        *,
        shards: int | None = None,
        slices: int | None = None,
        connections: int = 8,
        query_connections: int = 4,
        replica_dsn: str | None = None,
        pooler: bool = False,
        queue_limit: int = 10_000,
        patience: float = 10.0,
        timeout: float = 20.0,
        connect_timeout: float = 5.0,
    ) -> None:
        self.shards = shards or schema.SHARDS
        self.slices = slices or schema.SLICES
        self._asked = (shards, slices)
        self._link = Link(dsn, pooler, connect_timeout, timeout)
        self._replica = None if replica_dsn is None else Link(replica_dsn, pooler, connect_timeout, timeout)
        self._sizes = (connections, query_connections)
        self._queue_limit = queue_limit
        self._patience = patience
        self._part = 1 + os.getpid() % (PARTS - 1)
        self._homes = Homes()
        self._days = Days()
        self._open: _Open | None = None

    # --- life ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Bring the schema up to date as far as a node may that starts, and check how the log is cut."""
        await schema.migrate_database(
            self._link, shards=self._asked[0], slices=self._asked[1], everything=False
        )
        opened = _Open(self._link, self._replica, self._sizes, self._queue_limit, self._patience)
        self._open = opened
        try:
            cut = await opened.control.read(lambda db: schema.read_cut(db, *self._asked))
            self.shards, self.slices = cut
            if not await opened.control.read(schema.is_durable):
                logger.warning("storage_not_durable", reason="fsync or synchronous_commit is off")
            await opened.make_ahead()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            await opened.close()

    async def ping(self) -> None:
        try:
            if await self._opened().control.read(schema.is_read_only):
                raise StorageUnavailable("the database takes no writes now")
        except Overloaded as error:
            raise StorageUnavailable("too many wait for a connection") from error

    def _opened(self) -> _Open:
        if self._open is None:
            raise StorageUnavailable("the storage is not open")
        return self._open

    async def _write(self, work: Work[T]) -> T:
        return await self._opened().hot.write(work)

    async def _read(self, work: Work[T]) -> T:
        return await self._opened().hot.read(work)

    async def _look(self, work: Work[T]) -> T:
        return await self._opened().queries.read(work)

    async def _list(self, work: Work[T]) -> T:
        return await self._opened().query(work)

    # --- the log -------------------------------------------------------------------------------------

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        opened = self._opened()
        answers, stored = await log.append(opened.hot, events, now, self.shards)
        for shard, base, count in zip(stored.batch.shards, stored.bases, stored.batch.counts, strict=False):
            opened.tail.reached(shard, base + count)
        return answers

    async def read_log(
        self, shard: int, after: Position, limit: int, changes_after: int, tenant_no: int | None = None
    ) -> LogPage:
        opened = self._opened()
        tail = opened.tail
        known = tail.known(shard)
        if known.head <= after and known.changed <= changes_after:
            known = await tail.ends(shard)
            if known.head <= after and known.changed <= changes_after:
                return LogPage((), after, known.head, Changes(known.version))
        if known.changed <= changes_after:
            page, ends = await self._read(
                lambda db: log.read_page(db, self._days, shard, after, limit, tenant_no)
            )
            tail.seen(shard, ends)
            if ends.changed <= changes_after:
                return page
        return await opened.hot.snapshot(
            lambda db: log.read_with_changes(db, self._days, shard, after, limit, changes_after, tenant_no)
        )

    async def read_events(self, shard: int, positions: Sequence[Position]) -> list[Event]:
        return await self._read(lambda db: log.read_events(db, self._days, shard, positions))

    async def position_at(self, shard: int, time: Millis) -> Position:
        return await self._look(lambda db: log.position_at(db, shard, time))

    async def head(self, shard: int) -> Position:
        return await self._look(lambda db: log.head(db, shard))

    # --- deliveries ---------------------------------------------------------------------------------------

    async def beat(self, node: Node, now: Millis, seconds: float) -> list[Node]:
        return await self._opened().control.write(lambda db: leases.beat(db, node, now, seconds))

    async def nodes(self, now: Millis, seconds: float) -> list[Node]:
        return await self._opened().control.read(lambda db: leases.nodes(db, now, seconds))

    async def leave(self, node_id: str) -> None:
        await self._opened().control.write(lambda db: leases.leave(db, node_id))

    async def leases(self, now: Millis) -> list[Lease]:
        return await self._opened().control.read(lambda db: leases.leases(db, now))

    async def progress(self, now: Millis) -> list[Progress]:
        return await self._look(lambda db: leases.progress(db, now))

    async def lease(
        self, shard: int, owner: str, now: Millis, seconds: float, slice: int = 0
    ) -> Lease | None:
        return await self._opened().control.call(
            lambda db: leases.take(db, shard, slice, owner, now, seconds), repeatable=True
        )

    async def renew(self, held: Sequence[Lease], now: Millis, seconds: float) -> list[Lease]:
        return await self._opened().control.call(
            lambda db: leases.renew(db, held, now, seconds), repeatable=True
        )

    async def release(self, lease: Lease) -> None:
        await self._opened().control.call(lambda db: leases.release(db, lease), repeatable=True)

    async def load_shard(self, shard: int, epoch: int, slice: int = 0) -> ShardState:
        return await self._opened().hot.snapshot(lambda db: shards_.load(db, self._days, shard, slice, epoch))

    async def record(self, batch: Record) -> None:
        try:
            await self._record(batch)
        except Exception as error:
            if not is_unwritable(error):
                raise
            await self._record(deliveries.cleaned(batch))

    async def _record(self, batch: Record) -> None:
        hot, again = self._opened().hot, batch.number > 0
        if not batch.operational and not batch.disabled:
            await hot.call(
                lambda db: deliveries.record(db, batch, self._homes, self._days, self._part), repeatable=again
            )
            return
        for race in range(RACES):
            try:
                await hot.write(lambda db: self._record_all(db, batch), repeatable=again)
            except Exception as error:
                if race == RACES - 1 or not is_taken(error, "event_ids"):
                    raise
            else:
                return

    async def _record_all(self, db: Connection, batch: Record) -> None:
        if await deliveries.record(db, batch, self._homes, self._days, self._part):
            await log.append_within(db, batch.operational, batch.now, self.shards)
            await subscriptions.disable(db, dict(batch.disabled), batch.now)

    async def due(self, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
        return await self._read(lambda db: deliveries.due(db, subscription_no, now, limit))

    async def waiting(self, subscription_no: int) -> tuple[int, Millis]:
        return await self._read(lambda db: deliveries.waiting(db, subscription_no))

    async def resend(self, subscription_no: int, positions: Sequence[Position], now: Millis) -> int:
        return await self._write(
            lambda db: deliveries.resend(db, self._homes, self._days, subscription_no, positions, now)
        )

    async def drop_unsettled(self, subscription_no: int, now: Millis, state: DeliveryState) -> int:
        return await self._write(lambda db: deliveries.drop_unsettled(db, subscription_no, now, state))

    async def create_replay(self, replay: Replay) -> None:
        await self._write(lambda db: replays.create(db, self._homes, replay))

    async def step_replay(
        self, replay_id: str, limit: int, due_at: Millis, interval: float, now: Millis
    ) -> Replay:
        return await self._write(
            lambda db: replays.step(db, self._homes, self._days, replay_id, limit, due_at, interval, now)
        )

    async def cancel_replay(self, replay_id: str, now: Millis) -> Replay:
        return await self._write(lambda db: replays.cancel(db, self._homes, replay_id, now))

    async def get_replay(self, replay_id: str) -> Replay:
        return await self._look(lambda db: replays.get(db, replay_id))

    async def list_replays(self, subscription_no: int, limit: int) -> list[Replay]:
        return await self._look(lambda db: replays.newest(db, subscription_no, limit))

    async def count_settled(
        self, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
    ) -> int:
        return await self._look(
            lambda db: deliveries.count_settled(
                db, self._homes, self._days, subscription_no, (after, until), states
            )
        )

    # --- configuration ------------------------------------------------------------------------------------

    async def version(self) -> int:
        return await self._look(subscriptions.version)

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
        return await self._look(lambda db: config.list_tenants(db, after, limit))

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        return await self._look(lambda db: config.find_tenant(db, tenant_id))

    async def get_tenant(self, tenant_no: int) -> Tenant:
        return await self._look(lambda db: config.get_tenant(db, tenant_no))

    async def add_key(self, key: ApiKey) -> None:
        await self._write(lambda db: config.add_key(db, key))

    async def add_session(self, session: ApiKey, most: int, now: Millis) -> None:
        await self._write(lambda db: config.add_session(db, session, most, now))

    async def list_keys(self, tenant_no: int | None) -> list[ApiKey]:
        return await self._look(lambda db: config.list_keys(db, tenant_no))

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._look(lambda db: config.find_key(db, digest))

    async def revoke_key(self, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
        return await self._write(lambda db: config.revoke_key(db, tenant_no, key_id, now))

    async def put_event_type(self, event_type: EventType) -> None:
        await self._write(lambda db: config.put_event_type(db, event_type))

    async def get_event_type(self, tenant_no: int, name: str) -> EventType | None:
        return await self._look(lambda db: config.get_event_type(db, tenant_no, name))

    async def list_event_types(self, tenant_no: int, after: str, limit: int) -> list[EventType]:
        return await self._look(lambda db: config.list_event_types(db, tenant_no, after, limit))

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
        cut = (self.shards, self.slices)
        return await self._write(
            lambda db: subscriptions.create(
                db,
                cut,
                subscription_id,
                tenant_no,
                definition,
                sealed,
                now,
                state=state,
                start_after=start_after,
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
        return await self._look(lambda db: subscriptions.by_id(db, tenant_no, subscription_id))

    async def subscription_by_no(self, subscription_no: int) -> Subscription:
        return await self._look(lambda db: subscriptions.by_no(db, subscription_no))

    async def list_subscriptions(
        self, tenant_no: int, after: int, limit: int, search: str = "", event: str = "", url: str = ""
    ) -> list[Subscription]:
        return await self._look(
            lambda db: subscriptions.search(db, tenant_no, after, limit, search, event, url)
        )

    async def definition_versions(self, subscription_no: int) -> list[DefinitionVersion]:
        return await self._look(lambda db: subscriptions.versions(db, subscription_no))

    async def reseal(self, reseal: Callable[[bytes, str], bytes]) -> int:
        return await self._write(lambda db: subscriptions.reseal(db, reseal))

    # --- questions ----------------------------------------------------------------------------------------

    async def find_event(self, tenant_no: int, event_id: str) -> Event | None:
        return await self._look(lambda db: log.find(db, tenant_no, event_id, self.shards))

    async def list_events(self, query: EventQuery) -> list[Event]:
        return await self._list(lambda db: queries.list_events(db, self._days, query, self.shards))

    async def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        return await self._list(lambda db: queries.list_deliveries(db, self._homes, self._days, query))

    async def get_delivery(self, subscription_no: int, position: Position) -> Delivery | None:
        return await self._look(
            lambda db: queries.get_delivery(db, self._homes, self._days, subscription_no, position)
        )

    async def event_deliveries(self, tenant_no: int, position: Position) -> list[Delivery]:
        return await self._list(
            lambda db: queries.event_deliveries(db, self._days, tenant_no, position, self.shards)
        )

    async def list_attempts(self, subscription_no: int, position: Position) -> list[Attempt]:
        return await self._list(
            lambda db: queries.list_attempts(db, self._homes, self._days, subscription_no, position)
        )

    async def get_attempt(self, subscription_no: int, position: Position, number: int) -> Attempt | None:
        return await self._look(
            lambda db: queries.get_attempt(db, self._homes, self._days, subscription_no, position, number)
        )

    async def lane_state(self, subscription_no: int) -> LaneState | None:
        return await self._look(lambda db: queries.lane_state(db, subscription_no))

    async def usage(self, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
        return await self._list(lambda db: queries.usage(db, tenant_no, since_day, until_day))

    # --- retention ----------------------------------------------------------------------------------------

    async def remove_events(self, tenant_no: int, before: Millis, until: Position, limit: int) -> int:
        return await self._opened().queries.write(
            lambda db: retention.remove_events(db, self._days, self.shards, tenant_no, before, until, limit)
        )

    async def remove_attempts(self, tenant_no: int, before: Millis, limit: int) -> int:
        return await self._opened().queries.write(
            lambda db: retention.remove_attempts(db, tenant_no, before, limit)
        )

    async def remove_bodies(self, tenant_no: int, before: Millis, limit: int) -> int:
        return await self._opened().queries.write(
            lambda db: retention.remove_bodies(db, tenant_no, before, limit)
        )

    async def oldest_needed(self, tenant_no: int) -> Position:
        return await self._look(lambda db: retention.oldest_needed(db, tenant_no, self.shards))

    async def drop_partitions(self, events: Millis, attempts: Millis, bodies: Millis) -> int:
        """Drop whole days that are past their time for every tenant: the times are those before which no tenant keeps
        events, attempts with settled deliveries, and bodies. Days of events that a lane or a waiting delivery needs
        stay. Returns how many partitions were dropped. Raises ``StorageUnavailable`` if somebody reads a table for
        long; what was dropped by then stays dropped."""
        expired = retention.Expired(events, attempts, bodies)
        return await retention.drop_days(self._opened().queries, expired, self.shards)
