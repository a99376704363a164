"""What the simulation itself knows of events, subscriptions and deliveries, apart from the engine's own books.

Only ``core.matching`` is shared with the engine, for the meaning of one pattern or filter; which definition is in
force where, and what has which number, is worked out here from the calls that took effect.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from hookline.core.matching import Matcher, Payload
from hookline.core.model import Definition, Event, Millis, Order, Position
from hookline.engine.dispatch.worker import Part

WAITING = "waiting"
FINAL = frozenset({"succeeded", "failed", "expired"})


class Trail:
    """All that happened to one event for one subscription."""

    __slots__ = (
        "accepted", "arrivals", "doomed", "dropped", "epoch", "event", "explicit", "first_sent", "owed", "position",
        "row", "seen", "sends", "sequence", "skipped", "state",
    )  # fmt: skip

    def __init__(self, event: Event) -> None:
        self.event = event
        self.position = event.position
        self.sequence = 0
        """As first sent or recorded; 0: neither yet."""
        self.state = ""
        """``waiting`` or a final state as recorded; "": nothing is recorded."""
        self.row: object = None
        self.epoch = 0
        """In which the last row was written."""
        self.dropped = False
        """Whether the final state came from its user (skip, delete), not from a worker."""
        self.explicit = False
        """Whether its user ever had it sent again."""
        self.owed = 0
        """How often it must have been sent at the end: once more than when its user had it sent again."""
        self.skipped = False
        self.doomed = False
        """Whether a worker has seen an outcome after which no retry may follow."""
        self.sends = 0
        self.first_sent: Millis = 0
        self.arrivals = 0
        self.accepted = 0
        """Arrivals that the receiver answered with 2xx, whether or not anyone got to know."""
        self.seen: set[tuple[str, int]] = set()
        """Which worker, in which epoch, has seen a 2xx since it was last asked for."""

    @property
    def closed(self) -> bool:
        """Whether later events of its order may be sent."""
        return bool(self.accepted or self.state in FINAL or self.doomed or self.skipped or self.explicit)

    @property
    def covered(self) -> bool:
        """Whether a cursor may pass it."""
        return bool(self.state) or self.skipped


class Queue:
    """Trails in order of position, and how far the first ones are done."""

    __slots__ = ("_done", "trails")

    def __init__(self) -> None:
        self.trails: list[Trail] = []
        self._done = 0

    def first_open(self) -> Trail | None:
        """The first that is not closed."""
        while self._done < len(self.trails) and self.trails[self._done].closed:
            self._done += 1
        return self.trails[self._done] if self._done < len(self.trails) else None


class Book:
    """One subscription: its definitions by position, and what must come of each event that they match."""

    def __init__(self, no: int, sub_id: str, tenant_no: int, part: Part, start_after: Position) -> None:
        self.no = no
        self.id = sub_id
        self.tenant_no = tenant_no
        self.part = part
        self.shard, _ = part
        self.start_after = start_after
        self.definitions: dict[int, Definition] = {}
        self.changed_at = 0.0
        self.deleted = False
        self.overfull = False
        """Whether more deliveries ever waited than an ordered lane can survey; then it only promises delivery."""
        self.skips: list[Position] = []
        self.trails: dict[Position, Trail] = {}
        self.positions: list[Position] = []
        self.holders: dict[int, Trail] = {}
        """Who has a sequence number."""
        self._newest: Matcher
        self._uncovered = 0
        self._strict = Queue()
        self._by_key: dict[str, Queue] = {}

    def define(self, version: int, definition: Definition) -> None:
        """A new version decides from the next event on."""
        self.definitions[version] = definition
        self._newest = Matcher(definition)

    def offer(self, event: Event) -> None:
        """An event took its place in the log."""
        if self.deleted or event.tenant_no != self.tenant_no:
            return
        if not self._newest.matches(event, Payload(event.data)):
            return
        trail = self.trails[event.position] = Trail(event)
        self.positions.append(event.position)
        self._strict.trails.append(trail)
        if event.key is not None:
            self._by_key.setdefault(event.key, Queue()).trails.append(trail)

    def number(self, position: Position) -> int:
        """The sequence number of an expected event, or of the last one before ``position``."""
        return bisect_right(self.positions, position)

    def before(self, trail: Trail, order: Order) -> Trail | None:
        """The first delivery that is still open, if ``order`` says that ``trail`` has to wait for it."""
        if order is Order.STRICT:
            found = self._strict.first_open()
        elif order is Order.KEY and trail.event.key is not None:
            found = self._by_key[trail.event.key].first_open()
        else:
            return None
        return found if found is not None and found.position < trail.position else None

    def first_uncovered(self) -> Trail | None:
        """The first expected event of which nothing is recorded: no cursor may reach it."""
        while self._uncovered < len(self.positions):
            trail = self.trails[self.positions[self._uncovered]]
            if not trail.covered:
                return trail
            self._uncovered += 1
        return None

    def skip_to(self, position: Position) -> None:
        """Its user had it pass over what is not recorded."""
        self.skips.append(position)
        for trail in self.open_trails():
            if trail.position <= position and not trail.state:
                trail.skipped = True

    def open_trails(self) -> Iterator[Trail]:
        """From the first of which nothing is recorded on."""
        for position in self.positions[self._uncovered :]:
            yield self.trails[position]
