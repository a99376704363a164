"""Deliveries, attempts, replays, usage and the story of an event, from records as the worker writes them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from hookline.core.ids import attempt_id, delivery_id
from hookline.core.model import Attempt, DeliveryState, LaneState, Settled, Subscription, Unsettled
from hookline.ports import Record, Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import Api, api_server

URL = "http://127.0.0.1:49151/hooks"
LATER = 4_000_000_000_000


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make) as running:
        yield running


class Shop:
    """A tenant with one subscription and ten events, with outcomes recorded for seven of them."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api.new_tenant(name)
        self.id: str = self.api.post("/v1/subscriptions", {"url": URL, "query": {"a": "1"}}, 201)["id"]
        self.name = name
        self.events: list[dict[str, object]] = [
            {
                "type": "order:created",
                "id": f"{name}-{number}",
                "data": {"n": number},
                "object": {"type": "order", "id": str(number % 2)},
                "correlation_id": f"c{number % 3}",
            }
            for number in range(10)
        ]
        self.api.post("/v1/events/batch", self.events)
        self.positions = [self.api.get(f"/v1/events/{event['id']}")["position"] for event in self.events]
        self.api.run(self._record())

    async def subscription(self) -> Subscription:
        storage = self.api.services.storage
        tenant = await storage.find_tenant(self.name)
        assert tenant is not None
        return await storage.get_subscription(tenant.no, self.id)

    async def _record(self) -> None:
        storage = self.api.services.storage
        found = await self.subscription()
        self.no = found.no
        now = self.api.services.clock.now()
        states = [DeliveryState.SUCCEEDED] * 4 + [DeliveryState.FAILED, DeliveryState.EXPIRED]
        settled = [
            Settled(
                found.no, self.positions[index], index + 1, state, 1, now, 200 if index < 4 else 500,
                "" if index < 4 else "timeout",
            )
            for index, state in enumerate(states)
        ]  # fmt: skip
        waiting = [Unsettled(found.no, self.positions[6], 7, 2, LATER, now, 2, None, 503, "")]
        attempts = [self._attempt(index, 1) for index in range(7)]
        lease = await storage.lease(found.shard, "test", now, 3600)
        assert lease is not None
        lane = LaneState(found.no, self.positions[6], 7, live=False)
        batch = Record(
            shard=found.shard, epoch=lease.epoch, now=now, watermark=0, attempts=attempts, settled=settled,
            unsettled=waiting, lanes=[lane],
        )  # fmt: skip
        await storage.record(batch)

    def _attempt(self, index: int, number: int) -> Attempt:
        return Attempt(
            subscription_no=self.no,
            position=self.positions[index],
            number=number,
            version=1,
            started_at=self.api.services.clock.now(),
            method="POST",
            url=f"{URL}?a=1",
            status=200,
            error="",
            detail="",
            address="127.0.0.1:49151",
            dns_us=1,
            connect_us=2,
            tls_us=3,
            first_byte_us=4,
            total_us=5,
            request_headers="Content-Type: application/json\nAuthorization: •••",
            request_bytes=10,
            response_headers=b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Bad: \xff\r\n",
            response_body=b"fine",
            response_truncated=False,
        )

    def deliveries(self, query: str = "") -> list[Any]:
        return self.api.get(f"/v1/subscriptions/{self.id}/deliveries?{query}")["data"]


@pytest.fixture(scope="module")
def shop(api: Api) -> Shop:
    return Shop(api, "shop")


# --- events --------------------------------------------------------------------------------------------------


def test_events_are_listed_newest_first_in_pages(shop: Shop) -> None:
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = shop.api.get(f"/v1/events?limit=4&cursor={cursor}")
        assert len(page["data"]) <= 4
        assert "data" not in page["data"][0]
        seen += [event["id"] for event in page["data"]]
        cursor = page["next"]
    assert seen == [event["id"] for event in reversed(shop.events)]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("type=order:created&limit=2", [9, 8]),
        ("type=other", []),
        ("object_type=order&object_id=1", [9, 7, 5, 3, 1]),
        ("correlation_id=c0", [9, 6, 3, 0]),
        ("from=2020-01-01T00:00:00Z&limit=1", [9]),
        ("to=2020-01-01T00:00:00Z", []),
    ],
)
def test_events_are_found(shop: Shop, query: str, numbers: list[int]) -> None:
    found = shop.api.get(f"/v1/events?{query}")["data"]
    assert [event["id"] for event in found] == [f"shop-{number}" for number in numbers]


def test_payloads_are_added_on_request(shop: Shop) -> None:
    found = shop.api.get("/v1/events?limit=1&include=payload")["data"]
    assert found[0]["data"] == {"n": 9}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("object_id=1", "object_type"),
        ("object_type=order", "object_id"),
        ("from=x", "from"),
        ("include=y", "include[0]"),
    ],
)
def test_questions_about_events_that_make_no_sense(shop: Shop, query: str, field: str) -> None:
    answer = shop.api.call("GET", f"/v1/events?{query}")
    assert answer.status == 422
    assert answer.json["faults"][0]["field"] == field


def test_related_events_share_object_or_correlation(shop: Shop) -> None:
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = shop.api.get(f"/v1/events/shop-3/related?limit=2&cursor={cursor}")
        seen += [event["id"] for event in page["data"]]
        cursor = page["next"]
    assert seen == [f"shop-{number}" for number in (9, 7, 6, 5, 1, 0)]


def test_unknown_events_are_not_found(shop: Shop) -> None:
    for path in (
        "/v1/events/none",
        "/v1/events/none/deliveries",
        "/v1/events/none/related",
        "/v1/events/a.b",
    ):
        assert shop.api.get(path, 404)["code"] == "not_found"


def test_the_story_of_an_event_names_every_subscription(api: Api) -> None:
    shop = Shop(api, "story")
    tenant = shop.api
    other = tenant.post("/v1/subscriptions", {"url": URL, "events": ["stock"], "from": "beginning"}, 201)[
        "id"
    ]
    picky = {"url": URL, "filter": "data.n > 100", "from": "beginning"}
    filtered = tenant.post("/v1/subscriptions", picky, 201)["id"]
    paused = tenant.post("/v1/subscriptions", {"url": URL, "from": "beginning", "enabled": False}, 201)["id"]
    skipped = tenant.post("/v1/subscriptions", {"url": URL, "from": "beginning", "enabled": False}, 201)["id"]
    tenant.post(f"/v1/subscriptions/{skipped}/resume", {"from": "now"})
    late = tenant.post("/v1/subscriptions", {"url": URL}, 201)["id"]

    def outcomes(number: int) -> dict[str, str]:
        found = tenant.get(f"/v1/events/story-{number}/deliveries")["data"]
        return {story["subscription"]: story["outcome"] for story in found}

    assert outcomes(0) == {
        shop.id: "succeeded", other: "not_matched", filtered: "not_matched", paused: "pending",
        skipped: "skipped", late: "before_start",
    }  # fmt: skip
    assert [outcomes(number)[shop.id] for number in (4, 5, 6, 7)] == [
        "failed",
        "expired",
        "retrying",
        "pending",
    ]
    reasons = {s["subscription"]: s["reason"] for s in tenant.get("/v1/events/story-0/deliveries")["data"]}
    assert "order:created is not named by stock" in reasons[other]
    assert "data.n" in reasons[filtered]
    assert "paused" in reasons[paused]
    assert tenant.call("DELETE", f"/v1/subscriptions/{shop.id}").status == 204
    seen: dict[str, str] = {}
    cursor = ""
    while cursor is not None:
        page = tenant.get(f"/v1/events/story-0/deliveries?limit=2&cursor={cursor}")
        seen |= {story["subscription"]: story["outcome"] for story in page["data"]}
        cursor = page["next"]
    assert set(seen) == {shop.id, other, filtered, paused, skipped, late}


def test_the_story_goes_by_the_definition_in_force_then(api: Api) -> None:
    tenant = api.new_tenant("then")
    made = tenant.post("/v1/subscriptions", {"url": URL, "events": ["a"]}, 201)["id"]
    tenant.post("/v1/events", {"type": "a", "id": "before", "data": 1}, 202)
    tenant.patch(f"/v1/subscriptions/{made}", {"events": ["b"]})
    tenant.post("/v1/events", {"type": "a", "id": "after", "data": 1}, 202)
    outcomes = [
        tenant.get(f"/v1/events/{name}/deliveries")["data"][0]["outcome"] for name in ("before", "after")
    ]
    assert outcomes == ["pending", "not_matched"]


# --- deliveries and attempts -----------------------------------------------------------------------------------


def test_deliveries_are_listed_newest_first_in_pages(shop: Shop) -> None:
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = shop.api.get(f"/v1/subscriptions/{shop.id}/deliveries?limit=3&cursor={cursor}")
        seen += [delivery["sequence"] for delivery in page["data"]]
        cursor = page["next"]
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        ("state=failed", [5]),
        ("state=failed,expired", [6, 5]),
        ("state=retrying", [7]),
        ("success=true", [4, 3, 2, 1]),
        ("success=false", [7, 6, 5]),
        ("success=false&state=failed", [5]),
        ("from=2020-01-01T00:00:00Z&limit=1", [7]),
        ("to=2020-01-01T00:00:00Z", []),
    ],
)
def test_deliveries_are_found(shop: Shop, query: str, sequences: list[int]) -> None:
    assert [delivery["sequence"] for delivery in shop.deliveries(query)] == sequences


def test_a_delivery_shows_its_event_and_state(shop: Shop) -> None:
    delivery = shop.deliveries("state=retrying")[0]
    assert delivery["event"] == "shop-6"
    assert delivery["type"] == "order:created"
    assert delivery["status"] == 503
    assert delivery["due_at"] == "2096-10-02T07:06:40.000Z"
    assert "payload" not in delivery
    assert "attempt_log" not in delivery
    full = shop.deliveries("state=retrying&include=payload,attempts")[0]
    assert full["payload"] == {"n": 6}
    assert len(full["attempt_log"]) == 1
    assert shop.api.get(f"/v1/deliveries/{delivery['id']}") == full


@pytest.mark.parametrize(
    "query", ["success=true&state=failed", "success=perhaps", "state=lost", "include=all"]
)
def test_questions_about_deliveries_that_make_no_sense(shop: Shop, query: str) -> None:
    answer = shop.api.call("GET", f"/v1/subscriptions/{shop.id}/deliveries?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid_input")


def test_a_cursor_of_another_list_is_refused(shop: Shop) -> None:
    cursor = shop.api.get("/v1/events?limit=1")["next"]
    answer = shop.api.call("GET", f"/v1/subscriptions/{shop.id}/deliveries?cursor={cursor}")
    assert answer.json["faults"][0]["field"] == "cursor"


def test_an_attempt_shows_request_and_response(shop: Shop) -> None:
    found = shop.api.get(f"/v1/attempts/{attempt_id(shop.no, shop.positions[0], 1)}")
    assert found["delivery"] == delivery_id(shop.no, shop.positions[0])
    assert found["event"] == "shop-0"
    assert found["timings"] == {
        "dns_us": 1, "connect_us": 2, "tls_us": 3, "first_byte_us": 4, "total_us": 5,
    }  # fmt: skip
    assert found["request"]["headers"] == [["Content-Type", "application/json"], ["Authorization", "•••"]]
    assert '"data":{"n": 0}' in found["request"]["body"]
    assert found["response"]["headers"] == [["Server", "x"], ["X-Bad", "ÿ"]]
    assert found["response"]["body"] == "fine"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/deliveries/dlv_1-9999", "/v1/deliveries/dlv_zzzzzzzzzzzz-1", "/v1/deliveries/x", "/v1/deliveries/dlv_1",
        "/v1/attempts/att_1-1-99", "/v1/attempts/att_1-1", "/v1/attempts/att_zzzzzzzzzzzz-zzzzzzzzzzzz-1",
        "/v1/replays/rpl_0", "/v1/subscriptions/sub_0/deliveries", "/v1/subscriptions/sub_0/health",
    ],
)  # fmt: skip
def test_what_is_not_there(shop: Shop, path: str) -> None:
    assert shop.api.get(path, 404)["code"] == "not_found"


def test_health_says_how_far_a_subscription_is(shop: Shop) -> None:
    health = shop.api.get(f"/v1/subscriptions/{shop.id}/health")
    assert health["cursor"] == shop.positions[6]
    assert health["lag"] == health["head"] - shop.positions[6]
    assert (health["sequence"], health["waiting"]) == (7, 1)
    assert health["next_due_at"] == "2096-10-02T07:06:40.000Z"


# --- again -----------------------------------------------------------------------------------------------------------


def test_a_delivery_is_sent_again(api: Api) -> None:
    shop = Shop(api, "again")
    changed, woken = len(api.changes), len(api.woken)
    path = f"/v1/deliveries/{delivery_id(shop.no, shop.positions[4])}"
    again = shop.api.post(f"{path}/resend", None, 202)
    assert again["state"] in ("pending", "retrying")
    assert again["sequence"] == 5
    assert api.woken[woken:] == [0]
    assert len(api.changes) == changed, "the caches of everybody were dropped for one delivery"
    shop.api.post(f"/v1/deliveries/{delivery_id(shop.no, shop.positions[8])}/resend", None, 404)
    shop.api.call("DELETE", f"/v1/subscriptions/{shop.id}")
    assert shop.api.post(f"{path}/resend", None, 409)["code"] == "conflict"


def test_a_replay_is_counted_started_and_cancelled(api: Api) -> None:
    shop = Shop(api, "replay")
    path = f"/v1/subscriptions/{shop.id}"
    dry = shop.api.post(f"{path}/replay", {"from": "beginning", "state": "failed", "dry_run": True}, 202)
    assert (dry["id"], dry["total"], dry["dry_run"], dry["states"]) == (None, 1, True, ["failed"])
    assert shop.api.get(f"{path}/replays")["data"] == []
    several = {
        "from": "2020-01-01T00:00:00Z",
        "state": ["failed", "expired"],
        "rate": 5,
        "to": "2090-01-01T00:00:00Z",
    }
    job = shop.api.post(f"{path}/replay", several, 202)
    assert (job["total"], job["done"], job["state"], job["rate"]) == (2, 0, "running", 5.0)
    assert shop.api.get(f"/v1/replays/{job['id']}") == job
    assert [found["id"] for found in shop.api.get(f"{path}/replays")["data"]] == [job["id"]]
    assert shop.api.post(f"/v1/replays/{job['id']}/cancel")["state"] == "cancelled"
    assert shop.api.post(f"/v1/replays/{job['id']}/cancel")["state"] == "cancelled"
    everything = shop.api.post(f"{path}/replay", {"from": "beginning", "dry_run": True}, 202)
    assert everything["total"] == 6


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "from"),
        ({"from": "soon"}, "from"),
        ({"from": ""}, "from"),
        ({"from": "beginning", "to": "x"}, "to"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "beginning", "state": "retrying"}, "state"),
        ({"from": "beginning", "state": []}, "state"),
        ({"from": "beginning", "rate": -1}, "rate"),
        ({"from": "beginning", "dryrun": True}, "dryrun"),
    ],
)
def test_replays_that_make_no_sense(shop: Shop, body: dict[str, object], field: str) -> None:
    problem = shop.api.post(f"/v1/subscriptions/{shop.id}/replay", body, 422)
    assert problem["faults"][0]["field"] == field


def test_usage_by_day(shop: Shop) -> None:
    days = shop.api.get("/v1/usage")["data"]
    assert len({day["day"] for day in days}) == len(days)  # two if midnight was in between
    total = {name: sum(day[name] for day in days) for name in ("events", "attempts", "attempt_bytes")}
    assert total == {"events": 10, "attempts": 7, "attempt_bytes": 70}
    assert shop.api.get("/v1/usage?from=2020-01-01&to=2020-01-02")["data"] == []
    problem = shop.api.get("/v1/usage?from=x&to=2020-1-1", 422)
    assert [fault["field"] for fault in problem["faults"]] == ["from", "to"]
    assert shop.api.get("/v1/usage?from=2026-02-29&to=2028-02-29", 422)["faults"][0]["field"] == "from"
    assert shop.api.get("/v1/usage?to=0001-01-05")["data"] == []
    ahead = (date.fromisoformat(days[0]["day"]) + timedelta(days=30)).isoformat()
    assert shop.api.get(f"/v1/usage?to={ahead}")["data"] == days  # the 31 days up to there
    ahead = (date.fromisoformat(days[0]["day"]) + timedelta(days=31)).isoformat()
    assert shop.api.get(f"/v1/usage?to={ahead}")["data"] == []


def test_a_removed_event_leaves_its_delivery_readable(api: Api) -> None:
    shop = Shop(api, "gone")
    storage = api.services.storage
    found = shop.api.run(shop.subscription())
    shop.api.run(storage.remove_events(found.tenant_no, LATER, shop.positions[3], 100))
    delivery = shop.deliveries("success=true&include=payload,attempts")[0]
    assert (delivery["event"], delivery["payload"], delivery["type"]) == (None, None, None)
    assert delivery["attempt_log"][0]["request"]["body"] is None
    assert shop.api.post(f"/v1/deliveries/{delivery['id']}/resend", None, 409)["code"] == "conflict"


def test_pages_of_large_payloads_end_early(api: Api) -> None:
    tenant = api.new_tenant("large")
    items = [{"type": "a", "id": f"large-{number}", "data": "x" * 1_000_000} for number in range(12)]
    for item in items:
        tenant.post("/v1/events", item, 202)
    page = tenant.get("/v1/events?include=payload")
    assert 1 < len(page["data"]) < 12
    rest = tenant.get(f"/v1/events?include=payload&cursor={page['next']}")
    assert len(page["data"]) + len(rest["data"]) == 12


def test_an_attempt_of_an_older_version_shows_what_was_sent_then(api: Api) -> None:
    shop = Shop(api, "older")
    shop.api.patch(f"/v1/subscriptions/{shop.id}", {"method": "GET"})
    found = shop.api.get(f"/v1/attempts/{attempt_id(shop.no, shop.positions[0], 1)}")
    assert '"data":{"n": 0}' in found["request"]["body"]
