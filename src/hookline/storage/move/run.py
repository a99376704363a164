"""The move of an installation from one database to another, checked row by row."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path

from msgspec import Struct

from hookline.core.errors import Fault, HooklineError, SettingsInvalid
from hookline.core.model import Millis
from hookline.ports import Vault
from hookline.storage.move.digest import Digest
from hookline.storage.move.plan import Facts, MoveRefused, planned_ends
from hookline.storage.move.postgres import PostgresSource
from hookline.storage.move.source import Source
from hookline.storage.move.sqlite import SqliteSource
from hookline.storage.move.tables import EVENT_IDS, EVENTS, TABLES, Row, Table, neat
from hookline.storage.move.target import Filling, Mark, Places, PostgresTarget, expected_shards, id_of
from hookline.storage.postgres.connection import told as told_by_postgres
from hookline.storage.sqlite.connection import told as told_by_sqlite

SHARDS = "shards"
"""What the row of ``Moved.tables`` is called that compares heads, watermarks and slices."""


class Compared(Struct, frozen=True):
    """One table: the rows that were read from the source, and what source and target say of them."""

    table: str
    rows: int
    source: str
    target: str

    @property
    def same(self) -> bool:
        return self.source == self.target


class Moved(Struct, frozen=True):
    """What a move did. With ``before``, this very move was finished at that time, and nothing was done now.

    ``mended`` texts had the character NUL, which PostgreSQL cannot store; it was replaced.
    """

    source: str
    target: str
    tables: Sequence[Compared] = ()
    mended: int = 0
    before: Millis | None = None


class MoveMismatch(HooklineError):
    """What arrived is not what was sent: everything was undone. ``tables`` says where."""

    code = "move_mismatch"
    title = "What arrived is not what was sent; nothing was moved"

    def __init__(self, tables: Sequence[Compared]) -> None:
        wrong = ", ".join(each.table for each in tables if not each.same)
        super().__init__(f"{self.title}. The digests differ for {wrong}")
        self.tables = tuple(tables)


class Wish(Struct, frozen=True):
    """What is to be moved, by URL. Without ``shards`` and ``slices`` the target is cut as it is already, or as a new
    database is. A node is believed to live for ``seconds`` after its last sign of life."""

    source: str
    target: str
    shards: int | None = None
    slices: int | None = None
    seconds: float = 15.0


Watch = Callable[[int, int], None]
"""Is told how many of how many rows are done."""


async def move(
    wish: Wish, vault: Vault | None, clock: Callable[[], Millis], watch: Watch = lambda done, total: None
) -> Moved:
    """Move an installation. All of it arrives or nothing, and it may be run again after any break.

    ``vault`` has the master key that the moved installation will have; None if there is no key. Raises ``MoveRefused``,
    ``MoveMismatch``, ``SettingsInvalid`` for addresses that cannot be, and ``StorageUnavailable``.
    """
    source, target = _source(wish.source), _target(wish.target)
    try:
        async with source.held(clock(), wish.seconds) as facts:
            _check_secrets(facts, vault)
            asked = Mark(facts.identity, source.name, facts.state, facts.cut, clock())
            mark = await target.prepare(asked, wish.shards, wish.slices, wish.seconds)
            if mark.finished_at is not None:
                return Moved(source.name, target.name, before=mark.finished_at)
            return await _Move(source, facts, target, mark, watch).run(clock)
    except Exception as error:
        meant = told_by_postgres(told_by_sqlite(error))
        if meant is error:
            raise
        raise meant from error


def _source(url: str) -> Source:
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.removeprefix("/"):
        return SqliteSource(Path(rest.removeprefix("/")))
    if scheme in _POSTGRES and rest:
        return PostgresSource(url)
    raise _unusable("--from", "sqlite:///<path> or postgresql://<user>@<host>/<database>")


def _target(url: str) -> PostgresTarget:
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRES and rest:
        return PostgresTarget(url)
    raise _unusable("--to", "postgresql://<user>@<host>/<database>")


_POSTGRES = ("postgresql", "postgres")


def _unusable(option: str, accepted: str) -> SettingsInvalid:
    return SettingsInvalid(f"{option} cannot be used", [Fault(option, f"accepted: {accepted}")])


def _check_secrets(facts: Facts, vault: Vault | None) -> None:
    """Raises ``MoveRefused`` if the secrets could not be opened at the target."""
    try:
        for each in facts.subscriptions:
            if vault is None:
                raise MoveRefused("there is no master key")
            vault.open(each.sealed, each.id)
    except HooklineError as error:
        raise MoveRefused(
            "the secrets of the source cannot be opened: give the master key that sealed them, with "
            "HOOKLINE_MASTER_KEY, or --data-dir with the folder of its master.key"
        ) from error


class _Move:
    """One move under way."""

    def __init__(
        self, source: Source, facts: Facts, target: PostgresTarget, mark: Mark, watch: Watch
    ) -> None:
        self._source = source
        self._facts = facts
        self._target = target
        self._mark = mark
        self._watch = watch
        self._done = self._total = self._mended = 0
        self._ids = Digest()

    async def run(self, clock: Callable[[], Millis]) -> Moved:
        facts, cut = self._facts, self._mark.cut
        ends = planned_ends(facts, cut)
        counts = {table.name: await self._source.count(table) for table in TABLES}
        self._total = 2 * sum(counts.values()) + counts["events"]
        places = Places(cut, {each.no: each.tenant_no for each in facts.subscriptions})
        async with self._target.filling(self._mark, places) as filling:
            await filling.begin(facts.days)
            sent = {table.name: await self._send(table, filling) for table in TABLES}
            await filling.complete(ends)
            compared = [
                _compared(
                    table.name,
                    counts[table.name],
                    sent[table.name],
                    await self._digest(filling.read_back(table)),
                )
                for table in TABLES
            ]
            ids, expected = await self._digest(filling.ids()), expected_shards(ends, cut)
            compared.append(_compared(EVENT_IDS.name, counts["events"], self._ids, ids))
            compared.append(_compared(SHARDS, expected.rows, expected, await filling.shards()))
            if not all(each.same for each in compared):
                raise MoveMismatch(compared)
            await filling.finish(clock())
        return Moved(self._source.name, self._target.name, compared, self._mended)

    async def _send(self, table: Table, filling: Filling) -> Digest:
        digest = Digest()
        await filling.fill(table, self._tapped(table, digest))
        return digest

    async def _tapped(self, table: Table, digest: Digest) -> AsyncIterator[Sequence[Row]]:
        """The source's rows as they can be stored, on their way past the digest."""
        mend = neat(table)
        async for found in self._source.read(table):
            rows, mended = mend(found)
            self._mended += mended
            digest.add(rows)
            if table is EVENTS:
                self._ids.add(map(id_of, rows))
            self._advance(len(rows))
            yield rows

    async def _digest(self, batches: AsyncGenerator[Sequence[Row]]) -> Digest:
        digest = Digest()
        async for rows in batches:
            digest.add(rows)
            self._advance(len(rows))
        return digest

    def _advance(self, rows: int) -> None:
        self._done += rows
        self._watch(self._done, self._total)


def _compared(table: str, counted: int, sent: Digest, arrived: Digest) -> Compared:
    """``counted`` rows were there before any was read: all of them must have been read."""
    source = sent.text if sent.rows == counted else f"{sent.rows} of {counted} rows were read"
    return Compared(table, counted, source, arrived.text)
