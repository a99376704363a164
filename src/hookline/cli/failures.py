"""How commands end when they cannot do what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hookline.cli import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE


class Failure(Exception):
    """Ends the command with ``exit_code``. ``faults`` are (place, text) lines below the message."""

    exit_code = EXIT_FAILED
    faults: tuple[tuple[str, str], ...] = ()


class Usage(Failure):
    """What was asked for makes no sense; the text says why."""

    exit_code = EXIT_USAGE


class Unreachable(Failure):
    """No server answered, or what answered is not Hookline."""

    exit_code = EXIT_UNREACHABLE


_NO_KEY = (
    "Give a key with --key or HOOKLINE_KEY. In the folder where the server runs neither is needed: "
    "its operator key is in hookline-data."
)
_NO_TENANT = "Say which with --tenant or HOOKLINE_TENANT; `hookline tenants list` shows all."


class ApiRefused(Failure):
    """The server answered with an error (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        text, self.faults = told(problem)
        code = problem.get("code")
        super().__init__(f"{text or 'no reason given'} ({status}{f' {code}' if code else ''})")
        if any(place == "Hookline-Tenant" for place, _ in self.faults):
            self.faults = (("", _NO_TENANT),)
        elif status == 401:
            self.faults = (("", _NO_KEY),)


def told(problem: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What a problem says, and its faults as (place, text): nothing of it twice."""
    detail = str(problem.get("detail") or problem.get("title") or "")
    given = cast("list[dict[str, object]]", problem.get("faults") or [])
    faults = tuple((str(fault.get("field", "")), str(fault.get("message", ""))) for fault in given)
    first = ": ".join(filter(None, faults[0])) if faults else ""
    if not first or not detail.startswith(first):
        return detail, faults
    if len(faults) == 1:
        return detail, ()
    return str(problem.get("title") or detail), faults
