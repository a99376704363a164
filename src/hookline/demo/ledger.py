"""What the demo has published and what the receivers have written down: the two columns of the books."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from hookline.demo.cast import Role
from hookline.demo.receipts import Receipt
from hookline.demo.shop import PlannedEvent


class Published(Struct, frozen=True):
    """An event that the server answered for. ``sent_at`` is microseconds, just before the request went out;
    ``digest`` is of the exact bytes of its data."""

    event: PlannedEvent
    sent_at: int
    digest: str


class PublishBook(Struct):
    """The publishing side."""

    published: dict[str, Published] = field(default_factory=dict)
    duplicates_sent: int = 0
    duplicates_refused: int = 0
    batches: int = 0
    repeated: int = 0
    """Requests sent again because the first got no answer, or 503."""
    refused: list[str] = field(default_factory=list)


class Tally:
    """The live figures of one receiver."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.expected = 0
        self.delivered: dict[str, int] = {}
        self.verified = 0
        self.unverified = 0
        self.retries = 0
        self.last_status = 0
        self.recent: deque[int] = deque(maxlen=500)
        """Microseconds from publishing to receipt of the last deliveries."""

    @property
    def backlog(self) -> int:
        return max(0, self.expected - len(self.delivered))

    def add(self, receipt: Receipt, sent_at: int | None) -> None:
        self.unverified += not receipt.verified
        self.last_status = receipt.status
        if not 200 <= receipt.status < 300 or receipt.event_id in self.delivered:
            return
        self.delivered[receipt.event_id] = receipt.at
        self.verified += receipt.verified
        self.retries += max(0, receipt.attempt - 1)
        if sent_at is not None:
            self.recent.append(receipt.at - sent_at)


class Ledger:
    """Both sides, kept up to date while the day runs."""

    def __init__(self, roles: Sequence[Role]) -> None:
        self.book = PublishBook()
        self.receipts: list[Receipt] = []
        self.tallies = {role.name: Tally(role) for role in roles}

    def publish(self, event: PlannedEvent, sent_at: int, digest: str) -> None:
        """The server has taken this event."""
        self.book.published[event.id] = Published(event, sent_at, digest)
        for tally in self.tallies.values():
            tally.expected += tally.role.wants(event)

    def receive(self, receipts: Iterable[Receipt]) -> None:
        """Add what the receivers wrote, in their order."""
        for receipt in receipts:
            self.receipts.append(receipt)
            published = self.book.published.get(receipt.event_id)
            self.tallies[receipt.receiver].add(receipt, published.sent_at if published else None)

    @property
    def complete(self) -> bool:
        """Whether every published event has arrived wherever it must."""
        return all(tally.backlog == 0 for tally in self.tallies.values())


def percentile(values: Iterable[int], share: float) -> int:
    """The value below which this share lies (nearest rank); 0 for no values."""
    ordered = sorted(values)
    if not ordered:
        return 0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
