"""The requests that the golden files hold: one event of each type, under fixed ids, secret and time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hookline.core.model import Event, EventType, Secrets, SigningKey, Subscription, Tenant
from hookline.engine.compose import Composer
from hookline.engine.manage.spec import drafted
from hookline.profiles.catalogue import shipped

DATA = Path(__file__).parent / "data"
NOW = 1_767_261_600_250  # 2026-01-01T10:00:00.250Z
SENT = NOW + 750
SECRET = "s3cr3t-of-the-shop"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE_KEY = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
URL = "https://receiver.example/hooks/4471?token=abc"

PLATFORMS: dict[str, dict[str, Any]] = {
    "avvyr": {"signing": {"scheme": "avvyr"}},
    "evolutionx": {"query": {"shop": "1"}, "profile_options": {"include_object_record": True}},
    "shipstream": {},
    "frontsystems": {},
}
"""The subscription for each platform's types, beside its URL."""

SINGLES: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("order:created", {"profile": "standard"}),
    "standard-ed25519": ("order:created", {"profile": "standard", "signing": {"scheme": "v1a"}}),
    "standard-shopify": ("order:created", {"profile": "standard", "signing": {"scheme": "shopify"}}),
    "standard-stripe": ("order:created", {"profile": "standard", "signing": {"scheme": "stripe"}}),
    "cloudevents-structured": ("order:created", {"profile": "cloudevents"}),
    "cloudevents-binary": (
        "order:created",
        {"profile": "cloudevents", "profile_options": {"mode": "binary"}},
    ),
    "evolutionx-thin": ("order.created", {"profile": "evolutionx"}),
    "evolutionx-get": ("order.created", {"profile": "evolutionx", "method": "GET"}),
    "avvyr-unsigned": ("orderCreated", {"profile": "avvyr"}),
    "shipstream-today": (
        "order:created",
        {"profile": "shipstream", "profile_options": {"event_timestamp": True, "merchant": True}},
    ),
}
"""One request for each form that the platforms' own types do not show."""


def all_requests() -> Iterator[tuple[Path, bytes]]:
    """Each golden file and what it must hold."""
    for profile, spec in PLATFORMS.items():
        for name, event_type in shipped(profile).items():
            yield (
                DATA / profile / f"{file_name(name)}.http",
                request(event_type, {"profile": profile, **spec}),
            )
    every = {name: found for profile in PLATFORMS for name, found in shipped(profile).items()}
    for file, (name, spec) in SINGLES.items():
        yield DATA / "forms" / f"{file}.http", request(every[name], spec)


def file_name(event_type: str) -> str:
    return event_type.replace(":", "-")


def request(event_type: EventType, spec: dict[str, Any]) -> bytes:
    """Request line, headers, an empty line, the body. The sender adds Host, Accept and Content-Length."""
    definition = drafted({"url": URL, **spec}).spec.definition()
    key = {"v1": STANDARD_SECRET, "v1a": PRIVATE_KEY}.get(definition.signing.scheme, SECRET)
    keys = (SigningKey(key, 0),) if definition.signing.scheme != "none" else ()
    subscription = Subscription(
        no=7, id="sub_019b791470fa70008000000000000007", tenant_no=3, shard=0, version=1, matches_from=1,
        definition=definition, sealed=b"", created_at=0, updated_at=0,
    )  # fmt: skip
    composer = Composer(
        subscription, Secrets(keys=keys), Tenant(3, "shop", "The shop", definition.profile, 0), "Hookline"
    )
    sent = composer.compose(event_of(event_type), 41, 2, SENT).request
    head = "\n".join([f"{sent.method} {sent.url}", *sent.headers])
    return head.encode() + b"\n\n" + (sent.body or b"")


def event_of(event_type: EventType) -> Event:
    """The example of the type, as an event."""
    return Event(
        shard=0, position=4471, tenant_no=3, id="evt_019b791470fa7000800000000000000e", type=event_type.name,
        data=event_type.example or b"{}", occurred_at=NOW, received_at=NOW, object_type=event_type.object_type or None,
        object_id="1000", source_application="storefront", source_user="1000", key="1000", correlation_id="cart-77",
    )  # fmt: skip
