"""What the API is built on, put together by the app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hookline.api.keyring import KeyRing
from hookline.core.definition import MAIL_PROFILE, Rules
from hookline.core.model import Retention
from hookline.engine import presence
from hookline.engine.manage import EventTypes, Replays, Subscriptions, Tenants, Trials
from hookline.engine.manage.trials import Tokens
from hookline.engine.publish import Publisher
from hookline.engine.read import Reader
from hookline.engine.types import EventTypeCatalogue
from hookline.observe import Metrics
from hookline.ports import Clock, Sender, Storage, Vault, Wake

Check = Callable[[], Awaitable[str]]
"""Says in a word how a part is doing; raises ``HooklineError`` if it cannot work."""


@dataclass(frozen=True, slots=True)
class Options:
    """Bounds and choices of the API. Sizes are bytes, times seconds."""

    event_bytes: int = 1 << 20
    body_bytes: int = 1 << 20
    batch_bytes: int = 16 << 20
    batch_items: int = 1000
    body_seconds: float = 30.0
    metrics: Literal["operator", "open", "off"] = "operator"
    """Who may read ``/metrics``: whoever has an operator key, everyone, nobody."""
    retention: Retention = field(default_factory=Retention)
    """Of tenants without one of their own."""
    gone_after: float = presence.gone_after(0.0)
    """After how long a node that was not heard of is not listed any more."""


@dataclass(frozen=True, slots=True)
class Services:
    """The engine's services for one installation. ``entropy(n)`` gives n random bytes."""

    storage: Storage
    clock: Clock
    entropy: Callable[[int], bytes]
    publisher: Publisher
    tenants: Tenants
    types: EventTypeCatalogue
    event_types: EventTypes
    subscriptions: Subscriptions
    trials: Trials
    replays: Replays
    reader: Reader
    keyring: KeyRing
    metrics: Metrics
    on_change: Callable[[], None]
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    options: Options = Options()

    def changed(self) -> None:
        """The configuration changed: forget what is cached here, and tell the app (caches, the worker's wake-up)."""
        self.keyring.forget()
        self.on_change()


def build_services(
    *,
    storage: Storage,
    clock: Clock,
    entropy: Callable[[int], bytes],
    vault: Vault,
    sender: Sender,
    tokens: Tokens,
    types: EventTypeCatalogue,
    publisher: Publisher,
    metrics: Metrics,
    rules: Rules,
    on_change: Callable[[], None],
    wake: Wake,
    checks: Mapping[str, Check] | None = None,
    options: Options | None = None,
) -> Services:
    """The services over the given parts."""
    reader = Reader(storage)
    subscriptions = Subscriptions(storage, clock, entropy, vault, rules)
    return Services(
        storage=storage,
        clock=clock,
        entropy=entropy,
        publisher=publisher,
        tenants=Tenants(storage, clock, entropy, rules.profiles - {MAIL_PROFILE}),  # no platform speaks it
        types=types,
        event_types=EventTypes(storage, types, clock),
        subscriptions=subscriptions,
        trials=Trials(types, clock, entropy, subscriptions, sender, tokens),
        replays=Replays(storage, clock, entropy, reader, wake),
        reader=reader,
        keyring=KeyRing(storage, clock),
        metrics=metrics,
        on_change=on_change,
        checks=checks or {},
        options=options or Options(),
    )
