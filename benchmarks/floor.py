"""The floor: what the same libraries need to accept an event, and to send it, with nothing in between.

Accepting: uvicorn with httptools and uvloop, the body read and decoded by msgspec, 202 answered. Sending: a signed
request made ready and sent by libcurl through our sender. ``floor.py accept PORT`` serves; ``floor.py send PORT COUNT``
sends and prints the CPU microseconds of each.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvicorn
import uvloop

from benchmarks.processes import PAYLOAD
from hookline.core.address import AddressRule
from hookline.core.model import SignatureScheme, SigningKey
from hookline.core.signing import Signer, new_secret
from hookline.engine.publish import EventInput
from hookline.ports import Outcome, Request
from hookline.sender.curl import CurlSender

IN_FLIGHT = 64
_ANSWER = b'{"id":"evt_01a1ff2aeac691d69848e0bb226a4439","duplicate":false}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]
_decode = msgspec.json.Decoder(EventInput).decode


async def accept(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Take a POST, decode it, answer 202."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    _decode(body)
    await send({"type": "http.response.start", "status": 202, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


def serve(port: int) -> None:
    """Run the accepting side alone."""
    uvicorn.run(
        accept, host="127.0.0.1", port=port, http="httptools", loop="uvloop", ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip


async def send(port: int, count: int) -> float:
    """CPU microseconds to sign and send one request, over ``count`` of them."""
    sender = CurlSender(AddressRule([ipaddress.ip_network("127.0.0.0/8")]), http2=False)
    signer = Signer(SignatureScheme.V1, [SigningKey(new_secret(SignatureScheme.V1, os.urandom), 0)])
    body, finished = PAYLOAD.encode(), asyncio.Event()
    state = {"started": 0, "done": 0}

    def start() -> None:
        state["started"] += 1
        event_id, now = f"evt_{state['started']:044d}", time.time_ns() // 1_000_000
        lines = [
            "User-Agent: Hookline",
            "Content-Type: application/json",
            f"webhook-id: {event_id}",
            f"webhook-timestamp: {now // 1000}",
            f"webhook-signature: {signer.sign(event_id, now // 1000, body, now)}",
        ]
        sender.start(Request("POST", f"http://127.0.0.1:{port}/", lines, body, 5.0, 20.0), done)

    def done(outcome: Outcome) -> None:
        assert outcome.status == 200, outcome
        state["done"] += 1
        if state["started"] < count:
            start()
        elif state["done"] == count:
            finished.set()

    before = time.process_time()
    for _ in range(IN_FLIGHT):
        start()
    await finished.wait()
    used = time.process_time() - before
    await sender.close()
    return used / count * 1e6


if __name__ == "__main__":
    if sys.argv[1] == "accept":
        serve(int(sys.argv[2]))
    else:
        print(uvloop.run(send(int(sys.argv[2]), int(sys.argv[3]))))
