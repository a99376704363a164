"""The capacity page says what its script computes from the figures that are kept beside it."""

from __future__ import annotations

import pytest
from benchmarks.capacity import FIGURES, PAGE, TABLES, Assumed, filled, most, need, provided, tables
from benchmarks.figures import Figures, Row, load, median, save

ROWS = {
    "api + delivery": Row(rate=5000, cpu={"api": 50.0, "delivery": 100.0, "postgres": 60.0}),
    "fan-out 1": Row(
        rate=4000, cpu={"api": 5, "delivery": 100, "postgres": 40}, wal=2e3, disk=1e3, network=5e3
    ),
    "fan-out 3": Row(
        rate=1000, cpu={"api": 5, "delivery": 250, "postgres": 80}, wal=4e3, disk=3e3, network=9e3
    ),
    "fan-out 10": Row(
        rate=400, cpu={"api": 5, "delivery": 800, "postgres": 200}, wal=90e3, disk=8e3, network=2e4
    ),
}


def test_the_page_has_the_tables_of_the_stored_figures():
    page = PAGE.read_text("utf-8")
    assert filled(page, tables(load(FIGURES), Assumed())) == page, (
        "run: python -m benchmarks.capacity --write"
    )


def test_the_page_has_each_table_once():
    page = PAGE.read_text("utf-8")
    assert {name: page.count(f"<!-- table: {name} -->\n|") for name in TABLES} == dict.fromkeys(TABLES, 1)


def test_the_stored_figures_are_of_a_full_run():
    figures = load(FIGURES)
    assert not figures.quick
    assert figures.machine
    assert figures.taken


def test_what_is_needed_is_the_rate_times_the_cost_of_an_event():
    found = need(Figures(rows=ROWS), 100_000, 3)
    assert (found.api, found.delivery, found.database) == pytest.approx((5, 25, 8))
    assert (found.wal, found.disk, found.network) == pytest.approx((4e8, 3e8, 9e8))


def test_a_server_ends_by_its_cores_its_wal_or_its_appends():
    figures = Figures(rows=ROWS, steps={"4 at once to 64 shards, events/s": 50_000})
    found = most(figures, 3, Assumed(cores=10, wal=400e6, load=0.5))
    assert found == pytest.approx({"cores": 62_500, "WAL": 50_000, "appends": 25_000})


def test_there_are_as_many_clusters_as_the_first_limit_asks_for():
    rows = ROWS | {
        name: Row(rate=1, cpu={"api": 20}) for name in ("bus, into the log", "outbox, into the log")
    }
    figures = Figures(rows=rows, steps={"4 at once to 64 shards, events/s": 50_000})
    lines = provided(figures, Assumed(cores=10, wal=1e12, load=0.5)).splitlines()
    assert lines[2:5] == [
        "| 1,000 | 1 | 1 | 1 | 1 | appends |",
        "| 1,000 | 3 | 1 | 1 | 1 | appends |",
        "| 1,000 | 10 | 1 | 2 | 1 | cores |",
    ]
    assert lines[-2:] == [
        "| 1,000,000 | 3 | 100 | 500 | 40 | appends |",
        "| 1,000,000 | 10 | 100 | 1,600 | 40 | cores |",
    ]


def test_only_what_lies_between_marks_is_replaced():
    page = "a\n<!-- table: lanes -->\nold\n<!-- end -->\nb\n<!-- table: needs -->\n<!-- end -->\n"
    wanted = "a\n<!-- table: lanes -->\nL\n<!-- end -->\nb\n<!-- table: needs -->\nN\n<!-- end -->\n"
    assert filled(page, {"lanes": "L", "needs": "N"}) == wanted
    assert filled(wanted, {"lanes": "L", "needs": "N"}) == wanted


def test_figures_of_another_run_take_the_place_of_those_with_the_same_name(tmp_path):
    path = tmp_path / "figures.json"
    save(path, Figures(machine="m", taken="1", rows={"a": ROWS["fan-out 1"]}, steps={"s": 1.0, "t": 1.234}))
    save(path, Figures(machine="n", taken="2", rows={"b": ROWS["fan-out 3"]}, steps={"s": 2.0}))
    found = load(path)
    assert (found.machine, found.taken, found.steps) == ("n", "2", {"s": 2.0, "t": 1.23})
    assert found.rows == {"a": ROWS["fan-out 1"], "b": ROWS["fan-out 3"]}


def test_of_several_measurements_each_figure_is_the_median():
    rows = [Row(rate=rate, cpu={"api": cpu}, wal=1.0) for rate, cpu in ((1, 30), (3, 10), (2, 20))]
    assert median(rows) == Row(rate=2, cpu={"api": 20}, wal=1.0)
