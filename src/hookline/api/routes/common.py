"""Queries and small steps that several routes share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from hookline.api.paging import Cursor, Limit
from hookline.core.errors import Fault, InvalidInput
from hookline.core.model import Millis
from hookline.core.times import parse_rfc3339

From = Annotated[str, Meta(description="received at or after this time (RFC 3339)")]
To = Annotated[str, Meta(description="received before this time (RFC 3339)")]
Include = Annotated[
    tuple[Literal["payload", "attempts"], ...], Meta(description="what to add, with commas between")
]
IncludePayload = Annotated[
    tuple[Literal["payload"], ...], Meta(description="`payload` adds the events' data")
]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of a list."""

    limit: Limit = 50
    cursor: Cursor = ""


class LimitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The newest entries of a short list."""

    limit: Limit = 50


def moment(field: str, text: str) -> Millis:
    """A time of the query or body, 0 for none. Raises ``InvalidInput``."""
    if not text:
        return 0
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        message = "must be a time like 2026-01-31T12:00:00Z"
        raise InvalidInput(f"{field}: {message}", [Fault(field, message)]) from None
