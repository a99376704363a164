"""The shop of the demo: its goods, its people, its clock, and the events of one day.

Everything comes from one seeded random source, so the same seed tells the same day, event by event.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hookline.demo.catalogue import Json, sample

DAY = 86_400.0

_GOODS = (
    ("TEE-ORG", "Organic cotton tee", 24.9),
    ("HOOD-ZIP", "Zip hoodie", 64.5),
    ("JKT-RAIN", "Rain jacket", 139.0),
    ("SWTR-WOOL", "Lambswool sweater", 89.9),
    ("SOCK-HIKE", "Hiking socks", 14.5),
    ("BOOT-TRAIL", "Trail boots", 169.0),
    ("CAP-TWILL", "Twill cap", 19.9),
    ("BAG-ROLL", "Roll-top backpack", 98.0),
)
_COLOURS = ("navy", "sand", "moss")
_SIZES = ("S", "M", "L")
_FIRST_NAMES = ("Ingrid", "Jonas", "Åse", "Mateo", "Yuki", "Zoë", "Kwame", "Priya", "Łukasz", "Nora", "Émile")
_LAST_NAMES = ("Solberg", "Müller", "O'Neill", "García", "Tanaka", "Nowak", "Mensah", "Sharma", "Dubois")
STORES = ((2, "Oslo City"), (3, "Bergen Torg"), (4, "Malmö Central"))
CARRIERS = ("fedex", "dhl", "postnord", "bring")


class Product(Struct):
    """One article that can be bought, and how many are left."""

    id: str
    style: str
    sku: str
    gtin: str
    name: str
    size: str
    price: float
    stock: int


class Customer(Struct, frozen=True):
    """A person who buys."""

    id: str
    number: int
    first: str
    last: str
    email: str
    street: str


class PlannedEvent(Struct, frozen=True):
    """One event as the shop will publish it. ``at`` is seconds since midnight; events of one ``bulk`` (above
    0) go out together, as a batch."""

    id: str
    type: str
    data: Json
    at: float
    object_type: str
    object_id: str
    application: str
    user: str
    key: str
    correlation_id: str
    occurred_at: str
    bulk: int = 0


class Shop:
    """What the scenes draw from. ``day`` is the date in the payloads."""

    def __init__(self, seed: int, day: date) -> None:
        self.random = random.Random(seed)
        self.day = datetime(day.year, day.month, day.day, tzinfo=UTC)
        self.planned: list[PlannedEvent] = []
        self._counters: dict[str, int] = {}
        self.products = [
            self._product(style, name, price, colour, size)
            for style, name, price in _GOODS
            for colour in _COLOURS
            for size in _SIZES
        ]
        self.customers = [self.new_customer() for _ in range(40)]

    def number(self, name: str, first: int) -> int:
        """The next of a running series of numbers."""
        self._counters[name] = self._counters.get(name, first - 1) + 1
        return self._counters[name]

    def hex_id(self) -> str:
        """An id as Avvyr shows them: 24 hexadecimal digits."""
        return f"{self.random.getrandbits(96):024x}"

    def new_customer(self) -> Customer:
        first, last = self.random.choice(_FIRST_NAMES), self.random.choice(_LAST_NAMES)
        number = self.number("customer", 48_211)
        street = f"Kirkegata {self.random.randint(1, 98)}"
        return Customer(self.hex_id(), number, first, last, f"customer.{number}@example.com", street)

    def buy(self) -> list[tuple[Product, int]]:
        """One to four articles with their quantities; the stock goes down, but never runs out."""
        chosen = self.random.sample(self.products, self.random.choice((1, 1, 2, 2, 3, 4)))
        basket = [(product, self.random.choice((1, 1, 1, 2, 3))) for product in chosen]
        for product, quantity in basket:
            product.stock = product.stock - quantity if product.stock > quantity else product.stock + 200
        return basket

    def time(self, at: float) -> str:
        """A moment of the day as Avvyr writes it (UTC, milliseconds)."""
        return (self.day + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def local_time(self, at: float) -> str:
        """The same as Front Systems writes it (no offset)."""
        return (self.day + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S")

    def date_after(self, days: int) -> str:
        return (self.day + timedelta(days=days)).strftime("%Y-%m-%d")

    def _product(self, style: str, name: str, price: float, colour: str, size: str) -> Product:
        gtin = f"70700000{self.number('gtin', 10_001):05d}"
        sku = f"{style}-{colour[:3].upper()}-{size}"
        stock = self.random.randint(40, 400)
        return Product(self.hex_id(), style, sku, gtin, f"{name}, {colour}", size, price, stock)


class Scene(Struct):
    """A stretch of the shop's life that belongs together: one correlation id, a clock that only goes on."""

    shop: Shop
    at: float
    correlation_id: str
    application: str
    user: str
    key: str = ""
    object: tuple[str, str] = ("", "")
    bulk: int = 0

    def wait(self, least: float, most: float) -> None:
        """Let some minutes pass; the day's end is never passed."""
        self.at = min(DAY - 1, self.at + 60 * self.shop.random.uniform(least, most))

    def about(self, object_type: str, object_id: str, key: str = "") -> None:
        """From now on events are about this object; ``key`` defaults to its id."""
        self.object = (object_type, object_id)
        self.key = key or object_id

    def emit(self, event_type: str, **changes: Any) -> None:
        """Plan one event: the type's sample with these fields changed."""
        data = {**sample(event_type), **changes}
        object_type, object_id = self.object
        planned = PlannedEvent(
            id="", type=event_type, data=data, at=self.at, object_type=object_type, object_id=object_id,
            application=self.application, user=self.user, key=self.key,
            correlation_id=self.correlation_id, occurred_at=self.shop.time(self.at), bulk=self.bulk,
        )  # fmt: skip
        self.shop.planned.append(planned)


Scenario = Callable[[Shop, float], None]


def plan_day(
    seed: int, count: int, day: date, scenarios: Sequence[tuple[int, Scenario]]
) -> list[PlannedEvent]:
    """``count`` events in the order of the day. ``scenarios`` come with their weights; each is told at least
    once (if ``count`` has room), then they are drawn until the day is full."""
    shop = Shop(seed, day)
    for _, scenario in scenarios:
        scenario(shop, _busy_moment(shop.random))
    weights = [weight for weight, _ in scenarios]
    while len(shop.planned) < count:
        _, scenario = shop.random.choices(scenarios, weights)[0]
        scenario(shop, _busy_moment(shop.random))
    ordered = sorted(shop.planned[:count], key=lambda event: event.at)
    return [replace(event, id=f"shop{seed}-{number:06d}") for number, event in enumerate(ordered, start=1)]


def _busy_moment(source: random.Random) -> float:
    """A time between 06:00 and 21:00, most often around noon or in the evening."""
    peak = source.choice((12.5, 12.5, 18.5))
    return 3600 * source.triangular(6, 21, peak)
