"""What ``hookline.outbox`` takes and refuses, before any database is asked."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from hookline.core.errors import SettingsInvalid
from hookline.core.ids import EVENT_ID
from hookline.engine.publish import EventInput, _field_faults
from hookline.outbox import (
    Event,
    InvalidEvent,
    InvalidName,
    Outbox,
    OutboxError,
    UnsupportedConnection,
    create_table,
    publish,
    publish_batch,
)
from hookline.outbox.__main__ import main
from hookline.outbox.event import Defaults, row_of
from hookline.sources.outbox import OutboxOptions, open_outbox
from hookline.sources.outbox.results import Row

ROOT = Path(__file__).parents[2]


def body_of(event: Event, **defaults: Any) -> dict[str, Any]:
    return json.loads(row_of(event, Defaults(**defaults)).body)


def faults_of(*values: Any, **fields: Any) -> dict[str, str]:
    """What is wrong with an event: by place."""
    type_, data = [*values, *("order:created", {})[len(values) :]]
    with pytest.raises(InvalidEvent) as caught:
        row_of(Event(type_, data, **fields), Defaults())
    assert all(fault.field in str(caught.value) for fault in caught.value.faults)
    return {fault.field: fault.message for fault in caught.value.faults}


# --- what is made of an event


def test_an_event_gets_an_id_and_a_time() -> None:
    before = datetime.now(UTC)
    first, second = (row_of(Event("order:created", {}), Defaults()) for _ in range(2))
    assert first.id != second.id
    made = uuid.UUID(first.id.removeprefix("evt_"))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert EVENT_ID.fullmatch(first.id)
    occurred_at = json.loads(first.body)["occurred_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", occurred_at)
    assert abs(datetime.fromisoformat(occurred_at) - before) < timedelta(minutes=1)


def test_only_what_is_given_is_written() -> None:
    assert body_of(Event("a", 1, occurred_at="2026-03-01")) == {
        "type": "a",
        "data": 1,
        "occurred_at": "2026-03-01",
    }


def test_times_become_utc() -> None:
    at = datetime(2026, 3, 1, 10, 30, 0, 250_999, timezone(timedelta(hours=1)))
    assert body_of(Event("a", 1, occurred_at=at))["occurred_at"] == "2026-03-01T09:30:00.250Z"


def test_defaults_of_the_outbox() -> None:
    row = row_of(Event("a", 1), Defaults("shop", {"application": "pos"}))
    assert (row.tenant, json.loads(row.body)["source"]) == ("shop", {"application": "pos"})
    own = row_of(
        Event("a", 1, tenant="own", source={"user_id": "u"}), Defaults("shop", {"application": "pos"})
    )
    assert (own.tenant, json.loads(own.body)["source"]) == ("own", {"user_id": "u"})


@pytest.mark.parametrize("data", [b'{"a" : 1.50}', b" [1]\n", b"123456789012345678901234567890" * 200])
def test_bytes_are_json_as_it_is(data: bytes) -> None:
    row = row_of(Event("a", data, occurred_at="2026-03-01"), Defaults())
    assert row.body.encode() == b'{"type":"a","data":' + data + b',"occurred_at":"2026-03-01"}'


def test_the_relay_adds_the_id() -> None:
    row = row_of(Event("a", {"x": "}"}, id="e-1", key="k"), Defaults())
    sent = json.loads(Row(1, row.id, row.tenant, row.body.encode()).event)
    assert (sent["id"], sent["key"], sent["data"]) == ("e-1", "k", {"x": "}"})


TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_kept_by_value(data: Any) -> None:
    assert json.loads(row_of(Event("a", data), Defaults()).body)["data"] == data


@given(st.text() | st.binary() | st.integers() | st.none())
def test_no_type_of_event_gets_through_that_the_server_refuses(name: Any) -> None:
    try:
        body_of(Event(name, {}, id=name, key=name, correlation_id=name, occurred_at=name))
    except InvalidEvent:
        event("refused")
    else:
        assert _field_faults(EventInput(name, b"1", name, name, None, None, name, name)) == []  # type: ignore[arg-type]


# --- what is refused, and how


@pytest.mark.parametrize("name", ["", "order created", "ä", "x" * 129, "a\n", None, 1, b"a"])
def test_types_of_events(name: Any) -> None:
    assert "1 to 128" in faults_of(name)["type"]


def test_hooklines_own_types() -> None:
    assert "Hookline's own" in faults_of("hookline.delivery.failed")["type"]


def test_all_faults_are_told_at_once() -> None:
    found = faults_of(
        "no type",
        {"price": Decimal("1.5"), "more": {1}},
        id="a.b",
        tenant="-x",
        occurred_at=datetime(2026, 3, 1),  # noqa: DTZ001 - that is the fault
        object={"type": "order"},
        source={"app": "x"},
        key="",
        correlation_id="a\tb",
    )
    assert found.keys() == {
        "type", "id", "tenant", "data.price", "occurred_at", "object", "source", "key", "correlation_id",
    }  # fmt: skip
    assert "str(value)" in found["data.price"]
    assert "datetime.now(UTC)" in found["occurred_at"]


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        ({"a": [1, {"b": Decimal(1)}]}, "data.a[1].b", "Decimal"),
        ({"at": datetime(2026, 3, 1, tzinfo=UTC)}, "data.at", "datetime"),
        ({"a": float("nan")}, "data.a", "nan"),
        ([float("-inf")], "data[0]", "-inf"),
        ({"text": "half \ud83d"}, "data.text", "surrogate"),
        ({"\ud83d": 1}, "data (a name in it)", "surrogate"),
        ({(1, 2): 3}, "data", "tuple"),
        ({1, 2}, "data", "set"),
        (object(), "data", "object"),
        (b"{'a': 1}", "data", "JSON"),
        (b'{"a": NaN}', "data", "NaN"),
        (b"\xff", "data", "utf-8"),
        (b"\xef\xbb\xbf{}", "data", "BOM"),
        ('{"a":1}'.encode("utf-16"), "data", "utf-8"),
        (b"", "data", "JSON"),
        (b"1 2", "data", "Extra"),
        (b'{"a":1}}', "data", "Extra"),
        (b'{"a":"\x00"}', "data", "control"),
        (10**5000, "data", "digits"),
        (b"[" * 100_000 + b"]" * 100_000, "data", "deep"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else type(value).__name__,
)
def test_payloads_that_are_no_json(data: Any, place: str, words: str) -> None:
    ((found, message),) = faults_of("a", data).items()
    assert found == place
    assert words in message
    assert len(message) < 300


def test_payloads_without_an_end() -> None:
    circle: dict[str, Any] = {}
    circle["me"] = [circle]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for data in (circle, deep):
        ((place, message),) = faults_of("a", data).items()
        assert "deep" in message
        assert len(place) < 100


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("yesterday", "RFC 3339"),
        ("2026-13-01", "RFC 3339"),
        ("1969-12-31T23:59:59Z", "1970"),
        (datetime(1969, 1, 1, tzinfo=UTC), "1970"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=5))), "9999"),
        ("9999-12-31T23:59:59-05:00", "9999"),
        (1_772_357_400, "int"),
    ],
)
def test_times(value: Any, words: str) -> None:
    assert words in faults_of(occurred_at=value)["occurred_at"]


@pytest.mark.parametrize("value", ["", "x" * 257, "a\nb", "\ud83d", 4471, b"x"])
def test_texts(value: Any) -> None:
    found = faults_of(
        key=value,
        correlation_id=value,
        object={"type": value, "id": value},
        source={"application": value, "user_id": value},
    )
    assert set(found) == {
        "key", "correlation_id", "object.type", "object.id", "source.application", "source.user_id",
    }  # fmt: skip


@pytest.mark.parametrize("value", [[], "order", {"type": "a", "id": "b", "c": "d"}, {}, {1: 2}])
def test_objects(value: Any) -> None:
    assert faults_of(object=value).keys() == {"object"}


def test_an_event_may_not_be_too_large() -> None:
    large = Event("a", "x" * 200)
    with pytest.raises(InvalidEvent, match=r"data: the event has \d+ bytes; the limit is 200"):
        row_of(large, Defaults(max_bytes=200))
    assert row_of(large, Defaults(max_bytes=400))


@pytest.mark.parametrize("event_id", ["", "e-1", "x" * 128])
def test_the_limit_is_that_of_the_event_with_its_id(event_id: str) -> None:
    """What just fits here fits at the server, too."""

    def fits(letters: int) -> bool:
        try:
            row = row_of(Event("a", "x" * letters, id=event_id), Defaults(max_bytes=500))
        except InvalidEvent:
            return False
        assert len(Row(1, row.id, row.tenant, row.body.encode()).event) <= 500
        return True

    largest = max(filter(fits, range(500)))
    row = row_of(Event("a", "x" * largest, id=event_id), Defaults(max_bytes=500))
    assert len(Row(1, row.id, row.tenant, row.body.encode()).event) == 500


def test_what_is_no_event() -> None:
    with sqlite() as db, pytest.raises(InvalidEvent, match=r"Event\(type, data"):
        publish(db, {"type": "a", "data": 1})  # type: ignore[arg-type]


def test_the_faults_of_a_batch_name_their_event() -> None:
    with sqlite() as db, pytest.raises(InvalidEvent) as caught:
        publish_batch(db, [Event("a", 1), Event("b c", 1), Event("c", {"x": {1}})])
    assert [fault.field for fault in caught.value.faults] == ["[1].type", "[2].data.x"]


def test_defaults_are_checked_too() -> None:
    with pytest.raises(InvalidEvent, match="source"):
        Outbox(source={"app": "pos"})  # type: ignore[typeddict-unknown-key]
    with sqlite() as db, pytest.raises(InvalidEvent, match="tenant"):
        Outbox(tenant="no tenant").publish(db, Event("a", 1))


# --- connections and names


@contextmanager
def sqlite() -> Iterator[sqlite3.Connection]:
    """A connection with an outbox."""
    db = sqlite3.connect(":memory:")
    try:
        create_table(db)
        yield db
    finally:
        db.close()


def test_connections_that_cannot_be_used_say_what_can() -> None:
    engine = create_engine("sqlite://")
    with sqlite() as db:
        for given, words in (
            (engine, "give a Session or Connection"),
            (db.cursor(), "give its .connection"),
            (None, "psycopg 3, asyncpg or sqlite3"),
            ("sqlite://", "psycopg 3, asyncpg or sqlite3"),
        ):
            with pytest.raises(UnsupportedConnection, match=words):
                publish(given, Event("a", 1))  # type: ignore[arg-type]


def test_a_class_of_ones_own_is_known_by_what_it_inherits() -> None:
    class Mine(sqlite3.Connection):
        pass

    db = sqlite3.connect(":memory:", factory=Mine)
    create_table(db)
    assert publish(db, Event("a", 1, id="e-1")) == "e-1"
    assert db.in_transaction
    db.close()


@pytest.mark.parametrize("name", ["", "a b", 'a"; DROP TABLE x; --', "1a", "x" * 49, "ä", "a\n"])
def test_names_that_cannot_be_used(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidName, match="table"):
        Outbox(table=name)
    with pytest.raises(InvalidName, match="schema"):
        Outbox(schema=name)
    assert main(["sql", "sqlite", f"--table={name}"]) == 2
    assert "table" in capsys.readouterr().err
    with pytest.raises(SettingsInvalid):
        _ = OutboxOptions(url="sqlite:///x", table=name).names


def test_databases_that_are_not_supported() -> None:
    with pytest.raises(OutboxError, match=r"PostgreSQL .* or SQLite"):
        Outbox().statements("mysql")
    for url in ("mysql://x", "postgres", "", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(SettingsInvalid):
            open_outbox(OutboxOptions(url=url))


def test_addresses_lose_the_name_of_a_driver() -> None:
    assert OutboxOptions(url="postgresql+asyncpg://u:p@h/db?a=b").address == "postgresql://u:p@h/db?a=b"
    assert OutboxOptions(url="sqlite+aiosqlite:////var/shop.db").address == "/var/shop.db"
    assert OutboxOptions(url="sqlite:///shop.db").address == "shop.db"


# --- the command, and what the package needs


def test_the_command_prints_what_create_table_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "sqlite", "--table", "Events"]) == 0
    script = capsys.readouterr().out
    db = sqlite3.connect(":memory:")
    db.executescript(script)
    db.executescript(script)
    Outbox(table="Events").publish(db, Event("a", 1))
    db.commit()
    assert main(["sql", "sqlite", "--table", "Events", "--drop"]) == 0
    db.executescript(capsys.readouterr().out)
    assert db.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall() == []
    db.close()


def test_the_package_needs_nothing_but_python() -> None:
    program = (
        "import sys; before = set(sys.modules); import hookline.outbox, hookline.outbox.__main__, sqlite3\n"
        "db = sqlite3.connect(':memory:'); hookline.outbox.create_table(db)\n"
        "hookline.outbox.publish(db, hookline.outbox.Event('a', 1))\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(names), sorted(name for name in sys.modules if name.startswith('hookline.')))\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    others, ours = made.stdout.strip().split("] [")
    assert others == "['hookline'"
    assert all(name.startswith("'hookline.outbox") for name in ours.removesuffix("]").split(", "))
