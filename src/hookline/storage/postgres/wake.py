"""Wake-ups between machines, by NOTIFY.

A wake-up is only a hint. It may be lost; whoever waits looks again after a while in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from hookline.core.errors import StorageUnavailable
from hookline.storage.postgres.connection import Connection, Link, Session
from hookline.storage.wake import LocalBell, LocalWake

CHANNEL = "hookline_wake"
GATHER = 0.002
"""Seconds in which wake-ups gather to one."""
ALL = "*"
NAMED = 200
"""Shards that one message names; more are all."""
HEARTBEAT = 30.0
"""Seconds after which a connection without wake-ups shows that it lives."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries to connect."""


class PostgresWake:
    """Wakes those who wait in this process, and in all others that have one of these on the same database.

    It has a connection of its own, to the server itself: a pooler that lends connections for one transaction at a time
    passes no notifications on. ``run`` keeps it up. Without ``listens``, it only gives wake-ups.
    """

    def __init__(self, dsn: str, *, listens: bool = True, connect_timeout: float = 5.0) -> None:
        self._link = Link(dsn, connect_timeout=connect_timeout, timeout=connect_timeout, name="hookline wake")
        self._listens = listens
        self._local = LocalWake()
        self._shards: set[int] = set()
        self._all = False
        self._work = asyncio.Event()
        self.connected = asyncio.Event()
        """Set while wake-ups come in and go out."""

    def notify(self, shards: Collection[int] | None = None) -> None:
        """See ``Wake``."""
        self._local.notify(shards)
        if shards is None:
            self._all = True
        else:
            self._shards.update(shards)
        self._work.set()

    def listen(self, shard: int) -> LocalBell:
        """See ``Bells``."""
        return self._local.listen(shard)

    async def run(self) -> None:
        """Pass wake-ups on in both directions until cancelled, connecting again whenever it must."""
        pause = FIRST_PAUSE
        while True:
            with contextlib.suppress(StorageUnavailable):
                db = await self._link.connect()
                pause = FIRST_PAUSE
                await self._serve(db)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _serve(self, db: Session) -> None:
        broken = asyncio.Event()
        db.add_termination_listener(lambda _: broken.set())
        sender = asyncio.create_task(self._send(db), name="notify")
        watcher = asyncio.create_task(broken.wait(), name="watch")
        try:
            if self._listens:
                await db.add_listener(CHANNEL, self._arrived)
            self.connected.set()
            self._local.notify()  # what came while nobody listened
            await asyncio.wait([sender, watcher], return_when=asyncio.FIRST_COMPLETED)
        except Exception:  # noqa: BLE001  the connection is not well: make another
            return
        finally:
            self.connected.clear()
            for task in (sender, watcher):
                task.cancel()
            await asyncio.gather(sender, watcher, return_exceptions=True)
            db.terminate()

    async def _send(self, db: Connection) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._work.wait()
            except TimeoutError:
                await db.execute("SELECT 1")
                continue
            await asyncio.sleep(GATHER)
            self._work.clear()
            shards, everything = self._shards, self._all
            self._shards, self._all = set(), False
            named = not everything and len(shards) <= NAMED
            payload = ",".join(map(str, sorted(shards))) if named else ALL
            await db.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

    def _arrived(self, db: Session, pid: int, _channel: str, payload: str) -> None:
        if pid == db.get_server_pid():  # our own, given here already
            return
        named = [int(part) for part in payload.split(",") if part.isdecimal()]
        self._local.notify(None if payload == ALL else named)
