"""Log lines: one form for ours and for those of libraries."""

import json
import subprocess
import sys

import pytest

from tests.support.server import child_environment

PROGRAM = """
import logging, sys
from hookline import logs
from hookline.observe import log

logs.configure(sys.argv[1], sys.argv[2])
log.debug("not_seen")
log.info("hello", shard=3)
logging.getLogger("library").info("not seen either")
logging.getLogger("library").warning("slow by %s s", 2)
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("failed", exc_info=error)
    logging.getLogger("library").error("failed too", exc_info=error)
"""


def lines(level: str, form: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, level, form],
        check=True, capture_output=True, text=True, env=child_environment(), timeout=30,
    )  # fmt: skip
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_every_line_is_json() -> None:
    hello, slow, ours, theirs = map(json.loads, lines("info", "json"))
    assert (hello["event"], hello["shard"], hello["level"]) == ("hello", 3, "info")
    assert (slow["event"], slow["level"]) == ("slow by 2 s", "warning")
    assert all(entry["timestamp"].endswith("Z") for entry in (hello, slow, ours, theirs))
    for entry in (ours, theirs):
        assert entry["exception"].endswith("ZeroDivisionError: division by zero")


def test_lines_for_people_have_no_colours_in_a_file() -> None:
    text = "\n".join(lines("info", "console"))
    assert "\x1b" not in text
    assert text.count("ZeroDivisionError: division by zero") == 2
    assert "not_seen" not in text


@pytest.mark.parametrize(("level", "count"), [("debug", 5), ("warning", 3), ("error", 2)])
def test_the_level_holds_for_both(level: str, count: int) -> None:
    assert len(lines(level, "json")) == count
