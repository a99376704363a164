"""Tenants, keys, scopes, and the cache of keys."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hookline.api import follow_changes
from hookline.api.keyring import KeyRing
from hookline.core.errors import Conflict, StorageUnavailable
from hookline.core.model import Scope
from hookline.engine.manage import NewKey, digest
from hookline.ports import Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import OPERATOR, Api, api_server


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make) as running:
        yield running


@pytest.fixture(scope="module")
def tenant(api: Api) -> Api:
    return api.new_tenant("tenant")


def test_a_tenant_comes_with_its_first_key(api: Api) -> None:
    made = api.post("/v1/tenants", {"id": "acme", "name": "Acme Ltd"}, 201)
    assert made["api_key"].startswith("hk_")
    assert len(made["api_key"]) == 46
    assert made["schema_mode"] == "log"
    tenant = api.as_key(made["api_key"])
    who = tenant.get("/v1/whoami")
    assert who["tenant"]["id"] == "acme"
    assert who["key"]["id"] == made["api_key_id"]
    assert made["api_key"].startswith(who["key"]["hint"])
    assert made["api_key"].encode() not in tenant.call("GET", "/v1/keys").body
    assert api.post("/v1/tenants", {"id": "acme", "name": "x"}, 409)["code"] == "conflict"


def test_webhooks_are_switched_off_and_on_for_a_tenant(api: Api) -> None:
    shop = api.new_tenant("switched")
    runs, rests, stopped = (
        shop.post("/v1/subscriptions", {"url": "https://a.example", "enabled": enabled}, 201)["id"]
        for enabled in (True, False, True)
    )
    assert api.patch("/v1/tenants/switched", {"webhooks": False})["webhooks"] is False
    shop = api.as_key(shop.key)
    assert shop.get(f"/v1/subscriptions/{runs}")["state"] == "paused"
    assert "switched off" in shop.post("/v1/subscriptions", {"url": "https://a.example"}, 403)["detail"]
    for call in (f"/v1/subscriptions/{runs}/resume", f"/v1/subscriptions/{rests}/resume"):
        assert shop.call("POST", call).status == 403
    assert shop.call("PATCH", f"/v1/subscriptions/{runs}", {"name": "x"}).status == 403
    assert shop.post(f"/v1/subscriptions/{stopped}/pause", {"reason": "ours"})["state_reason"] == "ours"
    assert api.patch("/v1/tenants/switched", {"webhooks": True})["webhooks"] is True
    states = [shop.get(f"/v1/subscriptions/{one}")["state"] for one in (runs, rests, stopped)]
    assert states == ["active", "paused", "paused"]


def test_everything_about_a_tenant_can_be_set(api: Api) -> None:
    retention = {"events": 10, "attempts": 9, "bodies": 8}
    asked = {"id": "full", "name": "Full", "schema_mode": "strict", "retention": retention}
    made = api.post("/v1/tenants", asked, 201)
    assert {name: made[name] for name in asked} == asked
    changed = api.patch("/v1/tenants/full", {"name": "Fuller", "retention": None})
    assert (changed["name"], changed["retention"], changed["schema_mode"]) == ("Fuller", None, "strict")
    assert api.get("/v1/tenants/full") == changed
    assert api.patch("/v1/tenants/full", {"id": "other"}, 422)["faults"][0]["field"] == "id"


def test_every_fault_of_a_tenant_is_named(api: Api) -> None:
    asked = {"id": "a b", "name": "", "profile": "x", "retention": {"events": 0, "bodies": 9999}}
    problem = api.post("/v1/tenants", asked, 422)
    fields = {fault["field"] for fault in problem["faults"]}
    assert fields == {"id", "name", "profile", "retention.events", "retention.bodies"}


def test_tenants_are_listed_in_pages(api: Api) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        api.new_tenant(name)
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api.get(f"/v1/tenants?limit=2&cursor={cursor}")
        seen += [tenant["id"] for tenant in page["data"]]
        cursor = page["next"]
    assert seen == sorted(seen)
    assert set(names) <= set(seen)
    assert api.get("/v1/tenants/nobody", 404)["code"] == "not_found"
    assert api.patch("/v1/tenants/no%20body", {}, 404)["code"] == "not_found"


@pytest.mark.parametrize("place", ["\0", "a\0", 1])
def test_a_made_up_cursor_is_refused(api: Api, place: object) -> None:
    cursor = urlsafe_b64encode(json.dumps(["tenants", place]).encode()).decode()
    assert [each["field"] for each in api.get(f"/v1/tenants?cursor={cursor}", 422)["faults"]] == ["cursor"]


def test_only_operators_manage_tenants(api: Api) -> None:
    tenant = api.new_tenant("plain")
    for answer in (
        tenant.call("GET", "/v1/tenants"),
        tenant.call("POST", "/v1/tenants", {"id": "x", "name": "x"}),
        tenant.call("GET", "/v1/tenants/plain"),
        tenant.call("PATCH", "/v1/tenants/plain", {}),
    ):
        assert (answer.status, answer.json["code"]) == (403, "forbidden")


# --- keys --------------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(api: Api) -> None:
    tenant = api.new_tenant("keys")
    made = tenant.post("/v1/keys", {"name": "shop", "scopes": ["publish"]}, 201)
    other = tenant.as_key(made["secret"])
    assert other.post("/v1/events", {"type": "a", "data": 1}, 202)
    assert {key["name"] for key in tenant.get("/v1/keys")["data"]} == {"first key", "shop"}
    shown = tenant.get(f"/v1/keys/{made['id']}")
    assert (shown["scopes"], shown["revoked_at"]) == (["publish"], None)
    assert tenant.call("DELETE", f"/v1/keys/{made['id']}").status == 204
    assert other.post("/v1/events", {"type": "a", "data": 1}, 401)["code"] == "unauthorized"
    assert tenant.get(f"/v1/keys/{made['id']}")["revoked_at"] is not None
    assert tenant.call("DELETE", "/v1/keys/key_none").status == 404
    assert tenant.get("/v1/keys/key_none", 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["publish", "publish"]}, "scopes"),
        ({"scopes": ["operator"]}, "scopes[0]"),
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"name": "a\nb"}, "name"),
    ],
)
def test_keys_that_make_no_sense(tenant: Api, body: dict[str, object], field: str) -> None:
    assert tenant.post("/v1/keys", body, 422)["faults"][0]["field"] == field


SCOPES: list[tuple[str, str, object, set[str]]] = [
    ("POST", "/v1/events", {"type": "a", "data": 1}, {"publish"}),
    ("POST", "/v1/events/batch", [], {"publish"}),
    ("GET", "/v1/events", None, {"read", "manage"}),
    ("GET", "/v1/subscriptions", None, {"read", "manage"}),
    ("POST", "/v1/subscriptions", {}, {"manage"}),
    ("GET", "/v1/keys", None, {"manage"}),
    ("POST", "/v1/event-types", {}, {"manage"}),
    ("GET", "/v1/event-types", None, {"read", "manage"}),
    ("GET", "/v1/whoami", None, {"publish", "read", "manage"}),
]


@pytest.mark.parametrize(("method", "path", "body", "covering"), SCOPES)
def test_scopes_cover_what_they_say(
    api: Api, tenant: Api, method: str, path: str, body: object, covering: set[str]
) -> None:
    for scope in ("publish", "read", "manage"):
        made = tenant.post("/v1/keys", {"scopes": [scope]}, 201)
        answer = api.as_key(made["secret"]).call(method, path, body)
        assert (answer.status != 403) is (scope in covering), (scope, answer.body)


def test_operator_keys(api: Api) -> None:
    made = api.post("/v1/keys", {"name": "second"}, 201)
    assert made["scopes"] == ["operator"]
    second = api.as_key(made["secret"])
    assert second.get("/v1/whoami")["tenant"] is None
    assert api.post("/v1/keys", {"scopes": ["publish"]}, 422)["faults"][0]["field"] == "scopes[0]"
    assert second.call("DELETE", f"/v1/keys/{made['id']}").status == 204
    first = api.get("/v1/whoami")["key"]["id"]
    assert api.call("DELETE", f"/v1/keys/{first}").json["code"] == "conflict"


def test_the_operator_key_of_the_settings_is_adopted_once(api: Api) -> None:
    tenants = api.services.tenants
    count = len(api.get("/v1/keys")["data"])
    api.run(tenants.adopt_operator_key(OPERATOR))
    assert len(api.get("/v1/keys")["data"]) == count
    tenant = api.new_tenant("adopt")
    with pytest.raises(Conflict):
        api.run(tenants.adopt_operator_key(tenant.key))


def test_there_is_an_end_to_the_number_of_keys(api: Api) -> None:
    tenant = api.new_tenant("many")
    found = api.run(api.services.storage.find_tenant("many"))
    for _ in range(99):
        api.run(api.services.tenants.create_key(found, NewKey(scopes=(Scope.READ,))))
    assert tenant.post("/v1/keys", {}, 409)["code"] == "conflict"


# --- the cache -----------------------------------------------------------------------------------------------------


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_key_revoked_elsewhere_stops_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.api.keyring.POLL_SECONDS", 0.01)
    with api_server(MemoryStorage) as api:
        tenant = api.new_tenant("acme")
        key_id = tenant.get("/v1/whoami")["key"]["id"]
        storage = api.services.storage
        found = api.run(storage.find_tenant("acme"))
        assert found is not None

        async def start() -> asyncio.Task[None]:
            return asyncio.create_task(follow_changes(storage, api.services.changed))

        task = api.run(start())
        api.run(storage.revoke_key(found.no, key_id, 1))  # as another process would: nobody here is told

        async def refused() -> bool:
            return tenant.call("GET", "/v1/whoami").status == 401

        await _until(refused)
        api.loop.call_soon_threadsafe(task.cancel)


async def test_the_poll_lives_through_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.api.keyring.POLL_SECONDS", 0)
    versions: list[int | Exception] = [1, StorageUnavailable(), 1, 2, 2]
    changed: list[int] = []

    class Store(MemoryStorage):
        async def version(self) -> int:
            now = versions.pop(0) if versions else 2
            if isinstance(now, Exception):
                raise now
            return now

    task = asyncio.create_task(follow_changes(Store(), lambda: changed.append(1)))

    async def polled() -> bool:
        return not versions

    await _until(polled)
    task.cancel()
    assert changed == [1]


async def test_what_was_read_before_a_change_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStorage):
        async def find_key(self, digest: bytes) -> Any:
            found = await super().find_key(digest)
            reading.set()
            await go_on.wait()
            return found

    with api_server(MemoryStorage) as api:
        storage = Slow()
        storage.__dict__.update(api.services.storage.__dict__)
        ring = KeyRing(storage, api.services.clock)
        asking = asyncio.create_task(ring.find_secret(OPERATOR))
        await asyncio.wait_for(reading.wait(), 60)
        ring.forget()
        go_on.set()
        assert (await asking).key.digest == digest(OPERATOR)
        assert ring.peek(f"Bearer {OPERATOR}".encode()) is None


@pytest.mark.parametrize("name", ["", "\0", "a\0", "\ud800", "ä", "a b", "x" * 65, "a:b"])
async def test_a_text_that_is_no_tenants_id_is_never_looked_for(name: str) -> None:
    """PostgreSQL refuses to compare some of them with anything."""

    class Strict(MemoryStorage):
        async def find_tenant(self, tenant_id: str) -> Any:
            raise AssertionError(f"looked for {tenant_id!r}")

    with api_server(MemoryStorage) as api:
        assert await KeyRing(Strict(), api.services.clock).tenant(name) is None


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.api.keyring.CACHED", 3)
    with api_server(MemoryStorage) as api:
        keys = [api.new_tenant(f"t{number}").key for number in range(5)]
        for key in keys:
            assert api.as_key(key).get("/v1/whoami")
        assert len(api.services.keyring._callers) <= 3


def test_authentication_costs_microseconds(api: Api) -> None:
    tenant = api.new_tenant("quick")
    tenant.get("/v1/whoami")
    header = f"Bearer {tenant.key}".encode()
    ring = api.services.keyring
    began = time.process_time()
    for _ in range(1000):
        assert ring.peek(header) is not None
    assert time.process_time() - began < 0.1  # 100 µs each would be a look-up in the storage
