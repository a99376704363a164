"""A receiver in a process of its own: ``python -m tests.support.receiver <log> <secret>``.

It prints its port. The path of a request names the endpoint, its query how the endpoint behaves:

- ``delay=0.05`` answers after so many seconds; ``hang=1`` never answers;
- ``fail=2`` answers 503 to the first two attempts of each fifth event;
- ``status=429&retry_after=1`` always answers so.

Each request becomes a line of the log before it is answered: endpoint, event id, sequence, attempt, status,
monotonic nanoseconds, and whether ``standardwebhooks`` accepts its signature, with tabs between.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import BinaryIO, cast
from urllib.parse import parse_qsl
from zlib import crc32

import httptools
import uvloop
from standardwebhooks import Webhook, WebhookVerificationError

FAILING_SHARE = 5
CAUGHT_UP = "/-/caught-up"
"""Not written down: its answer says that what arrived before it is."""


def fails(event: str) -> bool:
    """Whether an endpoint with ``fail`` refuses this event at first."""
    return crc32(event.encode()) % FAILING_SHARE == 0


class Endpoint(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    def __init__(self, log: BinaryIO, webhook: Webhook) -> None:
        self._log = log
        self._webhook = webhook
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        arrived = time.monotonic_ns()
        path, _, query = self._target.decode().partition("?")
        how = dict(parse_qsl(query))
        status = self._status(how)
        if path != CAUGHT_UP:
            self._write_down(path.strip("/"), status, arrived)
        if "hang" in how:
            return
        head = f"HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n"
        if "retry_after" in how:
            head += f"Retry-After: {how['retry_after']}\r\n"
        answer = partial(self._answer, head.encode() + b"\r\n")
        delay = float(how.get("delay", "0"))
        if delay:
            asyncio.get_running_loop().call_later(delay, answer)
        else:
            answer()

    def _status(self, how: dict[str, str]) -> int:
        attempt = int(self._headers.get("hookline-attempt", "0"))
        if attempt <= int(how.get("fail", "0")) and fails(self._headers.get("webhook-id", "")):
            return 503
        return int(how.get("status", "204"))

    def _write_down(self, endpoint: str, status: int, arrived: int) -> None:
        headers = self._headers
        fields = (
            endpoint, headers.get("webhook-id", ""), headers.get("hookline-sequence", "0"),
            headers.get("hookline-attempt", "0"), status, arrived, int(self._is_verified()),
        )  # fmt: skip
        self._log.write("\t".join(map(str, fields)).encode() + b"\n")

    def _is_verified(self) -> bool:
        try:
            self._webhook.verify(self._body, self._headers)
        except WebhookVerificationError:
            return False
        return True

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main(log: str, secret: str) -> None:
    with open(log, "ab", buffering=0) as file:  # noqa: ASYNC230, PTH123 - nothing else runs yet
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            partial(Endpoint, file, Webhook(secret)), "127.0.0.1", 0, backlog=1024
        )
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - what the parent waits for
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
