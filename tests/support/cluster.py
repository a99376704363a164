"""Several nodes on one PostgreSQL, as child processes, and what the database knows of them."""

from __future__ import annotations

import asyncio
import base64
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from hookline.storage.postgres import migrate_database
from hookline.storage.postgres.connection import Link
from tests.support import audit
from tests.support.audit import Change, Part
from tests.support.postgres import PostgresServer
from tests.support.server import ROOT, START_SECONDS, Api, ServerProcess, child_environment
from tests.support.waiting import eventually, until

SHARDS, SLICES = 8, 2
LEASE = 3.0
"""Seconds. A third of it passes between renewals, so a busy machine has two seconds to be late."""
IN_FLIGHT = 64

_SECONDS = 30.0
"""How long a connection or a statement of the test itself may take."""
_OWNERS = "SELECT shard, slice, owner, expires_at FROM hookline.shard_leases ORDER BY shard, slice"
CUT_OFF = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename LIKE $1"


class Node(ServerProcess):
    """A server process that has a name: its folder, and its role in the database.

    ``launcher`` are the arguments of Python that stand for ``-m hookline``, ``inside`` a command that runs it.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        role: str,
        launcher: Sequence[str] = ("-m", "hookline"),
        inside: Sequence[str] = (),
        **settings: str,
    ) -> None:
        super().__init__(folder / name, role, **settings)
        self.name = name
        self._command = [*inside, sys.executable, *launcher, "serve"]
        self._seen = 0

    def launch(self) -> None:
        """Start it, without waiting for it."""
        given = {f"HOOKLINE_{name.upper()}": value for name, value in self.settings.items()}
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=child_environment(**given), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    async def launched(self) -> None:
        """Return once it answers. Fails with the end of its log if it does not."""
        await until(
            lambda: self._started(self._seen) or not self.alive,
            lambda: f"{self.name} started\n{self.tail()}",
            START_SECONDS,
        )
        assert self.alive, f"{self.name} ended with {self.process.returncode}:\n{self.tail()}"

    async def start(self) -> None:
        self.launch()
        await self.launched()

    async def sent(self) -> int:
        """How many requests to endpoints it has ended. Its metrics must be open."""
        answer = await Api(self).call("GET", "/metrics", headers={"Authorization": ""})
        assert answer.status == 200, answer
        pairs = (line.rpartition(" ") for line in answer.body.decode().splitlines())
        return sum(
            int(float(value)) for name, _, value in pairs if name.startswith("hookline_attempts_total{")
        )

    def said(self, event: str) -> int:
        """How often its log tells of something."""
        return self.log.read_text("utf-8", "replace").count(f'"event": "{event}"')


@dataclass
class Cluster:
    """A database with its own roles and audit, and the nodes on it."""

    server: PostgresServer
    folder: Path
    database: str
    nodes: list[Node] = field(default_factory=list[Node])
    settings: dict[str, str] = field(default_factory=dict[str, str])
    lease: float = LEASE
    _db: asyncpg.Connection[Any] | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def apis(self) -> list[Node]:
        return [node for node in self.nodes if node.role == "api"]

    @property
    def workers(self) -> list[Node]:
        return [node for node in self.nodes if node.role != "api"]

    @property
    def api(self) -> Api:
        """An operator's view, through the first API node."""
        return self.view(self.apis[0])

    @property
    def roles(self) -> str:
        """A pattern of the names of its nodes."""
        return f"{self.database}_%"

    def view(self, node: Node) -> Api:
        """An operator's view through one node."""
        return Api(node)

    # --- nodes

    async def node(self, name: str, role: str, port: int = 0, host: str = "127.0.0.1", **how: Any) -> Node:
        """A new node, not started yet; ``host`` and ``port`` are where it finds the database."""
        await self.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        url = f"postgresql://{name}@{host}:{port or self.server.port}/{self.database}"
        made = Node(name, self.folder, role, **{**self.settings, "database_url": url, **how})
        self.nodes.append(made)
        return made

    async def start(self, *nodes: Node) -> None:
        """Start them at the same time."""
        for node in nodes:
            node.launch()
        await asyncio.gather(*(node.launched() for node in nodes))

    def complaints(self) -> dict[str, list[str]]:
        """See ``ServerProcess.complaints``; only nodes that have any."""
        found = {node.name: node.complaints() for node in self.nodes}
        return {name: lines for name, lines in found.items() if lines}

    # --- the database

    async def _connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            self.server.url(self.database), timeout=_SECONDS, command_timeout=_SECONDS
        )

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[asyncpg.Connection[Any]]:
        """Another one, for the time being."""
        db = await self._connect()
        try:
            yield db
        finally:
            await db.close(timeout=10)

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """On a connection that is kept: many ask again and again until something has happened."""
        async with self._turn:
            return await (await self._kept()).fetch(query, *args)

    async def execute(self, statements: str) -> None:
        async with self._turn:
            await (await self._kept()).execute(statements)

    async def _kept(self) -> asyncpg.Connection[Any]:
        if self._db is None or self._db.is_closed():
            self._db = await self._connect()
        return self._db

    async def close(self) -> None:
        """End all nodes and the connection."""
        for node in self.nodes:
            node.bury()
        if self._db is not None:
            self._db.terminate()

    async def cut_connections(self) -> int:
        """End all connections of all nodes; how many there were."""
        return (await self.fetch(CUT_OFF, self.roles))[0][0]

    # --- who delivers what

    async def owned(self) -> dict[str, set[Part]]:
        """The parts that each running node has a lease of, as it is now."""
        names = {str(node.process.pid): node.name for node in self.workers if node.alive}
        held: dict[str, set[Part]] = {name: set() for name in names.values()}
        now = time.time_ns() // 1_000_000
        for shard, slice_no, owner, expires_at in await self.fetch(_OWNERS):
            name = names.get(owner.split(":")[-2], "") if owner and expires_at > now else ""
            held.setdefault(name, set()).add((shard, slice_no))
        return held

    async def even(self, among: Sequence[Node] | None = None) -> dict[str, set[Part]]:
        """Return once each of these nodes has its share, and nobody else has any part."""
        wanted = {node.name for node in (self.workers if among is None else among)}
        return await eventually(self.owned, lambda held: _is_even(held, wanted), f"{wanted} share evenly")

    async def owner(self, subscription: str) -> Node:
        """Who delivers to a subscription."""
        row = (
            await self.fetch("SELECT shard, slice FROM hookline.subscriptions WHERE id = $1", subscription)
        )[0]
        held = await self.owned()
        return next(node for node in self.workers if (row[0], row[1]) in held[node.name])

    async def rest(self, nodes: Sequence[Node]) -> None:
        """Return once the other nodes share everything evenly: these ones have nothing left."""
        await self.even([node for node in self.workers if node not in nodes])

    async def latest_expiry(self) -> int:
        """When the last of the leases ends, in milliseconds of the wall clock."""
        return (await self.fetch("SELECT max(expires_at) FROM hookline.shard_leases"))[0][0]

    async def renewed(self, parts: Collection[Part] = ()) -> None:
        """Return once the leases (of some parts) are so new that those which are in force now are over for long."""
        now = time.time_ns() // 1_000_000
        await eventually(
            lambda: self._earliest_expiry(parts),
            lambda expiry: expiry > now + 2000 * self.lease,
            f"the leases of {sorted(parts) or 'all'} are renewed",
        )

    async def _earliest_expiry(self, parts: Collection[Part]) -> int:
        rows = await self.fetch(_OWNERS)
        return min(row[3] for row in rows if not parts or (row[0], row[1]) in parts)

    async def epochs(self, parts: Collection[Part] = ()) -> dict[Part, int]:
        """Of all leases, or of those of some parts."""
        rows = await self.fetch("SELECT shard, slice, epoch FROM hookline.shard_leases")
        epochs: dict[Part, int] = {(row[0], row[1]): row[2] for row in rows}
        return {part: epochs[part] for part in parts or epochs}

    async def history(self) -> list[Change]:
        """All writes to the leases, part by part."""
        return audit.changes(await self.fetch(audit.READ, 0))

    async def check_fencing(self) -> list[Change]:
        """Two owners never both record: see ``assert_fenced``; and nothing was recorded outside of a lease."""
        for table in audit.RECORDED:
            assert (await self.fetch(audit.STRAY.format(table=table)))[0][0] == 0, f"strays in {table}"
        history = await self.history()
        audit.assert_fenced(history)
        return history


def _is_even(held: dict[str, set[Part]], wanted: set[str]) -> bool:
    counts = [len(held.get(name, ())) for name in wanted]
    return sum(counts) == SHARDS * SLICES and max(counts) - min(counts) <= 1


_numbers = iter(range(1, 1 << 30))


@asynccontextmanager
async def cluster(
    server: PostgresServer,
    folder: Path,
    apis: int = 2,
    workers: int = 3,
    lease: float = LEASE,
    **settings: str,
) -> AsyncGenerator[Cluster]:
    """``apis`` and ``workers`` nodes on a new database, all running and the work shared out evenly."""
    this = await _prepare(server, folder, lease, settings)
    try:
        for number in range(1, apis + 1):
            await this.node(f"{this.database}_api_{number}", "api")
        for number in range(1, workers + 1):
            await this.node(f"{this.database}_worker_{number}", "delivery")
        await this.start(*this.nodes)
        await this.even()
        yield this
    finally:
        await this.close()


async def _prepare(server: PostgresServer, folder: Path, lease: float, settings: dict[str, str]) -> Cluster:
    database = f"node{next(_numbers)}"
    db = await asyncpg.connect(server.url())
    await db.execute(f"CREATE DATABASE {database}")
    await db.close()
    this = Cluster(server, folder, database, lease=lease, settings={
        "master_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        "lease_seconds": f"{lease:g}s",
        "max_in_flight": str(IN_FLIGHT),
        "database_connections": "4",
        "database_query_connections": "2",
        **settings,
    })  # fmt: skip
    await migrate_database(Link(server.url(database)), shards=SHARDS, slices=SLICES)
    await this.execute(audit.INSTALL)
    return this
