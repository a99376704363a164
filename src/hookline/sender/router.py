"""One ``Sender`` for all kinds of URL."""

from __future__ import annotations

import asyncio

from hookline.core.mail import MAILTO
from hookline.ports import ErrorClass, Outcome, Request, Sender
from hookline.sender.transfer import Done

NO_MAIL_SERVER = "no SMTP server is set up here; the operator sets HOOKLINE_SMTP_URL"


class RoutedSender:
    """``mailto:`` goes to ``mail``, everything else to ``http``. Without ``mail``, mails fail and are tried again."""

    def __init__(self, http: Sender, mail: Sender | None) -> None:
        self._http = http
        self._mail = mail
        self._closed = False

    def start(self, request: Request, done: Done) -> None:
        """See ``Sender``."""
        if not request.url.startswith(MAILTO):
            self._http.start(request, done)
        elif self._mail is not None:
            self._mail.start(request, done)
        else:
            outcome = Outcome(error=ErrorClass.INTERNAL, detail=NO_MAIL_SERVER)
            asyncio.get_running_loop().call_soon(lambda: None if self._closed else done(outcome))

    async def close(self) -> None:
        """See ``Sender``."""
        self._closed = True
        try:
            if self._mail is not None:
                await self._mail.close()
        finally:
            await self._http.close()
