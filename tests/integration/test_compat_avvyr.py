"""The Avvyr API over HTTP: what each operation does, who may do it, and what it says to input that is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from copy import copy
from os import urandom
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hookline.core.errors import StorageUnavailable
from hookline.core.ids import DeliveryUuids
from hookline.core.model import (
    AuthKind,
    RetryKind,
    Scope,
    Secrets,
    SignatureScheme,
    Subscription,
    SubscriptionState,
)
from hookline.engine.manage import MASK, Subscriptions
from hookline.engine.manage.turns import Turns
from hookline.profiles import PROFILES
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Answer, Api, api_server

DESTINATION = "http://127.0.0.1:49151/hooks"
ORDER = {"eventType": "orderCreated", "destination": DESTINATION}


class Flaky(MemoryStorage):
    """Fails a number of calls from now, as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, int] = {}
        self.meanwhile: dict[str, Callable[[], object]] = {}

    async def _step(self, name: str) -> None:
        """``meanwhile`` is what others do, once, while the call is under way."""
        if others := self.meanwhile.pop(name, None):
            await asyncio.to_thread(others)
        left = self.fails.get(name)
        if left is not None:
            self.fails[name] = left - 1
            if left == 0:
                raise StorageUnavailable

    async def create_subscription(self, *args: Any, **named: Any) -> Subscription:
        await self._step("create")
        return await super().create_subscription(*args, **named)

    async def update_subscription(self, *args: Any, **named: Any) -> Subscription:
        await self._step("update")
        return await super().update_subscription(*args, **named)

    async def set_subscription_state(self, *args: Any, **named: Any) -> Subscription:
        await self._step("state")
        return await super().set_subscription_state(*args, **named)


@pytest.fixture(scope="module")
def storage() -> Flaky:
    return Flaky()


@pytest.fixture(scope="module")
def api(storage: Flaky) -> Iterator[Api]:
    with api_server(lambda: storage) as running:
        rules = running.services.subscriptions._rules
        running.services.subscriptions._rules = structs.replace(rules, mail=True)
        yield running


class Account:
    """One account of Avvyr's."""

    numbers: ClassVar[Iterator[int]] = iter(range(1, 100_000))

    def __init__(self, api: Api, **fields: object) -> None:
        self.code = f"shop-{next(self.numbers)}"
        self.native = api.new_tenant(self.code, profile="avvyr", **fields)
        self.services = api.services
        self.path = f"/avvyr/v1/{self.code}/account/event-subscriptions"

    def call(self, method: str, path: str = "", body: object = None, **more: Any) -> Answer:
        return self.native.call(method, self.path + path, body, **more)

    def good(self, method: str, path: str = "", body: object = None) -> Any:
        answer = self.call(method, path, body)
        assert answer.status in (200, 201, 204), answer.body
        return answer.json if answer.body else None

    def make(self, **fields: object) -> Any:
        return self.good("POST", "", {**ORDER, **fields})

    def change(self, made: Any, **fields: object) -> Any:
        return self.good("PATCH", f"/{made['id']}", fields)

    def faults(self, method: str, path: str, body: object) -> dict[str, str]:
        answer = self.call(method, path, body)
        assert answer.status == 400, answer.body
        return {each["field"]: each["message"] for each in answer.json["error"]["details"]}

    def stored(self, made: Any) -> tuple[Subscription, Secrets]:
        """The subscription as the engine has it."""

        async def find() -> Subscription:
            tenant = await self.services.tenants.get(self.code)
            return await self.services.storage.get_subscription(tenant.no, made["id"])

        found = self.native.run(find())
        return found, self.services.subscriptions.secrets(found)

    def all(self) -> list[Any]:
        """Every subscription of the tenant, by the native API."""
        return self.native.get("/v1/subscriptions?limit=200")["data"]

    def companions(self) -> list[Any]:
        return [each for each in self.all() if each["profile"] == "mail"]


@pytest.fixture
def account(api: Api) -> Account:
    return Account(api)


# --- create and read -----------------------------------------------------------------------------------------


def test_the_example_of_their_page_works(account: Account):
    asked = {
        "eventType": "orderCreated",
        "destination": DESTINATION,
        "enabled": True,
        "authType": "hmac",
        "hmacSecret": "your-secret",
        "retryEnabled": True,
        "retryCount": 3,
        "comment": "Sync orders to ERP",
    }
    answer = account.call("POST", "", asked)
    assert answer.status == 201
    made = answer.json
    assert made == asked | {
        "id": made["id"],
        "hmacSecret": MASK,
        "errorEmail": None,
        "additionalHeaders": {},
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    assert made["createdAt"].endswith("Z")
    assert answer.headers["Location"] == f"{account.path}/{made['id']}"
    assert account.good("GET", f"/{made['id']}") == made
    assert account.good("GET") == {"data": [made], "next": None}


def test_the_defaults(account: Account):
    made = account.make()
    assert {name: made[name] for name in ("enabled", "authType", "retryEnabled", "retryCount")} == {
        "enabled": True,
        "authType": "none",
        "retryEnabled": True,
        "retryCount": 3,
    }
    assert made["comment"] is made["errorEmail"] is None
    assert not {"authUsername", "authPassword", "authToken", "hmacSecret"} & made.keys()
    found, secrets = account.stored(made)
    assert found.definition.profile == "avvyr"
    assert found.definition.events == ("orderCreated",)
    assert found.definition.retry == PROFILES["avvyr"].defaults.retry
    assert secrets == Secrets()


def test_each_kind_of_authentication_is_kept_and_never_shown(account: Account):
    basic = account.make(authType="basic", authUsername="shop", authPassword="very secret")
    bearer = account.make(authType="bearer", authToken="very secret")
    signed = account.make(authType="hmac", hmacSecret="very secret")
    assert b"very secret" not in account.call("GET").body
    assert (basic["authUsername"], basic["authPassword"]) == ("shop", MASK)
    auth = account.stored(basic)[1].auth
    assert (auth.kind, auth.username, auth.secret) == (AuthKind.BASIC, "shop", "very secret")
    auth = account.stored(bearer)[1].auth
    assert (auth.kind, auth.secret) == (AuthKind.BEARER, "very secret")
    found, secrets = account.stored(signed)
    assert found.definition.signing.scheme is SignatureScheme.AVVYR
    assert [key.secret for key in secrets.keys] == ["very secret"]
    assert secrets.auth.kind is AuthKind.NONE


def test_additional_headers_may_be_an_object_or_a_list_and_secret_ones_are_masked(account: Account):
    headers = {"X-Tenant": "a", "Authorization": "Token 1", "x-api-key": "k", "X-Access-Token": "t"}
    as_object = account.make(additionalHeaders=headers)
    listed = [{"name": name, "value": value} for name, value in headers.items()]
    as_list = account.make(additionalHeaders=listed)
    for made in (as_object, as_list):
        assert made["additionalHeaders"] == dict.fromkeys(headers, MASK) | {"X-Tenant": "a"}
        found, secrets = account.stored(made)
        assert found.definition.headers | secrets.headers == headers
        assert set(found.definition.headers) == {"X-Tenant"}


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_a_count_of_retries_is_one_less_than_the_attempts(account: Account, count: int):
    made = account.make(retryCount=count)
    assert made["retryCount"] == count
    policy = account.stored(made)[0].definition.retry
    assert (policy.kind, policy.max_attempts) == (RetryKind.EXPONENTIAL, count + 1)


def test_without_retries_the_count_is_kept_for_later(account: Account):
    made = account.make(retryEnabled=False, retryCount=5)
    assert account.stored(made)[0].definition.retry.kind is RetryKind.NONE
    assert (made["retryEnabled"], made["retryCount"]) == (False, 5)
    changed = account.change(made, retryEnabled=True)
    policy = account.stored(changed)[0].definition.retry
    standard = PROFILES["avvyr"].defaults.retry
    assert policy == structs.replace(standard, max_attempts=6)


def test_every_type_of_the_catalogue_can_be_subscribed(account: Account):
    names = [one["name"] for one in account.native.get("/v1/event-types?limit=200")["data"]]
    assert len(names) == 20
    for name in names:
        assert account.make(eventType=name)["eventType"] == name


def test_a_type_that_the_account_made_itself_can_be_subscribed(account: Account):
    assert "eventType" in account.faults("POST", "", {**ORDER, "eventType": "giftCardCreated"})
    account.native.post("/v1/event-types", {"name": "giftCardCreated"}, 201)
    assert account.make(eventType="giftCardCreated")["eventType"] == "giftCardCreated"


# --- update --------------------------------------------------------------------------------------------------


FULL = {
    "eventType": "productUpdated",
    "destination": f"{DESTINATION}?a=1",
    "enabled": False,
    "authType": "basic",
    "authUsername": "u",
    "authPassword": "p",
    "retryEnabled": False,
    "retryCount": 9,
    "comment": "Search index",
    "additionalHeaders": {"X-A": "1", "X-Api-Key": "k"},
}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_was_read_can_be_sent_back_without_a_change(account: Account, method: str):
    made = account.make(**FULL)
    before = account.stored(made)
    assert account.good(method, f"/{made['id']}", made) == made
    assert account.stored(made) == before


def test_patch_changes_what_it_names(account: Account):
    made = account.make(**FULL)
    for name, value in [
        ("eventType", "cartDeleted"),
        ("destination", "http://127.0.0.1:49151/other"),
        ("retryCount", 2),
        ("comment", "Other"),
        ("authUsername", "v"),
        ("additionalHeaders", {"X-B": "2"}),
    ]:
        changed = account.change(made, **{name: value})
        assert changed == made | {name: value, "updatedAt": changed["updatedAt"]}
        made = changed
    assert account.stored(made)[1].auth.secret == "p"


def test_put_puts_back_what_it_does_not_name_but_no_secret_of_the_same_kind(account: Account):
    made = account.make(**FULL)
    changed = account.good("PUT", f"/{made['id']}", {**ORDER, "authType": "basic", "authUsername": "u"})
    fresh = account.make(authType="basic", authUsername="u", authPassword="p")
    own = {name: changed[name] for name in ("id", "createdAt", "updatedAt")}
    assert changed == fresh | own
    assert account.stored(changed)[1].auth.secret == "p"
    assert account.stored(changed)[1].headers == {}
    bare = account.good("PUT", f"/{made['id']}", ORDER)
    assert (bare["authType"], account.stored(bare)[1]) == ("none", Secrets())


def test_null_puts_a_field_back(account: Account):
    made = account.make(**FULL)
    names = ("enabled", "authType", "retryEnabled", "retryCount", "comment", "additionalHeaders")
    changed = account.change(made, **dict.fromkeys(names))
    plain = account.make(**{name: FULL[name] for name in ("eventType", "destination")})
    assert changed == plain | {name: changed[name] for name in ("id", "createdAt", "updatedAt")}
    assert account.faults("PATCH", f"/{made['id']}", {"eventType": None, "destination": None}) == {
        "eventType": "is required",
        "destination": "is required",
    }


def test_another_kind_of_authentication_leaves_nothing_of_the_one_before(account: Account):
    made = account.make(authType="basic", authUsername="u", authPassword="p")
    made = account.change(made, authType="hmac", hmacSecret="s1")
    assert account.stored(made)[1].auth.kind is AuthKind.NONE
    made = account.change(made, hmacSecret="s2")
    assert [key.secret for key in account.stored(made)[1].keys] == ["s2"]
    made = account.change(made, authType="bearer", authToken="t")
    found, secrets = account.stored(made)
    assert (found.definition.signing.scheme, secrets.keys) == (SignatureScheme.NONE, ())
    made = account.change(made, authType="none")
    assert account.stored(made)[1] == Secrets()


def test_a_masked_header_keeps_its_value_and_one_that_is_not_named_goes(account: Account):
    made = account.make(additionalHeaders={"X-Api-Key": "k", "X-Token": "t", "X-A": "1"})
    made = account.change(made, additionalHeaders={"X-Api-Key": MASK, "X-B": "2"})
    found, secrets = account.stored(made)
    assert (found.definition.headers, secrets.headers) == ({"X-B": "2"}, {"X-Api-Key": "k"})
    assert account.stored(account.change(made, additionalHeaders={}))[1].headers == {}


def test_what_only_the_native_api_knows_stays(account: Account):
    made = account.make()
    native = {"timeout": {"connect": 1.0, "total": 2.0}, "max_in_flight": 3, "filter": "data.total > 5"}
    account.native.patch(f"/v1/subscriptions/{made['id']}", native)
    account.good("PUT", f"/{made['id']}", {**ORDER, "comment": "x"})
    seen = account.native.get(f"/v1/subscriptions/{made['id']}")
    assert {name: seen[name] for name in native} == native


def test_what_avvyr_has_no_word_for_is_shown_in_ours_and_survives(account: Account):
    made = account.make()
    path = f"/v1/subscriptions/{made['id']}"
    auth = {"kind": "api_key", "header": "X-Key", "secret": "k"}
    retry = {"kind": "list", "delays": [1, 2, 3], "max_attempts": 0}
    account.native.patch(path, {"events": ["orderCreated", "cart*"], "auth": auth, "retry": retry})
    seen = account.good("GET", f"/{made['id']}")
    assert (seen["eventType"], seen["authType"], seen["retryCount"]) == ("orderCreated, cart*", "api_key", 3)
    before = account.stored(made)
    assert account.good("PUT", f"/{made['id']}", seen) == seen
    assert account.stored(made) == before
    assert account.change(made, eventType="cartUpdated")["eventType"] == "cartUpdated"


def test_a_subscription_that_was_off_begins_again_from_now(account: Account):
    made = account.make(enabled=False)
    assert account.stored(made)[0].state is SubscriptionState.PAUSED
    event = {"type": "orderCreated", "data": {}}
    account.native.post("/v1/events", event, 202)
    changed = account.change(made, enabled=True)
    assert changed["enabled"]
    assert changed["updatedAt"] > made["updatedAt"]
    found = account.stored(made)[0]
    assert (found.state, found.skip_to) == (SubscriptionState.ACTIVE, 1)
    assert not account.change(made, enabled=False)["enabled"]


def other_process(account: Account) -> Subscriptions:
    """It has the same storage, and knows nothing of whose turn it is here."""
    other = copy(account.services.subscriptions)
    other.turns = Turns(urandom)
    return other


def test_changes_at_the_same_time_do_not_fail(account: Account, monkeypatch: pytest.MonkeyPatch):
    made = account.make()
    subscriptions = account.services.subscriptions
    elsewhere, update = other_process(account), subscriptions.update
    others = iter([1, 2])

    async def raced(tenant: Any, subscription_id: str, *rest: Any) -> Subscription:
        number = next(others, 0)
        if number:
            await elsewhere.update(tenant, subscription_id, {"headers": {f"X-Other-{number}": "1"}})
        return await update(tenant, subscription_id, *rest)

    monkeypatch.setattr(subscriptions, "update", raced)
    assert account.change(made, comment="mine")["comment"] == "mine"
    assert set(account.stored(made)[0].definition.headers) == {"X-Other-1", "X-Other-2"}


def test_a_change_that_never_gets_through_is_a_conflict(account: Account, monkeypatch: pytest.MonkeyPatch):
    made = account.make()
    subscriptions = account.services.subscriptions
    elsewhere, update = other_process(account), subscriptions.update
    numbers = iter(range(100))

    async def raced(tenant: Any, subscription_id: str, *rest: Any) -> Subscription:
        await elsewhere.update(tenant, subscription_id, {"headers": {"X-Other": str(next(numbers))}})
        return await update(tenant, subscription_id, *rest)

    monkeypatch.setattr(subscriptions, "update", raced)
    answer = account.call("PATCH", f"/{made['id']}", {"comment": "mine"})
    assert (answer.status, answer.json["error"]["code"]) == (409, "conflict")


# --- delete, list, search ------------------------------------------------------------------------------------


def test_what_is_deleted_is_gone(account: Account):
    made = account.make()
    answer = account.call("DELETE", f"/{made['id']}")
    assert (answer.status, answer.body) == (204, b"")
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")]:
        answer = account.call(method, f"/{made['id']}{path}", {})
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
    assert account.good("GET") == {"data": [], "next": None}


def test_a_list_comes_in_parts_that_miss_and_repeat_nothing(account: Account):
    made = [account.make(comment=str(number))["id"] for number in range(7)]
    account.native.post("/v1/subscriptions", {"url": DESTINATION, "profile": "standard"}, 201)
    seen: list[str] = []
    cursor = ""
    for size in (3, 3, 1):
        page = account.good("GET", f"?limit=3&cursor={cursor}")
        assert len(page["data"]) == size
        seen += [each["id"] for each in page["data"]]
        cursor = page["next"] or ""
    assert (seen, cursor) == (made, "")


SEARCHES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"erp", "index", "warehouse"}),
    ({"eventType": "orderCreated"}, {"erp", "warehouse"}),
    ({"eventType": "order"}, set()),
    ({"destination": "49151/erp"}, {"erp"}),
    ({"destination": "127.0.0.1"}, {"erp", "index", "warehouse"}),
    ({"comment": "the ERP"}, {"erp"}),
    ({"comment": "INDEX"}, {"index"}),
    ({"comment": "x y%20&z"}, {"warehouse"}),
    ({"comment": "orderCreated"}, set()),
    ({"comment": "49151"}, set()),
    ({"eventType": "orderCreated", "comment": "z", "destination": "hooks"}, {"warehouse"}),
    ({"eventType": "productUpdated", "comment": "the erp"}, set()),
]


def test_search_by_type_destination_and_comment_both_ways(account: Account):
    ids = {
        account.make(comment="The ERP", destination="http://127.0.0.1:49151/erp")["id"]: "erp",
        account.make(comment="Search index", eventType="productUpdated")["id"]: "index",
        account.make(comment="x y%20&z")["id"]: "warehouse",
    }
    for criteria, wanted in SEARCHES:
        by_query = account.good("GET", f"/search?{urlencode(criteria)}")
        by_body = account.good("POST", "/search", criteria)
        assert by_query == by_body
        assert {ids[each["id"]] for each in by_query["data"]} == wanted, criteria


def test_a_search_comes_in_parts_too(account: Account):
    made = [account.make(comment="x")["id"] for _ in range(3)]
    first = account.good("POST", "/search", {"comment": "x", "limit": 2, "eventType": None})
    second = account.good("POST", "/search", {"comment": "x", "cursor": first["next"]})
    assert [each["id"] for each in first["data"] + second["data"]] == made
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=201", "limit"),
        ("?limit=x", "limit"),
        ("?cursor=x", "cursor"),
        ("?page=1", "page"),
        ("?comment=a", "comment"),
        ("/search?coment=a", "coment"),
        (f"/search?comment={'a' * 300}", "comment"),
        ("/search?comment=a&comment=b", "comment"),
    ],
)
def test_a_wrong_query_is_named(account: Account, query: str, field: str):
    assert list(account.faults("GET", query, None)) == [field]


def test_a_wrong_search_is_named(account: Account):
    body = {"eventType": 1, "destination": [], "comments": "x", "limit": "1"}
    assert set(account.faults("POST", "/search", body)) == set(body)
    assert account.faults("POST", "/search", ["orderCreated"]) != {}


# --- test ----------------------------------------------------------------------------------------------------


def test_a_test_that_cannot_arrive_says_why(account: Account):
    made = account.make(enabled=False)
    tried = [account.good("POST", f"/{made['id']}/test") for _ in range(2)]
    for each in tried:
        assert (each["success"], each["statusCode"]) == (False, None)
        assert each["error"].startswith("connect: ")
        assert each["eventType"] == "orderCreated"
        assert each["messageId"].startswith("test_")
        assert DeliveryUuids(made["id"]).position(each["deliveryId"]) >= 1 << 61
    assert tried[0]["deliveryId"] != tried[1]["deliveryId"], "a receiver would drop the second test"


def test_a_test_of_a_type_that_is_gone_or_a_wildcard_is_hooklines_own(account: Account):
    account.native.post("/v1/event-types", {"name": "ownType"}, 201)
    made = account.make(eventType="ownType")
    assert account.good("POST", f"/{made['id']}/test", {})["eventType"] == "ownType"
    account.native.patch(f"/v1/subscriptions/{made['id']}", {"events": ["cart*"]})
    assert account.good("POST", f"/{made['id']}/test")["eventType"] == "hookline.test"
    account.native.patch(f"/v1/subscriptions/{made['id']}", {"events": ["neverSeen"]})
    assert account.good("POST", f"/{made['id']}/test")["eventType"] == "hookline.test"


def test_a_test_takes_no_payload(account: Account):
    made = account.make()
    assert list(account.faults("POST", f"/{made['id']}/test", {"data": {}})) == [""]


# --- who may -------------------------------------------------------------------------------------------------


OPERATIONS = [
    ("POST", "", "CREATE"),
    ("GET", "", "READ"),
    ("GET", "/search", "READ"),
    ("POST", "/search", "READ"),
    ("GET", "/{id}", "READ"),
    ("PUT", "/{id}", "UPDATE"),
    ("PATCH", "/{id}", "UPDATE"),
    ("POST", "/{id}/test", "UPDATE"),
    ("DELETE", "/{id}", "DELETE"),
]
PERMISSIONS = {
    "CREATE": Scope.CREATE_SUBSCRIPTIONS,
    "READ": Scope.READ_SUBSCRIPTIONS,
    "UPDATE": Scope.UPDATE_SUBSCRIPTIONS,
    "DELETE": Scope.DELETE_SUBSCRIPTIONS,
}


def body_for(method: str, path: str) -> object:
    return ORDER if (method, path) in (("POST", ""), ("PUT", "/{id}")) else {}


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_each_permission_opens_its_operations_and_no_other(account: Account, permission: str):
    made = account.native.post("/v1/keys", {"scopes": [PERMISSIONS[permission]]}, 201)
    key = account.native.as_key(made["secret"])
    for method, path, needed in OPERATIONS:
        there = account.make()["id"]
        answer = key.call(method, account.path + path.format(id=there), body_for(method, path))
        if needed == permission:
            assert answer.status in (200, 201, 204), (method, path, answer.body)
        else:
            assert answer.status == 403
            assert answer.json["error"] == {
                "code": "forbidden",
                "message": f"this key lacks the permission EVENT_SUBSCRIPTIONS.{needed}",
                "details": [],
            }


def test_a_key_that_only_publishes_may_nothing(account: Account):
    made = account.native.post("/v1/keys", {"scopes": [Scope.PUBLISH]}, 201)
    key = account.native.as_key(made["secret"])
    assert {key.call(method, account.path + path, {}).status for method, path, _ in OPERATIONS} == {403}


def test_without_a_good_key_nothing_is_said(api: Api, account: Account):
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answer = api.as_key("").call("GET", account.path, headers=headers)
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="avvyr"'


def test_another_account_looks_the_same_as_none(api: Api, account: Account):
    other = Account(api)
    there = other.make()["id"]
    answers = [
        account.native.call(
            method, f"/avvyr/v1/{code}/account/event-subscriptions{path.format(id=there)}", {}
        )
        for code in (other.code, "nobody", account.code.upper(), "%00", "a%2Fb", "é" * 70)
        for method, path, _ in OPERATIONS
    ]
    assert {answer.status for answer in answers} == {401, 404}
    routed = [answer for answer in answers if answer.status == 401]
    assert len(routed) >= 4 * len(OPERATIONS)
    assert len({answer.body for answer in routed}) == 1
    assert other.good("GET", f"/{there}")["id"] == there


def test_a_subscription_of_another_account_is_not_there(api: Api, account: Account):
    there = Account(api).make()["id"]
    missing = f"sub_{'0' * 32}"
    for method, path, _ in OPERATIONS:
        if "{id}" in path:
            answers = [
                account.call(method, path.format(id=wanted), body_for(method, path))
                for wanted in (there, missing)
            ]
            assert {answer.status for answer in answers} == {404}
            assert len({answer.body for answer in answers}) == 1


def test_an_operator_acts_for_every_account_there_is(api: Api, account: Account):
    made = account.make()
    assert api.get(f"{account.path}/{made['id']}") == made
    assert api.call("GET", "/avvyr/v1/nobody/account/event-subscriptions").status == 401
    assert api.call("GET", "/avvyr/v1/%00/account/event-subscriptions").status == 401


def test_subscriptions_of_other_profiles_are_not_there(account: Account):
    body = {"url": DESTINATION, "profile": "standard", "name": "native", "events": ["orderCreated"]}
    native = account.native.post("/v1/subscriptions", body, 201)["id"]
    assert account.good("GET")["data"] == []
    assert account.good("GET", "/search?comment=native")["data"] == []
    for method, path, _ in OPERATIONS:
        if "{id}" in path:
            assert account.call(method, path.format(id=native), ORDER).status == 404
    assert account.native.get(f"/v1/subscriptions/{native}")["state"] == "active"


def test_where_webhooks_are_switched_off_nothing_is_made_changed_or_sent(api: Api, account: Account):
    made = account.make()
    api.patch(f"/v1/tenants/{account.code}", {"webhooks": False})
    for method, path in [("POST", ""), ("PATCH", f"/{made['id']}"), ("POST", f"/{made['id']}/test")]:
        answer = account.call(method, path, ORDER if not path else {})
        assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden")
    assert not account.good("GET", f"/{made['id']}")["enabled"]
    assert account.call("DELETE", f"/{made['id']}").status == 204


# --- errorEmail ----------------------------------------------------------------------------------------------


def test_an_error_email_has_one_companion_that_the_api_hides(account: Account):
    made = account.make(errorEmail="ops@example.com")
    assert made["errorEmail"] == "ops@example.com"
    assert made["enabled"]
    (companion,) = account.companions()
    assert companion["url"] == "mailto:ops@example.com"
    assert companion["events"] == ["hookline.delivery.failed"]
    assert companion["filter"] == f'data.subscription_id == "{made["id"]}"'
    assert companion["metadata"] == {"hookline.companion_of": made["id"]}
    assert companion["enabled"]
    assert [each["id"] for each in account.good("GET")["data"]] == [made["id"]]
    assert [each["id"] for each in account.good("GET", "/search?comment=errorEmail")["data"]] == []
    assert account.call("GET", f"/{companion['id']}").status == 404


def test_the_companion_follows_its_parent(account: Account):
    other = account.make(errorEmail="other@example.com")
    made = account.make()
    path = f"/{made['id']}"

    def addresses() -> list[str]:
        found = account.companions()
        mine = [each for each in found if each["metadata"] == {"hookline.companion_of": made["id"]}]
        assert len(found) == len(mine) + 1
        return [each["url"] for each in mine]

    assert account.good("PATCH", path, {"errorEmail": "a@example.com"})["errorEmail"] == "a@example.com"
    assert addresses() == ["mailto:a@example.com"]
    account.good("PATCH", path, {"comment": "unchanged"})
    account.good("PATCH", path, {"errorEmail": "b@example.com", "enabled": False})
    assert addresses() == ["mailto:b@example.com"]
    assert account.good("PUT", path, ORDER)["errorEmail"] is None
    assert addresses() == []
    account.good("PATCH", path, {"errorEmail": "c@example.com"})
    account.good("PATCH", path, {"errorEmail": ""})
    assert addresses() == []
    account.good("PATCH", path, {"errorEmail": "d@example.com"})
    account.call("DELETE", path)
    assert addresses() == []
    assert account.good("GET", f"/{other['id']}")["errorEmail"] == "other@example.com"


def test_a_creation_that_breaks_off_leaves_nothing_running(account: Account, storage: Flaky):
    body = {**ORDER, "errorEmail": "ops@example.com"}
    storage.fails = {"create": 1}
    assert account.call("POST", "", body).status == 503
    (left,) = account.all()
    assert (left["profile"], left["state"]) == ("avvyr", "paused")
    account.good("PATCH", f"/{left['id']}", {"enabled": True})
    assert len(account.companions()) == 1
    storage.fails = {"state": 0}
    assert account.call("POST", "", body).status == 503
    assert [each["state"] for each in account.all() if each["profile"] == "avvyr"] == ["active", "paused"]


@pytest.mark.parametrize("broken", ["create", "update"])
def test_a_change_that_breaks_off_is_made_good_by_the_next(account: Account, storage: Flaky, broken: str):
    made = account.make(**({"errorEmail": "old@example.com"} if broken == "update" else {}))
    storage.fails = {broken: 1 if broken == "update" else 0}
    change = {"errorEmail": "new@example.com"}
    assert account.call("PATCH", f"/{made['id']}", change).status == 503
    for _ in range(2):
        account.good("PATCH", f"/{made['id']}", change)
        assert [each["url"] for each in account.companions()] == ["mailto:new@example.com"]


def test_a_deletion_that_breaks_off_leaves_no_mails_behind(account: Account, storage: Flaky):
    made = account.make(errorEmail="ops@example.com")
    storage.fails = {"state": 1}
    assert account.call("DELETE", f"/{made['id']}").status == 503
    assert account.companions() == []
    assert account.call("DELETE", f"/{made['id']}").status == 204
    assert account.all() == []


def test_a_deletion_at_the_time_of_a_change_leaves_no_mails_behind(account: Account, storage: Flaky):
    path = f"/{account.make()['id']}"
    storage.meanwhile = {"create": lambda: account.good("DELETE", path)}
    assert account.call("PATCH", path, {"errorEmail": "ops@example.com"}).status == 404
    assert (account.all(), storage.meanwhile) == ([], {})


def test_a_change_at_the_time_of_a_deletion_leaves_no_mails_behind(account: Account, storage: Flaky):
    path = f"/{account.make()['id']}"
    storage.meanwhile = {"state": lambda: account.good("PATCH", path, {"errorEmail": "ops@example.com"})}
    assert account.call("DELETE", path).status == 204
    assert (account.all(), storage.meanwhile) == ([], {})


def test_an_address_that_went_wrong_is_named_before_anything_changes(account: Account):
    made = account.make()
    account.native.patch(f"/v1/subscriptions/{made['id']}", {"metadata": {"avvyr.error_email": "no one"}})
    before = account.good("GET", f"/{made['id']}")
    assert list(account.faults("PATCH", f"/{made['id']}", {"comment": "x"})) == ["errorEmail"]
    assert account.good("GET", f"/{made['id']}") == before
    assert account.change(made, comment="x", errorEmail=None)["errorEmail"] is None


def test_companions_made_at_the_same_time_end_as_one(account: Account):
    made = account.make(errorEmail="ops@example.com")
    (first,) = account.companions()
    again = {name: first[name] for name in ("url", "events", "profile", "filter", "metadata")}
    account.native.post("/v1/subscriptions", again, 201)
    account.native.post(f"/v1/subscriptions/{first['id']}/pause")
    forged = {"url": DESTINATION, "profile": "standard", "metadata": first["metadata"]}
    kept = account.native.post("/v1/subscriptions", forged, 201)["id"]
    account.change(made, comment="x")
    assert [(each["id"], each["state"]) for each in account.companions()] == [(first["id"], "active")]
    account.call("DELETE", f"/{made['id']}")
    assert [each["id"] for each in account.all()] == [kept]


@pytest.mark.parametrize(
    "address",
    [
        "no-address",
        "@example.com",
        "a@",
        "a b@example.com",
        "a@example.com,b@example.com",
        "a@example.com\r\nBcc: b@example.com",
        "a@example.com?cc=b@example.com",
        '"a"@example.com',
        f"{'a' * 300}@example.com",
        "mailto:a@example.com",
        "é@example.com",
    ],
)
def test_only_one_plain_address_is_an_error_email(account: Account, address: str):
    assert list(account.faults("POST", "", {**ORDER, "errorEmail": address})) == ["errorEmail"]
    made = account.make()
    assert list(account.faults("PATCH", f"/{made['id']}", {"errorEmail": address})) == ["errorEmail"]
    assert account.companions() == []


def test_without_a_mail_server_an_error_email_is_refused_but_does_not_stand_in_the_way(
    account: Account, monkeypatch: pytest.MonkeyPatch
):
    made = account.make(errorEmail="ops@example.com")
    subscriptions = account.services.subscriptions
    monkeypatch.setattr(subscriptions, "_rules", structs.replace(subscriptions._rules, mail=False))
    faults = account.faults("POST", "", {**ORDER, "errorEmail": "ops@example.com"})
    assert list(faults) == ["errorEmail"]
    assert "HOOKLINE_SMTP_URL" in faults["errorEmail"]
    assert account.change(made, comment="x")["errorEmail"] == "ops@example.com"
    assert account.change(made, errorEmail=None)["errorEmail"] is None


# --- hostile input -------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_named_at_once(account: Account):
    body = {
        "eventTyp": "orderCreated",
        "eventType": "ordersCreated",
        "destination": "https://10.0.0.1/hooks",
        "enabled": "yes",
        "authType": "hmac",
        "hmacSecret": "",
        "authToken": "left over",
        "retryEnabled": 1,
        "retryCount": 101,
        "comment": "two\nlines",
        "errorEmail": "nobody",
        "additionalHeaders": {"Host": "evil", "X-A": "a\r\nX-B: b", "webhook-id": "1"},
        "createdAt": "now",
    }
    faults = account.faults("POST", "", body)
    headers = {f"additionalHeaders.{name}" for name in ("Host", "X-A", "webhook-id")}
    assert set(faults) == set(body) - {"authType", "additionalHeaders"} | headers
    assert faults["eventTyp"] == "is not known; did you mean 'eventType'?"
    assert faults["eventType"] == "is not known; did you mean 'orderCreated'?"
    assert "private address" in faults["destination"]
    assert faults["hmacSecret"] == "is required for authType hmac"
    assert faults["authToken"] == "does not belong to authType hmac; leave it out"
    assert account.all() == []
    made = account.make()
    changed = account.faults(
        "PATCH", f"/{made['id']}", {name: body[name] for name in body if name != "createdAt"}
    )
    assert changed == {name: message for name, message in faults.items() if name != "createdAt"}
    assert account.good("GET", f"/{made['id']}") == made


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"eventType", "destination"}),
        ({"eventType": "", "destination": ""}, {"eventType", "destination"}),
        ({**ORDER, "eventType": "*"}, {"eventType"}),
        ({**ORDER, "eventType": "order*"}, {"eventType"}),
        ({**ORDER, "eventType": "hookline.delivery.failed"}, {"eventType"}),
        ({**ORDER, "eventType": "orderCreated, orderUpdated"}, {"eventType"}),
        ({**ORDER, "eventType": ["orderCreated"]}, {"eventType"}),
        ({**ORDER, "eventType": "x" * 100_000}, {"eventType"}),
        ({**ORDER, "eventType": "\x00"}, {"eventType"}),
        ({**ORDER, "destination": "ftp://example.com/"}, {"destination"}),
        ({**ORDER, "destination": "mailto:a@example.com"}, {"destination"}),
        ({**ORDER, "destination": "https://224.0.0.1/"}, {"destination"}),
        ({**ORDER, "destination": "https://169.254.169.254/latest"}, {"destination"}),
        ({**ORDER, "destination": "https://[::ffff:10.0.0.1]/"}, {"destination"}),
        ({**ORDER, "destination": "https://0x0a000001/"}, {"destination"}),
        ({**ORDER, "destination": "https://u:p@example.com/"}, {"destination"}),
        ({**ORDER, "destination": f"https://example.com/{'a' * 3000}"}, {"destination"}),
        ({**ORDER, "destination": "https://example.com/a b\r\nX: y"}, {"destination"}),
        ({**ORDER, "authType": "HMAC"}, {"authType"}),
        ({**ORDER, "authType": 5, "hmacSecret": "x"}, {"authType"}),
        ({**ORDER, "authType": "api_key"}, {"authType"}),
        ({**ORDER, "authType": "basic"}, {"authUsername", "authPassword"}),
        ({**ORDER, "authType": "basic", "authUsername": "a:b", "authPassword": "p"}, {"authUsername"}),
        ({**ORDER, "authType": "basic", "authUsername": "a", "authPassword": "p\n"}, {"authPassword"}),
        ({**ORDER, "authType": "basic", "authUsername": "a", "authPassword": MASK}, {"authPassword"}),
        ({**ORDER, "authType": "bearer"}, {"authToken"}),
        ({**ORDER, "authType": "bearer", "authToken": "a\r\nX: y"}, {"authToken"}),
        ({**ORDER, "authType": "bearer", "authToken": MASK}, {"authToken"}),
        ({**ORDER, "authType": "hmac"}, {"hmacSecret"}),
        ({**ORDER, "authType": "hmac", "hmacSecret": MASK}, {"hmacSecret"}),
        ({**ORDER, "authType": "hmac", "hmacSecret": "s" * 257}, {"hmacSecret"}),
        ({**ORDER, "authType": "hmac", "hmacSecret": {"a": 1}}, {"hmacSecret"}),
        ({**ORDER, "authToken": "t"}, {"authToken"}),
        ({**ORDER, "retryCount": -1}, {"retryCount"}),
        ({**ORDER, "retryCount": 1.5}, {"retryCount"}),
        ({**ORDER, "retryCount": "3"}, {"retryCount"}),
        ({**ORDER, "retryCount": 10**30}, {"retryCount"}),
        ({**ORDER, "retryCount": True}, {"retryCount"}),
        ({**ORDER, "comment": "c" * 201}, {"comment"}),
        ({**ORDER, "additionalHeaders": "X-A: 1"}, {"additionalHeaders"}),
        ({**ORDER, "additionalHeaders": {"X-A": 1}}, {"additionalHeaders.X-A"}),
        ({**ORDER, "additionalHeaders": {"X-A": MASK}}, {"additionalHeaders.X-A"}),
        ({**ORDER, "additionalHeaders": {"X-A: 1\r\nX-B": "1"}}, {"additionalHeaders.X-A: 1\r\nX-B"}),
        ({**ORDER, "additionalHeaders": {"X-Webhook-Event": "1"}}, {"additionalHeaders.X-Webhook-Event"}),
        (
            {**ORDER, "additionalHeaders": {"x-webhook-delivery": "1"}},
            {"additionalHeaders.x-webhook-delivery"},
        ),
        (
            {**ORDER, "additionalHeaders": {"X-Webhook-Signature": "1"}},
            {"additionalHeaders.X-Webhook-Signature"},
        ),
        (
            {**ORDER, "authType": "bearer", "authToken": "t", "additionalHeaders": {"authorization": "x"}},
            {"additionalHeaders.authorization"},
        ),
        ({**ORDER, "additionalHeaders": {f"X-{n}": "1" for n in range(60)}}, {"additionalHeaders"}),
        (
            {**ORDER, "additionalHeaders": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]},
            {"additionalHeaders[1].name"},
        ),
        (
            {**ORDER, "additionalHeaders": [{"name": "A"}, {"nam": "A", "value": "1"}, "x"]},
            {
                "additionalHeaders[0].value",
                "additionalHeaders[1].nam",
                "additionalHeaders[1].name",
                "additionalHeaders[2]",
            },
        ),
        ({**ORDER, "id": "sub_1", "createdAt": "x", "updatedAt": "x"}, {"id", "createdAt", "updatedAt"}),
        ({**ORDER, "a.b": 1, "": 2, "signing": {}}, {"a.b", "", "signing"}),
        ([ORDER], {""}),
        ("text", {""}),
        (None, {""}),
    ],
)
def test_a_fault_is_named(account: Account, body: object, fields: set[str]):
    raw = json.dumps(body).encode()
    answer = account.call("POST", raw=raw)
    assert answer.status == 400, answer.body
    error = answer.json["error"]
    assert error["code"] == "invalid_input"
    assert error["message"]
    assert {each["field"] for each in error["details"]} == fields
    assert all(each["message"] for each in error["details"])
    assert account.all() == []


def test_the_id_cannot_be_changed(account: Account):
    made = account.make()
    assert list(account.faults("PUT", f"/{made['id']}", {**ORDER, "id": f"sub_{'0' * 32}"})) == ["id"]


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"eventType":"a","eventType":"b"}', 400, "invalid_json"),
        (b'{"retryCount":NaN}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"comment":"' + b"a" * (1 << 20) + b'"}', 413, "too_large"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_is_no_json_of_a_bearable_size(account: Account, raw: bytes, status: int, code: str):
    made = account.make()
    for method, path in [("POST", ""), ("PUT", f"/{made['id']}"), ("PATCH", f"/{made['id']}")]:
        answer = account.call(method, path, raw=raw)
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert account.good("GET", f"/{made['id']}") == made


def test_a_body_has_to_be_json_by_its_content_type(account: Account):
    raw = json.dumps(ORDER).encode()
    for content_type, status in [
        ("application/json; charset=utf-8", 201),
        ("application/merge-patch+json", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ]:
        answer = account.call("POST", raw=raw, headers={"Content-Type": content_type})
        assert answer.status == status
        assert "error" in answer.json or status == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "", 405),
        ("PUT", "/search", 405),
        ("GET", "/sub_1/test", 405),
        ("GET", "/sub_1/nothing", 404),
        ("GET", "/sub_1", 404),
        ("GET", "/%00", 404),
        ("GET", "/..%2f..", 404),
        ("GET", "/" + "a" * 1000, 404),
        ("POST", "//", 404),
    ],
)
def test_other_paths_and_methods_answer_in_the_same_form(
    account: Account, method: str, path: str, status: int
):
    answer = account.call(method, path, ORDER if method in ("POST", "PUT") else None)
    assert answer.status == status
    assert set(answer.json["error"]) == {"code", "message", "details"}
    assert answer.headers["X-Request-Id"]
    assert ("Allow" in answer.headers) == (status == 405)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [*FULL, "authToken", "hmacSecret", "errorEmail", "id", "unknown"]


def test_no_body_breaks_it(account: Account):
    made = account.make()
    path = f"/{made['id']}"

    @given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=5) | ANY_JSON)
    def whatever(body: object) -> None:
        raw = json.dumps(body).encode()
        for method, place in [("POST", ""), ("PATCH", path), ("PUT", path), ("POST", "/search")]:
            answer = account.call(method, place, raw=raw)
            assert answer.status in (200, 201, 400), answer.body
            assert answer.status != 400 or answer.json["error"]["message"]

    whatever()
