"""An event subscription as Avvyr's "Subscribing" page names its fields: what clients send, and what they see.

Which fields there are is stated there; their limits, how they are read back, and lists are our choice
(docs/platforms/avvyr.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, cast

from msgspec import UNSET, Meta, Struct, UnsetType, field

from hookline.api.paging import Cursor, Limit
from hookline.core.errors import Fault, InvalidInput
from hookline.core.reading import read, refuse


class AuthType(StrEnum):
    """How deliveries authenticate themselves. ``hmac`` signs the body."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    HMAC = "hmac"


CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    AuthType.NONE: (),
    AuthType.BASIC: ("auth_username", "auth_password"),
    AuthType.BEARER: ("auth_token",),
    AuthType.HMAC: ("hmac_secret",),
}
"""The fields that each kind of authentication needs."""

ALL_CREDENTIALS = tuple(name for names in CREDENTIALS.values() for name in names)


class Settings(Struct, frozen=True, rename="camel"):
    """A subscription with every field, as it is or as it shall be. Empty texts stand for what is not set."""

    event_type: str = ""
    destination: str = ""
    enabled: bool = True
    auth_type: str = AuthType.NONE
    auth_username: str = ""
    auth_password: str = ""
    auth_token: str = ""
    hmac_secret: str = ""
    retry_enabled: bool = True
    retry_count: int = 3
    comment: str = ""
    error_email: str = ""
    additional_headers: dict[str, str] = field(default_factory=dict[str, str])


JSON_NAMES = dict(zip(Settings.__struct_fields__, Settings.__struct_encode_fields__, strict=True))


class HeaderItem(Struct, frozen=True, forbid_unknown_fields=True):
    """One additional header, where they are written as a list."""

    name: str
    value: str


Text = str | UnsetType | None
Switch = bool | UnsetType | None


class Given(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a request says about a subscription. Null puts a field back to its default."""

    event_type: Text = UNSET
    destination: Text = UNSET
    enabled: Switch = UNSET
    auth_type: Text = UNSET
    auth_username: Text = UNSET
    auth_password: Text = UNSET
    auth_token: Text = UNSET
    hmac_secret: Text = UNSET
    retry_enabled: Switch = UNSET
    retry_count: int | UnsetType | None = UNSET
    comment: Text = UNSET
    error_email: Text = UNSET
    additional_headers: dict[str, str] | list[HeaderItem] | UnsetType | None = UNSET


class SubscriptionView(Struct, frozen=True, rename="camel", kw_only=True):
    """What is read back. Only the credentials that ``auth_type`` needs are there, secrets masked."""

    id: str
    event_type: str
    destination: str
    enabled: bool
    auth_type: str
    auth_username: str | UnsetType = UNSET
    auth_password: str | UnsetType = UNSET
    auth_token: str | UnsetType = UNSET
    hmac_secret: str | UnsetType = UNSET
    retry_enabled: bool
    retry_count: int
    comment: str | None
    error_email: str | None
    additional_headers: dict[str, str]
    created_at: str
    updated_at: str


class PageView(Struct, frozen=True):
    """A part of a list; ``next`` is the ``cursor`` of the following one, or null."""

    data: list[SubscriptionView]
    next: str | None


class TestView(Struct, frozen=True, rename="camel"):
    """What came of a test event. ``status_code`` is null if there was no answer; ``error`` says why."""

    success: bool
    status_code: int | None
    error: str | None
    duration_ms: float
    event_type: str
    delivery_id: str
    message_id: str


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list."""

    limit: Limit = 50
    cursor: Cursor = ""


class SearchQuery(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What must hold for each entry. An empty text asks for nothing."""

    event_type: Annotated[str, Meta(max_length=200, description="is this type")] = ""
    destination: Annotated[str, Meta(max_length=2048, description="occurs in the destination")] = ""
    comment: Annotated[str, Meta(max_length=200, description="occurs in the comment, case ignored")] = ""
    limit: Limit = 50
    cursor: Cursor = ""


class ErrorView(Struct, frozen=True):
    """What went wrong; ``details`` names each place of it."""

    code: str
    message: str
    details: list[Fault]


class ErrorAnswer(Struct, frozen=True):
    """The form of all errors."""

    error: ErrorView


def read_given(body: object, own_id: str | None) -> tuple[Given, list[Fault]]:
    """What could be read of a body, and what is wrong with the rest, all at once.

    What only the server sets may be sent back to it, the id (``own_id``; None for a new subscription) as it was.
    Raises ``InvalidInput`` for what is no object.
    """
    if not isinstance(body, dict):
        refuse([Fault("", "must be a JSON object")])
    fields = dict(cast("dict[str, Any]", body))
    faults = _read_only(fields, own_id)
    try:
        return read(Given, fields), faults
    except InvalidInput as error:
        faults += error.faults
    readable = set(JSON_NAMES.values()) - members(faults)
    return read(Given, {name: value for name, value in fields.items() if name in readable}), faults


def _read_only(fields: dict[str, Any], own_id: str | None) -> list[Fault]:
    faults: list[Fault] = []
    for name in ("id", "createdAt", "updatedAt"):
        if name not in fields:
            continue
        value = fields.pop(name)
        if own_id is None:
            faults.append(Fault(name, "is set by the server; leave it out"))
        elif name == "id" and value != own_id:
            faults.append(Fault(name, "is not the id in the path; it cannot be changed"))
    return faults


def members(faults: list[Fault]) -> set[str]:
    """The fields of the object that the faults are about."""
    return {member(fault) for fault in faults}


def member(fault: Fault) -> str:
    """The field of the object that a fault is about."""
    return fault.field.partition(".")[0].partition("[")[0]
