"""The sender with endpoints that are broken, slow or hostile: each ends as one plain outcome, in bounded time."""

import asyncio
import datetime as dt
import gzip
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from hookline.ports import ErrorClass
from hookline.sender import CurlSender
from hookline.sender.transfer import MAX_BODY
from tests.integration.receivers import (
    OK,
    Exchange,
    answer,
    authority,
    receiver,
    server_context,
    status,
    stay_silent,
)
from tests.integration.senders import open_sender, send
from tests.support.ports import own_port

NOT_HTTP = "the endpoint did not answer with valid HTTP"
LONG_LINE = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\nContent-Length: 0\r\n\r\n"
MANY_BYTES = b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * 80 + b"Content-Length: 0\r\n\r\n"
MANY_LINES = b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"Content-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return authority()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
async def sender(ca_file: Path) -> AsyncIterator[CurlSender]:
    async with open_sender(ca_file=ca_file) as made:
        yield made


# --- framing -----------------------------------------------------------------------------------------------

BAD_ANSWERS = {
    "old HTTP without a head": (b"hello\r\n", "does not begin with a status line"),
    "bytes": (bytes(range(256)), "does not begin with a status line"),
    "another protocol": (b"220 mail.example ESMTP\r\n", "does not begin with a status line"),
    "no status": (b"HTTP/1.1 000 None\r\n\r\n", NOT_HTTP),
    "short status": (b"HTTP/1.1 99 Low\r\n\r\n", NOT_HTTP),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "Content-Length",
    ),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "Content-Length"),
    "length in words": (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "Content-Length"),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "both Content-Length and Transfer-Encoding",
    ),
    "chunks and length": (
        b"HTTP/1.1 200 OK\r\ntransfer-ENCODING: chunked\r\nContent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "both Content-Length and Transfer-Encoding",
    ),
    "bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok", NOT_HTTP),
    "endless chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 99, NOT_HTTP),
    "unknown coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", NOT_HTTP),
    "NUL in a header": (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n", NOT_HTTP),
    "a header line without end": (LONG_LINE, "too long"),
    "headers over 64 KiB": (MANY_BYTES, "longer than 64 KiB"),
    "too many header lines": (MANY_LINES, "more than 100 header lines"),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 50_000, NOT_HTTP),
    "interim answers without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, NOT_HTTP),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_what_is_not_valid_http_is_a_protocol_error(sender: CurlSender, case: str) -> None:
    raw, why = BAD_ANSWERS[case]
    async with receiver(answer(raw, close=True)) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.error) == (0, ErrorClass.PROTOCOL)
    assert why in outcome.detail
    assert len(outcome.headers) <= 64 * 1024
    assert len(there.requests) == 1


BROKEN_OFF = {
    "nothing at all": (b"", "the endpoint closed the connection before answering"),
    "an interim answer": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        "the endpoint closed the connection before answering",
    ),
    "half a head": (b"HTTP/1.1 200 OK\r\nConte", "the endpoint broke off in the middle of its answer"),
    "half a body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        "the endpoint broke off in the middle of its answer",
    ),
    "half a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
        "the endpoint broke off in the middle of its answer",
    ),
}


@pytest.mark.parametrize("case", BROKEN_OFF)
async def test_an_answer_that_breaks_off_is_none(sender: CurlSender, case: str) -> None:
    raw, why = BROKEN_OFF[case]
    async with receiver(answer(raw, close=True)) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.error, outcome.detail) == (0, ErrorClass.RESET, why)
    assert len(there.requests) == 1


@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 200 OK\r\nCont", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
async def test_a_reset_is_reported_in_every_phase_of_the_answer(sender: CurlSender, before: bytes) -> None:
    async def send_and_reset(exchange: Exchange) -> None:
        if before:
            await exchange.send(before)
            await asyncio.sleep(0.02)  # else the reset overtakes the bytes
        exchange.reset()

    async with receiver(send_and_reset) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.error) == (0, ErrorClass.RESET)
    assert "the endpoint" in outcome.detail


async def test_a_reset_while_the_request_is_being_sent(sender: CurlSender) -> None:
    async def reset_at_once(exchange: Exchange) -> None:
        exchange.reset()

    async with receiver(greet=reset_at_once) as there:
        outcome = await send(sender, there.url(), body=b"x" * 5_000_000)
    assert outcome.error in {ErrorClass.RESET, ErrorClass.CONNECT}
    assert outcome.detail


async def test_an_early_refusal_counts_although_the_request_was_not_read(sender: CurlSender) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reader.readuntil(b"\r\n\r\n")
        await exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await exchange.reader.read()

    async with receiver(greet=refuse) as there:
        outcome = await send(sender, there.url(), body=b"x" * 5_000_000)
    assert (outcome.status, outcome.error) == (413, None)


async def test_answers_after_the_answer_are_not_taken_for_the_next(sender: CurlSender) -> None:
    """Response splitting: two answers to one request, the second one forged for the next."""
    async with receiver(answer(OK + OK.replace(b"200", b"202"))) as there:
        statuses = [(await send(sender, there.url())).status for _ in range(4)]
    assert statuses == [200] * 4


# --- size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "truncated"), [(MAX_BODY - 1, False), (MAX_BODY, False), (MAX_BODY + 1, True)]
)
async def test_a_body_is_kept_up_to_its_limit_and_the_status_counts(
    sender: CurlSender, size: int, truncated: bool
) -> None:
    async with receiver(status(200, body=b"x" * size)) as there:
        outcome = await send(sender, there.url())
        again = await send(sender, there.url())
    assert (outcome.status, outcome.error, outcome.truncated) == (200, None, truncated)
    assert outcome.body == b"x" * min(size, MAX_BODY)
    assert (again.status, again.body, again.truncated) == (200, outcome.body, truncated)
    assert there.connections == (2 if truncated else 1)


@pytest.mark.parametrize(
    "head", [b"Connection: close", b"Transfer-Encoding: chunked", b"Content-Length: 9999999999"]
)
async def test_an_endless_body_is_left_at_the_limit(sender: CurlSender, head: bytes) -> None:
    gone = asyncio.Event()

    async def pour(exchange: Exchange) -> None:
        piece = b"x" * 8192
        if b"chunked" in head:
            piece = b"2000\r\n" + piece + b"\r\n"
        try:
            await exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            while True:
                await exchange.send(piece)
        except ConnectionError:
            gone.set()

    async with receiver(pour) as there:
        outcome = await send(sender, there.url())
        await asyncio.wait_for(gone.wait(), 60)  # we hung up
    assert (outcome.status, outcome.truncated, outcome.body) == (200, True, b"x" * MAX_BODY)


async def test_a_bomb_is_not_unpacked(sender: CurlSender) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    async with receiver(status(200, "Content-Encoding: gzip", body=bomb)) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.body, outcome.truncated) == (200, bomb, False)


# --- time ------------------------------------------------------------------------------------------------------


async def test_silence_ends_at_the_total_deadline(sender: CurlSender) -> None:
    async with receiver(stay_silent) as there:
        outcome = await send(sender, there.url(), total=0.5)
    assert (outcome.status, outcome.error) == (0, ErrorClass.TIMEOUT)
    assert outcome.detail == "no complete answer within 0.5 s"
    assert 450_000 < outcome.total_us < 5_000_000


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"]
)
async def test_a_trickle_does_not_move_the_total_deadline(sender: CurlSender, head: bytes) -> None:
    async def trickle(exchange: Exchange) -> None:
        await exchange.send(head)
        await exchange.drip(b"X: " + b"x" * 100_000 if head else b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)

    start = time.monotonic()
    async with receiver(trickle) as there:
        outcome = await send(sender, there.url(), total=0.5)
    assert (outcome.status, outcome.error) == (0, ErrorClass.TIMEOUT)
    assert time.monotonic() - start < 5


async def test_a_connection_that_is_not_accepted_ends_at_the_connect_deadline(sender: CurlSender) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            outcome = await send(sender, f"http://127.0.0.1:{port}/", connect=0.5, total=10)
        finally:
            for filler in fillers:
                filler.close()
    assert (outcome.error, outcome.detail) == (ErrorClass.CONNECT_TIMEOUT, "no connection within 0.5 s")
    assert outcome.address == f"127.0.0.1:{port}"
    assert outcome.total_us < 5_000_000


async def test_tls_that_never_comes_up_ends_at_the_connect_deadline(sender: CurlSender) -> None:
    async with receiver(greet=stay_silent) as there:
        outcome = await send(sender, there.url().replace("http:", "https:"), connect=0.5, total=10)
    assert (outcome.error, outcome.detail) == (ErrorClass.CONNECT_TIMEOUT, "no connection within 0.5 s")


async def test_a_hostile_endpoint_does_not_hold_up_the_others(sender: CurlSender) -> None:
    async def trickle(exchange: Exchange) -> None:
        await exchange.drip(b"x" * 1000, every=0.001)

    async with receiver(trickle) as bad, receiver() as good:
        poured = [asyncio.create_task(send(sender, bad.url(), total=2)) for _ in range(20)]
        outcomes = [await send(sender, good.url()) for _ in range(50)]
        await asyncio.gather(*poured)
    assert [one.status for one in outcomes] == [200] * 50


# --- connecting and TLS --------------------------------------------------------------------------------------


async def test_nobody_there(sender: CurlSender) -> None:
    port = own_port()
    outcome = await send(sender, f"http://127.0.0.1:{port}/")
    assert outcome.error is ErrorClass.CONNECT
    assert outcome.detail == "no connection: nothing listens at this address and port"
    assert outcome.address == f"127.0.0.1:{port}"


async def test_a_good_certificate_is_accepted(sender: CurlSender, ca: trustme.CA) -> None:
    async with receiver(tls=server_context(ca.issue_cert("127.0.0.1"))) as there:
        outcome = await send(sender, there.url())
        again = await send(sender, there.url())
    assert (outcome.status, again.status) == (200, 200)
    assert outcome.tls_us > 0
    assert there.connections == 1


def _expired(ca: trustme.CA) -> trustme.LeafCert:
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    return ca.issue_cert("127.0.0.1", not_before=then, not_after=then + dt.timedelta(days=1))


def _early(ca: trustme.CA) -> trustme.LeafCert:
    then = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    return ca.issue_cert("127.0.0.1", not_before=then, not_after=then + dt.timedelta(days=1))


BAD_CERTIFICATES = {
    "expired": (_expired, "the certificate has expired"),
    "early": (_early, "the certificate is not valid yet"),
    "for another host": (lambda ca: ca.issue_cert("example.org"), "the certificate is for another host name"),
    "from nobody": (
        lambda _: authority().issue_cert("127.0.0.1"),
        "the authority that issued the certificate is not trusted",
    ),
}


@pytest.mark.parametrize("case", BAD_CERTIFICATES)
async def test_a_bad_certificate_is_refused(sender: CurlSender, ca: trustme.CA, case: str) -> None:
    make, why = BAD_CERTIFICATES[case]
    async with receiver(tls=server_context(make(ca))) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.error, outcome.detail) == (0, ErrorClass.TLS, why)
    assert there.requests == []


async def test_a_self_signed_certificate_is_refused(sender: CurlSender) -> None:
    loner = authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with loner.private_key_pem.tempfile() as key, loner.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)
    async with receiver(tls=context) as there:
        outcome = await send(sender, there.url())
    assert (outcome.error, there.requests) == (ErrorClass.TLS, [])


async def test_tls_before_1_2_is_refused(sender: CurlSender, ca: trustme.CA) -> None:
    context = server_context(ca.issue_cert("127.0.0.1"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with receiver(tls=context) as there:
        outcome = await send(sender, there.url())
    assert (outcome.error, there.requests) == (ErrorClass.TLS, [])


@pytest.mark.parametrize("farewell", ["close", "reset", "plain text"])
async def test_a_break_while_tls_is_set_up(sender: CurlSender, farewell: str) -> None:
    async def greet(exchange: Exchange) -> None:
        await exchange.reader.read(1)
        if farewell == "plain text":
            await exchange.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if farewell == "reset":
            exchange.reset()

    async with receiver(greet=greet) as there:
        outcome = await send(sender, there.url().replace("http:", "https:"))
    assert (outcome.status, outcome.error) == (0, ErrorClass.TLS)
    assert "the endpoint" in outcome.detail


async def test_a_missing_file_of_authorities_says_so(tmp_path: Path, ca: trustme.CA) -> None:
    tls = server_context(ca.issue_cert("127.0.0.1"))
    async with open_sender(ca_file=tmp_path / "none.pem") as sender, receiver(tls=tls) as there:
        outcome = await send(sender, there.url())
    assert outcome.error is ErrorClass.INTERNAL
    assert outcome.detail == "the file of trusted certificates cannot be read"
