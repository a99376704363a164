"""What subscribers get, as the OpenAPI and AsyncAPI documents describe it: one message for each event type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from hookline.api.schemas import embedded
from hookline.core.model import Event, EventType, Tenant, TypeSource
from hookline.profiles import PROFILES, Format, Profile, read_options
from hookline.profiles.envelopes import BODIES, Payload, headers_of

Json = dict[str, Any]

MOST_TYPES: Final = 1000
"""Types that one document describes."""
MOST_BYTES: Final = 8 << 20
"""Of schemas and examples in one document; types behind them stand there without."""

OPERATIONAL: Final = {
    "hookline.subscription.disabled": "A subscription was disabled, with the reason.",
    "hookline.subscription.failing": "A subscription has failed for long and will be disabled.",
    "hookline.delivery.failed": "A delivery was given up after its last retry.",
}
"""Events of Hookline's own, which every tenant can subscribe to by name or with ``hookline.*``."""

_NOBODY: Final = Tenant(0, "your-tenant", "Your tenant", "standard", 0)
_WHEN: Final = 1_769_860_800_000  # 2026-01-31T12:00:00Z
_PLACE: Final = "#/components/schemas/"


class Message(Struct, frozen=True):
    """One event type as a subscriber sees it. ``key`` is its name where few letters are allowed."""

    type: EventType
    key: str
    body: Json
    example: object | UnsetType

    @property
    def text(self) -> str:
        """All that is said of it."""
        found = self.type
        deprecation = f"Deprecated: {found.deprecation}" if found.deprecation else ""
        return "\n\n".join(filter(None, (found.description, found.usage, deprecation)))

    @property
    def deprecated(self) -> bool:
        return self.type.deprecated_at is not None


class Messages(Struct, frozen=True):
    """The messages of a tenant, and what they have in common."""

    profile: Profile
    tenant: Tenant | None
    content_type: str
    headers: dict[str, str]
    messages: Sequence[Message]
    schemas: dict[str, Json]
    """The schemas of the publishers' data, for the document's ``components``."""


def describe(
    tenant: Tenant | None, types: Iterable[EventType], *, prefix: str = "", draft7: bool = False
) -> Messages:
    """What subscribers of this tenant get by its profile, Hookline's own events first. Without a tenant: these alone.

    ``prefix`` is put before the keys; ``draft7`` is the dialect of the schemas (else 2020-12).
    """
    owner = tenant or _NOBODY
    profile = PROFILES[owner.profile if owner.profile in BODIES else "standard"]
    form: Format = profile.format(owner, read_options(profile, {}))
    listed = [*_operational(), *types]
    keys = _keys([one.name for one in listed], prefix)
    messages: list[Message] = []
    schemas: dict[str, Json] = {}
    for one, key in zip(listed, keys, strict=True):
        place = _PLACE + key
        schema = {} if one.schema is None else embedded(one.schema, place, draft7=draft7)
        body = BODIES[profile.name](Payload(one.name, schema, {"$ref": place}))
        messages.append(Message(one, key, body, _example(form, one)))
        schemas[key] = schema
    return Messages(profile, tenant, form.content_type, headers_of(profile), messages, schemas)


def _operational() -> list[EventType]:
    return [
        EventType(0, name, text, 1, 0, 0, group="Hookline", source=TypeSource.SHIPPED)
        for name, text in OPERATIONAL.items()
    ]


def _keys(names: Sequence[str], prefix: str) -> list[str]:
    """A key for each name, of letters, digits and _ . - alone, no two alike."""
    taken: dict[str, int] = {}
    keys: list[str] = []
    for name in names:
        key = prefix + re.sub(r"[^A-Za-z0-9_.-]", ".", name)
        number = taken[key] = taken.get(key, 0) + 1
        while number > 1 and f"{key}-{number}" in taken:
            number += 1
        keys.append(key if number == 1 else f"{key}-{number}")
        taken.setdefault(keys[-1], 1)
    return keys


def _example(form: Format, one: EventType) -> object | UnsetType:
    """The body that the example becomes."""
    if one.example is None:
        return UNSET
    event = Event(
        shard=0,
        position=1,
        tenant_no=0,
        id="evt_01kg9x2c5v7q8r4m",
        type=one.name,
        data=one.example,
        occurred_at=_WHEN,
        received_at=_WHEN,
        object_type=one.object_type or None,
        object_id="4471" if one.object_type else None,
    )
    body: object = msgspec.json.decode(form.body(event, 1))
    return body
