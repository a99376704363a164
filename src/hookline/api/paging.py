"""Cursors: opaque, and good only for the list that gave them."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from hookline.core.errors import Fault, InvalidInput

T = TypeVar("T")

MAX_LIMIT = 200
Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="entries on a page")]
Cursor = Annotated[str, Meta(max_length=300, description="`next` of the page before")]


def encode_cursor(listing: str, place: str | int) -> str:
    """The cursor of the page after ``place`` in ``listing``."""
    return urlsafe_b64encode(msgspec.json.encode((listing, place))).rstrip(b"=").decode()


def place_after(listing: str, cursor: str, kind: type[T], start: T) -> T:
    """Where the page begins. Raises ``InvalidInput`` for a cursor of another list, or one made up."""
    if not cursor:
        return start
    try:
        text = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        owner, place = msgspec.json.decode(text, type=tuple[str, kind])
    except (ValueError, msgspec.MsgspecError):
        owner, place = "", start
    if owner != listing or not _is_possible(place):
        raise InvalidInput("the cursor is not one of this list", [Fault("cursor", "is not one of this list")])
    return place


def _is_possible(place: object) -> bool:
    """Whether a row could stand there. Databases take no number of more than 64 bits, and PostgreSQL no NUL."""
    if isinstance(place, int):
        return 0 <= place < 1 << 62
    return not isinstance(place, str) or "\0" not in place


def cut(found: Sequence[T], limit: int) -> tuple[list[T], T | None]:
    """A page of ``limit`` entries out of one more, and its last entry if there is a next page."""
    page = list(found[:limit])
    return page, (page[-1] if page and len(found) > limit else None)
