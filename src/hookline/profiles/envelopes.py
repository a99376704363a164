"""What each profile makes of the publisher's data, as JSON Schema, and its headers.

Both hold for a subscription that changes none of its profile's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from hookline.core.model import SignatureScheme
from hookline.profiles.base import Profile

Json = dict[str, Any]

TIME: Json = {"type": "string", "format": "date-time", "description": "When it occurred."}
TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}


class Payload(Struct, frozen=True):
    """The schema of one type's data: all of it, and a reference to it (``{"$ref": …}``) from the same document."""

    event_type: str
    schema: Json
    reference: Json

    def part(self, name: str) -> Json | None:
        """A reference to the schema of one of its members, if the schema itself names it."""
        if name not in self.schema.get("properties", {}):
            return None
        return {"$ref": f"{self.reference['$ref']}/properties/{name}"}


def _object(properties: Json, *optional: str) -> Json:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


# --- bodies --------------------------------------------------------------------------------------------


def _standard(data: Payload) -> Json:
    return _object({"type": {"const": data.event_type}, "timestamp": TIME, "data": data.reference})


def _cloudevents(data: Payload) -> Json:
    attributes: Json = {
        "specversion": {"const": "1.0"},
        "id": {**TEXT, "description": "The event; with `source`, the key to tell duplicates by."},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"const": data.event_type},
        "time": TIME,
        "subject": {**TEXT, "description": "Type and id of the object."},
        "partitionkey": TEXT,
        "correlationid": TEXT,
        "datacontenttype": {"const": "application/json"},
        "data": data.reference,
    }
    return _object(attributes, "subject", "partitionkey", "correlationid")


def _avvyr(data: Payload) -> Json:
    meta: Json = {
        "eventType": {"const": data.event_type},
        "entityType": {**TEXT, "description": "The noun in lower case, such as `order`."},
        "tenantId": TEXT,
        "messageId": {**TEXT, "description": "The event, the same in every attempt."},
        "timestamp": TIME,
    }
    return _object({"_meta": _object(meta), "data": data.reference})


def _evolutionx(data: Payload) -> Json:
    reference: Json = {**_object({"type": TEXT_OR_NULL, "id": TEXT_OR_NULL}), "additionalProperties": False}
    about = data.part("event_data")
    record = data.part("object") if about is not None else data.reference
    return _object(
        {
            "event_id": {**TEXT, "description": "The same in every attempt."},
            "event_type": {"const": data.event_type},
            "event_time": {"type": "integer", "description": "Unix time in seconds, UTC."},
            "object_type": TEXT_OR_NULL,
            "object_id": TEXT_OR_NULL,
            "source_user_type": {**TEXT_OR_NULL, "description": "The application that caused the event."},
            "source_user_id": TEXT_OR_NULL,
            "event_data": about or {"type": "object"},
            "data": {
                "description": "The object record if the subscription includes it, else a reference to it.",
                "anyOf": [reference, *([record] if record is not None else [])],
            },
        }
    )


def _shipstream(data: Payload) -> Json:
    ours: Json = {
        "webhook_increment_id": {
            "type": "integer",
            "minimum": 0,
            "description": "Counts the messages of a webhook: a gap is a missing message. Tests have 0.",
        }
    }
    return _object({"topic": {"const": data.event_type}, "message": _with_members(data, ours)})


def _with_members(data: Payload, ours: Json) -> Json:
    """An object that has these members beside those of the data; data that is no object is the member ``data``."""
    schema = data.schema
    wrapped = _object({**ours, "data": data.reference})
    if {"properties", "additionalProperties"} & schema.keys():
        required = [*ours, *(name for name in schema.get("required", []) if name not in ours)]
        return {**schema, "required": required, "properties": {**schema.get("properties", {}), **ours}}
    beside: Json = {"allOf": [data.reference, _object(ours)]}
    if "type" in schema:
        return beside if "object" in schema["type"] else wrapped
    return beside if {"$ref", "allOf", "required"} & schema.keys() else {"anyOf": [beside, wrapped]}


def _bare(data: Payload) -> Json:
    return data.reference


BODIES: Mapping[str, Callable[[Payload], Json]] = {
    "standard": _standard,
    "cloudevents": _cloudevents,
    "avvyr": _avvyr,
    "evolutionx": _evolutionx,
    "shipstream": _shipstream,
    "frontsystems": _bare,
}
"""The schema of the body, by the name of the profile. Mails are no webhooks."""


# --- headers -------------------------------------------------------------------------------------------

_OWN: Mapping[str, Mapping[str, str]] = {"avvyr": {"X-Webhook-Event": "The event type."}}


def headers_of(profile: Profile) -> dict[str, str]:
    """What every request carries beside the usual: name of the header -> what it says."""
    signing = profile.defaults.signing
    message = "The delivery" if profile.uuids else "The event"
    signed = signing.scheme is not SignatureScheme.NONE
    found = {
        signing.id_header: f"{message}: the same in every attempt.",
        signing.timestamp_header: "When this attempt was made, as Unix time in seconds.",
        signing.signature_header: "The signature." if signed else "",
    }
    return {
        **_OWN.get(profile.name, {}),
        **{name: text for name, text in found.items() if name and text},
        "hookline-sequence": "Counts the events of this subscription: a gap is an event that is missing.",
        "hookline-attempt": "1 for the first attempt of a delivery.",
    }
