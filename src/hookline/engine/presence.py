"""A process that takes events in tells that it lives, so that its operator sees it beside those that deliver."""

from __future__ import annotations

import asyncio
import contextlib

from hookline import __version__
from hookline.core.errors import Overloaded, StorageUnavailable
from hookline.observe import log
from hookline.ports import Clock, DeliveryStore, Node

BEAT = 5.0
"""Seconds between signs of life."""


def gone_after(lease_seconds: float) -> float:
    """Seconds after which a node that was not heard of counts as gone: one that takes events in gives a sign every
    ``BEAT``, one that delivers several within the lease time."""
    return max(3 * BEAT, lease_seconds)


class Presence:
    """One node's signs of life; a node that delivers gives them with its leases instead (see ``Worker``)."""

    def __init__(
        self, name: str, role: str, store: DeliveryStore, clock: Clock, lease_seconds: float
    ) -> None:
        self._node = Node(name, role, __version__, clock.now())
        self._store = store
        self._clock = clock
        self._gone_after = gone_after(lease_seconds)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._store.beat(self._node, self._clock.now(), self._gone_after)
                except (StorageUnavailable, Overloaded) as error:
                    log.warning("beat_delayed", reason=error.detail)
                await asyncio.sleep(BEAT)
        finally:
            with contextlib.suppress(StorageUnavailable, Overloaded):
                await self._store.leave(self._node.id)
