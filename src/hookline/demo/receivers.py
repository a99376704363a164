"""The receivers' own process: ``python -m hookline.demo.receivers``.

It knows nothing of Hookline but the Standard Webhooks specification: every request is verified with the
library of that project (``standardwebhooks``), not with our code, and written down. On a control port the
demo hands over secrets and reads what was written. The first line on stdout is JSON with the ports; the
process ends when its stdin ends, so it cannot outlive the demo.
"""

from __future__ import annotations

import asyncio
import sys
import time
import zlib

import msgspec
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from hookline.demo.cast import CAST, Role
from hookline.demo.listener import Answer, Call, Listener
from hookline.demo.receipts import Page, Ports, Receipt, digest_of

MAX_RECEIPTS = 2_000_000
"""What the log of one run may hold; requests beyond are answered with 503."""
PAGE = 5_000


class Log:
    """All receipts of the process, in order."""

    def __init__(self) -> None:
        self._receipts: list[Receipt] = []

    @property
    def full(self) -> bool:
        return len(self._receipts) >= MAX_RECEIPTS

    def add(self, receipt: Receipt) -> None:
        self._receipts.append(receipt)

    def page(self, after: int) -> Page:
        found = self._receipts[after : after + PAGE]
        return Page(found, after + len(found))


def data_bytes(body: bytes) -> bytes:
    """The exact bytes of ``data`` in a Standard Webhooks body; it is the last member."""
    start = body.find(b'"data":')
    return body[start + 7 : -1] if start >= 0 and body.endswith(b"}") else b""


class Receiver:
    """One endpoint: verifies, decides on its answer as its role says, and writes the receipt."""

    def __init__(self, role: Role, log: Log) -> None:
        self.role = role
        self.listener = Listener(self.answer)
        self._log = log
        self._webhook: Webhook | None = None
        self._requests = 0

    def trust(self, secret: str) -> None:
        """The secret that requests must be signed with."""
        self._webhook = Webhook(secret)

    def answer(self, call: Call) -> Answer:
        """Verify, decide, and note the request when the answer goes out."""
        if self._log.full:
            return Answer(503)
        at = time.time_ns() // 1000
        self._requests += 1
        event_id, attempt = call.headers.get("webhook-id", ""), _number(call, "hookline-attempt")
        verified = self.verifies(call)
        status = self._status(event_id, attempt) if verified else 401
        receipt = Receipt(
            self.role.name, event_id, _number(call, "hookline-sequence"), attempt, at, status, verified,
            digest_of(data_bytes(call.body)),
        )  # fmt: skip
        headers = {"retry-after": "1"} if status == 429 else {}
        delay = self._delay(event_id)
        return Answer(status, headers=headers, delay=delay, sent=lambda: self._log.add(receipt))

    def verifies(self, call: Call) -> bool:
        """Whether the independent library accepts signature and timestamp."""
        if self._webhook is None:
            return False
        try:
            self._webhook.verify(call.body, call.headers, json_parse=False)
        except (WebhookVerificationError, ValueError):  # malformed headers raise plain ValueErrors
            return False
        return True

    def _status(self, event_id: str, attempt: int) -> int:
        behaviour = self.role.behaviour
        if behaviour.limit_every and self._requests % behaviour.limit_every == 0:
            return 429
        if attempt <= behaviour.fail_first and self._share(event_id) < behaviour.fail_share:
            return 500
        return 204

    def _delay(self, event_id: str) -> float:
        least, most = self.role.behaviour.delay
        return least + (most - least) * self._share(event_id)

    def _share(self, event_id: str) -> float:
        """A fixed number in [0, 1) for an event, so that a run can be repeated."""
        return zlib.crc32(f"{self.role.name}/{event_id}".encode()) / 2**32


def _number(call: Call, header: str) -> int:
    text = call.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() else 0


class Control:
    """The port for the demo itself."""

    def __init__(self, receivers: dict[str, Receiver], log: Log) -> None:
        self.listener = Listener(self.answer)
        self._receivers = receivers
        self._log = log
        self._returns: dict[str, asyncio.Task[None]] = {}

    def answer(self, call: Call) -> Answer:
        match (call.method, call.path):
            case ("GET", "/receipts"):
                return Answer(200, msgspec.json.encode(self._log.page(int(call.query["after"]))))
            case ("PUT", "/secrets"):
                for name, secret in msgspec.json.decode(call.body, type=dict[str, str]).items():
                    self._receivers[name].trust(secret)
                return Answer()
            case ("POST", "/away"):
                self._leave(self._receivers[call.query["name"]], float(call.query["seconds"]))
                return Answer()
            case _:
                return Answer(404)

    def _leave(self, receiver: Receiver, seconds: float) -> None:
        receiver.listener.close_door()
        task = asyncio.get_running_loop().create_task(_return(receiver, seconds))
        self._returns[receiver.role.name] = task

    async def returned(self, name: str) -> None:
        """Until this receiver is back."""
        await self._returns[name]

    def close(self) -> None:
        for task in self._returns.values():
            task.cancel()
        self.listener.close()


async def _return(receiver: Receiver, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await receiver.listener.open()


async def serve() -> None:
    """Listen until stdin ends."""
    log = Log()
    receivers = {role.name: Receiver(role, log) for role in CAST}
    control = Control(receivers, log)
    await control.listener.open()
    for receiver in receivers.values():
        await receiver.listener.open()
    ports = Ports(control.listener.port, {name: entry.listener.port for name, entry in receivers.items()})
    print(msgspec.json.encode(ports).decode(), flush=True)
    try:
        await _end_of_stdin()
    finally:
        control.close()
        for receiver in receivers.values():
            receiver.listener.close()


async def _end_of_stdin() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(4096):
            pass
    finally:
        transport.close()


if __name__ == "__main__":
    asyncio.run(serve())
