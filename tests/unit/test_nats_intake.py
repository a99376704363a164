"""Requests to a JetStream consumer, whose end may come before the messages that it handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from hookline.sources.nats.intake import Intake, Interrupted
from hookline.sources.nats.options import NatsOptions

BATCH = 3


class Server:
    """Stands for the connection: the test says what comes, and when."""

    max_payload = 1 << 20

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._receive: Callable[[Msg], Awaitable[None]] | None = None

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, _subject: str, *, cb: Callable[[Msg], Awaitable[None]], **_: Any) -> Any:
        self._receive = cb
        return SimpleNamespace(drain=lambda: asyncio.sleep(0))

    async def publish(self, _subject: str, _request: bytes, *, reply: str) -> None:
        self.asked.append(reply)

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            await self._give("events", f"$JS.ACK.{number}", {})

    async def end(self, status: str, left: int | None = None) -> None:
        headers = {"Status": status} | ({} if left is None else {"Nats-Pending-Messages": str(left)})
        await self._give(self.asked[-1], "", headers)

    async def _give(self, subject: str, reply: str, headers: dict[str, str]) -> None:
        assert self._receive is not None
        await self._receive(Msg(cast("Client", self), subject, reply, b"", headers))


async def opened() -> tuple[Server, Intake]:
    server = Server()
    intake = Intake(cast("Client", server), NatsOptions(url="nats://127.0.0.1:1", batch=BATCH))
    await intake.open()
    await intake.ask()
    return server, intake


def numbers(messages: list[Msg]) -> list[str]:
    return [message.reply.rpartition(".")[2] for message in messages]


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return not task.done()


@pytest.mark.parametrize(("sent", "left"), [((1, 2, 3), 0), ((1, 2), 1)])
async def test_messages_that_come_after_the_end_of_their_request_are_waited_for(
    sent: tuple[int, ...], left: int
) -> None:
    """A cluster tells that a batch is complete, or that the next message did not fit, before most servers know what it
    handed out; only then come the messages."""
    server, intake = await opened()
    taking = asyncio.create_task(intake.take())
    await server.end("409", left)
    assert await is_waiting(taking)
    await server.send(*sent)
    assert numbers(await taking) == [str(number) for number in sent]


async def test_an_end_behind_its_messages_ends_at_once() -> None:
    server, intake = await opened()
    taking = asyncio.create_task(intake.take())
    await server.send(1)
    await server.end("408", BATCH - 1)
    assert numbers(await taking) == ["1"]


@pytest.mark.parametrize("status", ["404", "408"])
@pytest.mark.parametrize("left", [None, BATCH])
async def test_a_request_that_got_nothing_ends_at_once(status: str, left: int | None) -> None:
    server, intake = await opened()
    taking = asyncio.create_task(intake.take())
    await server.end(status, left)
    assert await taking == []


@pytest.mark.parametrize("left", [None, BATCH])
async def test_a_consumer_that_went_interrupts(left: int | None) -> None:
    server, intake = await opened()
    await server.end("409", left)
    with pytest.raises(Interrupted):
        await intake.take()
