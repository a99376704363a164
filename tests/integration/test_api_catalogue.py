"""The layered catalogue over HTTP: types of the profile, of files that come and go, and of the tenant itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hookline.engine import types
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import OPERATOR, Api, api_server

PATIENCE = 10.0
STRICT = {"type": "object", "required": ["number"], "properties": {"number": {"type": "string"}}}


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, Path]]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "catalogue").mkdir()
    write(folder / "catalogue/start.json", entry("loyalty:earned"), group="Loyalty")

    def sqlite() -> SqliteStorage:
        return SqliteStorage(folder / "hookline.db")

    make = MemoryStorage if request.param == "memory" else sqlite
    with (
        mock.patch.object(types, "POLL_SECONDS", 0.02),
        api_server(make, None, folder / "catalogue") as running,
    ):
        running.new_tenant("watcher")
        yield running, folder / "catalogue"


@pytest.fixture
def folder(server: tuple[Api, Path]) -> Iterator[Path]:
    yield server[1]
    for path in server[1].glob("extra*.json"):
        path.unlink()
    seen = server[0].as_key(OPERATOR, "watcher")
    wait_for(lambda: [*listed(seen)] == ["loyalty:earned"])


@pytest.fixture
def api(server: tuple[Api, Path]) -> Api:
    return server[0]


@pytest.fixture
def shop(api: Api, request: pytest.FixtureRequest) -> Api:
    """A tenant of ShipStream's profile."""
    return api.new_tenant(f"t{abs(hash(request.node.nodeid))}", profile="shipstream")


def entry(name: str, **more: object) -> dict[str, Any]:
    return {
        "name": name,
        "description": "",
        "usage": "",
        "schema": STRICT,
        "example": {"number": "1"},
        **more,
    }


def write(path: Path, *entries: dict[str, Any], group: str = "Extra", **more: object) -> None:
    """In one step, as the guide says."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"group": group, "types": list(entries), **more}))
    draft.rename(path)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def listed(tenant: Api, query: str = "", limit: int = 200) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cursor = ""
    while cursor is not None:
        page = tenant.get(f"/v1/event-types?limit={limit}&cursor={cursor}{query}")
        assert len(page["data"]) <= limit
        found |= {one["name"]: one for one in page["data"]}
        cursor = page["next"]
    assert list(found) == sorted(found)
    return found


def test_a_tenant_begins_with_the_types_of_its_profile_and_of_files(api: Api, shop: Api) -> None:
    found = listed(shop)
    assert found.keys() >= {"order:created", "test:ping", "loyalty:earned"}
    assert {one["source"] for one in found.values()} == {"shipped", "file"}
    created = shop.get("/v1/event-types/order:created")
    assert created == found["order:created"]
    assert (created["source"], created["version"], created["deprecated_at"]) == ("shipped", 1, None)
    assert created["group"]
    assert created["usage"]
    assert shop.get("/v1/event-types/order:created/schema") == created["schema"]
    assert shop.get("/v1/event-types/order:created/example") == created["example"]
    assert "order:created" not in listed(api.new_tenant(f"plain{time.monotonic_ns()}"))


def test_pages_and_groups(shop: Api) -> None:
    shop.post("/v1/event-types", entry("own:b", group="Loyalty"), 201)
    shop.post("/v1/event-types", entry("a:own"), 201)
    whole = listed(shop)
    assert {"own:b", "a:own"} <= whole.keys()
    assert list(listed(shop, limit=3)) == list(whole)
    assert list(listed(shop, "&group=Loyalty", 1)) == ["loyalty:earned", "own:b"]
    assert listed(shop, "&group=nothing") == {}
    groups = {one["name"]: one["types"] for one in shop.get("/v1/event-type-groups")["data"]}
    assert list(groups) == sorted(groups)
    assert (groups["Loyalty"], groups[""]) == (2, 1)
    assert sum(groups.values()) == len(whole)
    for name, count in groups.items():
        if name:
            assert len(listed(shop, f"&group={name.replace(' ', '%20')}")) == count


def test_a_profile_change_changes_the_catalogue(api: Api, shop: Api) -> None:
    shop.post("/v1/event-types", entry("mine"), 201)
    name = shop.get("/v1/whoami")["tenant"]["id"]
    api.as_key(OPERATOR).patch(f"/v1/tenants/{name}", {"profile": "avvyr"})
    found = listed(shop)
    assert found.keys() >= {"mine", "loyalty:earned", "orderCreated"}
    assert "order:created" not in found


# --- changes by API -----------------------------------------------------------------------------------------


def test_a_shipped_type_that_is_changed_becomes_the_tenants_own(api: Api, shop: Api) -> None:
    path = "/v1/event-types/order:created"
    before = shop.get(path)
    conflict = shop.post("/v1/event-types", entry("order:created"), 409)
    assert "becomes your own" in conflict["detail"]
    described = shop.patch(path, {"description": "Ours."})
    assert (described["description"], described["source"], described["version"]) == ("Ours.", "api", 1)
    assert (described["schema"], described["example"]) == (before["schema"], before["example"])
    assert described["created_at"] == described["updated_at"] != before["created_at"]
    assert shop.get(path) == described
    assert listed(shop)["order:created"] == described
    other = api.new_tenant(f"other{time.monotonic_ns()}", profile="shipstream")
    assert other.get(path) == before


def test_a_new_schema_is_compared_with_the_shipped_one(shop: Api) -> None:
    path = "/v1/event-types/order:created"
    schema = shop.get(path)["schema"]
    breaking = {**schema, "properties": {**schema["properties"], "unique_id": {"type": "integer"}}}
    body = {"schema": breaking, "example": None}
    assert shop.patch(path, body, 409)["code"] == "incompatible_schema"
    assert shop.get(path)["source"] == "shipped"
    changed = shop.patch(f"{path}?force=true", body)
    assert (changed["source"], changed["version"], changed["schema"]) == ("api", 2, breaking)
    wider = {**breaking, "properties": {**breaking["properties"], "note": {"type": "string"}}}
    assert shop.patch(path, {"schema": wider})["version"] == 3


def test_a_shipped_type_can_be_deprecated(shop: Api) -> None:
    path = "/v1/event-types/order:created"
    found = shop.post(f"{path}/deprecate")
    assert found["deprecated_at"]
    assert found["source"] == "api"
    assert shop.post(f"{path}/deprecate", {"deprecated": False})["deprecated_at"] is None


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_is_taken_up_changed_and_let_go(folder: Path, shop: Api) -> None:
    path = "/v1/event-types/gift:sent"
    shop.get(path, 404)
    write(folder / "extra.json", entry("gift:sent", deprecated="use gift:given"), group="Gifts")
    wait_for(lambda: shop.call("GET", path).status == 200)
    found = shop.get(path)
    assert (found["source"], found["group"], found["deprecation"]) == ("file", "Gifts", "use gift:given")
    assert found["deprecated_at"] == found["created_at"]
    write(folder / "extra.json", entry("gift:sent", description="New."))
    wait_for(lambda: shop.get(path)["description"] == "New.")
    (folder / "extra.json").write_text("{ half a file")
    write(folder / "extra2.json", entry("gift:other"))
    wait_for(lambda: shop.call("GET", "/v1/event-types/gift:other").status == 200)
    assert shop.get(path)["description"] == "New."
    (folder / "extra.json").unlink()
    wait_for(lambda: shop.call("GET", path).status == 404)


def test_a_file_covers_the_shipped_type_and_the_tenants_own_covers_both(folder: Path, shop: Api) -> None:
    path = "/v1/event-types/order:completed"
    shop.patch("/v1/event-types/order:holded", {"description": "Mine."})
    write(
        folder / "extra.json",
        entry("order:completed", description="Of the file.", object_type="parcel"),
        entry("order:holded", description="Of the file."),
    )
    wait_for(lambda: shop.get(path)["source"] == "file")
    assert shop.get(path)["description"] == "Of the file."
    assert shop.get("/v1/event-types/order:holded")["description"] == "Mine."
    own = shop.patch(path, {"description": "Mine."})
    assert (own["source"], own["object_type"]) == ("api", "parcel")
    (folder / "extra.json").unlink()
    wait_for(lambda: shop.get(path)["object_type"] != "parcel")
    assert shop.get(path)["description"] == "Mine."


def test_a_file_may_be_for_one_profile(api: Api, folder: Path, shop: Api) -> None:
    write(folder / "extra.json", entry("for:avvyr"), profile="avvyr")
    write(folder / "extra2.json", entry("for:all"))
    wait_for(lambda: "for:all" in listed(shop))
    assert "for:avvyr" not in listed(shop)
    other = api.new_tenant(f"avvyr{time.monotonic_ns()}", profile="avvyr")
    assert listed(other).keys() >= {"for:avvyr", "for:all"}


# --- publishing ---------------------------------------------------------------------------------------------


def test_schemas_of_all_layers_rule_publishing(api: Api, folder: Path, shop: Api) -> None:
    name = shop.get("/v1/whoami")["tenant"]["id"]
    api.as_key(OPERATOR).patch(f"/v1/tenants/{name}", {"schema_mode": "strict"})
    example = shop.get("/v1/event-types/order:created/example")
    assert shop.post("/v1/events", {"type": "order:created", "data": example}, 202)
    problem = shop.post("/v1/events", {"type": "order:created", "data": {}}, 422)
    assert problem["code"] == "schema_violation"
    assert shop.post("/v1/events", {"type": "loyalty:earned", "data": {"number": "1"}}, 202)
    gift = {"type": "gift:new", "data": {"number": 1}}
    assert shop.post("/v1/events", gift, 422)["faults"][0]["field"] == "type"
    write(folder / "extra.json", entry("gift:new"))
    wait_for(lambda: shop.call("POST", "/v1/events", gift).json["faults"][0]["field"] == "data.number")
    write(folder / "extra.json", entry("gift:new", schema={}, example=1))
    wait_for(lambda: shop.call("POST", "/v1/events", gift).status == 202)


def test_a_trial_sends_the_example_of_a_shipped_type(shop: Api) -> None:
    made = shop.post("/v1/subscriptions", {"url": "http://127.0.0.1:49151/closed"}, 201)
    sent = shop.post(f"/v1/subscriptions/{made['id']}/test", {"type": "order:created"})
    body = json.loads(sent["attempt"]["request"]["body"])
    example = shop.get("/v1/event-types/order:created/example")
    assert body == {"topic": "order:created", "message": {**example, "webhook_increment_id": 0}}
    shop.post(f"/v1/subscriptions/{made['id']}/test", {"type": "order:unknown"}, 404)
