"""The descriptions of bodies and headers against what the profiles really write."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from hookline.core.model import Event, EventType, SignatureScheme, Tenant
from hookline.profiles import PROFILES, read_options
from hookline.profiles.catalogue import shipped
from hookline.profiles.envelopes import BODIES, Payload, headers_of

ALL = {name: found for profile in PROFILES for name, found in shipped(profile).items()}
SCHEMAS: dict[str, Any] = {
    "object": {"type": "object", "required": ["number"], "properties": {"number": {"type": "string"}}},
    "closed": {"type": "object", "properties": {"number": {"type": "string"}}, "additionalProperties": False},
    "anything": {},
    "text": {"type": "string"},
    "a number if it is one": {"minimum": 1},
}
DATA: dict[str, Any] = {"text": "some text", "a number if it is one": 2}


def event_of(name: str, data: object, **fields: Any) -> Event:
    return Event(0, 7, 1, "evt_1", name, json.dumps(data).encode(), 1_769_860_800_000, 0, **fields)


def validator(profile: str, name: str, schema: Any) -> Any:
    body = BODIES[profile](Payload(name, schema, {"$ref": "#/$defs/data"}))
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [body],
        "$defs": {"data": schema},
    }
    return jsonschema_rs.validator_for(document)


def sent(profile: str, event: Event, **options: bool | str) -> Any:
    found = PROFILES[profile]
    tenant = Tenant(1, "shop", "Shop", profile, 0)
    return json.loads(found.format(tenant, read_options(found, options)).body(event, 12))


def test_every_profile_is_described() -> None:
    assert PROFILES.keys() - BODIES.keys() == {"mail"}


@pytest.mark.parametrize("profile", BODIES)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_bodies_are_as_described(profile: str, kind: str) -> None:
    event = event_of("order:created", DATA.get(kind, {"number": "4471"}))
    check = validator(profile, event.type, SCHEMAS[kind])
    check.validate(sent(profile, event))
    if profile not in ("frontsystems", "evolutionx"):
        assert not check.is_valid(sent(profile, event_of("order:paid", {"number": "1"})))


@pytest.mark.parametrize("profile", BODIES)
def test_bodies_with_wrong_data_are_not(profile: str) -> None:
    event = event_of("order:created", {"number": 4471})
    whole = {"include_object_record": True} if profile == "evolutionx" else {}
    assert not validator(profile, event.type, SCHEMAS["object"]).is_valid(sent(profile, event, **whole))


@pytest.mark.parametrize("name", ALL)
def test_the_examples_of_the_platforms_are_as_described(name: str) -> None:
    (profile,) = (profile for profile in PROFILES if name in shipped(profile))
    found: EventType = ALL[name]
    event = event_of(
        name, json.loads(found.example or b""), object_type=found.object_type or None, object_id="1"
    )
    schema = json.loads(found.schema or b"")
    resolved = json.loads(json.dumps(schema).replace("#/$defs/", "#/$defs/data/$defs/"))
    check = validator(profile, name, resolved)
    check.validate(sent(profile, event))
    if profile == "evolutionx":
        check.validate(sent(profile, event, include_object_record=True))


def test_the_headers_are_those_of_the_profiles_defaults() -> None:
    for profile in (PROFILES[name] for name in BODIES):
        headers = headers_of(profile)
        signing = profile.defaults.signing
        assert ("hookline-sequence" in headers, "hookline-attempt" in headers) == (True, True)
        assert (signing.id_header in headers) is bool(signing.id_header)
        assert (signing.signature_header in headers) is (signing.scheme is not SignatureScheme.NONE)
    assert set(headers_of(PROFILES["avvyr"])) >= {"X-Webhook-Event", "X-Webhook-Delivery"}
    assert set(headers_of(PROFILES["shipstream"])) >= {"X-Plugin-Hmac-Sha256"}
