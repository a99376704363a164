"""Migrations are applied once, in order, and refused where the database went another way."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

import pytest

from hookline.core.errors import StorageUnavailable
from hookline.storage.migrate import Migration, SchemaMismatch, load, migrate
from hookline.storage.sqlite.connection import Schema, check_version, connect_writer, prepare, statements

ONE = Migration(1, "0001_start", "CREATE TABLE a (x);\nINSERT INTO a VALUES (1);\n")
TWO = Migration(2, "0002_post_more", "INSERT INTO a VALUES (2);\n")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Connection]:
    db = connect_writer(tmp_path / "x.db")
    yield db
    db.close()


def _values(db: Connection) -> list[int]:
    return [value for (value,) in db.execute("SELECT x FROM a ORDER BY x")]


def test_what_is_missing_is_applied_in_order(db: Connection) -> None:
    assert migrate(Schema(db), [ONE]) == [ONE]
    assert migrate(Schema(db), [ONE, TWO]) == [TWO]
    assert migrate(Schema(db), [ONE, TWO]) == []
    assert _values(db) == [1, 2]


def test_a_migration_that_fails_leaves_nothing(db: Connection) -> None:
    broken = Migration(2, "0002_broken", "INSERT INTO a VALUES (5);\nINSERT INTO nothing VALUES (1);\n")
    migrate(Schema(db), [ONE])
    with pytest.raises(sqlite3.OperationalError, match="nothing"):
        migrate(Schema(db), [ONE, broken])
    assert _values(db) == [1]
    assert migrate(Schema(db), [ONE, TWO]) == [TWO]


def test_a_changed_migration_is_refused(db: Connection) -> None:
    migrate(Schema(db), [ONE])
    changed = Migration(1, "0001_start", ONE.sql + "-- one more line\n")
    with pytest.raises(SchemaMismatch, match=r"changed after they were applied.*0001_start"):
        migrate(Schema(db), [changed, TWO])
    assert _values(db) == [1]


def test_a_newer_schema_is_refused(db: Connection) -> None:
    migrate(Schema(db), [ONE, TWO])
    with pytest.raises(SchemaMismatch, match=r"0002_post_more.*run the version that made it"):
        migrate(Schema(db), [ONE])


def test_several_processes_migrate_once(tmp_path: Path) -> None:
    applied: list[list[Migration]] = []
    start = threading.Barrier(6)

    def run() -> None:
        db = connect_writer(tmp_path / "x.db")
        start.wait(10)
        applied.append(migrate(Schema(db), [ONE, TWO]))
        db.close()

    connect_writer(tmp_path / "x.db").close()
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 0, 2]


def test_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "0002_post_more.sql").write_bytes(b"SELECT 1;\r\n")
    (tmp_path / "0001_start.sql").write_text("SELECT 2;\n")
    (tmp_path / "notes.txt").write_text("not a migration")
    found = load(tmp_path)
    assert [(each.number, each.name) for each in found] == [(1, "0001_start"), (2, "0002_post_more")]
    assert found[0].checksum != found[1].checksum
    assert found[1].sql == "SELECT 1;\n"


def test_a_misnamed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "start.sql").write_text("SELECT 1;")
    with pytest.raises(ValueError, match=r"start\.sql"):
        load(tmp_path)


def test_statements_are_told_apart() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT 1;\nEND;"
    script = f"-- a; b\nCREATE TABLE a (x); -- ;\n{trigger}\nSELECT ';'"
    assert [text.split()[-1] for text in statements(script)] == [";", "END;", "';'"]


def test_the_schema_of_this_version_is_applied_once(tmp_path: Path) -> None:
    prepare(tmp_path / "x.db")
    prepare(tmp_path / "x.db")
    db = connect_writer(tmp_path / "x.db")
    (count,) = db.execute("SELECT count(*) FROM migrations").fetchone()
    db.close()
    assert count >= 1


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    with pytest.raises(StorageUnavailable, match=r"3\.37\.0 or newer.*3\.36\.0"):
        check_version()
