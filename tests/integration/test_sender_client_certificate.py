"""Mutual TLS against real TLS servers: who is shown to whom, and what is said when an endpoint objects."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
import trustme
from msgspec.structs import replace

from hookline.core.model import ClientCertificate
from hookline.ports import ErrorClass, Outcome
from hookline.sender import CurlSender
from tests.integration.receivers import OK, Exchange, authority, receiver, server_context
from tests.integration.senders import PATIENCE, begin, open_sender, request
from tests.unit.test_client_certificate import client_certificate


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Issues the endpoint's certificate, and those of clients it lets in."""
    return authority()


@pytest.fixture
async def sender(ca: trustme.CA, tmp_path: Path) -> AsyncIterator[CurlSender]:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with open_sender(ca_file=tmp_path / "ca.pem") as made:
        yield made


def demanding(ca: trustme.CA, version: ssl.TLSVersion, demand: ssl.VerifyMode) -> ssl.SSLContext:
    context = server_context(ca.issue_cert("127.0.0.1"))
    context.maximum_version = version
    context.verify_mode = demand
    ca.configure_trust(context)
    return context


async def send_as(sender: CurlSender, url: str, shown: ClientCertificate | None) -> Outcome:
    return await asyncio.wait_for(begin(sender, replace(request(url), client_certificate=shown)), PATIENCE)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
async def test_each_request_shows_its_own_certificate_also_on_kept_connections(
    sender: CurlSender, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    """A connection or TLS session of one subscription must never carry the requests of another one."""
    a, b = (client_certificate(ca.issue_cert(name, common_name=name)) for name in ("a.example", "b.example"))
    shown: list[str | None] = []

    async def look(exchange: Exchange) -> None:
        peer = exchange.writer.get_extra_info("peercert") or {}
        subject = {name: value for part in peer.get("subject", ()) for name, value in part}
        shown.append(subject.get("commonName"))
        await exchange.send(OK)

    async with receiver(look, tls=demanding(ca, version, ssl.CERT_OPTIONAL)) as there:
        for certificate in (a, None, b, b, a, None):
            assert (await send_as(sender, there.url(), certificate)).status == 200
        assert shown == ["a.example", None, "b.example", "b.example", "a.example", None]
        connections = [each.connection for each in there.requests]
        assert connections[2] == connections[3], "the same certificate goes on where it was"
        assert len(set(connections)) >= 3


@VERSIONS
async def test_nothing_is_sent_to_an_endpoint_that_asks_for_another_certificate(
    sender: CurlSender, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    good = client_certificate(ca.issue_cert("shop"))
    stranger = client_certificate(authority().issue_cert("shop"))
    async with receiver(tls=demanding(ca, version, ssl.CERT_REQUIRED)) as there:
        for certificate in (None, stranger):
            outcome = await send_as(sender, there.url(), certificate)
            assert outcome.error in (ErrorClass.TLS, ErrorClass.RESET)
        assert there.requests == []
        assert (await send_as(sender, there.url(), good)).status == 200
        assert (await send_as(sender, there.url(), None)).status == 0
        assert len(there.requests) == 1


@contextmanager
def patient_server(tls: ssl.SSLContext) -> Iterator[int]:
    """A TLS server that lets its objection arrive before it closes, as web servers do. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = Thread(target=_object, args=(listening, tls))
        serving.start()
        yield listening.getsockname()[1]
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE)


def _object(listening: socket.socket, tls: ssl.SSLContext) -> None:
    with suppress(OSError):  # the listening socket was closed
        while True:
            connection = listening.accept()[0]
            connection.settimeout(PATIENCE)
            try:
                tls.wrap_socket(connection, server_side=True).close()
            except ssl.SSLError:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(65536)
            connection.close()


def _of_a_stranger(_: trustme.CA) -> ClientCertificate:
    return client_certificate(authority().issue_cert("shop"))


def _ended(ca: trustme.CA) -> ClientCertificate:
    year = dt.timedelta(days=365)
    end = dt.datetime.now(dt.UTC).replace(tzinfo=None) - year
    return client_certificate(ca.issue_cert("shop", not_before=end - year, not_after=end))


@pytest.mark.parametrize(
    ("made", "detail"),
    [
        (lambda _: None, "no secure connection could be agreed on (does it require a client certificate?)"),
        (_of_a_stranger, "the endpoint does not trust the authority that issued the client certificate"),
        (_ended, "the endpoint says that the client certificate has expired"),
    ],
    ids=["none", "stranger", "ended"],
)
async def test_the_detail_says_what_the_endpoint_objects_to(
    sender: CurlSender, ca: trustme.CA, made: Callable[[trustme.CA], ClientCertificate | None], detail: str
) -> None:
    """With TLS 1.2, whose objections always arrive before the request."""
    certificate = made(ca)
    with patient_server(demanding(ca, ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED)) as port:
        outcome = await send_as(sender, f"https://127.0.0.1:{port}/", certificate)
    assert (outcome.error, outcome.detail) == (ErrorClass.TLS, detail)
