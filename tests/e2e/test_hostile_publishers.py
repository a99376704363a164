"""Publishers that send too much, too little, too slowly or nonsense, to the real server over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from standardwebhooks import Webhook

from hookline.api.bounded import HEAD_SECONDS
from tests.integration.receivers import Receiver, answer_ok, receiver
from tests.support.http import Answer, Connection
from tests.support.server import Api, ServerProcess
from tests.support.waiting import until

LIMIT = 1 << 20
BODY_SECONDS = 30
"""How long a body may take to arrive (``Options.body_seconds``)."""
LATE = 20
"""Seconds that a busy machine may be late."""
BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n"
    b"Invalid HTTP request received."
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Shop:
    """A server, a tenant of it, and an endpoint that gets everything."""

    api: Api
    receiver: Receiver
    connections: list[Connection] = field(default_factory=list[Connection])

    async def publish(self, raw: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.api.call("POST", "/v1/events", raw, headers)

    async def connect(self) -> Connection:
        """A connection, closed after the test."""
        connection = await Connection.open(self.api.server.port)
        self.connections.append(connection)
        return connection

    def head(self, *lines: str) -> bytes:
        """A publish request up to its body."""
        first = ["POST /v1/events HTTP/1.1", "Host: hookline.test"]
        ours = [f"{name}: {value}" for name, value in self.api.headers.items()]
        return "\r\n".join([*first, *ours, *lines]).encode() + b"\r\n\r\n"

    async def stored(self) -> list[str]:
        return [event["id"] for event in reversed(await self.api.listing("/v1/events"))]

    async def arrived(self, event: str) -> bytes:
        """The body in which the event reached the endpoint, its signature verified."""
        found = self.receiver.requests
        await until(lambda: [one for one in found if one.headers["webhook-id"] == event], f"{event} arrives")
        (request,) = (one for one in found if one.headers["webhook-id"] == event)
        Webhook(SECRET).verify(request.body, request.headers)
        return request.body

    async def is_well(self) -> None:
        """It still serves honest publishers."""
        answer = await self.publish(b'{"type":"order:created","data":{}}')
        assert answer.status == 202
        assert self.api.server.complaints() == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all: each test has a tenant of its own, and none may hurt the next."""
    process = ServerProcess(tmp_path_factory.mktemp("hostile") / "data")
    try:
        asyncio.run(process.start())
        yield process
    finally:
        process.bury()


@pytest.fixture
async def shop(server: ServerProcess) -> AsyncGenerator[Shop]:
    async with receiver(answer_ok) as endpoint:
        api = await Api(server).new_tenant(f"shop-{secrets.token_hex(6)}")
        await api.subscribe(endpoint.url(), signing={"secret": SECRET})
        this = Shop(api, endpoint)
        yield this
        for connection in this.connections:
            await connection.close()


def event_of(size: int, event: str = "big") -> bytes:
    """An event of exactly so many bytes."""
    frame = json.dumps({"id": event, "type": "order:created", "data": ""}).encode()
    return frame.replace(b'"data": ""', b'"data": "' + b"x" * (size - len(frame)) + b'"')


# --- sizes and framing ------------------------------------------------------------------------------------


async def test_the_limit_is_one_mebibyte(shop: Shop) -> None:
    largest = event_of(LIMIT)
    assert (await shop.publish(largest)).status == 202
    refused = await shop.publish(event_of(LIMIT + 1, "too-big"))
    assert (refused.status, refused.code) == (413, "too_large")
    assert json.loads(await shop.arrived("big"))["data"] == json.loads(largest)["data"]
    assert await shop.stored() == ["big"]


@pytest.mark.parametrize("announced", ["1048577", "99999999999999999999"])
async def test_an_announced_excess_is_refused_before_it_is_sent(shop: Shop, announced: str) -> None:
    connection = await shop.connect()
    await connection.write(shop.head(f"Content-Length: {announced}"))
    answer = await connection.answer()
    assert answer.status in (400, 413)
    await shop.is_well()


@pytest.mark.parametrize("announced", ["-1", "1e3", "0x10", "12 12", "", "+5"])
async def test_a_length_that_is_no_number_is_refused(shop: Shop, announced: str) -> None:
    connection = await shop.connect()
    await connection.write(shop.head(f"Content-Length: {announced}") + b'{"type":"a","data":1}')
    answer = await connection.answer()
    assert answer.status == 400
    assert await shop.stored() == []
    await shop.is_well()


async def test_chunks_are_counted(shop: Shop) -> None:
    connection = await shop.connect()
    await connection.write(shop.head("Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    try:
        for _ in range(LIMIT // 0x10000 + 2):
            await connection.write(chunk)
        await connection.write(b"0\r\n\r\n")
    except ConnectionError:
        pass  # refused while we were still sending, which is as good
    else:
        assert (await connection.answer()).status == 413
    assert await shop.stored() == []
    await shop.is_well()


async def test_chunks_are_accepted_within_the_limit(shop: Shop) -> None:
    raw = event_of(3000, "chunked")
    connection = await shop.connect()
    await connection.write(shop.head("Transfer-Encoding: chunked"))
    for start in range(0, len(raw), 7):
        part = raw[start : start + 7]
        await connection.write(b"%x\r\n%b\r\n" % (len(part), part))
    await connection.write(b"0\r\n\r\n")
    assert (await connection.answer()).status == 202


async def test_both_framings_at_once_are_refused(shop: Shop) -> None:
    """A proxy in front could read the one and we the other (request smuggling, RFC 9112 §6.3)."""
    raw = b'{"id":"smuggled","type":"order:created","data":1}'
    connection = await shop.connect()
    await connection.write(
        shop.head(f"Content-Length: {len(raw)}", "Transfer-Encoding: chunked")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
    )
    assert (await connection.answer()).status == 400
    assert await shop.stored() == []
    await shop.is_well()


async def test_a_length_that_is_too_short_ends_the_body_there(shop: Shop) -> None:
    raw = b'{"id":"short","type":"order:created","data":1}'
    connection = await shop.connect()
    await connection.write(shop.head(f"Content-Length: {len(raw) - 1}") + raw)
    assert (await connection.answer()).status == 400
    assert await connection.end() in (b"", BAD_REQUEST)  # the rest is no request
    assert await shop.stored() == []
    await shop.is_well()


async def test_a_half_closed_connection_is_answered_for_what_is_stored(shop: Shop) -> None:
    """Who stops sending may lose the answer, but is never told of an event that is not there."""
    told: list[str] = []
    for number in range(5):
        raw = b'{"id":"half-closed-%d","type":"order:created","data":1}' % number
        connection = await shop.connect()
        await connection.write(shop.head(f"Content-Length: {len(raw)}") + raw)
        connection.finish()
        if (await connection.end()).startswith(b"HTTP/1.1 202"):
            told.append(f"half-closed-{number}")
    for event in told:
        await shop.arrived(event)
    await shop.is_well()


async def test_a_body_cut_off_is_not_stored(shop: Shop) -> None:
    for cut in (0, 10, 40):
        connection = await shop.connect()
        await connection.write(
            shop.head("Content-Length: 60") + b'{"id":"cut","type":"order:created","data":"'[:cut]
        )
        connection.finish()
        await connection.end()
    assert await shop.stored() == []
    await shop.is_well()


async def drip(connection: Connection, byte: bytes) -> None:
    """Until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while True:
            await connection.write(byte)
            await asyncio.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_what_does_not_come_is_given_up(shop: Shop) -> None:
    """No body, no head, nothing at all, or a byte of it now and then: none holds a connection for ever."""
    bodies = [await shop.connect() for _ in range(2)]
    heads = [await shop.connect() for _ in range(3)]
    began = time.monotonic()
    for connection in bodies:
        await connection.write(shop.head("Content-Length: 1000"))
    for connection in heads[:2]:
        await connection.write(shop.head()[:-4])
    async with asyncio.TaskGroup() as tasks:
        dripping = [tasks.create_task(drip(one, byte)) for one, byte in ((bodies[0], b" "), (heads[0], b"x"))]
        answers = await asyncio.gather(*(connection.answer() for connection in bodies))
        assert BODY_SECONDS - 1 < time.monotonic() - began < BODY_SECONDS + LATE
        await asyncio.gather(*(gone(connection) for connection in heads))
        assert time.monotonic() - began < 2 * HEAD_SECONDS + LATE
        for task in dripping:
            task.cancel()
    assert [(answer.status, answer.code) for answer in answers] == [(408, "request_timeout")] * 2
    await shop.is_well()


async def gone(connection: Connection) -> None:
    """Return once the server has closed the connection without an answer."""
    with contextlib.suppress(ConnectionError):
        assert await connection.end() == b""


@pytest.mark.parametrize(
    "lines",
    [("X-Large: " + "x" * 4_000_000,), tuple(f"X-Many-{number}: {'y' * 500}" for number in range(8000))],
    ids=["one-huge-header", "many-headers"],
)
async def test_huge_headers_are_refused(shop: Shop, lines: tuple[str, ...]) -> None:
    connection = await shop.connect()
    raw = b'{"id":"heady","type":"order:created","data":1}'
    try:
        await connection.write(shop.head(*lines, f"Content-Length: {len(raw)}") + raw)
        assert (await connection.answer()).status == 431
    except ConnectionError:
        pass  # cut off while we were still sending
    assert await shop.stored() == []
    await shop.is_well()


async def test_large_headers_are_accepted(shop: Shop) -> None:
    """Cookies, traces and tokens make a head of some kilobytes."""
    answer = await shop.publish(b'{"type":"order:created","data":1}', {"X-Trace": "t" * 30_000})
    assert answer.status == 202


async def test_pipelined_requests_are_answered_in_order(shop: Shop) -> None:
    raws = [b'{"id":"pipe-%d","type":"order:created","data":%d}' % (number, number) for number in range(20)]
    raws[7] = b"no json"
    connection = await shop.connect()
    await connection.write(b"".join(shop.head(f"Content-Length: {len(raw)}") + raw for raw in raws))
    answers = [await connection.answer() for _ in raws]
    assert [answer.status for answer in answers] == [202] * 7 + [400] + [202] * 12
    ids = [answer.json["id"] for answer in answers if answer.status == 202]
    assert ids == [f"pipe-{number}" for number in range(20) if number != 7]
    assert await shop.stored() == ids


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 1000,
     b"POST /v1/events\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST  /v1/events HTTP/1.1\r\nHost\r\n\r\n"],
    ids=["tls", "http2", "zeros", "http09", "version", "header"],
)  # fmt: skip
async def test_what_is_no_request_is_turned_away(shop: Shop, garbage: bytes) -> None:
    connection = await shop.connect()
    await connection.write(garbage)
    connection.finish()
    said = await connection.end()
    assert not said or said.startswith(b"HTTP/1.1 4")
    await shop.is_well()


# --- what is in the body ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"1.10",
        b"-0.0",
        b"12345678901234567890123456789012345678901234567890",
        b"0.1000000000000000055511151231257827021181583404541015625",
        b"1E400",
        b'{ "b" :1,\t"a": [ 1.0 ,2.50, 1e2 ],\n "b2" : null }',
        b'"M\\u00fcller & S\\u00F6hne \\ud83d\\ude80 \\/ \\u0000"',
        '"Müller & Söhne 🚀 \u2028 \ufeff"'.encode(),
        b'{"price":19.90,"price":19.9}',
        b"[" * 400 + b"]" * 400,
        b'{"\\u0061":1,"a":2}',
        b"false",
        b"null",
        b'""',
    ],
)
async def test_data_reaches_the_endpoint_byte_for_byte(shop: Shop, data: bytes) -> None:
    raw = b'{"id":"exact","type":"order:created","occurred_at":"2026-01-31T12:00:00Z","data":' + data + b"}"
    answer = await shop.publish(raw)
    assert answer.status == 202, answer.body
    head = b'{"type":"order:created","timestamp":"2026-01-31T12:00:00.000Z","data":'
    assert await shop.arrived("exact") == head + data + b"}"
    page = await shop.api.call("GET", "/v1/events?include=payload")
    assert b'"data":' + data in page.body
    again = await shop.publish(raw)
    assert again.json == {"id": "exact", "duplicate": True}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"type":"order:created","data":NaN}',
        b'{"type":"order:created","data":Infinity}',
        b'{"type":"order:created","data":-Infinity}',
        b'{"type":"order:created","data":01}',
        b'{"type":"order:created","data":1.}',
        b'{"type":"order:created","data":.5}',
        b'{"type":"order:created","data":\'a\'}',
        b'{"type":"order:created","data":"\xff\xfe"}',
        b'{"type":"order:created","data":"\xed\xa0\x80"}',
        b'{"type":"order:created","data":"\xc0\xaf"}',
        b'{"type":"order:created","data":"\\ud800"}',
        b'{"type":"order:created","data":"a\nb"}',
        b'{"type":"order:created","data":[1,]}',
        b'{"type":"order:created","data":1}}',
        b'{"type":"order:created","data":1} x',
        b'\xef\xbb\xbf{"type":"order:created","data":1}',
        b'{"type":"order:created","data":' + b"[" * 400_000 + b"]" * 400_000 + b"}",
        b'{"type":"order:created","data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"type":"order:created"}',
        b'{"data":1}',
        b'{"type":"order:created","data":1,"surprise":2}',
        b'{"type":17,"data":1}',
        b'{"type":"hookline.subscription.disabled","data":1}',
        b'{"type":"order:created","data":1,"id":"a.b"}',
        b'{"type":"order:created","data":1,"id":""}',
        b'{"type":"order:created","data":1,"occurred_at":"yesterday"}',
    ],
    ids=lambda raw: repr(raw[:44]),
)
async def test_nonsense_is_refused_and_leaves_nothing(shop: Shop, raw: bytes) -> None:
    answer = await shop.publish(raw)
    assert answer.status in (400, 422), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.code in ("invalid_json", "invalid_input")
    assert await shop.stored() == []
    await shop.is_well()


@pytest.mark.parametrize("key", [b"id", b"type", b"data"])
async def test_a_field_given_twice_counts_once(shop: Shop, key: bytes) -> None:
    """JSON leaves it open which one counts (RFC 8259 §4); what is stored and what is sent must agree."""
    fields = {b"id": b'"twice"', b"type": b'"order:created"', b"data": b"1"}
    pairs = [*fields.items(), (key, {b"id": b'"second"', b"type": b'"order:paid"', b"data": b"2"}[key])]
    answer = await shop.publish(b"{" + b",".join(b'"%b":%b' % pair for pair in pairs) + b"}")
    if answer.status == 202:
        event = await shop.api.get(f"/v1/events/{answer.json['id']}")
        sent = json.loads(await shop.arrived(event["id"]))
        assert (sent["type"], sent["data"]) == (event["type"], event["data"])
    else:
        assert answer.code in ("invalid_json", "invalid_input")
    await shop.is_well()


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/x-ndjson", "application/jsonx", "*/*"],
)  # fmt: skip
async def test_other_content_types_are_refused(shop: Shop, content_type: str) -> None:
    answer = await shop.publish(b'{"type":"order:created","data":1}', {"Content-Type": content_type})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert await shop.stored() == []


# --- ids ----------------------------------------------------------------------------------------------------


async def test_an_id_again(shop: Shop) -> None:
    first = b'{"id":"once","type":"order:created","data":{"a":1,"b":2}}'
    assert (await shop.publish(first)).json == {"id": "once", "duplicate": False}
    for same in (first, b'{"data":{"b":2,"a":1},  "type":"order:created", "id":"once"}'):
        answer = await shop.publish(same)
        assert (answer.status, answer.json) == (202, {"id": "once", "duplicate": True})
    others = (first.replace(b"1", b"3"), first.replace(b"1", b"true"), first.replace(b"created", b"paid"))
    for other in others:
        answer = await shop.publish(other)
        assert (answer.status, answer.code) == (409, "event_id_conflict")
    assert await shop.stored() == ["once"]
    assert b'"a":1' in await shop.arrived("once")


async def test_a_difference_only_in_precision_is_a_difference(shop: Shop) -> None:
    """Two numbers that a 64-bit float cannot tell apart are different facts; two spellings of one are not."""
    first = b'{"id":"exact","type":"order:created","data":12345678901234567890.1}'
    assert (await shop.publish(first)).status == 202
    assert (await shop.publish(first.replace(b"890.1", b"890.10"))).json["duplicate"] is True
    assert (await shop.publish(first.replace(b"890.1", b"890.2"))).status == 409


async def test_many_at_once_with_one_id_store_one(shop: Shop) -> None:
    async def rivals(event: int, rival: int) -> Answer:
        raw = {"id": f"contested-{event}", "type": "order:created", "data": {"by": rival % 2}}
        return await shop.publish(json.dumps(raw).encode())

    for event in range(5):
        answers = await asyncio.gather(*(rivals(event, rival) for rival in range(40)))
        outcomes = [(answer.status, answer.json.get("duplicate")) for answer in answers]
        assert outcomes.count((202, False)) == 1
        assert outcomes.count((202, True)) == 19
        assert outcomes.count((409, None)) == 20
    assert await shop.stored() == [f"contested-{event}" for event in range(5)]
    for event in range(5):
        await shop.arrived(f"contested-{event}")
    await asyncio.gather(*(shop.is_well() for _ in range(3)))


# --- batches ------------------------------------------------------------------------------------------------

MIXED: list[tuple[bytes, int]] = [
    (b'{"id":"b9","type":"order:created","data":"\xff"}', 400),
    (b'{"id":"b0","type":"order:created","data":1.10}', 202),
    (b'{"id":"b1","data":1}', 422),
    (b'{"id":"b0","type":"order:created","data":1.10}', 202),
    (b'{"id":"b0","type":"order:created","data":9}', 409),
    (b"17", 422),
    (b'{"id":"b 2","type":"order:created","data":1}', 422),
    (b'{"id":"b3","type":"order:created","data":"\\u00fc"}', 202),
    (b'{"id":"b4","type":"order:created","data":"' + b"x" * LIMIT + b'"}', 413),
]


def check_mixed(answer: Answer) -> None:
    assert answer.status == 200, answer.body
    items: list[Any] = answer.json["data"]
    assert [item["status"] for item in items] == [status for _, status in MIXED]
    assert [item["duplicate"] for item in items if item["status"] == 202] == [False, True, False]
    assert all("error" in item for item in items if item["status"] != 202)


async def test_a_batch_stores_what_is_good(shop: Shop) -> None:
    array = b"[" + b", ".join(raw for raw, _ in MIXED) + b"]"
    check_mixed(await shop.api.call("POST", "/v1/events/batch", array))
    assert await shop.stored() == ["b0", "b3"]
    assert (await shop.arrived("b0")).endswith(b'"data":1.10}')
    assert (await shop.arrived("b3")).endswith(b'"data":"\\u00fc"}')


async def test_lines_of_ndjson_stand_alone(shop: Shop) -> None:
    lines = b"\n".join(raw for raw, _ in MIXED) + b"\n\n"
    headers = {"Content-Type": "application/x-ndjson"}
    check_mixed(await shop.api.call("POST", "/v1/events/batch", lines, headers))
    broken = b'{"id":"n1","type":"a:b","data":1}\n{"id":"n2","type"\n{"id":"n3","type":"a:b","data":3}'
    answer = await shop.api.call("POST", "/v1/events/batch", broken, headers)
    assert [item["status"] for item in answer.json["data"]] == [202, 400, 202]
    assert await shop.stored() == ["b0", "b3", "n1", "n3"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"[" + b",".join([b'{"type":"a:b","data":1}'] * 1001) + b"]", 413),
        (b"[" + b'"' + b"x" * (16 << 20) + b'"]', 413),
        (b"{}", 422),
        (b"[1,", 400),
        (b"[" * 500_000, 400),
    ],
    ids=["1001-items", "17-MiB", "object", "cut-off", "deep"],
)
async def test_a_bad_batch_is_refused_as_a_whole(shop: Shop, raw: bytes, status: int) -> None:
    answer = await shop.api.call("POST", "/v1/events/batch", raw)
    assert answer.status == status, answer.body[:500]
    assert await shop.stored() == []
    await shop.is_well()
