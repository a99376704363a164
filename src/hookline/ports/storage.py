"""What the engine needs from a storage, as protocols by role.

Storage speaks in whole transactions. Every method is atomic: it happens wholly or not at all, and when
it returns, it is durable (synced to disk). Methods raise ``StorageUnavailable`` if the storage does not answer and
``Fenced`` where an epoch is given and another owner holds the shard.

A *shard* is a stretch of the log with its own dense positions 1, 2, 3 …; a tenant lives in one shard. A *slice* is a
part of the subscriptions of a shard: it is delivered by one worker, so the slices of a large tenant's shard can have
several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

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
    Settled,
    Subscription,
    SubscriptionState,
    Tenant,
    Unsettled,
    Usage,
)

# --- storage: the log --------------------------------------------------------------------------------


class Changes(Struct, frozen=True):
    """Configuration that changed: subscriptions as they are now, and their definition versions."""

    version: int
    subscriptions: Sequence[Subscription] = ()
    definitions: Sequence[DefinitionVersion] = ()
    requeued: Sequence[int] = ()
    """Numbers of subscriptions with deliveries that were resent, or with a replay job that is new or was cancelled."""


class LogPage(Struct, frozen=True):
    """A stretch of a shard's log in order, with the changes of configuration seen in the same snapshot.

    ``last`` is the position the page reaches: everything up to it was read. ``head`` is the shard's last position.
    """

    events: Sequence[Event]
    last: Position
    head: Position
    changes: Changes


PAGE_BYTES = 4 << 20
"""Bytes of payload after which a page of the log ends."""


class EventLog(Protocol):
    """Append to the log and read it in order."""

    shards: int

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        """Store all in one transaction, in order, answering each in turn.

        An id that its tenant has already (in the log, or earlier in ``events``) is not stored: its
        ``Appended.existing`` is the first event. ``received_at`` never falls along a shard's positions.
        """
        ...

    async def read_log(
        self, shard: int, after: Position, limit: int, changes_after: int, tenant_no: int | None = None
    ) -> LogPage:
        """Up to ``limit`` events with position > ``after``, of one tenant or of all; fewer if their payloads exceed
        ``PAGE_BYTES``, so that a page of large events does not fill the memory.

        Changes newer than ``changes_after`` come from the same snapshot: a definition that is in force for an event
        of this page is always known from this page's changes or earlier ones.
        """
        ...

    async def read_events(self, shard: int, positions: Sequence[Position]) -> list[Event]:
        """The events at these positions, in order; those removed by retention are left out."""
        ...

    async def position_at(self, shard: int, time: Millis) -> Position:
        """The last position received before ``time`` (0 if there is none).

        An event that was removed counts as received with the one before it that is still there, whosever that is, and
        before all times if there is none. So ranges of time that join never hold it twice, but who pages by time may
        see no end of those that were removed together: page by position.
        """
        ...

    async def head(self, shard: int) -> Position:
        """The last position of the shard (0 if it is empty)."""
        ...


# --- storage: deliveries -------------------------------------------------------------------------------


class Lease(Struct, frozen=True):
    """The right to deliver a slice of a shard until ``expires_at``; ``epoch`` rises with each new owner."""

    shard: int
    owner: str
    epoch: int
    expires_at: Millis
    slice: int = 0


class Node(Struct, frozen=True):
    """A process of the installation, as it tells of itself. ``role`` is ``all``, ``api`` or ``delivery``."""

    id: str
    role: str
    version: str
    started_at: Millis
    seen_at: Millis = 0


class Progress(Struct, frozen=True):
    """How far the delivery of a slice is: its watermark below the shard's ``head``; how many deliveries wait for an
    attempt, the first one of an active subscription since or until ``next_due`` (0: none does). ``owner`` is empty if
    nobody delivers it."""

    shard: int
    slice: int
    owner: str
    head: Position
    watermark: Position
    waiting: int
    next_due: Millis


class LanePosition(Struct, frozen=True):
    """What a new owner needs to rebuild one lane.

    ``recorded`` are the positions above the effective cursor that are recorded already (settled or unsettled).
    ``waiting`` counts the unsettled deliveries, the first of them due at ``next_due`` (0: none).
    ``blocked_keys`` are the keys of unsettled deliveries (for order by key).
    """

    state: LaneState
    recorded: frozenset[Position] = frozenset()
    waiting: int = 0
    next_due: Millis = 0
    blocked_keys: Sequence[str] = ()


class ShardState(Struct, frozen=True):
    """Everything a new owner of a slice of a shard starts from: its own subscriptions, lanes and replays.

    Lanes that are live are settled up to ``watermark``: their cursor is the larger of the two. A subscription
    without a lane state starts at its ``start_after`` with sequence 0.
    """

    watermark: Position
    head: Position
    changes: Changes
    lanes: Sequence[LanePosition]
    replays: Sequence[Replay]


class Record(Struct, frozen=True):
    """One batch of outcomes, and the state of the slice after it. See ``DeliveryStore.record``.

    ``number`` counts the batches of an epoch from 1; 0 is a batch without a number.
    """

    shard: int
    epoch: int
    now: Millis
    watermark: Position
    attempts: Sequence[Attempt] = ()
    settled: Sequence[Settled] = ()
    unsettled: Sequence[Unsettled] = ()
    lanes: Sequence[LaneState] = ()
    disabled: Sequence[tuple[int, str]] = ()
    """Subscription numbers to disable, with the reason; one that is not active stays as it is."""
    operational: Sequence[NewEvent] = ()
    """Events of Hookline's own (``hookline.…``), appended to the log in the same transaction."""
    slice: int = 0
    number: int = 0


class DeliveryStore(Protocol):
    """The records of delivery. Only a shard's owner writes them, and each write proves it by its epoch."""

    slices: int

    async def beat(self, node: Node, now: Millis, seconds: float) -> list[Node]:
        """Note that the node lives; returns all nodes that were heard of within ``seconds``, this one too, by id."""
        ...

    async def nodes(self, now: Millis, seconds: float) -> list[Node]:
        """As ``beat`` returns them."""
        ...

    async def leave(self, node_id: str) -> None:
        """The node ends: nobody counts on it any more."""
        ...

    async def leases(self, now: Millis) -> list[Lease]:
        """All slices, by shard and slice; ``owner`` is empty where the lease can be taken now."""
        ...

    async def progress(self, now: Millis) -> list[Progress]:
        """All slices, by shard and slice. Counts what waits, so it is nothing for every second."""
        ...

    async def lease(
        self, shard: int, owner: str, now: Millis, seconds: float, slice: int = 0
    ) -> Lease | None:
        """Take or renew the lease. None if another owner holds it. Renewing keeps the epoch, taking raises it.

        A lease may be taken before it expires if its owner is known to be dead.
        """
        ...

    async def renew(self, held: Sequence[Lease], now: Millis, seconds: float) -> list[Lease]:
        """Renew in one step those that are still held in their epoch, and return them.

        One that is being written with may be left out: ``lease`` tells whether it is lost.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back at once; nothing happens if it was lost meanwhile."""
        ...

    async def load_shard(self, shard: int, epoch: int, slice: int = 0) -> ShardState:
        """Read what a new owner starts from. Raises ``Fenced``."""
        ...

    async def record(self, batch: Record) -> None:
        """Write one batch: attempts, settled and unsettled deliveries (each replaces what was there for its
        delivery), lanes, watermark, disabled subscriptions (a change of configuration) and operational events.
        Raises ``Fenced`` and writes nothing if the epoch is not the slice's. A batch whose number is not above the last
        one's of its epoch was written before, and is not written again: its answer was lost.
        """
        ...

    async def due(self, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
        """Unsettled deliveries of a subscription due at ``now``, by due time, then position."""
        ...

    async def waiting(self, subscription_no: int) -> tuple[int, Millis]:
        """How many deliveries of a subscription are unsettled, and when the first is due (0, 0 if none)."""
        ...

    async def resend(self, subscription_no: int, positions: Sequence[Position], now: Millis) -> int:
        """Put settled deliveries back to unsettled, due at once with a fresh retry schedule; waiting ones become
        due at once. Returns how many there were. Shows up in ``Changes.requeued``."""
        ...

    async def drop_unsettled(self, subscription_no: int, now: Millis, state: DeliveryState) -> int:
        """Settle all waiting deliveries of a stopped subscription as ``state``; returns how many."""
        ...

    async def create_replay(self, replay: Replay) -> None:
        """Store a new replay job. Shows up in ``Changes.requeued``."""
        ...

    async def step_replay(
        self, replay_id: str, limit: int, due_at: Millis, interval: float, now: Millis
    ) -> Replay:
        """Move up to ``limit`` further settled deliveries of the job to unsettled, the first due at ``due_at``, each
        next one ``interval`` seconds later, and its progress with them; the job is ``done`` when none is left.
        """
        ...

    async def cancel_replay(self, replay_id: str, now: Millis) -> Replay:
        """Stop a running job; what it moved already stays due. Raises ``NotFound``."""
        ...

    async def get_replay(self, replay_id: str) -> Replay:
        """Raises ``NotFound``."""
        ...

    async def list_replays(self, subscription_no: int, limit: int) -> list[Replay]:
        """The newest jobs of a subscription first."""
        ...

    async def count_settled(
        self, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
    ) -> int:
        """How many deliveries a replay of this range would send."""
        ...


# --- storage: configuration ----------------------------------------------------------------------------


class ConfigStore(Protocol):
    """Tenants, keys, event types and subscriptions. Each change raises the configuration's version."""

    async def version(self) -> int:
        """A number that rises with every change, for caches."""
        ...

    async def create_tenant(
        self, tenant_id: str, name: str, profile: str, key: ApiKey, now: Millis
    ) -> Tenant:
        """Store the tenant and its first key (``key.tenant_no`` is ignored). Raises ``Conflict`` for a taken id."""
        ...

    async def update_tenant(
        self,
        tenant_no: int,
        name: str,
        profile: str,
        schema_mode: SchemaMode,
        retention: Retention | None,
        webhooks: bool = True,
    ) -> Tenant: ...

    async def list_tenants(self, after: str, limit: int) -> list[Tenant]:
        """By id."""
        ...

    async def find_tenant(self, tenant_id: str) -> Tenant | None: ...

    async def get_tenant(self, tenant_no: int) -> Tenant: ...

    async def add_key(self, key: ApiKey) -> None: ...

    async def add_session(self, session: ApiKey, most: int, now: Millis) -> None:
        """Store a session of a key (``session_of``); drop its expired ones, and the oldest beyond ``most``. This is no
        change of the configuration."""
        ...

    async def list_keys(self, tenant_no: int | None) -> list[ApiKey]:
        """In the order of their making; without sessions."""
        ...

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The key with this SHA-256, revoked or not."""
        ...

    async def revoke_key(self, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
        """The sessions of the key end with it. Raises ``NotFound``."""
        ...

    async def put_event_type(self, event_type: EventType) -> None:
        """Create or replace."""
        ...

    async def get_event_type(self, tenant_no: int, name: str) -> EventType | None: ...

    async def list_event_types(self, tenant_no: int, after: str, limit: int) -> list[EventType]:
        """By name."""
        ...

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
        """Store it, matching from the next position of the log on, or from after ``start_after`` (a backfill)."""
        ...

    async def update_subscription(
        self, subscription_no: int, expected_version: int, definition: Definition, sealed: bytes, now: Millis
    ) -> Subscription:
        """Store a new version; it decides what matches from the log's next position on.

        Raises ``Conflict`` if the stored version is not ``expected_version``, ``NotFound`` if it is deleted.
        """
        ...

    async def set_subscription_state(
        self, subscription_no: int, state: SubscriptionState, reason: str, now: Millis, skip: bool = False
    ) -> Subscription:
        """Change the state. With ``skip``, the subscription's ``skip_to`` becomes the log's head: what is in the log
        and was not matched by now is passed over. Raises ``NotFound`` if it is deleted."""
        ...

    async def get_subscription(self, tenant_no: int, subscription_id: str) -> Subscription:
        """Raises ``NotFound`` (also for deleted ones)."""
        ...

    async def subscription_by_no(self, subscription_no: int) -> Subscription:
        """Also deleted ones. Raises ``NotFound``."""
        ...

    async def list_subscriptions(
        self, tenant_no: int, after: int, limit: int, search: str = "", event: str = "", url: str = ""
    ) -> list[Subscription]:
        """By number, without deleted ones. ``search`` looks in name, URL and metadata; ``event`` keeps those that name
        this event type or pattern; ``url`` keeps those whose URL contains it."""
        ...

    async def definition_versions(self, subscription_no: int) -> list[DefinitionVersion]:
        """All versions, oldest first."""
        ...

    async def reseal(self, reseal: Callable[[bytes, str], bytes]) -> int:
        """Apply ``reseal(sealed, context)`` to all sealed values, after the master key changed; returns how many.
        The context of a subscription's secrets is its id."""
        ...


# --- storage: questions ----------------------------------------------------------------------------------


class EventQuery(Struct, frozen=True):
    """Which events of a tenant, newest first, below position ``before`` (0: from the newest)."""

    tenant_no: int
    before: Position = 0
    limit: int = 50
    type: str = ""
    object_type: str = ""
    object_id: str = ""
    correlation_id: str = ""
    since: Millis = 0
    until: Millis = 0


class DeliveryQuery(Struct, frozen=True):
    """Which deliveries of a subscription, newest first, below position ``before`` (0: from the newest).

    ``states`` empty means all. ``since`` and ``until`` bound the time the event was received.
    """

    subscription_no: int
    before: Position = 0
    limit: int = 50
    states: Sequence[DeliveryState] = ()
    since: Millis = 0
    until: Millis = 0


class Delivery(Struct, frozen=True):
    """A recorded delivery as the log shows it. ``due_at`` is set while it waits; ``status`` and ``error`` are
    those of the last attempt."""

    subscription_no: int
    position: Position
    sequence: int
    state: DeliveryState
    attempts: int
    settled_at: Millis
    due_at: Millis
    status: int
    error: str


class QueryStore(Protocol):
    """Reading for the API and the console. Every list is keyset-paged over an index."""

    async def find_event(self, tenant_no: int, event_id: str) -> Event | None: ...

    async def list_events(self, query: EventQuery) -> list[Event]: ...

    async def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]: ...

    async def get_delivery(self, subscription_no: int, position: Position) -> Delivery | None: ...

    async def event_deliveries(self, tenant_no: int, position: Position) -> list[Delivery]:
        """The recorded deliveries of one event, over all subscriptions of its tenant."""
        ...

    async def list_attempts(self, subscription_no: int, position: Position) -> list[Attempt]:
        """The attempts of a delivery, oldest first. Bodies past their retention are empty."""
        ...

    async def get_attempt(self, subscription_no: int, position: Position, number: int) -> Attempt | None: ...

    async def lane_state(self, subscription_no: int) -> LaneState | None:
        """The effective state: for a live lane the cursor is at least the watermark."""
        ...

    async def usage(self, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
        """By day, both ends included."""
        ...


# --- storage: retention, life -----------------------------------------------------------------------------


class RetentionStore(Protocol):
    """Removing what is past its time, a little at a step."""

    async def remove_events(self, tenant_no: int, before: Millis, until: Position, limit: int) -> int:
        """Remove up to ``limit`` oldest events of a tenant received before ``before`` and at positions <= ``until``."""
        ...

    async def remove_attempts(self, tenant_no: int, before: Millis, limit: int) -> int:
        """Remove up to ``limit`` attempts and settled deliveries whose time is before ``before``."""
        ...

    async def remove_bodies(self, tenant_no: int, before: Millis, limit: int) -> int:
        """Remove up to ``limit`` response bodies of attempts started before ``before``."""
        ...

    async def drop_partitions(self, events: Millis, attempts: Millis, bodies: Millis) -> int:
        """Drop whole partitions of what lies before these times, which no tenant keeps, as far as no lane needs it;
        returns how many. 0 where nothing is parted by time: then ``remove_…`` does it all."""
        ...

    async def oldest_needed(self, tenant_no: int) -> Position:
        """The lowest position that a lane or a waiting delivery of the tenant still needs (head + 1 if none)."""
        ...


class Storage(EventLog, DeliveryStore, ConfigStore, QueryStore, RetentionStore, Protocol):
    """All roles together, with its life."""

    async def open(self) -> None:
        """Connect, and check or migrate the schema."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then disconnect."""
        ...

    async def ping(self) -> None:
        """Raises ``StorageUnavailable`` if a write could not succeed now."""
        ...
