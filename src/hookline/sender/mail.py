"""The sender for mails: few connections, a bounded line before them, and one mail for each mailbox in an interval."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from hookline.core.errors import AddressRefused
from hookline.core.mail import MailServer, Originator
from hookline.ports import ErrorClass, Outcome, Request
from hookline.sender.flood import FloodGuard, Key
from hookline.sender.message import Mail, mail_of, write
from hookline.sender.smtp import Conversation
from hookline.sender.transfer import Done

CONNECTIONS: Final = 4
"""Connections to the mail server at a time: servers count them for each client, and few need more."""
MAX_WAITING: Final = 1000
CLOSE_SECONDS: Final = 2.0


def trusted(ca_file: str | Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the host name and the chain checked. Raises ``OSError`` for a file that is no use."""
    return ssl.create_default_context(cafile=str(ca_file))


class _Job(Struct, frozen=True):
    mail: Mail
    request: Request
    done: Done
    key: Key


class MailSender:
    """The ``Sender`` for ``mailto:`` URLs. Make it inside the loop that it is to run on.

    ``context`` is needed unless the server is spoken to without TLS. ``interval``: see ``FloodGuard``. An outcome's
    ``status`` is the server's code; mails that are held back have 250, and a body that says so. A mail for a mailbox
    to which one is under way waits for that one, and shares its fate: held back if it went out, failed if it did not.
    """

    def __init__(
        self,
        server: MailServer,
        originator: Originator,
        context: ssl.SSLContext | None,
        *,
        interval: float = 300.0,
        connections: int = CONNECTIONS,
        max_waiting: int = MAX_WAITING,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._server = server
        self._originator = originator
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._monotonic = monotonic or self._loop.time
        self._guard = FloodGuard(interval)
        self._slots = asyncio.Semaphore(connections)
        self._most = connections + max_waiting
        self._unanswered = 0
        self._under_way: dict[Key, list[_Job]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # --- the port ------------------------------------------------------------------------------------

    def start(self, request: Request, done: Done) -> None:
        """Send; ``done`` is called once, later, on the loop's thread. Raises ``RuntimeError`` once closed."""
        if self._closed:
            raise RuntimeError("the sender is closed")
        try:
            mail = mail_of(request)
        except AddressRefused as error:
            return self._soon(done, Outcome(error=ErrorClass.ADDRESS_REFUSED, detail=error.detail))
        job = _Job(mail, request, done, (mail.recipient, mail.subscription))
        if self._guard.wait(job.key, self._monotonic()):
            return self._soon(done, self._held_back(job))
        if self._unanswered >= self._most:
            detail = f"more than {self._most} mails wait for the mail server"
            return self._soon(done, Outcome(error=ErrorClass.INTERNAL, detail=detail))
        self._unanswered += 1
        if job.key in self._under_way:
            return self._under_way[job.key].append(job)
        if self._guard.interval:
            self._under_way[job.key] = []
        task = self._loop.create_task(self._run(job), name="mail")
        self._tasks.add(task)
        return task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is in flight (its ``done`` is not called) and free all sockets."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    # --- one mail --------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        try:
            outcome = await self._in_turn(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine must get its outcome
            outcome = Outcome(
                error=ErrorClass.INTERNAL, detail=f"the mail cannot be sent: {type(error).__name__}"
            )
        self._finish(job, outcome)

    async def _in_turn(self, job: _Job) -> Outcome:
        """Wait for a connection that is free; the time for that counts."""
        begun, total = self._loop.time(), job.request.total_timeout
        try:
            async with asyncio.timeout(total):
                await self._slots.acquire()
        except TimeoutError:
            detail = f"no connection to the mail server was free within {total:g} s"
            return Outcome(error=ErrorClass.TIMEOUT, detail=detail, total_us=round(total * 1e6))
        try:
            waited = self._loop.time() - begun
            outcome = await self._exchange(job, waited)
        finally:
            self._slots.release()
        return replace(outcome, total_us=outcome.total_us + round(waited * 1e6))

    async def _exchange(self, job: _Job, waited: float) -> Outcome:
        note = self._guard.held(job.key).note()
        mail = write(job.mail, self._originator, datetime.now(UTC), note)
        conversation = Conversation(self._server, self._context)
        try:
            return await conversation.send(
                self._originator.address,
                job.mail.recipient,
                mail,
                connect=job.request.connect_timeout,
                total=job.request.total_timeout,
                waited=waited,
            )
        finally:
            await conversation.leave()

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        sent = 200 <= outcome.status < 300
        if sent:
            self._guard.sent(job.key, self._monotonic())
        waiting = self._under_way.pop(job.key, [])
        self._answer(job, outcome)
        for other in waiting:
            self._answer(other, self._held_back(other) if sent else outcome)

    def _answer(self, job: _Job, outcome: Outcome) -> None:
        self._unanswered -= 1
        try:
            job.done(outcome)
        except Exception as error:  # noqa: BLE001 - one receiver's fault must not stop the others' outcomes
            self._loop.call_exception_handler(
                {"message": "a callback of the sender failed", "exception": error}
            )

    def _held_back(self, job: _Job) -> Outcome:
        self._guard.hold(job.key, job.mail.subject)
        text = (
            f"held back: one mail in {self._guard.interval:g} s to this address; the next one tells of this"
        )
        return Outcome(250, body=text.encode())

    def _soon(self, done: Done, outcome: Outcome) -> None:
        self._loop.call_soon(lambda: None if self._closed else done(outcome))
