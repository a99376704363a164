"""A real SMTP server on loopback that keeps what it is sent, and refuses what a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.waiting import until

USER = "mailer"
PASSWORD = "p:ss/w@rd-of-the-operator"
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}"
"""As it stands in a URL."""


class Mailbox:
    """The handler of the server: what came, and the answers to give.

    ``answers``: replies to RCPT in turn, then ``250 OK``. ``data_answers``: the same for the end of DATA. ``hold``:
    DATA is answered when it is set.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.raw: list[bytes] = []
        self.encrypted: list[bool] = []
        self.logins: list[str] = []
        self.answers: list[str] = []
        self.data_answers: list[str] = []
        self.recipients: list[str] = []
        self.hold: asyncio.Event | None = None
        self.open = 0
        self.most_open = 0

    def url(self, login: str = "", scheme: str = "smtp", host: str = "localhost", query: str = "") -> str:
        return f"{scheme}://{login}{'@' if login else ''}{host}:{self.port}{query}"

    @property
    def texts(self) -> list[str]:
        return [mail.get_content().replace("\r\n", "\n") for mail in self.mails]

    @property
    def subjects(self) -> list[str]:
        return [mail["Subject"] for mail in self.mails]

    # --- what aiosmtpd calls ---

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names its hooks so
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.recipients.append(address)
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 - aiosmtpd names its hooks so
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.open -= 1
        answer = self.data_answers.pop(0) if self.data_answers else "250 2.0.0 OK queued"
        if answer.startswith("250"):
            self._keep(server, envelope)
        return answer

    def _keep(self, server: SMTP, envelope: Envelope) -> None:
        raw = envelope.original_content or b""
        parsed = BytesParser(policy=default).parsebytes(raw)
        assert isinstance(parsed, EmailMessage)
        self.raw.append(raw)
        self.mails.append(parsed)
        self.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos)))
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)

    def authenticate(
        self, _server: object, _session: object, _envelope: object, _how: str, given: Any
    ) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.logins.append(given.login.decode())
        good = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=good)


@asynccontextmanager
async def mailbox(
    context: ssl.SSLContext | None = None, *, smtps: bool = False, login: bool = False, port: int = 0
) -> AsyncGenerator[Mailbox]:
    """A server on 127.0.0.1. With ``context`` it offers STARTTLS, or begins with TLS (``smtps``)."""
    box = Mailbox()

    def serve() -> SMTP:
        server = SMTP(
            box,
            hostname="mail.example",
            tls_context=None if smtps else context,
            authenticator=box.authenticate,
            auth_required=login and not smtps,  # aiosmtpd knows of STARTTLS alone, so it cannot see TLS here
            auth_require_tls=not smtps,
            loop=loop,
        )
        talking.append(server)
        return server

    loop = asyncio.get_running_loop()
    talking: list[SMTP] = []
    server = await loop.create_server(serve, "127.0.0.1", port, ssl=context if smtps else None)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
        for one in talking:
            if one.transport is not None:
                one.transport.close()
        await until(lambda: all(one.transport is None for one in talking), "all connections ended")


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncGenerator[int]:
    """A server that does what the script does with each connection; its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
