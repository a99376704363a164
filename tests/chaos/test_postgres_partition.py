"""Nodes that lose the database but not the world: they must stop sending, and nothing they write late may count.

The line to the database runs through a proxy that stops passing bytes; where the machine allows network namespaces, a
node also has a network of its own whose cable is pulled out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.chaos.fleet import AT_ONCE, UNRECORDED, Fleet, fleet
from tests.support import network
from tests.support.cluster import IN_FLIGHT, LEASE, SHARDS, SLICES, Cluster, Node, cluster
from tests.support.network import HERE, Namespace, namespace
from tests.support.postgres import PostgresServer
from tests.support.proxy import Line, line_to
from tests.support.receipts import Receiver, receiving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

REFUSED = 4
UNDER_WAY = 1.0
"""Seconds in which requests come to an end that were sent before a lease was over."""
STRAGGLERS = 2 * AT_ONCE


class Cable(Protocol):
    """The way from some nodes to the database.

    ``watched`` is one that delivers, whose metrics we can read. ``cuts`` are the ways to cut it: whether what is on its
    way is lost.
    """

    nodes: list[Node]
    watched: Node | None
    cuts: tuple[bool, ...]

    def cut(self) -> None: ...

    def mend(self, *, lost: bool) -> None:
        """What was on its way arrives now, unless it is ``lost``."""
        ...


class Proxied:
    """A node of either role, both behind one proxy."""

    def __init__(self, line: Line, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.watched: Node | None = nodes[-1]
        self.cuts: tuple[bool, ...] = (True, False)
        self.cut = line.cut
        self.mend = line.mend


class Unplugged:
    """A node that delivers, in a network of its own."""

    def __init__(self, space: Namespace, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.watched: Node | None = None
        self.cuts: tuple[bool, ...] = (False,)
        self._space = space

    def cut(self) -> None:
        self._space.plug(inside=False)

    def mend(self, *, lost: bool) -> None:
        """TCP sends again what it still has, so nothing is lost in any case."""
        self._space.plug(inside=True)


@asynccontextmanager
async def by_proxy(nodes: Cluster, receiver: Receiver) -> AsyncGenerator[Cable]:
    async with line_to(nodes.server.port) as line:
        made = [
            await nodes.node(f"{nodes.database}_far_{role}", role, port=line.port, metrics="open")
            for role in ("api", "delivery")
        ]
        yield Proxied(line, made)


@asynccontextmanager
async def by_network(nodes: Cluster, receiver: Receiver) -> AsyncGenerator[Cable]:
    with namespace() as space:
        outside, inside = space.listen_here(), space.listen(receiver.port)
        async with line_to(nodes.server.port, outside) as line, line_to(receiver.port, inside):
            node = await nodes.node(
                f"{nodes.database}_far", "delivery", line.port, HERE, inside=space.command()
            )
            yield Unplugged(space, [node])


WAYS: dict[str, Callable[[Cluster, Receiver], AbstractAsyncContextManager[Cable]]] = {"proxy": by_proxy}
if network.is_allowed():
    WAYS["network"] = by_network


async def separate(this: Fleet, cable: Cable, *, lost: bool) -> int:
    """Cut the nodes off until the others have all, then let them come back; the time at which the line was mended.

    A node stops sending when its leases are over; it cannot know that they are another's. One that asked right before
    the cut was given a lease a third longer than we saw.
    """
    before, ends = this.retried, await this.cluster.latest_expiry() + 1000 * (LEASE / 3 + UNDER_WAY)
    cable.cut()
    await until(lambda: time.time() * 1000 > ends, "its leases and requests are over")
    sent = await cable.watched.sent() if cable.watched else 0
    await this.cluster.rest(cable.nodes)
    await this.flowing()
    if any(node.role == "api" for node in cable.nodes):
        await until(lambda: this.retried >= before + REFUSED, "publishers have gone elsewhere")
    if cable.watched:
        assert await cable.watched.sent() <= sent + STRAGGLERS, "it sends without a lease"
    mended = time.monotonic_ns()
    cable.mend(lost=lost)
    await this.cluster.even()
    return mended


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(400)
async def test_nodes_without_the_database(durable: PostgresServer, tmp_path: Path, way: str) -> None:
    async with (
        cluster(durable, tmp_path, apis=1, workers=2) as nodes,
        receiving(tmp_path) as receiver,
        WAYS[way](nodes, receiver) as cable,
    ):
        await nodes.start(*cable.nodes)
        await nodes.even()
        async with fleet(nodes, receiver) as this:
            await this.flowing()
            await this.make_backlog(cable.nodes[-1])
            times = [await separate(this, cable, lost=lost) for lost in cable.cuts]
            await this.flowing()
        verdict = await this.examine()
        twice = this.check_backlog(2 * (AT_ONCE + UNRECORDED))
        late = sum(any(at < one.at < at + 1e9 for at in times) for one in verdict.duplicates)
        verdict.tell(**{"sent when the line was mended": late, "backlog sent twice": twice})
        assert len(verdict.forced) >= len(cable.cuts) * (SHARDS * SLICES // 3)
        assert late <= IN_FLIGHT
