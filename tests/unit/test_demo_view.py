"""What the demo shows: the live table, plain lines, the closing account; and what its command line takes."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hookline.demo import main, options_of, parser
from hookline.demo.cast import CAST
from hookline.demo.client import Client
from hookline.demo.ledger import Ledger, PublishBook
from hookline.demo.processes import ProcessFailed, Server, running_receivers, tail
from hookline.demo.receipts import Receipt
from hookline.demo.shop import PlannedEvent
from hookline.demo.summary import as_json, show
from hookline.demo.verdict import Report, judge
from hookline.demo.view import LiveView, PlainView, line, make_view, milliseconds, sparkline

EVENT = PlannedEvent("e1", "order:created", {}, 1.0, "order", "1", "shop", "u", "1", "c", "")


def ledger() -> Ledger:
    found = Ledger(CAST)
    found.publish(EVENT, 1_000, "d")
    found.receive([Receipt("analytics", "e1", 1, 1, 13_300, 204, True, "d")])
    return found


def report() -> Report:
    return judge(1, CAST, ledger().book, ledger().receipts, {})


@pytest.mark.parametrize("width", [60, 78, 110, 170])
def test_the_live_table_fits_the_terminal_and_names_everybody(width: int):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    view = LiveView(ledger(), 10, console)
    view.update("publishing")
    with console.capture() as shown:
        console.print(view.render())
    text = shown.get()
    assert all(role.name in text for role in CAST)
    assert "publishing  1/10 events" in text
    assert ("12.3" in text) == (width > 60)
    assert "…" not in text
    assert ("takes everything, at once" in text) == (width == 170)


def test_plain_lines_come_when_the_phase_changes(capsys: pytest.CaptureFixture[str]):
    with make_view(False, ledger(), 10) as view:
        view.update("publishing")
        view.update("publishing")
        view.update("done")
    assert isinstance(view, PlainView)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [text.partition(":")[0] for text in shown.err.splitlines()] == ["publishing", "done"]


def test_a_line_says_who_waits():
    assert line("publishing", ledger(), 10) == (
        "publishing: published 1/10, delivered 1/3, waiting: partner-portal 1, order-history 1"
    )
    assert line("done", Ledger(CAST), 10) == "done: published 0/10, delivered 0/0"


def test_sparklines_and_times():
    assert sparkline([0, 1, 8]) == " ▂█"
    assert sparkline([]) == ""
    assert milliseconds(12_345) == "12.3"
    assert milliseconds(1_234_567) == "1235"


def test_the_closing_account_shows_faults_and_fits_eighty_columns():
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        show(report(), console)
    text = shown.get()
    assert "FAULT partner-portal: 1 of 1 events never arrived, such as e1" in text
    assert "Nothing lost" not in text
    table = text.partition("published 1 of 1")[0]
    assert "…" not in table
    assert all(role.name in table for role in CAST)


def test_the_closing_account_on_a_narrow_terminal_says_what_it_leaves_out():
    console = Console(width=60, file=io.StringIO())
    with console.capture() as shown:
        show(report(), console)
    text = shown.get()
    assert "…" not in text
    assert "verified gaps swaps log" in text
    assert "no room for extra, retries, p50, p99" in text


def test_the_closing_account_of_a_good_day():
    console = Console(width=200, file=io.StringIO())
    with console.capture() as shown:
        show(judge(0, CAST, PublishBook(), [], {}), console)
    assert "Nothing lost" in shown.get()
    assert "FAULT" not in shown.get()


def test_the_account_as_json():
    fields = json.loads(as_json(report()))
    assert fields["ok"] is False
    assert fields["expected"] == 3
    assert fields["rows"][0]["name"] == "analytics"
    assert fields["faults"]


def test_the_command_line():
    plain = options_of([])
    assert (plain.events, plain.seconds, plain.live, plain.json, plain.keep) == (
        3000,
        25.0,
        True,
        False,
        False,
    )
    given = options_of(
        ["--fast", "--events", "300", "--no-live", "--json", "--keep", "--seed", "9", "--port", "8480"]
    )
    assert (given.events, given.seconds, given.live, given.json, given.keep) == (300, 0.0, False, True, True)
    assert (given.seed, given.port) == (9, 8480)


@pytest.mark.parametrize("argument", ["0", "100001", "many"])
def test_counts_out_of_bounds_are_refused(argument: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--events", argument])
    assert ended.value.code == 2
    assert "--events" in capsys.readouterr().err


async def test_a_server_that_ends_ends_the_day(tmp_path: Path):
    log = tmp_path / "server.log"
    log.write_text("first\nlast words\n")
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
    server = Server(1, "key", tmp_path, log, process)
    with pytest.raises(ProcessFailed, match="the server ended with 3:\nfirst\nlast words"):
        await server.during(asyncio.sleep(60))


async def test_work_that_is_done_ends_the_watch(tmp_path: Path):
    process = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        assert await Server(1, "key", tmp_path, tmp_path, process).during(asyncio.sleep(0, "done")) == "done"
    finally:
        process.kill()
        await process.wait()


async def test_the_receivers_run_for_as_long_as_they_are_needed(tmp_path: Path):
    async with running_receivers(tmp_path) as ports, Client(ports.control) as client:
        assert (await client.send("GET", "/receipts?after=0")).status == 200
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", ports.control)


def test_the_tail_of_a_log_is_short(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("\n".join([*"abcdefg", "x" * 5000]))
    shown = tail(log).splitlines()
    assert shown[:4] == list("defg")
    assert len(shown[4]) < 800


def test_every_option_and_receiver_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "tutorial" / "demo.md").read_text("utf-8")
    options = {option for action in parser()._actions for option in action.option_strings}
    assert [option for option in options - {"-h", "--help"} if f"`{option}" not in page] == []
    assert [role.name for role in CAST if f"| `{role.name}` |" not in page] == []
