"""The sender with endpoints that speak HTTP/2."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import h2.errors
import pytest
import trustme

from hookline.ports import ErrorClass
from hookline.sender import CurlSender
from hookline.sender.transfer import MAX_BODY
from tests.integration.http2 import Connection, http2_receiver
from tests.integration.receivers import Received, authority, receiver, server_context
from tests.integration.senders import begin, open_sender, request, send


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return authority()


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("127.0.0.1")


@pytest.fixture
async def sender(ca: trustme.CA, tmp_path: Path) -> AsyncIterator[CurlSender]:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with open_sender(ca_file=tmp_path / "ca.pem") as made:
        yield made


async def test_a_request_goes_over_http2(sender: CurlSender, certificate: trustme.LeafCert) -> None:
    async with http2_receiver(certificate) as there:
        outcome = await send(sender, there.url("/a?b"), headers=["X-One: 1"], body=b"x" * 100_000)
    assert (outcome.status, outcome.body, outcome.detail) == (200, b"ok", "")
    assert outcome.headers.startswith(b"HTTP/2 200")
    (got,) = there.requests
    assert (got.method, got.target, got.headers["x-one"], len(got.body)) == ("POST", "/a?b", "1", 100_000)


async def test_requests_share_one_connection(sender: CurlSender, certificate: trustme.LeafCert) -> None:
    async with http2_receiver(certificate) as there:
        await send(sender, there.url())
        outcomes = await asyncio.gather(*(begin(sender, request(there.url(f"/{n}"))) for n in range(50)))
    assert [one.status for one in outcomes] == [200] * 50
    assert there.connections == 1
    assert len(there.requests) == 51


async def test_http1_is_spoken_where_there_is_no_http2(
    sender: CurlSender, certificate: trustme.LeafCert
) -> None:
    async with receiver(tls=server_context(certificate)) as there:
        outcome = await send(sender, there.url())
    assert outcome.headers.startswith(b"HTTP/1.1 200")


async def test_http2_can_be_left_out(ca: trustme.CA, certificate: trustme.LeafCert, tmp_path: Path) -> None:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = server_context(certificate)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    async with receiver(tls=tls) as there, open_sender(ca_file=tmp_path / "ca.pem", http2=False) as sender:
        outcome = await send(sender, there.url())
    assert outcome.headers.startswith(b"HTTP/1.1 200")


async def test_a_large_answer_is_left_at_the_limit(sender: CurlSender, certificate: trustme.LeafCert) -> None:
    def pour(connection: Connection, stream: int, _request: Received) -> None:
        connection.send_headers(stream, [(":status", "200")])
        for _ in range(8):
            connection.send_data(stream, b"x" * 16_000)

    async with http2_receiver(certificate, pour) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.truncated, outcome.body) == (200, True, b"x" * MAX_BODY)


async def test_a_reset_stream_is_an_error(sender: CurlSender, certificate: trustme.LeafCert) -> None:
    def reset(connection: Connection, stream: int, _request: Received) -> None:
        connection.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)

    async with http2_receiver(certificate, reset) as there:
        outcome = await send(sender, there.url())
    assert outcome.status == 0
    assert outcome.error in {ErrorClass.PROTOCOL, ErrorClass.RESET}
    assert len(there.requests) == 1


async def test_a_refused_stream_is_tried_once_more(sender: CurlSender, certificate: trustme.LeafCert) -> None:
    def refuse(connection: Connection, stream: int, _request: Received) -> None:
        connection.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)

    async with http2_receiver(certificate, refuse) as there:
        outcome = await send(sender, there.url())
    assert outcome.status == 0
    assert outcome.error in {ErrorClass.PROTOCOL, ErrorClass.RESET}
    assert len(there.requests) == 2


async def test_a_connection_taken_down_fails_its_requests(
    sender: CurlSender, certificate: trustme.LeafCert
) -> None:
    def leave(connection: Connection, _stream: int, _request: Received) -> None:
        connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)

    async with http2_receiver(certificate, leave) as there:
        outcome = await send(sender, there.url(), total=3)
    assert outcome.status == 0
    assert outcome.error is not None
    assert outcome.detail
