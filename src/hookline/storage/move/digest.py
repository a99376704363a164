"""A digest of a table that does not depend on the order in which its rows are read."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from hookline.storage.move.tables import Row

_MODULUS = 1 << 256


class Digest:
    """The sum of the SHA-256 of all rows, and their number.

    A row is encoded as MessagePack: a number, a text and bytes that look alike differ, as do NULL and an empty text.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0
        self._encode = msgspec.msgpack.Encoder().encode

    def add(self, rows: Iterable[Row]) -> None:
        encode = self._encode
        hashes = [sha256(encode(row)).digest() for row in rows]
        self.rows += len(hashes)
        self._sum = (self._sum + sum(int.from_bytes(each) for each in hashes)) % _MODULUS

    @property
    def text(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum:064x}"


def digest_of(rows: Iterable[Row]) -> Digest:
    made = Digest()
    made.add(rows)
    return made
