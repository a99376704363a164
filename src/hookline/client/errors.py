"""What can go wrong for a publisher. The text of each says what to do; it is safe to log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hookline.client.events import Event


class PublishError(Exception):
    """Base of all errors of this package."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with an event: where (``data.total``), and what."""

    field: str
    message: str


class Refused(PublishError):
    """The server will never accept this event as it is. ``faults`` lists everything that is wrong with it.

    ``code`` is one of docs/reference/errors.md: ``schema_violation``, ``event_id_conflict``, ``too_large`` ….
    """

    def __init__(
        self, status: int, code: str, detail: str, faults: Sequence[Fault] = (), event: Event | None = None
    ) -> None:
        listed = "".join(f"; {fault.field}: {fault.message}" for fault in faults)
        super().__init__(f"{code} ({status}): {detail}{listed}")
        self.status = status
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.event = event


class NotAllowed(Refused):
    """The key is unknown or revoked, or may not publish. The event is as good as it was."""


class Unavailable(PublishError):
    """Nobody knows whether the event is stored: no answer, or one that says to come back later, for all the time there
    was. Publish ``event`` again: its id is the same, so it cannot be stored twice."""

    def __init__(self, reason: str, events: Sequence[Event] = ()) -> None:
        super().__init__(reason)
        self.events = tuple(events)


class BufferFull(PublishError):
    """The buffer had no room for the event for as long as ``publish`` may wait; the event was not taken."""


class NotSent(PublishError):
    """The time was over before the server had everything. ``events`` are those it has not confirmed."""

    def __init__(self, reason: str, events: Sequence[Event]) -> None:
        super().__init__(reason)
        self.events = tuple(events)


class SomeRefused(PublishError):
    """Events were refused since the last ``flush``. ``refused`` has the first of them, each with its event."""

    def __init__(self, refused: Sequence[Refused], count: int) -> None:
        super().__init__(f"{count} events were refused; the first: {refused[0]}")
        self.refused = tuple(refused)
        self.count = count


class Closed(PublishError):
    """The client was closed."""
