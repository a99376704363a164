"""Keeps mailboxes usable while something fails a thousand times: one mail in an interval, the others are counted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MOST_KEYS: Final = 10_000
"""Mailboxes that are remembered; the one that had no mail for longest is forgotten first, with its count."""
MOST_SUBJECTS: Final = 5

Key = tuple[str, str]
"""A mail address and the id of the subscription that writes to it."""


@dataclass(slots=True)
class HeldBack:
    """What was not sent since the last mail: how many, and the subjects of the first few."""

    count: int = 0
    subjects: list[str] = field(default_factory=list[str])

    def note(self) -> str:
        """The lines for the next mail; empty if nothing was held back."""
        if not self.count:
            return ""
        what = "1 further mail was" if self.count == 1 else f"{self.count} further mails were"
        more = [f"- and {rest} more"] if (rest := self.count - len(self.subjects)) else []
        lines = [
            f"{what} held back since the last one:",
            *(f"- {subject}" for subject in self.subjects),
            *more,
        ]
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Mailbox:
    last: float
    held: HeldBack = field(default_factory=HeldBack)


class FloodGuard:
    """Remembers in memory alone: after a restart, the next mail of each mailbox goes out, without a count.

    ``interval``: seconds between two mails of one key; 0 lets all through. Times are of one monotonic clock.
    """

    def __init__(self, interval: float, most_keys: int = MOST_KEYS) -> None:
        self.interval = interval
        self._most_keys = most_keys
        self._boxes: OrderedDict[Key, _Mailbox] = OrderedDict()

    def wait(self, key: Key, now: float) -> float:
        """Seconds until a mail may go out; 0 if it may now."""
        box = self._boxes.get(key)
        return max(0.0, box.last + self.interval - now) if box is not None else 0.0

    def hold(self, key: Key, subject: str) -> None:
        """Count a mail that is not sent."""
        box = self._boxes.get(key)
        if box is None:
            return
        box.held.count += 1
        if len(box.held.subjects) < MOST_SUBJECTS:
            box.held.subjects.append(subject)

    def held(self, key: Key) -> HeldBack:
        """What the next mail has to tell."""
        box = self._boxes.get(key)
        return box.held if box is not None else HeldBack()

    def sent(self, key: Key, now: float) -> None:
        """A mail went out, and told what had been held back."""
        if self.interval:
            self._boxes[key] = _Mailbox(now)
            self._boxes.move_to_end(key)
            if len(self._boxes) > self._most_keys:
                self._boxes.popitem(last=False)
