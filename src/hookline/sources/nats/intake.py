"""Asking the consumer for messages, one request at a time, bounded by count and bytes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from hookline.sources.nats.options import NatsOptions

EXPIRES = 2.0
"""Seconds that a request waits at the server for a first message."""
GRACE = 1.0
"""Seconds after that until we take it that the request got lost, or its end did."""
LEAVE_SECONDS = 5.0
_BESIDE_PAYLOAD = 64 << 10
"""More than subject, headers and address of a message take."""
_GONE = ("409", "503")
"""The consumer is gone or moves (409), or nobody answers for it (503). 404 and 408 end a request in the ordinary way;
so does 409 after messages: the next one did not fit the bytes."""


_LEFT = "Nats-Pending-Messages"
"""How many of the messages wanted have not been handed out when a request ends."""


class Interrupted(Exception):
    """The consumer does not serve us as things are; look at it anew."""


class _Pull:
    """One request: what came of it so far, and how it ended."""

    def __init__(self, token: str, wanted: int) -> None:
        self.token = token
        self.wanted = wanted
        self.messages: list[Msg] = []
        self.ended = asyncio.Event()
        self.status = ""

    def add(self, msg: Msg) -> None:
        self.messages.append(msg)
        if len(self.messages) >= self.wanted:
            self.ended.set()

    def end(self, status: str, left: int | None) -> None:
        """The server has handed out all but ``left`` of the messages wanted. In a cluster it says so at once, and sends
        the messages when most servers know of them: those that are on their way are waited for."""
        if left is not None:
            self.wanted -= min(left, self.wanted)
        if left != 0:
            self.status = status
        if left is None or len(self.messages) >= self.wanted:
            self.ended.set()


class Intake:
    """The messages that the server hands out to this node.

    A request takes what is there, or waits for a first message. While one batch is being stored, the next request
    can be under way (``ask``): never more than that is in memory.
    """

    def __init__(self, nc: Client, options: NatsOptions) -> None:
        self._nc = nc
        self._options = options
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{options.stream}.{options.durable}"
        self._bytes = max(options.batch_bytes, nc.max_payload + _BESIDE_PAYLOAD)
        bounds = {"batch": options.batch, "max_bytes": self._bytes}
        self._request = json.dumps({**bounds, "expires": int(EXPIRES * 1e9), "no_wait": True}).encode()
        self._inbox = nc.new_inbox()
        self._subscription: Subscription | None = None
        self._pull: _Pull | None = None
        self._strays: list[Msg] = []
        self._refusing = 0.0
        self._count = 0
        self._interrupted = False

    async def open(self) -> None:
        """Begin to listen for what is handed out."""
        self._subscription = await self._nc.subscribe(  # pyright: ignore[reportUnknownMemberType] - untyped Future in it
            f"{self._inbox}.*",
            cb=self._receive,
            pending_msgs_limit=4 * self._options.batch + 100,
            pending_bytes_limit=4 * self._bytes,
        )

    async def ask(self) -> None:
        """Send a request for a batch, unless one is under way."""
        if self._pull is not None or self._interrupted:
            return
        self._refusing = 0.0
        self._count += 1
        self._pull = _Pull(str(self._count), self._options.batch)
        await self._nc.publish(self._subject, self._request, reply=f"{self._inbox}.{self._pull.token}")

    async def take(self) -> list[Msg]:
        """What came of the request under way, in order: nothing if there was nothing for ``EXPIRES`` seconds.

        Raises ``Interrupted`` if the request was refused.
        """
        pull = self._pull
        if pull is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(EXPIRES + GRACE):
                    await pull.ended.wait()
        taken = self._collect()
        if not taken and pull is not None and pull.status in _GONE:
            raise Interrupted(pull.status)
        return taken

    def interrupt(self) -> None:
        """Let ``take`` return at once, and send no further request."""
        self._interrupted = True
        if self._pull is not None:
            self._pull.ended.set()

    async def give_back(self, delay: float) -> int:
        """Hand back everything that was not taken, and what comes until the next request; how many that were.

        The server keeps them for ``delay`` seconds and hands them out again, here or to another node.
        """
        self._refusing = delay
        returned = self._collect()
        for msg in returned:
            await msg.nak(delay)
        return len(returned)

    async def leave(self) -> list[Msg]:
        """Stop listening; the messages that had come or were on their way."""
        self.interrupt()
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(LEAVE_SECONDS):
                if self._subscription is not None:
                    await self._subscription.drain()
        return self._collect()

    def _collect(self) -> list[Msg]:
        pull, self._pull = self._pull, None
        collected, self._strays = [*self._strays, *(pull.messages if pull else ())], []
        return collected

    async def _receive(self, msg: Msg) -> None:
        """A message bears the subject it was published on and an address to answer; an end bears our inbox and its
        status. So an end is known by its request, a message may come late from the one before."""
        pull = self._pull
        if msg.reply:
            if pull is not None:
                pull.add(msg)
            elif self._refusing:
                await msg.nak(self._refusing)
            else:
                self._strays.append(msg)
        elif pull is not None and msg.subject == f"{self._inbox}.{pull.token}":
            headers = msg.headers or {}
            left = headers.get(_LEFT, "")
            pull.end(headers.get("Status", ""), int(left) if left.isdecimal() else None)
