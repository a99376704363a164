"""No key reaches another tenant's things, on any route, and every route keeps the rules that all share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hookline.api.route import AnyRoute, Nothing
from hookline.api.table import ROUTES
from hookline.core.ids import attempt_id, delivery_id
from hookline.core.model import Attempt, DeliveryState, Scope, Settled
from hookline.engine.manage import Range
from hookline.ports import Record
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import Api, api_server

SECRET_WORD = "victims-own"
ABOUT_ONE = [route for route in ROUTES if "{" in route.path]
GUARDED = [route for route in ROUTES if route.scope is not None]


def name_of(route: AnyRoute) -> str:
    return f"{route.method} {route.path}"


class World:
    """Two tenants; the first has one of everything."""

    def __init__(self, api: Api) -> None:
        self.victim = api.new_tenant("victim")
        self.other = api.new_tenant("other")
        url = f"http://127.0.0.1:49151/{SECRET_WORD}"
        self.subscription = self.victim.post("/v1/subscriptions", {"url": url}, 201)["id"]
        event = {"type": "a", "id": SECRET_WORD, "data": SECRET_WORD}
        self.event = self.victim.post("/v1/events", event, 202)["id"]
        self.type = self.victim.post(
            "/v1/event-types", {"name": SECRET_WORD, "schema": {}, "example": 1}, 201
        )["name"]
        self.key = self.victim.post("/v1/keys", {"name": SECRET_WORD}, 201)["id"]
        self.delivery, self.attempt, self.replay = api.run(self._record(api))

    async def _record(self, api: Api) -> tuple[str, str, str]:
        storage, now = api.services.storage, api.services.clock.now()
        tenant = await storage.find_tenant("victim")
        assert tenant is not None
        found = await storage.get_subscription(tenant.no, self.subscription)
        lease = await storage.lease(found.shard, "test", now, 3600)
        assert lease is not None
        settled = Settled(found.no, 1, 1, DeliveryState.FAILED, 1, now, 500)
        attempt = Attempt(
            found.no,
            1,
            1,
            1,
            now,
            "POST",
            SECRET_WORD,
            500,
            "",
            "",
            "",
            0,
            0,
            0,
            0,
            0,
            "",
            0,
            b"",
            b"",
            False,
        )
        await storage.record(Record(found.shard, lease.epoch, now, 1, attempts=[attempt], settled=[settled]))
        replay = await api.services.replays.start(found, Range(since=0))
        return delivery_id(found.no, 1), attempt_id(found.no, 1, 1), replay.id

    def path(self, route: AnyRoute) -> str:
        ids = {
            "/v1/events/": self.event,
            "/v1/subscriptions/": self.subscription,
            "/v1/deliveries/": self.delivery,
            "/v1/attempts/": self.attempt,
            "/v1/replays/": self.replay,
            "/v1/event-types/": self.type,
            "/v1/keys/": self.key,
            "/v1/tenants/": "victim",
        }
        for start, value in ids.items():
            if route.path.startswith(start):
                return re.sub(r"\{.*?\}", value, route.path)
        return route.path


BODIES: dict[str, Any] = {
    "/v1/subscriptions/{id}/replay": {"from": "beginning"},
    "/v1/subscriptions/{id}/preview": {"id": SECRET_WORD},
}


def body_for(route: AnyRoute) -> object:
    return None if route.body is Nothing else BODIES.get(route.path, {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = Path(tmp_path_factory.mktemp("api")) / "hookline.db"
    with api_server(lambda: SqliteStorage(path)) as api:
        yield World(api)


@pytest.mark.parametrize("route", [route for route in ABOUT_ONE if route.method == "GET"], ids=name_of)
def test_the_owner_reaches_it(world: World, route: AnyRoute) -> None:
    asking = (
        world.victim
        if route.scope is not Scope.OPERATOR
        else world.victim.as_key("hk_operator-key-of-the-tests")
    )
    assert asking.call(route.method, world.path(route)).status == 200


@pytest.mark.parametrize("route", ABOUT_ONE, ids=name_of)
def test_another_tenant_does_not(world: World, route: AnyRoute) -> None:
    answer = world.other.call(route.method, world.path(route), body_for(route))
    if route.scope is Scope.OPERATOR:
        assert answer.status == 403
    else:
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert SECRET_WORD not in answer.body.decode()


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.method == "GET" and "{" not in route.path], ids=name_of
)
def test_lists_show_only_the_callers_own(world: World, route: AnyRoute) -> None:
    answer = world.other.call("GET", route.path)
    assert answer.status in (200, 403)
    assert SECRET_WORD not in answer.body.decode()


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_no_route_works_without_a_key(world: World, route: AnyRoute) -> None:
    answer = world.victim.as_key("").call(route.method, world.path(route), body_for(route))
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="hookline"'


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_a_tenant_cannot_act_for_another(world: World, route: AnyRoute) -> None:
    answer = world.other.as_key(world.other.key, "victim").call(
        route.method, world.path(route), body_for(route)
    )
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_route_refuses_unknown_query_parameters(world: World, route: AnyRoute) -> None:
    operator = world.victim.as_key("hk_operator-key-of-the-tests", "victim")
    path = world.path(route)
    answer = operator.call(route.method, f"{path}?surprise=1", body_for(route))
    assert (answer.status, answer.json["code"]) == (422, "invalid_input"), answer.body


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_path_names_its_methods(world: World, route: AnyRoute) -> None:
    answer = world.victim.call("OPTIONS", world.path(route))
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert route.method in answer.headers["allow"].split(", ")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body is not Nothing], ids=name_of)
def test_every_body_must_be_what_the_route_reads(world: World, route: AnyRoute) -> None:
    operator = world.victim.as_key("hk_operator-key-of-the-tests", "victim")
    path = world.path(route)
    wrong = operator.call(
        route.method, path, raw=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (wrong.status, wrong.json["code"]) == (415, "unsupported_media_type")
    broken = operator.call(route.method, path, raw=b"@")
    assert (broken.status, broken.json["code"]) == (400, "invalid_json")
    long = operator.call(route.method, path, raw=b"[" + b" " * (17 << 20) + b"]")
    assert (long.status, long.json["code"]) == (413, "too_large")


def test_unknown_paths(world: World) -> None:
    for path in ("/", "/v1", "/v2/events", "/v1/events/", "/v1/subscriptions/x/y"):
        answer = world.victim.call("GET", path)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_head_is_get_without_a_body(world: World) -> None:
    answer = world.victim.call("HEAD", "/v1/events")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("query", ["a=%FF", "limit=1&limit=2", "x" * 9000, "&".join(["a=1"] * 101)])
def test_query_strings_that_are_none(world: World, query: str) -> None:
    assert world.victim.call("GET", f"/v1/events?{query}").status == 422
