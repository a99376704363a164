"""Public ids: prefixed, safe in URLs and headers, and free of full stops.

Ids of stored things are time-ordered (the digits of a UUID version 7, RFC 9562: 48 bits of milliseconds, 74 random
bits) so that indexes grow at their end. Ids of deliveries and attempts are derived from what they name: a crash cannot
change them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, final
from uuid import UUID

from hookline.core.errors import NotFound
from hookline.core.model import Millis, Position

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}

EVENT_ID = re.compile(r"[A-Za-z0-9_:\-]{1,128}")
"""What a publisher may choose as an event id. No full stop: it separates the signed parts (Standard Webhooks)."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION_7: Final = 0x7 << 76 | 0b10 << 62
_RANDOM_BITS: Final = (1 << 80) - 1 & ~(0xF << 76 | 0b11 << 62)
_LOW_BITS: Final = (1 << 62) - 1


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
    random = int.from_bytes(entropy[:10], "big") & _RANDOM_BITS | _VERSION_7
    return f"{prefix}_{now:012x}{random:020x}"


def uuid_of(stored_id: str) -> str:
    """The UUID in a time-ordered id, for platforms whose ids are UUIDs."""
    return str(UUID(hex=stored_id.rpartition("_")[2]))


def from_uuid(prefix: str, text: str) -> str:
    """The time-ordered id of which ``text`` is the UUID. Raises ``NotFound`` for anything that is no UUID."""
    if not _UUID.fullmatch(text):
        raise NotFound(f"{text[:80]!r} is not a UUID")
    return f"{prefix}_{UUID(text).hex}"


@final
class DeliveryUuids:
    """UUIDs (version 8) for the deliveries of one subscription: derived, and different in each installation.

    The first half is a hash of the subscription's id, the second the event's position under another part of it.
    """

    __slots__ = ("_high", "_mask")

    def __init__(self, subscription_id: str) -> None:
        hashed = hashlib.sha256(subscription_id.encode()).digest()
        self._high = int.from_bytes(hashed[:8], "big") & ~0xF000 | 0x8000
        self._mask = int.from_bytes(hashed[8:16], "big") & _LOW_BITS

    def of(self, position: Position) -> str:
        """The id of the delivery of the event at ``position``; always the same."""
        digits = f"{self._high:016x}{1 << 63 | self._mask ^ position:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def position(self, text: str) -> Position:
        """The event's position. Raises ``NotFound`` for what is no delivery of this subscription."""
        number = UUID(text).int if _UUID.fullmatch(text) else 0
        if number >> 64 != self._high or number >> 62 & 0b11 != 0b10:
            raise NotFound(f"{text[:80]!r} is not a delivery of this subscription")
        return number & _LOW_BITS ^ self._mask


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


_NAMES = {"dlv": "a delivery", "att": "an attempt"}


def _parse(prefix: str, text: str, parts: int) -> list[int]:
    head, _, tail = text.partition("_")
    fields = tail.split("-")
    if head != prefix or len(fields) != parts or not all(_is_number(part) for part in fields):
        example = "-".join([f"{prefix}_1", *["1"] * (parts - 1)])
        raise NotFound(f"{text[:80]!r} is not the id of {_NAMES[prefix]}; those look like {example}")
    return [_decode(part) for part in fields]


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 12 and all(letter in _VALUES for letter in text)
