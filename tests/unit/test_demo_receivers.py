"""The receivers of the demo, on real sockets: what they answer, what they write down, and how they leave."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from standardwebhooks import Webhook

from hookline.demo.cast import CAST, Behaviour, Role
from hookline.demo.client import Client, Refused, Unreachable
from hookline.demo.listener import Answer, Call, Listener
from hookline.demo.receipts import Page, Ports, Receipt, digest_of
from hookline.demo.receivers import Control, Log, Receiver, data_bytes

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type":"order:created","timestamp":"2026-03-14T09:26:53.000Z","data":{"total": 10.50}}'


def signed(event_id: str = "e1", attempt: int = 1, sequence: int = 1, body: bytes = BODY) -> Call:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(event_id, now, body.decode()),
        "hookline-sequence": str(sequence),
        "hookline-attempt": str(attempt),
    }
    return Call("POST", "/hooks/x", {}, headers, body)


def receiver(behaviour: Behaviour | None = None) -> tuple[Receiver, Log]:
    log = Log()
    found = Receiver(Role("x", "", ("*",), behaviour or Behaviour()), log)
    found.trust(SECRET)
    return found, log


def answered(receiver: Receiver, call: Call) -> Answer:
    """The answer, as if it had gone out."""
    answer = receiver.answer(call)
    answer.sent()
    return answer


def test_a_signed_request_is_taken_and_written_down():
    found, log = receiver()
    assert answered(found, signed(attempt=3, sequence=17)).status == 204
    (receipt,) = log.page(0).receipts
    assert (receipt.event_id, receipt.attempt, receipt.sequence) == ("e1", 3, 17)
    assert receipt.verified
    assert receipt.digest == digest_of(b'{"total": 10.50}')


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,not base64!"},
        {"webhook-signature": ""},
        {"webhook-id": "e2"},
        {"webhook-timestamp": "1614265330"},
        {"webhook-timestamp": "soon"},
    ],
)
def test_what_does_not_verify_is_refused_and_written_down(change: dict[str, str]):
    found, log = receiver()
    call = signed()
    call.headers.update(change)
    assert answered(found, call).status == 401
    assert [receipt.verified for receipt in log.page(0).receipts] == [False]


def test_a_changed_body_does_not_verify():
    found, _ = receiver()
    call = signed()
    assert found.answer(msgspec.structs.replace(call, body=BODY.replace(b"10.50", b"10.5"))).status == 401


def test_without_a_secret_nothing_verifies():
    assert Receiver(CAST[0], Log()).answer(signed()).status == 401


def test_an_answer_that_never_went_out_is_not_written_down():
    found, log = receiver()
    assert found.answer(signed()).status == 204
    assert log.page(0).receipts == []


def test_some_events_fail_twice_and_then_pass():
    found, _ = receiver(Behaviour(fail_first=2, fail_share=0.5))
    first = {name: answered(found, signed(name)).status for name in (f"e{n}" for n in range(100))}
    failing = {name for name, status in first.items() if status == 500}
    assert 30 < len(failing) < 70
    assert set(first.values()) == {204, 500}
    assert {answered(found, signed(name, attempt=2)).status for name in failing} == {500}
    assert {answered(found, signed(name, attempt=3)).status for name in failing} == {204}


def test_now_and_then_the_limit_is_reached():
    found, _ = receiver(Behaviour(limit_every=3))
    answers = [answered(found, signed(f"e{n}")) for n in range(6)]
    assert [answer.status for answer in answers] == [204, 204, 429, 204, 204, 429]
    assert answers[2].headers == {"retry-after": "1"}


def test_a_slow_receiver_takes_its_time():
    found, _ = receiver(Behaviour(delay=(0.3, 0.8)))
    delays = [found.answer(signed(f"e{n}")).delay for n in range(50)]
    assert all(0.3 <= delay < 0.8 for delay in delays)
    assert len(set(delays)) > 40


def test_the_log_gives_pages():
    log = Log()
    for number in range(7):
        log.add(Receipt("x", f"e{number}", number, 1, 0, 204, True, ""))
    assert [receipt.event_id for receipt in log.page(5).receipts] == ["e5", "e6"]
    assert log.page(5).next == 7
    assert log.page(7).receipts == []


@pytest.mark.parametrize(
    ("body", "data"), [(BODY, b'{"total": 10.50}'), (b"", b""), (b'{"data":1', b""), (b"[]", b"")]
)
def test_the_bytes_of_the_data(body: bytes, data: bytes):
    assert data_bytes(body) == data


@asynccontextmanager
async def listening(handler_answer: Answer | None = None) -> AsyncGenerator[Listener]:
    listener = Listener(lambda call: handler_answer or Answer(200, call.body))
    await listener.open()
    try:
        yield listener
    finally:
        listener.close()


async def test_a_connection_is_kept_and_answers_come_back():
    async with listening() as listener, Client(listener.port) as client:
        for number in range(3):
            assert await client.call("POST", "/x", {"n": number}) == {"n": number}


async def test_a_client_says_what_was_refused():
    async with listening(Answer(404, b"no such thing")) as listener, Client(listener.port) as client:
        with pytest.raises(Refused, match="GET /x: 404 no such thing") as refused:
            await client.call("GET", "/x")
    assert refused.value.status == 404


async def test_a_client_gives_up_in_time():
    async with listening(Answer(delay=30)) as listener, Client(listener.port, timeout=0.05) as client:
        with pytest.raises(Unreachable, match="TimeoutError"):
            await client.send("GET", "/x")


async def test_a_closed_door_refuses_cuts_and_opens_again_on_the_same_port():
    async with listening() as listener, Client(listener.port) as kept, Client(listener.port) as fresh:
        await kept.call("POST", "/x", {})
        port = listener.port
        listener.close_door()
        with pytest.raises(Unreachable):
            await kept.send("POST", "/x", b"{}")
        with pytest.raises(Unreachable, match="Connect call failed"):
            await fresh.send("POST", "/x", b"{}")
        await listener.open()
        assert listener.port == port
        assert await fresh.call("POST", "/x", {"n": 1}) == {"n": 1}


async def test_a_request_that_is_no_http_is_cut_off():
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"nonsense\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        await writer.wait_closed()


async def test_control_hands_over_secrets_and_notes_and_sends_away():
    log = Log()
    found = Receiver(CAST[0], log)
    control = Control({"analytics": found}, log)
    await control.listener.open()
    await found.listener.open()
    try:
        async with Client(control.listener.port) as client, Client(found.listener.port) as publisher:
            await client.call("PUT", "/secrets", {"analytics": SECRET})
            assert answered(found, signed()).status == 204
            reply = await client.send("GET", "/receipts?after=0")
            page = msgspec.json.decode(reply.body, type=Page)
            assert [receipt.event_id for receipt in page.receipts] == ["e1"]
            assert (await client.send("GET", "/nothing")).status == 404
            await client.call("POST", "/away?name=analytics&seconds=1")
            with pytest.raises(Unreachable):
                await publisher.send("POST", "/hooks")
            await control.returned("analytics")
            assert (await publisher.send("POST", "/hooks")).status == 401
    finally:
        control.close()
        found.listener.close()


async def test_the_process_tells_its_ports_and_ends_with_its_stdin():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline.demo.receivers",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert process.stdout
    assert process.stdin
    try:
        async with asyncio.timeout(20):
            ports = msgspec.json.decode(await process.stdout.readline(), type=Ports)
            assert ports.receivers.keys() == {role.name for role in CAST}
            async with Client(ports.control) as client:
                assert await client.call("GET", "/receipts?after=0") == {"receipts": [], "next": 0}
            process.stdin.close()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_notes_are_small_on_the_wire():
    receipt = Receipt("x", "e1", 1, 1, 1000, 204, True, "d")
    assert json.loads(msgspec.json.encode(receipt)) == ["x", "e1", 1, 1, 1000, 204, True, "d"]
