"""Watches every transaction that takes effect, and says at once if it breaks a promise."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from hookline.core.model import (
    Definition,
    DeliveryState,
    Event,
    LaneState,
    Millis,
    NewEvent,
    Position,
    Settled,
    Subscription,
    SubscriptionState,
    Unsettled,
)
from hookline.core.sharding import slice_of
from hookline.engine.dispatch import ordered
from hookline.engine.dispatch.worker import Part
from hookline.ports import Lease, Record
from hookline.storage.memory import MemoryStorage
from tests.simulation.ledger import FINAL, WAITING, Book, Trail
from tests.simulation.virtual import EPOCH, Process

DAY: Millis = 86_400_000
TRACE = 300
"""Entries of the trace that are kept to be shown."""
SLACK: Millis = 2_000
"""How far clocks may differ when the age of an event is judged."""


class Broken(Exception):
    """A promise was broken."""


class Trace:
    """What happened, in order: the last entries, and a hash over all of them."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._hash = blake2b(digest_size=16)
        self.last: deque[tuple[object, ...]] = deque(maxlen=TRACE)
        self.length = 0

    def add(self, *entry: object) -> None:
        stamped = (round(self._time(), 6), *entry)
        self._hash.update(repr(stamped).encode())
        self.last.append(stamped)
        self.length += 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def tail(self, count: int = 40) -> str:
        return "\n".join(
            f"  {entry[0]:>14.6f}  {' '.join(map(str, entry[1:]))}" for entry in list(self.last)[-count:]
        )


class Witness:
    """The books of all subscriptions, and the checks of what storage takes in."""

    def __init__(self, storage: MemoryStorage, time: Callable[[], float], retention_days: int) -> None:
        self.storage = storage
        self.trace = Trace(time)
        self.books: dict[int, Book] = {}
        self.log: list[list[Event]] = [[] for _ in range(storage.shards)]
        self.places: dict[tuple[int, str], Event] = {}
        self.owners: dict[tuple[Part, int], str] = {}
        self.epochs: dict[tuple[str, Part], int] = {}
        """In which epoch a process began to deliver a slice of a shard."""
        self.recorded: dict[tuple[Part, int], int] = {}
        """The number of the last batch that was recorded in each epoch."""
        self.newest_epoch: defaultdict[Part, int] = defaultdict(int)
        self.taken_at: defaultdict[Part, float] = defaultdict(float)
        self.broken: str | None = None
        self.on_broken: Callable[[], None] = lambda: None
        self.sees_lanes = True
        """Whether cursors are checked as they are written. Without, only what receivers and users see is judged."""
        self.on_call: Callable[[str, str, Sequence[Any]], None] = lambda process, name, args: None
        """Told of every storage call that succeeded, for tests that count them."""
        self._time = time
        self._retention = retention_days * DAY
        self._handlers: dict[str, Callable[..., None]] = {
            "append": self._append,
            "lease": self._lease,
            "renew": self._renew,
            "load_shard": self._load,
            "record": self._record,
            "resend": self._resend,
            "step_replay": self._step_replay,
            "drop_unsettled": self._drop,
            "create_subscription": self._create,
            "update_subscription": self._update,
            "set_subscription_state": self._set_state,
            "remove_events": self._remove,
        }

    def now(self) -> Millis:
        return EPOCH + int(self._time() * 1000)

    def breaks(self, promise: str, *details: object) -> None:
        """Keep the first fault; the scenario ends with it."""
        text = f"{promise}: {' '.join(map(str, details))}"
        self.trace.add("BROKEN", text)
        if self.broken is None:
            self.broken = text
            self.on_broken()

    def committed(self, process: Process, name: str, args: Sequence[Any], result: object) -> None:
        """A transaction of a process took effect."""
        self.on_call(process.name, name, args)
        handler = self._handlers.get(name)
        if handler is not None:
            handler(process, result, *args)

    # --- the log

    def _append(self, process: Process, result: object, events: Sequence[NewEvent], now: Millis) -> None:
        self.trace.add(process.name, "append", [event.id for event in events])
        self._absorb()

    def _absorb(self) -> None:
        """Take note of events that are new in the log."""
        for shard, known in zip(self.storage._shards, self.log, strict=True):
            while len(known) < shard.head:
                event = shard.events.get(len(known) + 1)
                if event is None:
                    return self.breaks("positions are dense", "shard", shard.no, "lacks", len(known) + 1)
                known.append(event)
                self._enter(event)
        return None

    def _enter(self, event: Event) -> None:
        if (event.tenant_no, event.id) in self.places:
            self.breaks("an id is stored once", event.id, "again at", event.position)
        self.places[event.tenant_no, event.id] = event
        for book in self.books.values():
            if book.shard == event.shard:
                book.offer(event)

    def _remove(
        self, process: Process, removed: object, tenant_no: int, before: Millis, until: Position, limit: int
    ) -> None:
        if not removed:
            return
        self.trace.add(process.name, "remove_events", removed)
        for book in self.books.values():
            if book.tenant_no == tenant_no and not book.deleted:
                self._check_removed(book)

    def _check_removed(self, book: Book) -> None:
        kept = self.storage._shards[book.shard].events
        for trail in book.trails.values():
            if trail.position in kept:
                break
            if trail.state not in FINAL and not trail.skipped:
                self.breaks("nothing disappears", book.id, "event removed before its end", trail.position)

    # --- leases

    def _lease(
        self,
        process: Process,
        lease: Lease | None,
        shard: int,
        owner: str,
        now: Millis,
        seconds: float,
        number: int,
    ) -> None:
        if lease is None:
            return
        part = (shard, number)
        holder = self.owners.setdefault((part, lease.epoch), process.name)
        if holder != process.name:
            self.breaks("one owner for each epoch", part, lease.epoch, holder, process.name)
        if lease.epoch > self.newest_epoch[part]:
            self.newest_epoch[part] = lease.epoch
            self.taken_at[part] = self._time()
            self.trace.add(process.name, "takes", shard, number, lease.epoch)

    def _renew(self, process: Process, renewed: Sequence[Lease], *_: object) -> None:
        for lease in renewed:
            part = (lease.shard, lease.slice)
            if self.owners.get((part, lease.epoch)) != process.name or lease.epoch != self.newest_epoch[part]:
                self.breaks("only the owner renews", part, lease.epoch, process.name)

    def _load(self, process: Process, result: object, shard: int, epoch: int, number: int) -> None:
        self.epochs[process.name, (shard, number)] = epoch

    # --- records

    def _record(self, process: Process, result: object, batch: Record) -> None:
        part = (batch.shard, batch.slice)
        if batch.epoch != self.newest_epoch[part]:
            self.breaks("a fenced worker records nothing", process.name, "epoch", batch.epoch)
        if self.owners.get((part, batch.epoch)) != process.name:
            self.breaks("only the owner records", process.name, "epoch", batch.epoch)
        if batch.number <= self.recorded.get((part, batch.epoch), 0):
            self.trace.add(process.name, "repeats a record whose answer was lost", batch.number)
            return
        self.recorded[part, batch.epoch] = batch.number
        settled = [(row.subscription_no, row.sequence, row.state.value) for row in batch.settled]
        waiting = [(row.subscription_no, row.sequence, row.attempts, row.due_at) for row in batch.unsettled]
        self.trace.add(process.name, "record", batch.watermark, settled, waiting)
        for row in batch.unsettled:
            self._write(row, WAITING, batch.epoch)
            self._note_waiting(self.books[row.subscription_no])
        for row in batch.settled:
            self._write(row, row.state.value, batch.epoch)
        self._absorb()
        self._check_lanes(part)

    def _write(self, row: Settled | Unsettled, state: str, epoch: int) -> None:
        book = self.books[row.subscription_no]
        trail = book.trails.get(row.position)
        if trail is None:
            return self.breaks("only what matched is delivered", book.id, "recorded", row.position)
        self.check_number(book, trail, row.sequence)
        if trail.state in FINAL and not trail.dropped and row != trail.row:
            self.breaks(
                "an end is an end", book.id, "sequence", row.sequence, "was", trail.state, "now", state
            )
        if state == "succeeded" and not trail.accepted:
            self.breaks("success means an answer of 2xx", book.id, "sequence", row.sequence)
        if state == "expired":
            self._check_expired(book, trail)
        trail.state, trail.row, trail.epoch, trail.dropped = state, row, epoch, False
        return None

    def check_number(self, book: Book, trail: Trail, sequence: int) -> None:
        """The n-th matched event has number n, always; passing over some only makes the later numbers smaller."""
        wanted = book.number(trail.position)
        if not book.skips and sequence != wanted:
            self.breaks("sequences are gapless and stable", book.id, trail.position, sequence, "not", wanted)
        if trail.sequence not in (0, sequence):
            self.breaks("sequences never change", book.id, trail.position, trail.sequence, "now", sequence)
        holder = book.holders.setdefault(sequence, trail)
        if holder is not trail:
            if holder.state or not holder.skipped:
                self.breaks(
                    "sequences are unique", book.id, sequence, "for", holder.position, "and", trail.position
                )
            book.holders[sequence] = trail
        trail.sequence = sequence

    def _check_expired(self, book: Book, trail: Trail) -> None:
        if not self.may_expire(trail) and not book.deleted:
            self.breaks("only old events expire", book.id, trail.position)

    def may_expire(self, trail: Trail) -> bool:
        """Whether the event is past its retention."""
        return self.now() - trail.event.received_at >= self._retention - SLACK

    def _check_lanes(self, part: Part) -> None:
        shard, number = part
        watermark = self.storage._shards[shard].slices[number].watermark
        if not self.sees_lanes:
            return
        for book in self.books.values():
            lane = self.storage._lanes.get(book.no)
            if lane is not None and book.part == part and not book.deleted:
                self._check_lane(book, lane, watermark)

    def _check_lane(self, book: Book, lane: LaneState, watermark: Position) -> None:
        cursor = max(lane.cursor, watermark) if lane.live else lane.cursor
        open_one = book.first_uncovered()
        if open_one is not None and open_one.position <= cursor:
            self.breaks("a cursor passes nothing", book.id, "cursor", cursor, "passes", open_one.position)
        if not book.skips and lane.sequence != book.number(cursor):
            self.breaks(
                "cursor and sequence agree", book.id, cursor, lane.sequence, "not", book.number(cursor)
            )

    # --- requests of users

    def _note_waiting(self, book: Book) -> None:
        book.overfull |= len(self.storage._unsettled[book.no]) >= ordered.WAITING_LIMIT

    def _resend(
        self,
        process: Process,
        count: object,
        subscription_no: int,
        positions: Sequence[Position],
        now: Millis,
    ) -> None:
        self.trace.add(process.name, "resend", subscription_no, list(positions))
        book = self.books[subscription_no]
        for position in positions:
            if position in self.storage._unsettled[book.no]:
                self._requeued(book.trails[position])
        self._note_waiting(book)

    def _step_replay(self, process: Process, replay: Any, *_: object) -> None:
        book = self.books[replay.subscription_no]
        for position in self.storage._unsettled[book.no]:
            trail = book.trails[position]
            if trail.state in FINAL:
                self.trace.add(process.name, "replays", book.no, trail.sequence)
                self._requeued(trail)
        self._note_waiting(book)

    def _requeued(self, trail: Trail) -> None:
        trail.explicit = True
        if trail.state in FINAL:
            trail.owed = trail.sends + 1
        trail.seen.clear()
        trail.state = WAITING

    def _drop(
        self, process: Process, count: object, subscription_no: int, now: Millis, state: DeliveryState
    ) -> None:
        self.trace.add(process.name, "drop", subscription_no, count)
        for trail in self.books[subscription_no].trails.values():
            if trail.state == WAITING:
                trail.state, trail.dropped, trail.owed = state.value, True, 0

    # --- configuration

    def _create(self, process: Process, made: Subscription, *_: object) -> None:
        self.trace.add(process.name, "creates", made.no, made.start_after, made.definition.order)
        part = (made.shard, slice_of(made.no, self.storage.slices))
        book = Book(made.no, made.id, made.tenant_no, part, made.start_after)
        self.books[made.no] = book
        book.define(made.version, made.definition)
        kept = self.storage._shards[made.shard].events
        for position in range(made.start_after + 1, len(self.log[made.shard]) + 1):
            if position in kept:
                book.offer(kept[position])

    def _update(
        self, process: Process, changed: Subscription, subscription_no: int, version: int, definition: Definition,
        *_: object,
    ) -> None:  # fmt: skip
        self.trace.add(process.name, "updates", subscription_no, changed.version, definition.order)
        self.books[subscription_no].define(version + 1, definition)
        self.books[subscription_no].changed_at = self._time()

    def _set_state(
        self, process: Process, result: object, subscription_no: int, state: SubscriptionState, reason: str,
        now: Millis, skip: bool = False,
    ) -> None:  # fmt: skip
        self.trace.add(process.name, "sets", subscription_no, state.value, "skip" if skip else "")
        book = self.books[subscription_no]
        book.changed_at = self._time()
        book.deleted = book.deleted or state is SubscriptionState.DELETED
        if skip:
            book.skip_to(len(self.log[book.shard]))
