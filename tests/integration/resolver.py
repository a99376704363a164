"""A DNS server over HTTPS (RFC 8484) whose answers a test can change between two questions."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.integration.receivers import Exchange, receiver

_A, _AAAA = 1, 28
_KINDS = {4: _A, 6: _AAAA}
_NAME_ERROR = 0x8183  # response, recursion desired and available, NXDOMAIN
_NO_ERROR = 0x8180

Answers = Callable[[str, int], Sequence[str]]
"""The addresses for a name at the ``n``-th time it is asked for (A and AAAA together count as one)."""


@dataclass
class Resolver:
    """A running resolver and the names it was asked for."""

    url: str
    answers: Answers
    asked: list[str] = field(default_factory=list[str])

    async def serve(self, exchange: Exchange) -> None:
        question = exchange.request.body
        name, kind = _question(question)
        if kind == _A:
            self.asked.append(name)
        addresses = self.answers(name, max(self.asked.count(name), 1))
        body = _answer(question, kind, addresses)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await exchange.send(head.encode() + body)


@asynccontextmanager
async def resolver(tls: ssl.SSLContext, answers: Answers) -> AsyncGenerator[Resolver]:
    """Run a resolver on a free port of 127.0.0.1."""
    this = Resolver("", answers)

    async def serve(exchange: Exchange) -> None:
        await this.serve(exchange)

    async with receiver(serve, tls=tls) as server:
        this.url = server.url("/dns-query")
        yield this
        await asyncio.sleep(0)


def _question(message: bytes) -> tuple[str, int]:
    labels: list[str] = []
    place = 12
    while length := message[place]:
        labels.append(message[place + 1 : place + 1 + length].decode())
        place += length + 1
    (kind,) = struct.unpack_from("!H", message, place + 1)
    return ".".join(labels), kind


def _answer(question: bytes, kind: int, addresses: Sequence[str]) -> bytes:
    """Records of the asked kind with a life of 0 seconds; an unknown name if there are no addresses at all."""
    packed = [
        address.packed for address in map(ipaddress.ip_address, addresses) if _KINDS[address.version] == kind
    ]
    flags = _NO_ERROR if addresses else _NAME_ERROR
    head = question[:2] + struct.pack("!HHHHH", flags, 1, len(packed), 0, 0)
    end = question.index(b"\0", 12) + 5
    records = [struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in packed]
    return head + question[12:end] + b"".join(records)
