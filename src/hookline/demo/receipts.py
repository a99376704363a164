"""What the receivers write down and hand over: shared by their process and the demo's."""

from __future__ import annotations

import hashlib

from msgspec import Struct


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """One request that a receiver got and answered, in the order of the answers.

    ``at`` is microseconds since the epoch, when the request was complete. ``digest`` is of the exact bytes of
    ``data`` in the body.
    """

    receiver: str
    event_id: str
    sequence: int
    attempt: int
    at: int
    status: int
    verified: bool
    digest: str


class Ports(Struct, frozen=True):
    """Where everything listens."""

    control: int
    receivers: dict[str, int]


class Page(Struct, frozen=True):
    """A stretch of the log of receipts; ``next`` is the number to continue after."""

    receipts: list[Receipt]
    next: int


def digest_of(data: bytes) -> str:
    """Eight bytes of SHA-256: enough to see a changed payload."""
    return hashlib.sha256(data).hexdigest()[:16]
