"""Who listens: the receivers of the demo, what each one subscribes to, and how it behaves.

``wants`` is the demo's own idea of what each must get. It is written a second time on purpose: the demo does
not take the server's word for what matches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from hookline.demo.catalogue import Json
from hookline.demo.shop import PlannedEvent


class Behaviour(Struct, frozen=True):
    """How a receiver answers. Times are seconds.

    The first ``fail_first`` attempts of a ``fail_share`` of the events get a 500; every ``limit_every``-th
    request gets a 429 with ``Retry-After: 1``; every answer takes between the two ``delay``s; and it is away,
    its port closed, for ``away_share`` of the time the day takes.
    """

    fail_first: int = 0
    fail_share: float = 0.0
    limit_every: int = 0
    delay: tuple[float, float] = (0.0, 0.0)
    away_share: float = 0.0


class Role(Struct, frozen=True):
    """One receiver and its subscription."""

    name: str
    purpose: str
    events: tuple[str, ...]
    behaviour: Behaviour = Behaviour()
    filter: str | None = None
    passes: Callable[[Json], bool] = lambda _: True
    order: Literal["none", "key", "strict"] = "none"
    repeats: int = 0
    """How many deliveries may arrive twice: those in flight when the receiver cut its connections."""

    def wants(self, event: PlannedEvent) -> bool:
        """Whether this event must arrive here."""
        return any(_named(pattern, event.type) for pattern in self.events) and self.passes(event.data)


def _named(pattern: str, event_type: str) -> bool:
    return event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern


MAX_IN_FLIGHT = 32

CAST: tuple[Role, ...] = (
    Role("analytics", "takes everything, at once", ("*",)),
    Role(
        "erp-import",
        "fails twice on every tenth event",
        ("SaleCreated", "SaleExternalCreated", "Invoice*", "purchase*", "Delivery*", "product*"),
        Behaviour(fail_first=2, fail_share=0.1),
    ),
    Role(
        "accounting",
        "slow: 300 to 800 ms an answer",
        ("SaleCreated", "SaleExternalCreated", "InvoiceCreated", "cartFullyPaid", "POSSettlementCreated"),
        Behaviour(delay=(0.3, 0.8)),
    ),
    Role(
        "newsletter",
        "answers 429 now and then",
        ("cart*", "Customer*", "orderReadyForPickup"),
        Behaviour(limit_every=60),
    ),
    Role(
        "partner-portal",
        "goes away in the middle of the day",
        ("order:*", "track:*", "fulfillment*", "delivery:*"),
        Behaviour(away_share=0.2),
        repeats=MAX_IN_FLIGHT,
    ),
    Role(
        "fraud-watch",
        "only sales above 100",
        ("SaleCreated", "SaleExternalCreated", "OmniChannel*"),
        filter="data.total > 100",
        passes=lambda data: data["total"] > 100,
    ),
    Role(
        "order-history",
        "each order's events in order, though it stumbles",
        ("order*", "track:created", "fulfillment*"),
        Behaviour(fail_first=1, fail_share=0.04),
        order="key",
    ),
    Role(
        "stock-ledger",
        "everything in one strict order, though it stumbles",
        ("StockMovementCreated", "StockAdjustmentCreated", "inventory:adjusted", "delivery:committed"),
        Behaviour(fail_first=1, fail_share=0.02),
        order="strict",
    ),
)


def subscription_of(role: Role, url: str) -> Json:
    """The body that creates the subscription: retries and breaker are tuned to a day of half a minute."""
    body: Json = {
        "name": role.name,
        "url": url,
        "events": list(role.events),
        "order": role.order,
        "max_in_flight": MAX_IN_FLIGHT,
        "timeout": {"connect": 2, "total": 10},
        "retry": {"kind": "list", "delays": [0.3, 0.5, 1, 1, *[2] * 30], "jitter": 0.1},
        "breaker": {"failures": 10, "cooldown": 0.5, "max_cooldown": 1},
        "metadata": {"purpose": role.purpose},
    }
    return body if role.filter is None else {**body, "filter": role.filter}
