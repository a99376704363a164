"""What passes between the parts of the relay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from hookline.core.errors import HooklineError

LARGEST = 64 << 20
"""Bytes of the largest event that a server can be told to take."""


class Row(Struct, frozen=True, gc=False):
    """An event as it lies in the outbox. ``body`` has no ``id``: that is the row's.

    One of more than ``LARGEST`` bytes (``size``) is not read: its ``body`` is empty.
    """

    seq: int
    id: str
    tenant: str
    body: bytes
    size: int = 0

    @property
    def event(self) -> bytes:
        """As ``POST /v1/events`` takes it. The id stands at the end, where it counts whatever stands before.

        A body that is no JSON object makes no JSON here either, and is refused like any other.
        """
        return b'%b,"id":%b}' % (self.body.rstrip().removesuffix(b"}"), msgspec.json.encode(self.id))


class Stored(Struct, frozen=True, gc=False):
    """The log has the event, now or from before."""


class Rejected(Struct, frozen=True, gc=False):
    """The log will never take it: its fault, not ours."""

    code: str
    reason: str


class Later(Struct, frozen=True, gc=False):
    """Nobody could take it just now."""

    reason: str


class Held(Struct, frozen=True, gc=False):
    """This relay may not publish for the row's tenant: a matter for its operator, and no reason to stop the others."""

    reason: str


Result = Stored | Rejected | Later | Held
STORED = Stored()


class DeadLetter(Struct, frozen=True):
    """A row on its way out of the outbox, and why."""

    row: Row
    code: str
    reason: str


class OutboxReport(Struct, frozen=True, kw_only=True):
    """The state of an outbox at one moment. ``rows`` and ``dead`` are counted up to ``COUNTED``."""

    rows: int
    oldest_seconds: float
    """How long ago the oldest row was written; 0 if there is none."""
    dead: int
    ordered: bool
    """Whether the trigger is there that keeps the order of commits (on SQLite nothing is needed)."""


COUNTED = 100_000


MISSING = "`python -m hookline.outbox"
"""How the user gets the tables; the rest depends on the database."""


class OutboxDown(Exception):
    """The outbox's database does not do what was asked just now; the text says why."""


class Outbox(Protocol):
    """An outbox table as the relay sees it. Every method may raise ``OutboxDown``; then ``close`` and ``open`` again.

    No transaction is open between two calls, and no row is locked.
    """

    async def open(self) -> None:
        """Connect. Raises ``OutboxDown`` also where the tables are missing."""
        ...

    async def close(self) -> None:
        """Give up the connection and whatever it holds. Raises nothing."""
        ...

    async def lead(self) -> bool:
        """Become the one relay that works on this outbox, until ``close``. False while there is another."""
        ...

    async def read(self, rows: int, size: int, without: Sequence[str]) -> list[Row]:
        """The first rows in the order of their commits, but for some tenants'. At least one if there is any."""
        ...

    async def remove(self, rows: Sequence[Row]) -> None:
        """Delete the rows in a transaction of their own; what another one deleted already is no matter."""
        ...

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Move rows to the dead letters, in one transaction."""
        ...

    async def report(self) -> OutboxReport:
        """Count."""
        ...


def reason_of(error: HooklineError) -> str:
    """An error and its faults as text, one to a line."""
    lines = [f"{fault.field}: {fault.message}" for fault in error.faults]
    return "\n".join([error.detail, *(line for line in lines if line != error.detail)])[:REASON_LETTERS]


REASON_LETTERS = 4000
