"""The forms that all answers of the EvolutionX API share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from hookline.api.compat.base import Answer, Ask
from hookline.api.paging import Cursor, Limit, encode_cursor
from hookline.core.errors import Fault, NotFound
from hookline.core.model import Millis, Subscription

V1 = "/evolutionx/api/v1"
PROFILE = "evolutionx"
DAY: Millis = 86_400_000

Unix = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Seconds since 1970 in UTC, up to the end of the year 9999."""


class Failure(Struct, frozen=True):
    """What went wrong. ``type`` is stable; ``fields`` names everything that is wrong with the input."""

    type: str
    message: str
    fields: Sequence[Fault]
    request_id: str


class Failed(Struct, frozen=True):
    """The body of every answer that is no success."""

    error: Failure


class Entries(Struct, frozen=True):
    """A page of a list. ``next`` is the ``cursor`` of the next page, null on the last one."""

    data: Sequence[Struct]
    next: str | None


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of a list."""

    limit: Limit = 50
    cursor: Cursor = ""


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters at all."""


def failed(status: int, type: str, message: str, fields: Sequence[Fault], request_id: str) -> Answer:
    """An error in this API's form."""
    return Answer(Failed(Failure(type, message, fields, request_id)), status)


def page(listing: str, entries: Sequence[Struct], last: int | None) -> Answer:
    """A page; ``last`` is the place that the next one begins after."""
    return Answer(Entries(entries, None if last is None else encode_cursor(listing, last)))


async def webhook(ask: Ask) -> Subscription:
    """The subscription that the path names. Raises ``NotFound`` also for those of other profiles."""
    try:
        found = await ask.services.storage.get_subscription(ask.tenant.no, ask.path["id"])
    except NotFound:
        found = None
    if found is None or found.definition.profile != PROFILE:
        raise NotFound("there is no such webhook")
    return found


def unix(time: Millis) -> int:
    """The second, as the platform writes all times."""
    return time // 1000
