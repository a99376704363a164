"""Public ids: prefixed, safe in URLs and headers, and free of full stops.

Ids of stored things are time-ordered (48 bits of milliseconds, 80 random bits) so that indexes grow at
their end. Ids of deliveries and attempts are derived from what they name: a crash cannot change them.
"""

from __future__ import annotations

import re

from hookline.core.errors import NotFound
from hookline.core.model import Millis, Position

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}

EVENT_ID = re.compile(r"[A-Za-z0-9_:\-]{1,128}")
"""What a publisher may choose as an event id. No full stop: it separates the signed parts (Standard Webhooks)."""


def _encode(number: int) -> str:
    digits: list[str] = []
    while number or not digits:
        number, low = divmod(number, 32)
        digits.append(_ALPHABET[low])
    return "".join(reversed(digits))


def _decode(text: str) -> int:
    number = 0
    for letter in text:
        number = number * 32 + _VALUES[letter]
    return number


def time_ordered(prefix: str, now: Millis, entropy: bytes) -> str:
    """``prefix`` + 32 hexadecimal digits that sort by ``now``; ``entropy`` is 10 random bytes."""
    return f"{prefix}_{now:012x}{entropy.hex()}"


def delivery_id(subscription_no: int, position: Position) -> str:
    """The id of the delivery of the event at ``position`` to a subscription."""
    return f"dlv_{_encode(subscription_no)}-{_encode(position)}"


def attempt_id(subscription_no: int, position: Position, number: int) -> str:
    """The id of the ``number``-th attempt (1, 2, …) of a delivery."""
    return f"att_{_encode(subscription_no)}-{_encode(position)}-{_encode(number)}"


def parse_delivery_id(text: str) -> tuple[int, Position]:
    """Subscription number and position. Raises ``NotFound`` for anything that is no delivery id."""
    subscription_no, position = _parse("dlv", text, 2)
    return subscription_no, position


def parse_attempt_id(text: str) -> tuple[int, Position, int]:
    """Subscription number, position, attempt number. Raises ``NotFound`` for anything else."""
    subscription_no, position, number = _parse("att", text, 3)
    return subscription_no, position, number


def _parse(prefix: str, text: str, parts: int) -> list[int]:
    head, _, tail = text.partition("_")
    fields = tail.split("-")
    if head != prefix or len(fields) != parts or not all(_is_number(part) for part in fields):
        raise NotFound(f"{text[:80]!r} is not an id of the form {prefix}_…")
    return [_decode(part) for part in fields]


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 12 and all(letter in _VALUES for letter in text)
