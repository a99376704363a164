"""The reference of the API names every route, every error code and every field."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import hookline
from hookline.api.route import AnyRoute
from hookline.api.table import ROUTES
from hookline.core.errors import HooklineError
from hookline.engine.manage import SubscriptionSpec
from hookline.engine.publish import EventInput
from hookline.engine.read import Outcome

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
API = (REFERENCE / "api.md").read_text()
ERRORS = (REFERENCE / "errors.md").read_text()


def all_errors(base: type[HooklineError] = HooklineError) -> Iterator[type[HooklineError]]:
    yield base
    for error in base.__subclasses__():
        yield from all_errors(error)


def test_every_error_code_is_documented_with_its_status() -> None:
    for module in pkgutil.walk_packages(hookline.__path__, "hookline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = {
        error for error in all_errors() if error.__module__.startswith("hookline.") and "code" in vars(error)
    }  # one without is a case of its parent that only our own code tells apart
    assert len({error.code for error in ours}) == len(ours)
    missing = {
        error.code
        for error in ours
        if f"| `{error.code}` | {error.status} |" not in ERRORS
        and f"`{error.code}` ({error.status})" not in ERRORS
    }
    assert missing == set()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_documented(route: AnyRoute) -> None:
    path = route.path.replace(":path}", "}")
    assert f"| `{route.method} {path}` |" in API
    assert route.summary in API


@pytest.mark.parametrize(
    "name", [*SubscriptionSpec.__struct_fields__, *EventInput.__struct_fields__, *Outcome]
)
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}`" in API
