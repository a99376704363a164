"""One mail over one connection to the operator's SMTP server, with its times, and what its failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from enum import Enum
from typing import Final

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtplib.response import SMTPResponse

from hookline.core.mail import MailServer
from hookline.core.model import Micros
from hookline.ports import ErrorClass, Outcome

QUIT_SECONDS: Final = 1.0
"""A server that took the mail need not be waited for any longer to say goodbye."""
MAX_ANSWER: Final = 64 * 1024

_NEEDS_LOGIN: Final = frozenset((530, 534, 535, 538))
"""RFC 4954 §6: the server wants a login, or another one. That is the operator's to mend, not the subscriber's."""
_LABELS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_TLS_REASONS: Final = (
    ("certificate has expired", "its certificate has expired"),
    ("self-signed certificate", "its certificate is self-signed or its authority is not trusted"),
    ("unable to get local issuer", "the authority that issued its certificate is not trusted"),
    ("mismatch", "its certificate is for another host name"),
    ("wrong version number", "it does not speak TLS on this port"),
    ("record layer failure", "it does not speak TLS on this port"),
)
"""What OpenSSL says, and what it means."""


class Phase(Enum):
    """How far the conversation is."""

    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    MAIL = "mail"


class Conversation:
    """Give it a mail with ``send``, then ``leave`` whatever came of it."""

    def __init__(self, server: MailServer, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=False,
            tls_context=context,
            timeout=None,
            local_hostname=local_name(),
        )
        self._phase = Phase.CONNECT
        self._in_step = False
        self._begun = time.monotonic()
        self._connected = self._greeted = 0.0
        self._tls_us: Micros = 0

    async def send(
        self, sender: str, recipient: str, mail: bytes, *, connect: float, total: float, waited: float
    ) -> Outcome:
        """The outcome within ``total`` seconds less those that the mail ``waited`` already, ``connect`` of them for the
        connection and its TLS."""
        try:
            async with asyncio.timeout(total - waited):
                async with asyncio.timeout(connect):
                    await self._connect()
                await self._log_in()
                answer = await self._hand_over(sender, recipient, mail)
        except TimeoutError:
            return self._failed(*self._too_slow(connect, total))
        except (SMTPException, OSError, ValueError) as error:
            return self._explained(error)
        return self._answered(answer.code, answer.message)

    async def leave(self) -> None:
        """Say goodbye if there is still somebody to say it to; free the socket."""
        try:
            if self._in_step and self._client.is_connected:
                with contextlib.suppress(SMTPException, OSError, TimeoutError):
                    async with asyncio.timeout(QUIT_SECONDS):
                        await self._client.quit()
        finally:
            self._client.close()

    # --- steps -----------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        await self._client.connect()
        self._greeted = time.monotonic()
        if self._server.tls:
            return
        self._phase = Phase.TLS
        wish = self._server.start_tls
        if wish == "never":
            return
        await self._client.ehlo()
        if wish == "required" or self._client.supports_extension("starttls"):
            await self._client.starttls()
            self._tls_us = _micros(time.monotonic() - self._greeted)

    async def _log_in(self) -> None:
        self._phase = Phase.LOGIN
        if self._server.username:
            await self._client.login(self._server.username, self._server.password)

    async def _hand_over(self, sender: str, recipient: str, mail: bytes) -> SMTPResponse:
        self._phase = Phase.MAIL
        await self._client.mail(sender)
        await self._client.rcpt(recipient)
        return await self._client.data(mail)

    # --- outcomes --------------------------------------------------------------------------------------

    def _answered(self, code: int, text: str) -> Outcome:
        """The server's word on this mail. Its codes are read like those of HTTP: 2xx took it, 4xx may take it later,
        5xx never will."""
        self._in_step = True
        if code in _NEEDS_LOGIN:
            return self._failed(ErrorClass.AUTH, f"the mail server wants another login ({code})")
        if not 200 <= code < 300 and not 400 <= code < 600:
            return self._failed(ErrorClass.PROTOCOL, "the mail server did not answer with valid SMTP")
        body = text.encode("utf-8", "surrogateescape")
        return Outcome(
            code,
            connect_us=self._connect_us,
            tls_us=self._tls_us,
            first_byte_us=self._connect_us,
            total_us=self._total_us,
            body=body[:MAX_ANSWER],
            truncated=len(body) > MAX_ANSWER,
        )

    def _failed(self, error: ErrorClass, detail: str) -> Outcome:
        return Outcome(
            error=error,
            detail=detail,
            connect_us=self._connect_us,
            tls_us=self._tls_us,
            first_byte_us=self._connect_us,
            total_us=self._total_us,
        )

    @property
    def _connect_us(self) -> Micros:
        """Until the greeting: the name, TCP and, with smtps, TLS."""
        return _micros(self._greeted - self._begun) if self._greeted else 0

    @property
    def _total_us(self) -> Micros:
        return _micros(time.monotonic() - self._begun)

    def _too_slow(self, connect: float, total: float) -> tuple[ErrorClass, str]:
        if self._phase in (Phase.CONNECT, Phase.TLS):
            detail = f"no connection to the mail server within {min(connect, total):g} s"
            return ErrorClass.CONNECT_TIMEOUT, detail
        return ErrorClass.TIMEOUT, f"no complete answer of the mail server within {total:g} s"

    def _explained(self, error: Exception) -> Outcome:
        """Nothing of what the server or the library says goes into the detail: it could hold parts of the login, and
        names and addresses inside the operator's network."""
        if isinstance(error, SMTPSenderRefused | SMTPRecipientRefused | SMTPDataError):
            if 200 <= error.code < 300:
                # Not the code that this step asks for: the mail did not go through, or nobody knows whether it did.
                return self._failed(*self._by_phase(error))
            return self._answered(error.code, error.message)
        reasons = (error, error.__cause__)
        for reason in reasons:
            if isinstance(reason, ssl.SSLError):
                return self._failed(
                    ErrorClass.TLS, f"no secure connection to the mail server: {_tls(reason)}"
                )
        if any(isinstance(reason, socket.gaierror) for reason in reasons):
            return self._failed(ErrorClass.DNS, "the name of the mail server could not be resolved")
        return self._failed(*self._by_phase(error))

    def _by_phase(self, error: Exception) -> tuple[ErrorClass, str]:
        code = f" ({error.code})" if isinstance(error, SMTPResponseException) and error.code > 0 else ""
        if isinstance(error, SMTPAuthenticationError):
            return ErrorClass.AUTH, f"the mail server refused the login{code}"
        if isinstance(error, SMTPHeloError):
            return ErrorClass.CONNECT, f"the mail server refused to talk{code}"
        match self._phase:
            case Phase.CONNECT:
                return ErrorClass.CONNECT, f"no connection to the mail server{code or _refused(error)}"
            case _ if isinstance(error, SMTPServerDisconnected | OSError):
                return ErrorClass.RESET, "the mail server closed the connection before answering"
            case Phase.TLS:
                return ErrorClass.TLS, f"the mail server does not offer STARTTLS{code}"
            case Phase.LOGIN:
                return ErrorClass.AUTH, "the mail server offers no way to log in that we know"
            case Phase.MAIL:
                return ErrorClass.PROTOCOL, f"the mail server did not answer with valid SMTP{code}"


def local_name() -> str:
    """How we introduce ourselves. Not asked of the network: that can take long."""
    name = socket.gethostname()
    return name if _LABELS.fullmatch(name) else "localhost"


def _tls(error: ssl.SSLError) -> str:
    text = str(error).lower()
    return next((meaning for sign, meaning in _TLS_REASONS if sign in text), "no agreement on TLS")


def _refused(error: Exception) -> str:
    refused = isinstance(error.__cause__, ConnectionRefusedError)
    return ": nothing listens at its address and port" if refused else ""


def _micros(seconds: float) -> Micros:
    return max(0, round(seconds * 1e6))
