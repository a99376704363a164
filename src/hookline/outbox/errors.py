"""What can be wrong when an event is put into an outbox. Nothing was written when one of these is raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an event: where (``data.total``), what, and how to mend it."""

    field: str
    message: str


class OutboxError(Exception):
    """Base of all errors of this package."""


class InvalidEvent(OutboxError, ValueError):
    """The event breaks a rule; ``faults`` names each place."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


class InvalidName(OutboxError, ValueError):
    """The name of the table or of its schema cannot be used."""


class UnsupportedConnection(OutboxError, TypeError):
    """What was given is no connection that an outbox can write to."""


class NoTransaction(OutboxError, RuntimeError):
    """There is no transaction that the event could be a part of: it would be written at once."""
