"""Numbered SQL files, each applied once, in order, and never changed afterwards.

A file is called ``0001_what.sql``, or ``0001_pre_what.sql`` and ``0001_post_what.sql`` where old and new code run
side by side during a roll-out (``pre`` before it, ``post`` after it). The runner knows no database: a
``MigrationTarget`` does the steps, each under its own lock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.resources.abc import Traversable
from typing import Protocol

from msgspec import Struct

from hookline.core.errors import StorageUnavailable

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class SchemaMismatch(StorageUnavailable):
    """The database's schema is not one that this version of Hookline can work with."""

    code = "schema_mismatch"
    title = "The database does not fit this version of Hookline"


class Migration(Struct, frozen=True, order=True):
    """One file. ``checksum`` is the SHA-256 of its text."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def stage(self) -> str:
        """``pre`` or ``post`` a roll-out; empty where no two releases run side by side."""
        return stage_of(self.name)


class MigrationTarget(Protocol):
    """A database that can be migrated."""

    def exclusively(self) -> AbstractContextManager[None]:
        """One transaction for all that happens inside, that no second runner shares in time."""
        ...

    def applied(self) -> Mapping[str, str]:
        """Checksum by name of what was applied, making the table for it if there is none."""
        ...

    def apply(self, migration: Migration) -> None:
        """Run the file and note it as applied."""
        ...


def stage_of(name: str) -> str:
    """See ``Migration.stage``."""
    word = name.split("_")[1]
    return word if word in {"pre", "post"} else ""


def load(folder: Traversable) -> list[Migration]:
    """The migrations in ``folder`` in order. Raises ``ValueError`` if a file is misnamed."""
    files = sorted(
        (each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name
    )
    return [_read(file) for file in files]


def _read(file: Traversable) -> Migration:
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name} is no migration's name (0001_what.sql)")
    text = file.read_text("utf-8").replace("\r\n", "\n")
    return Migration(int(match[1]), file.name.removesuffix(".sql"), text)


def migrate(target: MigrationTarget, known: Sequence[Migration]) -> list[Migration]:
    """Apply what is missing, and return it. Raises ``SchemaMismatch`` and changes nothing if the database has
    migrations that are not ``known``, or knows other text for one."""
    with target.exclusively():
        lacking = missing(target.applied(), known)
        for migration in lacking:
            target.apply(migration)
    return lacking


def missing(
    applied: Mapping[str, str], known: Sequence[Migration], *, rolling: bool = False
) -> list[Migration]:
    """Those of ``known`` that are not applied. Raises as ``check`` does."""
    check(applied, known, rolling=rolling)
    return [migration for migration in known if migration.name not in applied]


def at_start(lacking: Sequence[Migration]) -> list[Migration]:
    """What a node applies that starts while others of the release before still run: all but ``post``.

    Raises ``SchemaMismatch`` if the last release's ``post`` is still to come: what follows it builds on it.
    """
    due = [migration for migration in lacking if migration.stage != "post"]
    late = [
        migration.name for migration in lacking if due and migration.stage == "post" and migration < due[-1]
    ]
    if late:
        raise SchemaMismatch(
            f"an earlier upgrade was not finished ({', '.join(late)}): run hookline migrate with that release first"
        )
    return due


def check(applied: Mapping[str, str], known: Iterable[Migration], *, rolling: bool = False) -> None:
    """Raises ``SchemaMismatch`` where the database went another way than ``known``. Where releases are ``rolling``, the
    next one's ``pre`` may be there already: it lets the code of this one work on."""
    by_name = {migration.name: migration for migration in known}
    newer = sorted(applied.keys() - by_name.keys())
    if rolling:
        newer = [name for name in newer if stage_of(name) != "pre"]
    if newer:
        raise SchemaMismatch(
            f"the database has migrations that this version of Hookline does not know ({', '.join(newer)}): "
            "run the version that made it, or a newer one"
        )
    changed = [
        name
        for name, checksum in sorted(applied.items())
        if name in by_name and by_name[name].checksum != checksum
    ]
    if changed:
        raise SchemaMismatch(
            f"migrations were changed after they were applied ({', '.join(changed)}): "
            "restore the files as they were released"
        )
