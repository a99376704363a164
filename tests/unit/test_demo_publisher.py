"""How the shop of the demo publishes: in order, with batches, duplicates and patience."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from hookline.demo.cast import CAST
from hookline.demo.ledger import Ledger
from hookline.demo.listener import Answer, Call, Listener
from hookline.demo.publisher import Publisher
from hookline.demo.receipts import digest_of
from hookline.demo.shop import PlannedEvent, plan_day
from hookline.demo.supply import SCENARIOS

DAY = plan_day(7, 400, date(2026, 3, 14), SCENARIOS)


class Server:
    """Takes events as the real one does, and remembers them in the order they came."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, Any]] = {}
        self.requests = 0
        self.digests: dict[str, str] = {}

    def answer(self, call: Call) -> Answer:
        self.requests += 1
        body = json.loads(call.body)
        if call.path == "/v1/events":
            data = call.body.partition(b'"data":')[2].partition(b',"object"')[0]
            self.digests.setdefault(body["id"], digest_of(data))
            return Answer(202, json.dumps(self.take(body)).encode())
        return Answer(
            200, json.dumps({"data": [{"status": 202, **self.take(event)} for event in body]}).encode()
        )

    def take(self, event: dict[str, Any]) -> dict[str, Any]:
        duplicate = event["id"] in self.taken
        self.taken.setdefault(event["id"], event)
        return {"id": event["id"], "duplicate": duplicate}


@asynccontextmanager
async def serving(answer: Callable[[Call], Answer]) -> AsyncGenerator[int]:
    listener = Listener(answer)
    await listener.open()
    try:
        yield listener.port
    finally:
        listener.close()


async def publish(answer: Callable[[Call], Answer], day: list[PlannedEvent], seconds: float = 0.0) -> Ledger:
    ledger = Ledger(CAST)
    async with serving(answer) as port:
        await asyncio.wait_for(Publisher(port, "key", ledger, seconds).run(day, lambda _: None), 20)
    return ledger


async def test_everything_is_published_once_and_each_key_in_its_order():
    server = Server()
    ledger = await publish(server.answer, DAY)
    assert server.taken.keys() == ledger.book.published.keys() == {event.id for event in DAY}
    assert ledger.book.refused == []
    streams: dict[str, list[str]] = defaultdict(list)
    for event in server.taken.values():
        streams[event["key"]].append(event["id"])
    assert all(stream == sorted(stream) for stream in streams.values())


async def test_what_is_published_is_what_was_planned():
    server = Server()
    ledger = await publish(server.answer, DAY[:50])
    for event in DAY[:50]:
        taken = server.taken[event.id]
        assert (taken["type"], taken["data"], taken["key"]) == (event.type, event.data, event.key)
        assert taken["object"] == {"type": event.object_type, "id": event.object_id}
        assert taken["source"] == {"application": event.application, "user_id": event.user}
        assert taken["occurred_at"] == event.occurred_at
    published = ledger.book.published
    assert server.digests == {name: published[name].digest for name in server.digests}


async def test_some_are_sent_twice_and_told_as_duplicates():
    server = Server()
    book = (await publish(server.answer, DAY)).book
    assert book.duplicates_sent == book.duplicates_refused > 0
    batched = [event for event in DAY if event.bulk]
    assert server.requests == len(DAY) - len(batched) + book.batches + book.duplicates_sent


async def test_a_server_that_takes_a_duplicate_as_new_is_noticed():
    server = Server()

    def forgetful(call: Call) -> Answer:
        server.taken.clear()
        return server.answer(call)

    book = (await publish(forgetful, DAY)).book
    assert book.duplicates_sent > book.duplicates_refused == 0


async def test_the_neighbours_of_a_bulk_go_out_as_a_batch():
    server = Server()
    book = (await publish(server.answer, DAY)).book
    assert book.batches == len({event.bulk for event in DAY} - {0}) > 0


async def test_an_overloaded_server_is_asked_again():
    server = Server()
    refusals = [503, 503]

    def overloaded(call: Call) -> Answer:
        return Answer(refusals.pop()) if server.requests == 1 and refusals else server.answer(call)

    book = (await publish(overloaded, DAY[:60])).book
    assert book.repeated == 2
    assert len(book.published) == 60


async def test_what_the_server_refuses_is_told():
    server = Server()

    def picky(call: Call) -> Answer:
        if b'"order:created"' in call.body:
            return Answer(422, b"no such type")
        return server.answer(call)

    book = (await publish(picky, DAY)).book
    orders = [event for event in DAY if event.type == "order:created"]
    assert len(book.refused) == len(orders) > 0
    assert book.refused[0].endswith("422 no such type")
    assert len(book.published) == len(DAY) - len(orders)


async def test_one_refused_item_of_a_batch_is_told():
    server = Server()

    def picky(call: Call) -> Answer:
        answer = server.answer(call)
        if call.path != "/v1/events/batch":
            return answer
        results = json.loads(answer.body)["data"]
        results[0] = {"status": 422, "error": {"detail": "no"}}
        return Answer(200, json.dumps({"data": results}).encode())

    book = (await publish(picky, DAY)).book
    assert len(book.refused) == book.batches > 0
    assert len(book.published) == len(DAY) - book.batches


async def test_the_day_takes_its_time():
    server = Server()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await publish(server.answer, DAY, seconds=0.5)
    assert loop.time() - begin >= 0.5 * DAY[-1].at / 86_400
