"""Front Systems' API over HTTP: the log of a webhook's events, and resending."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from hookline.api.compat.frontsystems import events as log
from hookline.core.ids import DeliveryUuids, from_uuid
from hookline.core.model import (
    Attempt,
    DeliveryState,
    LaneState,
    Position,
    Settled,
    Subscription,
    Tenant,
    Unsettled,
)
from hookline.ports import ErrorClass, Record, Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import Api, api_server
from tests.integration.frontsystems import ALWAYS, ORDER, URL, Shop

SEED_KEYS = [
    "webhookId", "webhookEventId", "createdDateTime", "updatedDateTime", "status", "statusCode", "success",
    "runsCounter", "runs",
]  # fmt: skip
"""The keys of an item, as the platform's page shows them."""


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make) as running:
        yield running


@pytest.fixture(scope="module")
def shop(api: Api) -> Shop:
    return Shop(api)


class Log:
    """A webhook with events of every kind, recorded as the worker does it, in this order."""

    KINDS = ("succeeded", "not found", "no answer", "retried", "expired", "waiting")

    def __init__(self, shop: Shop, *, at_once: bool = False) -> None:
        """Each event has a millisecond of its own, unless all come ``at_once``."""
        self.shop = shop
        self.id: str = shop.webhook("SaleCreated")["id"]
        self.positions: list[Position] = []
        self.received: list[datetime] = []
        events = [{"type": "SaleCreated", "data": {"n": number}} for number in range(len(self.KINDS))]
        for part in [events] if at_once else [[event] for event in events]:
            self._publish(part)
        shop.native.run(self._record())

    def _publish(self, events: list[dict[str, object]]) -> None:
        began = time.time()
        while (time.time() - began) * 1000 < 2:
            pass
        made = self.shop.native.call("POST", "/v1/events/batch", events)
        for result in made.json["data"]:
            found = self.shop.native.get(f"/v1/events/{result['id']}")
            self.positions.append(found["position"])
            self.received.append(datetime.fromisoformat(found["received_at"]))

    async def _record(self) -> None:
        storage = self.shop.native.services.storage
        self.tenant = await self._tenant(storage)
        self.subscription = found = await storage.get_subscription(self.tenant.no, from_uuid("sub", self.id))
        now = self.shop.native.services.clock.now()
        self.now = now
        lease = await storage.lease(found.shard, "test", now, 3600)
        assert lease is not None
        await storage.record(
            Record(
                shard=found.shard, epoch=lease.epoch, now=now, watermark=0,
                attempts=[
                    self._attempt(found, 0, 1, 200), self._attempt(found, 1, 1, 404),
                    self._attempt(found, 2, 1, 0, ErrorClass.CONNECT), self._attempt(found, 3, 1, 500),
                    self._attempt(found, 3, 2, 503), self._attempt(found, 5, 1, 404),
                ],
                settled=[
                    self._settled(found, 0, DeliveryState.SUCCEEDED, 1, 200),
                    self._settled(found, 1, DeliveryState.FAILED, 1, 404),
                    self._settled(found, 2, DeliveryState.FAILED, 1, 0, ErrorClass.CONNECT),
                    self._settled(found, 3, DeliveryState.FAILED, 2, 503),
                    self._settled(found, 4, DeliveryState.EXPIRED, 0, 0),
                ],
                unsettled=[Unsettled(found.no, self.positions[5], 6, 1, now, now, 0, None, 404, "")],
                lanes=[LaneState(found.no, self.positions[5], 6, live=False)],
            )
        )  # fmt: skip

    async def _tenant(self, storage: Storage) -> Tenant:
        tenant = await storage.find_tenant(self.shop.name)
        assert tenant is not None
        return tenant

    def _settled(
        self,
        found: Subscription,
        index: int,
        state: DeliveryState,
        attempts: int,
        status: int,
        error: str = "",
    ) -> Settled:
        return Settled(found.no, self.positions[index], index + 1, state, attempts, self.now, status, error)

    def _attempt(self, found: Subscription, index: int, number: int, status: int, error: str = "") -> Attempt:
        return Attempt(
            subscription_no=found.no, position=self.positions[index], number=number, version=1,
            started_at=self.now, method="POST", url=URL, status=status, error=error,
            detail="refused by 192.0.2.1" if error else "", address="", dns_us=0, connect_us=0, tls_us=0,
            first_byte_us=0, total_us=12_500, request_headers="", request_bytes=7, response_headers=b"",
            response_body=b"", response_truncated=False,
        )  # fmt: skip

    def listed(self, query: str = "", when: str = ALWAYS) -> list[Any]:
        return self.shop.get(f"/WebhooksEvents/{self.id}?{when}&{query}".rstrip("&"))

    def kinds(self, query: str = "", when: str = ALWAYS) -> list[str]:
        """Which of the events are listed."""
        ids = {item["webhookEventId"]: kind for item, kind in zip(self.listed(), self.KINDS, strict=True)}
        return [ids[item["webhookEventId"]] for item in self.listed(query, when)]


@pytest.fixture(scope="module")
def logged(api: Api) -> Log:
    return Log(Shop(api))


def test_an_item_is_as_the_page_shows_it(logged: Log) -> None:
    item = logged.listed("success=false&includePayload=false&includeRuns=false")[0]
    assert list(item) == SEED_KEYS
    assert item == {
        "webhookId": logged.id,
        "webhookEventId": item["webhookEventId"],
        "createdDateTime": item["createdDateTime"],
        "updatedDateTime": None,
        "status": "Not found",
        "statusCode": 404,
        "success": False,
        "runsCounter": 1,
        "runs": [],
    }
    assert str(UUID(item["webhookEventId"])) == item["webhookEventId"]
    assert datetime.fromisoformat(item["createdDateTime"]).replace(tzinfo=UTC) == logged.received[1]


def test_each_kind_of_outcome_has_its_text(logged: Log) -> None:
    told = [
        (item["status"], item["statusCode"], item["success"], item["runsCounter"]) for item in logged.listed()
    ]
    assert told == [
        ("OK", 200, True, 1),
        ("Not found", 404, False, 1),
        ("Connection failed", 0, False, 1),
        ("Service unavailable", 503, False, 2),
        ("Expired", 0, False, 0),
        ("Pending", 0, False, 1),
    ]


def test_only_what_ran_again_was_updated(logged: Log) -> None:
    updated = {
        kind: item["updatedDateTime"] for kind, item in zip(logged.KINDS, logged.listed(), strict=True)
    }
    assert [kind for kind, when in updated.items() if when] == ["retried"]
    when = datetime.fromisoformat(updated["retried"]).replace(tzinfo=UTC)
    assert when.timestamp() * 1000 == pytest.approx(logged.now, abs=1)


def test_items_are_listed_oldest_first(logged: Log) -> None:
    created = [item["createdDateTime"] for item in logged.listed()]
    assert created == sorted(created)
    assert [item["payload"]["n"] for item in logged.listed("includePayload=true")] == list(range(6))


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("success=false", Log.KINDS[1:]),
        ("success=true", Log.KINDS[:1]),
        ("SUCCESS=False", Log.KINDS[1:]),
        ("statuses=OK", ["succeeded"]),
        ("statuses=ok&statuses=Not%20found", ["succeeded", "not found"]),
        ("statuses=OK,Not+found", ["succeeded", "not found"]),
        ("statuses=NOTFOUND", ["not found"]),
        ("statuses=404,503", ["not found", "retried"]),
        ("Statuses=connection%20failed", ["no answer"]),
        ("statuses=Pending,Expired", ["expired", "waiting"]),
        ("statuses=Forbidden", []),
        ("statuses=Not%20found&success=false", ["not found"]),
        ("statuses=OK&success=false", []),
        ("statuses=OK,Not%20found&success=true", ["succeeded"]),
        ("statuses=", Log.KINDS),
    ],
)
def test_the_list_is_narrowed_by_success_and_status(logged: Log, query: str, kinds: list[str]) -> None:
    assert logged.kinds(query) == list(kinds)


def test_payloads_and_runs_come_if_asked_for(logged: Log) -> None:
    items = logged.listed("includePayload=true&includeRuns=true")
    assert [list(item) for item in items] == [[*SEED_KEYS, "payload"]] * 6
    assert [item["payload"] for item in items] == [{"n": number} for number in range(6)]
    assert [len(item["runs"]) for item in items] == [1, 1, 1, 2, 0, 1]
    started = items[1]["runs"][0]["dateTime"]
    assert datetime.fromisoformat(started).replace(tzinfo=UTC).timestamp() * 1000 == pytest.approx(logged.now)
    assert items[1]["runs"] == [
        {
            "dateTime": started, "status": "Not found", "statusCode": 404, "success": False, "duration": 12.5,
            "error": None,
        }
    ]  # fmt: skip
    failed = items[2]["runs"][0]
    assert (failed["status"], failed["statusCode"], failed["error"]) == (
        "Connection failed", 0, "refused by 192.0.2.1",
    )  # fmt: skip
    assert [run["status"] for run in items[3]["runs"]] == ["Internal server error", "Service unavailable"]
    assert items[0]["runs"][0]["success"] is True


def ranges(logged: Log) -> dict[str, tuple[str, str, bool]]:
    """From, to, and whether the events lie in between."""
    first, last = min(logged.received), max(logged.received)
    day = timedelta(days=1)
    today, yesterday, tomorrow = (f"{when:%Y-%m-%d}" for when in (first, first - day, last + day))
    sharp, later = f"{last:%Y-%m-%d %H:%M:%S.%f}", last + timedelta(milliseconds=1)
    return {
        "plain dates": (yesterday, tomorrow, True),
        "one day": (today, f"{last:%Y-%m-%d}", True),
        "the rest of a day": (f"{first:%Y-%m-%d %H:%M:%S.%f}", f"{last:%Y-%m-%d}", True),
        "the day before": (yesterday, yesterday, False),
        "the day after": (tomorrow, tomorrow, False),
        "the form of the specification": (f"{today} 00:00:00.0", f"{tomorrow} 00:00:00.0", True),
        "to is exclusive": (yesterday, f"{first:%Y-%m-%dT%H:%M:%S.%f}", False),
        "to the next millisecond": (yesterday, f"{later:%Y-%m-%dT%H:%M:%S.%f}", True),
        "from is inclusive": (f"{first:%Y-%m-%d %H:%M:%S.%f}", tomorrow, True),
        "iso 8601 with seven digits": (f"{today}T00:00:00.0000000Z", f"{sharp[:-1]}90", True),
        "with an offset": (f"{yesterday}T00:00+05:30", f"{tomorrow}T23:59-08:00", True),
        "all there is": ("0001-01-01", "9999-12-31", True),
        "all times there are": ("0001-01-01 00:00:00.0", "9999-12-31T23:59:59.9999999Z", True),
        "before there was any": ("0001-01-01", "1969-12-31", False),
        "the beginning": ("0001-01-01", "1970-01-01 00:00:00.0", False),
    }


def test_times_are_read_in_all_forms_of_the_platform(logged: Log) -> None:
    found = {
        name: len(logged.listed(when=f"from={quote(since)}&to={quote(until)}"))
        for name, (since, until, _) in ranges(logged).items()
    }
    assert found == {name: 6 if inside else 0 for name, (_, _, inside) in ranges(logged).items()}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", ["from", "to"]),
        ("from=2021-12-01", ["to"]),
        ("from=&to=", ["from", "to"]),
        ("from=yesterday&to=2021-12-01", ["from"]),
        ("from=2021-13-01&to=2021-02-30", ["from", "to"]),
        ("from=20211201&to=2021-W48-3", ["from", "to"]),
        ("from=2021-12-01T25:00&to=2021-12-01T10", ["from", "to"]),
        ("from=0000-01-01&to=10000-01-01", ["from", "to"]),
        ("from=1638316800&to=2021-12-01T00:00+99:00", ["from", "to"]),
        ("from=%D9%A2%D9%A0%D9%A2%D9%A1-12-01&to=2021-12-01", ["from"]),
        ("from=2021-12-01&to=2021-12-09T08:50:46.02+00:00", ["to"]),
        ("from=2021-12-15&to=2021-12-01", ["to"]),
        ("from=2021-12-02&to=2021-12-01", ["to"]),
        ("from=2021-12-02T00:00&to=2021-12-01", ["to"]),
        ("from=2021-12-01T00:00:01&to=2021-12-01T00:00:00", ["to"]),
        ("from=2021-12-01&to=2021-12-02&from=2021-12-01", ["from"]),
        (
            f"{ALWAYS}&success=maybe&includePayload=1&includeRuns=",
            ["success", "includePayload", "includeRuns"],
        ),
        (f"{ALWAYS}&sucess=false", ["sucess"]),
        (f"{ALWAYS}&statuses=Lost", ["statuses"]),
        (f"{ALWAYS}&statuses=OK&statuses=600", ["statuses"]),
        (f"{ALWAYS}&page=2", ["page"]),
    ],
)
def test_faults_of_the_query_are_named(logged: Log, query: str, fields: list[str]) -> None:
    errors = logged.shop.refused("GET", f"/WebhooksEvents/{logged.id}?{query}")
    assert sorted(errors) == sorted(fields)


def test_a_query_that_is_none_is_refused(logged: Log) -> None:
    for query in ("from=%ff", "x" * 9000, "&".join(["a=b"] * 200)):
        assert logged.shop.call("GET", f"/WebhooksEvents/{logged.id}?{query}").status == 400


def test_one_event_has_the_form_of_the_specification(logged: Log) -> None:
    item = logged.listed("success=false")[0]
    found = logged.shop.get(f"/WebhooksEvents/{logged.id}/{item['webhookEventId'].upper()}")
    assert found == {
        "webhookId": logged.id,
        "webhookEventId": item["webhookEventId"],
        "createdDateTime": found["createdDateTime"],
        "status": "Not found",
        "payload": {"n": 1},
    }
    moment, fraction = found["createdDateTime"].split(".")
    assert item["createdDateTime"].startswith(moment)
    assert (len(fraction), fraction[3:]) == (len("0200000+00:00"), "0000+00:00")
    assert datetime.fromisoformat(found["createdDateTime"]) == logged.received[1]


# --- resending -----------------------------------------------------------------------------------------------


def test_a_resent_event_waits_and_stays_in_the_list_until_it_succeeds(api: Api) -> None:
    log = Log(Shop(api))
    failed = log.listed("statuses=404")[0]["webhookEventId"]
    before = len(log.listed("success=false"))
    path = f"/WebhooksEvents/{log.id}/deliver/{failed}"
    changed, woken = len(api.changes), len(api.woken)
    for _ in range(2):
        answer = log.shop.call("POST", path)
        assert answer.status == 200
        assert list(answer.json) == ["webhookId", "webhookEventId", "createdDateTime", "status", "payload"]
        assert (answer.json["webhookEventId"], answer.json["status"]) == (failed, "Pending")
        assert answer.json["payload"] == {"n": 1}
    assert len(log.listed("success=false")) == before
    native = log.shop.native.get(
        f"/v1/subscriptions/{from_uuid('sub', log.id)}/deliveries?state=retrying&limit=200"
    )
    assert [each["position"] for each in native["data"]] == [log.positions[5], log.positions[1]]
    assert api.woken[woken:] == [0, 0]
    assert len(api.changes) == changed, "the caches of everybody were dropped for one event"


def test_a_resent_event_that_had_arrived_waits_like_any_other(api: Api) -> None:
    log = Log(Shop(api))
    arrived = log.listed("success=true")[0]["webhookEventId"]
    log.shop.call("POST", f"/WebhooksEvents/{log.id}/deliver/{arrived}")
    assert log.listed("success=true") == []
    (item,) = [item for item in log.listed("success=false") if item["webhookEventId"] == arrived]
    assert (item["status"], item["statusCode"], item["runsCounter"]) == ("Pending", 0, 1)


def test_without_the_feature_nothing_is_resent(api: Api) -> None:
    log = Log(Shop(api))
    failed = log.listed("statuses=404")[0]["webhookEventId"]
    api.patch(f"/v1/tenants/{log.shop.name}", {"webhooks": False})
    answer = log.shop.call("POST", f"/WebhooksEvents/{log.id}/deliver/{failed}")
    assert (answer.status, "switched off" in answer.json["detail"]) == (403, True)
    assert log.listed("statuses=404")[0]["webhookEventId"] == failed


def test_an_event_past_its_retention_is_shown_without_payload_and_cannot_be_resent(api: Api) -> None:
    Log(Shop(api))  # another tenant's older events, which stay: the range of times begins before them
    log = Log(Shop(api, retention={"events": 1}))
    storage = api.services.storage
    api.run(storage.remove_events(log.tenant.no, log.now + 1000, log.positions[-1], 100))
    item = log.listed("success=false&includePayload=true")[0]
    assert (item["payload"], item["status"]) == (None, "Not found")
    answer = log.shop.call("POST", f"/WebhooksEvents/{log.id}/deliver/{item['webhookEventId']}")
    assert (answer.status, "retention" in answer.json["detail"]) == (409, True)
    assert log.shop.get(f"/WebhooksEvents/{log.id}/{item['webhookEventId']}")["payload"] is None


def test_nothing_of_another_tenant_webhook_or_profile_is_there(api: Api) -> None:
    mine, theirs = Log(Shop(api)), Log(Shop(api))
    other = mine.shop.webhook()["id"]
    event = theirs.listed("success=false")[0]["webhookEventId"]
    own = mine.listed("success=false")[0]["webhookEventId"]
    assert theirs.id not in {found["id"] for found in mine.shop.get("/Webhooks")}
    paths = [
        f"/WebhooksEvents/{theirs.id}?{ALWAYS}", f"/WebhooksEvents/{theirs.id}/{event}",
        f"/WebhooksEvents/{mine.id}/{event}", f"/WebhooksEvents/{other}/{own}", f"/Webhooks/{theirs.id}",
    ]  # fmt: skip
    assert [mine.shop.call("GET", path).status for path in paths] == [404] * 5
    for webhook, which in ((theirs.id, event), (mine.id, event), (other, own)):
        assert mine.shop.call("POST", f"/WebhooksEvents/{webhook}/deliver/{which}").status == 404
    for method, body in (("PUT", {"event": ORDER, "url": URL}), ("DELETE", None)):
        assert mine.shop.call(method, f"/Webhooks/{theirs.id}", body).status == 404
    native = mine.shop.native.post("/v1/subscriptions", {"url": URL, "profile": "standard"}, 201)["id"]
    hidden = str(UUID(native.partition("_")[2]))
    assert hidden not in {found["id"] for found in mine.shop.get("/Webhooks")}
    for path in (f"/Webhooks/{hidden}", f"/WebhooksEvents/{hidden}?{ALWAYS}"):
        assert mine.shop.call("GET", path).status == 404


def test_a_webhook_made_by_other_means_is_shown_with_all_its_types(shop: Shop) -> None:
    made = shop.native.post("/v1/subscriptions", {"url": URL, "events": ["SaleCreated", "Stock*"]}, 201)
    found = shop.get(f"/Webhooks/{UUID(made['id'].partition('_')[2])}")
    assert (found["event"], found["storeId"]) == ("SaleCreated, Stock*", None)
    moved = found | {"url": "https://other.example.com/"}
    assert shop.call("PUT", f"/Webhooks/{found['id']}", moved).json == moved
    assert shop.native.get(f"/v1/subscriptions/{made['id']}")["events"] == ["SaleCreated", "Stock*"]
    errors = shop.refused("PUT", f"/Webhooks/{found['id']}", moved | {"event": "SaleCreated, Sale*"})
    assert list(errors) == ["event"]


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ("7", 7), ("0", 0), ("-3", -3), ("2147483647", 2147483647), ("-2147483648", -2147483648),
        ("2147483648", None), ("-2147483649", None), ("9" * 1000, None), ("٣", None), ("007", None), ("", None),
        ("the big one", None),
    ],
)  # fmt: skip
def test_what_is_no_store_in_the_metadata_is_shown_as_none(shop: Shop, text: str, store: int | None) -> None:
    """A number beyond int32 would break how a client reads the whole list."""
    fields = {"url": URL, "events": ["SaleCreated"], "metadata": {"storeId": text}}
    made = shop.native.post("/v1/subscriptions", fields, 201)
    assert shop.get(f"/Webhooks/{UUID(made['id'].partition('_')[2])}")["storeId"] == store


# --- long lists ----------------------------------------------------------------------------------------------


def test_a_list_that_is_too_long_says_where_to_go_on(logged: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_ITEMS", 4)
    monkeypatch.setattr(log, "SCAN_PAGE", 2)
    monkeypatch.setattr(log, "EVENT_PAGE", 1)
    answer = logged.shop.call("GET", f"/WebhooksEvents/{logged.id}?{ALWAYS}&includePayload=true")
    assert [item["payload"]["n"] for item in answer.json] == [2, 3, 4, 5]
    next_to = answer.headers["hookline-next-to"]
    rest = logged.shop.call(
        "GET", f"/WebhooksEvents/{logged.id}?from=2020-01-01&to={next_to}&includePayload=true"
    )
    assert [item["payload"]["n"] for item in rest.json] == [0, 1]
    assert "hookline-next-to" not in rest.headers
    monkeypatch.setattr(log, "MAX_ITEMS", 6)
    whole = logged.shop.call("GET", f"/WebhooksEvents/{logged.id}?{ALWAYS}")
    assert (len(whole.json), "hookline-next-to" in whole.headers) == (6, False)


def paged(logged: Log, query: str = "") -> list[list[str]]:
    """The ids on every page, by following the header; more than a page for each event would never end."""
    pages: list[list[str]] = []
    until = "2100-01-01"
    while until and len(pages) <= len(logged.positions):
        answer = logged.shop.call(
            "GET", f"/WebhooksEvents/{logged.id}?from=2020-01-01&to={quote(until)}&{query}".rstrip("&")
        )
        assert answer.status == 200, answer.body
        pages.append([item["webhookEventId"] for item in answer.json])
        until = answer.headers.get("hookline-next-to", "")
    return pages


def test_pages_end_though_their_events_came_in_one_moment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = Log(Shop(api), at_once=True)
    assert len(set(logged.received)) == 1
    whole = [item["webhookEventId"] for item in logged.listed()]
    monkeypatch.setattr(log, "MAX_ITEMS", 2)
    assert paged(logged) == [whole[4:], whole[2:4], whole[:2]]
    assert paged(logged, "success=false") == [whole[4:], whole[2:4], whole[1:2]]


def test_pages_end_though_retention_removed_their_events(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    Log(Shop(api))  # another tenant's older events, which stay
    logged = Log(Shop(api, retention={"events": 1}))
    storage = api.services.storage
    api.run(storage.remove_events(logged.tenant.no, logged.now + 1000, logged.positions[-1], 100))
    whole = [item["webhookEventId"] for item in logged.listed()]
    assert len(whole) == 6
    monkeypatch.setattr(log, "MAX_ITEMS", 4)
    assert paged(logged) == [whole[2:], whole[:2]]


def test_only_an_event_of_the_webhook_bounds_its_list(logged: Log) -> None:
    events = [item["webhookEventId"] for item in logged.listed()]
    for bound, listed in ((events[0], 0), (events[3].upper(), 3)):
        assert len(logged.listed(when=f"from=2020-01-01&to={bound}")) == listed
    other = Log(logged.shop).listed()[0]["webhookEventId"]
    nowhere = DeliveryUuids(from_uuid("sub", logged.id)).of(0)
    for bound in (other, nowhere, logged.id):
        errors = logged.shop.refused("GET", f"/WebhooksEvents/{logged.id}?from=2020-01-01&to={bound}")
        assert list(errors) == ["to"]
    errors = logged.shop.refused("GET", f"/WebhooksEvents/{logged.id}?from={events[0]}&to={events[0]}")
    assert list(errors) == ["from"]


def test_a_list_ends_at_a_size_too(logged: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 600)
    answer = logged.shop.call("GET", f"/WebhooksEvents/{logged.id}?{ALWAYS}")
    assert 1 <= len(answer.json) < 6
    assert "hookline-next-to" in answer.headers
    monkeypatch.setattr(log, "MAX_BYTES", 1)
    assert len(logged.shop.call("GET", f"/WebhooksEvents/{logged.id}?{ALWAYS}").json) == 1


def test_too_many_events_of_other_statuses_are_an_error_not_an_empty_list(
    logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_SCAN", 1)
    monkeypatch.setattr(log, "SCAN_PAGE", 2)
    errors = logged.shop.refused("GET", f"/WebhooksEvents/{logged.id}?{ALWAYS}&statuses=Forbidden,OK")
    assert "shorter" in errors["from"][0]


def test_pages_fit_together(logged: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = logged.listed("includePayload=true&includeRuns=true")
    for size in range(1, 8):
        monkeypatch.setattr(log, "SCAN_PAGE", size)
        monkeypatch.setattr(log, "EVENT_PAGE", max(1, size - 1))
        assert logged.listed("includePayload=true&includeRuns=true") == whole
    positions = [item["payload"]["n"] for item in whole]
    assert all(earlier < later for earlier, later in pairwise(positions))
