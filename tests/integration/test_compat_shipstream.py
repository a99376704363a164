"""The compatible API of ShipStream over HTTP: the envelope, who may do what, and each method in each of its forms."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from hookline.api import Options
from hookline.core.errors import StorageUnavailable
from hookline.core.model import LaneState, SubscriptionState
from hookline.engine.manage import MASK
from hookline.ports import Record
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import Answer, Api, api_server
from tests.integration.receivers import answer_ok, receiver

PATH = "/shipstream/api/jsonrpc"
URL = "http://127.0.0.1:49151/hooks"
WEBHOOK = {
    "is_active": 1,
    "topics": ["order:created", "order:canceled"],
    "url": URL,
    "extra_headers": "",
    "secret_key": "2RUJ8NXLnLRrAj3",
}
BODY_BYTES = 64 * 1024

PARSE, INVALID, NO_METHOD, PARAMS = -32700, -32600, -32601, -32602
DENIED, BAD_PATH, NOT_CALLABLE, EXPIRED, MISSING = -32002, -32003, -32004, -32005, -32006
STATUS, CREATE_DATA, CREATE_CRASH, UNKNOWN, DELETE_CRASH, NOT_CREATED = (
    -32100,
    -32101,
    -32102,
    -32103,
    -32104,
    -32106,
)
INTERNAL = -32603


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def on_disk() -> SqliteStorage:
        return SqliteStorage(tmp_path_factory.mktemp("api") / "hookline.db")

    with api_server(on_disk, Options(body_bytes=BODY_BYTES)) as running:
        yield running


class Shop:
    """A client of one tenant."""

    def __init__(self, native: Api, tenant: str) -> None:
        self.native = native
        self.tenant = tenant
        self.basic = {"Authorization": basic(tenant, native.key)}

    def send(self, body: object, headers: dict[str, str] | None = None, path: str = PATH) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        as_nobody = self.native.as_key("")
        given = self.basic if headers is None else headers
        return as_nobody.call("POST", path, raw=raw, headers=given)

    def answer(self, method: str, params: object, headers: dict[str, str] | None = None) -> Any:
        """The answer to one call, which comes with status 200 whatever it says."""
        answer = self.send({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, headers)
        assert answer.status == 200, answer
        assert answer.json["id"] == 7
        assert answer.json["jsonrpc"] == "2.0"
        return answer.json

    def result(self, name: str, *arguments: object) -> Any:
        """What ``webhook.<name>`` returns."""
        answer = self.answer("call", [None, f"webhook.{name}", list(arguments)])
        assert "error" not in answer, answer
        return answer["result"]

    def error(self, name: str, *arguments: object) -> Any:
        """What ``webhook.<name>`` refuses with."""
        return self.failure(self.answer("call", [None, f"webhook.{name}", list(arguments)]))

    @staticmethod
    def failure(answer: Any) -> Any:
        assert "result" not in answer, answer
        return answer["error"]

    def make(self, **fields: object) -> int:
        """Create a webhook; its id."""
        assert self.result("create", WEBHOOK | fields) is True
        return self.result("list")[-1]["webhook_id"]

    def active(self) -> dict[int, int]:
        return {webhook["webhook_id"]: webhook["is_active"] for webhook in self.result("list")}

    def key(self, *scopes: str) -> dict[str, str]:
        """The credentials of a further key."""
        made = self.native.post("/v1/keys", {"name": "k", "scopes": list(scopes)}, 201)
        return {"Authorization": basic(self.tenant, made["secret"])}


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def shop(api: Api, request: pytest.FixtureRequest) -> Shop:
    name = f"t{abs(hash(request.node.nodeid))}"
    return Shop(api.new_tenant(name, profile="shipstream"), name)


def faults(error: Any) -> dict[str, str]:
    return {fault["field"]: fault["message"] for fault in error["data"]["faults"]}


# --- the envelope -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ['"2.0"', "2.0", "2"])
@pytest.mark.parametrize("call_id", ['"6612c3f0a1b2c"', "1234", "-5", "1.5", "null"])
def test_a_call_is_answered_with_its_id_whatever_form_version_and_id_have(
    shop: Shop, version: str, call_id: str
):
    body = f'{{"jsonrpc":{version},"id":{call_id},"method":"call","params":[null,"webhook.list",[]]}}'
    answer = shop.send(body.encode())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"jsonrpc": "2.0", "id": json.loads(call_id), "result": []}


@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_a_slash_behind_the_path_and_any_content_type_are_accepted(shop: Shop, path: str):
    call = {"jsonrpc": 2.0, "id": 1, "method": "call", "params": [None, "webhook.list"]}
    form = {**shop.basic, "Content-Type": "application/x-www-form-urlencoded"}
    assert shop.send(call, form, path).json["result"] == []


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", PARSE, "not valid JSON"),
        (b"{", PARSE, "not valid JSON"),
        (b"\xff\xfe", PARSE, "not valid JSON"),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"call"}', PARSE, "not valid JSON"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"call"}', PARSE, "'id' occurs twice"),
        (b"[" * 30_000, PARSE, "nested too deeply"),
        (b"7", INVALID, "JSON object"),
        (b"null", INVALID, "JSON object"),
        (b'"call"', INVALID, "JSON object"),
        (b"{}", INVALID, 'jsonrpc: must be "2.0"; method: must be a text'),
        (b'{"jsonrpc":"1.0","method":"call"}', INVALID, "jsonrpc"),
        (b'{"jsonrpc":true,"method":"call"}', INVALID, "jsonrpc"),
        (b'{"jsonrpc":"2.0","id":[1],"method":"call"}', INVALID, "id: must be"),
        (b'{"jsonrpc":"2.0","id":true,"method":"call"}', INVALID, "id: must be"),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 201 + b'","method":"call"}', INVALID, "id: must be"),
        (b"[]", INVALID, "1 to 50 calls"),
        (b"[" + b",".join([b"1"] * 51) + b"]", INVALID, "this one has 51"),
    ],
)
def test_what_is_no_request_is_told_so(shop: Shop, body: bytes, code: int, says: str):
    answer = shop.send(body)
    assert answer.status == 200
    assert answer.json["id"] is None
    assert answer.json["error"]["code"] == code
    assert says in answer.json["error"]["message"]


def test_the_id_of_a_bad_request_is_given_back_if_it_can_be_read(shop: Shop):
    assert shop.send({"id": 5, "method": "call"}).json["id"] == 5


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("webhook.list", [], NO_METHOD),
        ("endSession", [], NO_METHOD),
        ("", [], NO_METHOD),
        ("call", {"path": "webhook.list"}, PARAMS),
        ("call", "webhook.list", PARAMS),
        ("call", None, PARAMS),
        ("call", [None], MISSING),
        ("call", [], None),
        ("call", [None, "webhook.list", [], 1], PARAMS),
        ("call", [None, "webhook.list", [1]], PARAMS),
        ("call", [["x"], "webhook.list"], PARAMS),
        ("call", [None, 5], BAD_PATH),
        ("call", [None, None], BAD_PATH),
        ("call", [None, "webhook"], BAD_PATH),
        ("call", [None, "order.search", []], BAD_PATH),
        ("call", [None, "webhook.", []], NOT_CALLABLE),
        ("call", [None, "webhook.info", [1]], NOT_CALLABLE),
        ("login", {}, PARAMS),
        ("login", [], MISSING),
        ("login", ["shop"], MISSING),
        ("login", ["shop", None], MISSING),
        ("login", ["shop", 5], PARAMS),
        ("login", ["shop", "key", "more"], PARAMS),
    ],
)
def test_a_call_that_cannot_be_understood_has_the_code_of_its_fault(
    shop: Shop, method: str, params: object, code: int | None
):
    error = shop.failure(shop.answer(method, params))
    assert error["code"] == (MISSING if code is None else code)
    assert error["message"]


def test_a_batch_is_answered_in_order_with_an_error_where_one_is_wrong(shop: Shop):
    made = {"jsonrpc": "2.0", "id": "a", "method": "call", "params": [None, "webhook.create", [WEBHOOK]]}
    asked = {"jsonrpc": "2.0", "id": "b", "method": "call", "params": [None, "webhook.list"]}
    silent = {"jsonrpc": "2.0", "method": "call", "params": [None, "webhook.create", [WEBHOOK]]}
    answers = shop.send([made, silent, 5, asked]).json
    assert [answer["id"] for answer in answers] == ["a", None, "b"]
    assert answers[0]["result"] is True
    assert answers[1]["error"]["code"] == INVALID
    assert len(answers[2]["result"]) == 2


def test_a_notification_is_done_and_not_answered(shop: Shop):
    call = {"jsonrpc": "2.0", "method": "call", "params": [None, "webhook.create", [WEBHOOK]]}
    for body in (call, [call, call], {**call, "params": [None, "webhook.create", [{}]]}):
        answer = shop.send(body)
        assert (answer.status, answer.body) == (204, b"")
    assert len(shop.result("list")) == 3


def test_errors_of_http_keep_their_status_and_speak_json_rpc(shop: Shop):
    large = shop.send(b'"' + b"x" * BODY_BYTES + b'"')
    assert (large.status, large.json["error"]["code"]) == (413, INVALID)
    got = shop.native.call("GET", PATH, headers=shop.basic)
    assert (got.status, got.headers["allow"], got.json["error"]["code"]) == (405, "POST", INVALID)
    lost = shop.send({}, path="/shipstream/api/xmlrpc")
    assert (lost.status, lost.json["error"]["code"]) == (404, INVALID)
    assert lost.json["id"] is None


# --- who calls --------------------------------------------------------------------------------------------


def session_of(shop: Shop) -> str:
    return shop.answer("login", [shop.tenant, shop.native.key], {})["result"]


def test_a_session_stands_for_the_key_that_opened_it(shop: Shop):
    session = session_of(shop)
    assert len(session) == 32
    assert set(session) <= set("0123456789abcdef")
    made = shop.answer("call", [session, "webhook.create", [WEBHOOK]], {})
    assert made["result"] is True
    listed = shop.answer("call", [session, "webhook.list", []], {})["result"]
    assert [webhook["secret_key"] for webhook in listed] == ["2RUJ8NXLnLRrAj3"]


def test_a_session_has_no_more_rights_than_its_key(shop: Shop):
    weak = shop.key("read")["Authorization"]
    key = shop.native.post("/v1/keys", {"name": "weak", "scopes": ["read"]}, 201)["secret"]
    session = shop.answer("login", [shop.tenant, key], {})["result"]
    for params, headers in (([session], {}), ([None], {"Authorization": weak})):
        error = shop.failure(shop.answer("call", [*params, "webhook.create", [WEBHOOK]], headers))
        assert error["code"] == DENIED
        assert "subscriptions:create" in error["message"]


@pytest.mark.parametrize("session", ["0" * 32, "x", "ü", "'; --", "\x00"])
def test_a_session_that_is_none_has_expired(shop: Shop, session: str):
    error = shop.failure(shop.answer("call", [session, "webhook.list", []], {}))
    assert error == {"code": EXPIRED, "message": "Session expired. Try to relogin."}


def test_a_key_is_no_session(shop: Shop):
    error = shop.failure(shop.answer("call", [shop.native.key, "webhook.list", []], {}))
    assert error["code"] == EXPIRED


def test_a_session_ends_with_its_time_and_with_its_key(api: Api, shop: Shop):
    services = api.services
    made = shop.native.post("/v1/keys", {"name": "k", "scopes": ["read"]}, 201)
    owner = api.run(services.keyring.find_secret(made["secret"]))
    over = api.run(services.tenants.log_in(owner.key, 0))
    assert shop.failure(shop.answer("call", [over, "webhook.list"], {}))["code"] == EXPIRED
    session = shop.answer("login", [shop.tenant, made["secret"]], {})["result"]
    assert shop.answer("call", [session, "webhook.list"], {})["result"] == []
    assert shop.native.call("DELETE", f"/v1/keys/{owner.key.id}").status < 300
    assert shop.failure(shop.answer("call", [session, "webhook.list"], {}))["code"] == EXPIRED


def test_a_session_lasts_24_hours(api: Api, shop: Shop):
    session = session_of(shop)
    key = api.run(api.services.keyring.find_secret(session)).key
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == 24 * 3600 * 1000


def test_login_is_denied_without_a_key_of_the_tenant(api: Api, shop: Shop):
    other = api.new_tenant(f"{shop.tenant}o", profile="shipstream")
    session = session_of(shop)
    wrong = [
        (shop.tenant, "hk_wrong"),
        (shop.tenant, ""),
        (shop.tenant, other.key),
        (f"{shop.tenant}o", shop.native.key),
        ("", shop.native.key),
        (shop.tenant, session),
        (shop.tenant, api.key),
    ]
    for user, key in wrong:
        assert shop.failure(shop.answer("login", [user, key], {}))["code"] == DENIED, user


def test_wrong_credentials_of_http_are_refused_before_anything_else(api: Api, shop: Shop):
    other = api.new_tenant(f"{shop.tenant}o", profile="shipstream")
    wrong = [
        basic(shop.tenant, "wrong"),
        basic("other", shop.native.key),
        basic(shop.tenant, other.key),
        basic(shop.tenant, session_of(shop)),
        f"Bearer {shop.native.key}",
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b"\xff\xfe:x").decode(),
    ]
    for authorization in wrong:
        answer = shop.send({"jsonrpc": "2.0"}, {"Authorization": authorization})
        assert answer.status == 401, authorization
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert answer.json["error"]["code"] == DENIED
        assert answer.json["id"] is None


def test_without_any_credentials_the_client_is_asked_for_them_and_nothing_is_done(shop: Shop):
    create = {"jsonrpc": "2.0", "id": 3, "method": "call", "params": [None, "webhook.create", [WEBHOOK]]}
    with_session = {**create, "params": [session_of(shop), "webhook.create", [WEBHOOK]]}
    for body, call_id in ((create, 3), ([with_session, create], None)):
        answer = shop.send(body, {})
        assert (answer.status, answer.json["error"]["code"]) == (401, DENIED)
        assert answer.json["id"] == call_id
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert shop.result("list") == []


def test_an_operator_acts_for_the_tenant_that_it_names(api: Api, shop: Shop):
    shop.make()
    call = ["call", [None, "webhook.list"], {"Authorization": basic(shop.tenant, api.key)}]
    assert len(shop.answer(*call)["result"]) == 1
    nobody = shop.send({}, {"Authorization": basic("nobody-there", api.key)})
    assert nobody.status == 401


def test_each_method_needs_its_scope(shop: Shop):
    webhook_id = shop.make()
    needed = {
        "list": ("subscriptions:read", []),
        "create": ("subscriptions:create", [WEBHOOK]),
        "update_status": ("subscriptions:update", [{"status": 1}]),
        "delete": ("subscriptions:delete", [webhook_id]),
    }
    scopes = {scope for scope, _ in needed.values()}
    for name, (scope, arguments) in needed.items():
        others = shop.key(*sorted(scopes - {scope}))
        refused = shop.failure(shop.answer("call", [None, f"webhook.{name}", arguments], others))
        assert refused["code"] == DENIED
        assert scope in refused["message"]
    for name, (scope, arguments) in needed.items():
        answer = shop.answer("call", [None, f"webhook.{name}", arguments], shop.key(scope))
        assert "result" in answer, answer


# --- webhook.list and webhook.create ----------------------------------------------------------------------


def test_a_webhook_is_listed_as_the_page_shows_it(shop: Shop):
    webhook_id = shop.make()
    assert shop.result("list") == [
        {
            "webhook_id": webhook_id,
            "increment_id": 0,
            "is_active": 1,
            "topics": "order:created,order:canceled",
            "url": URL,
            "extra_headers": "",
            "secret_key": "2RUJ8NXLnLRrAj3",
        }
    ]
    assert isinstance(webhook_id, int)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"is_active": True}, {"is_active": 1}),
        ({"is_active": "1"}, {"is_active": 1}),
        ({"is_active": 0}, {"is_active": 0}),
        ({"is_active": False}, {"is_active": 0}),
        ({"is_active": "0"}, {"is_active": 0}),
        ({"topics": "order:created"}, {"topics": "order:created"}),
        ({"topics": "order:created, order:canceled,"}, {"topics": "order:created,order:canceled"}),
        ({"topics": ["order:created", "order:created"]}, {"topics": "order:created"}),
        ({"topics": "order:*"}, {"topics": "order:*"}),
        ({"topics": ["*"]}, {"topics": "*"}),
        ({"extra_headers": "X-One: 1"}, {"extra_headers": "X-One: 1"}),
        ({"extra_headers": "X-One:1\r\n\nX-Two :  b: c "}, {"extra_headers": "X-One: 1\nX-Two: b: c"}),
        ({"extra_headers": ["X-One: 1", "X-Two: 2"]}, {"extra_headers": "X-One: 1\nX-Two: 2"}),
        ({"extra_headers": {"X-One": "1"}}, {"extra_headers": "X-One: 1"}),
        ({"extra_headers": None}, {"extra_headers": ""}),
        ({"extra_headers": []}, {"extra_headers": ""}),
        ({"secret_key": "ключ / schlüssel"}, {"secret_key": "ключ / schlüssel"}),
    ],
)
def test_every_form_of_a_field_is_understood(shop: Shop, given: dict[str, object], kept: dict[str, object]):
    shop.make(**given)
    (listed,) = shop.result("list")
    assert listed == listed | kept


def test_what_is_not_given_has_a_default(shop: Shop):
    assert shop.result("create", {"topics": "*", "url": URL}) is True
    assert shop.result("create", {"topics": "*", "url": URL, "secret_key": ""}) is True
    first, second = shop.result("list")
    assert (first["is_active"], first["extra_headers"]) == (1, "")
    assert len({first["secret_key"], second["secret_key"]}) == 2
    assert min(len(first["secret_key"]), len(second["secret_key"])) >= 32


@pytest.mark.parametrize("form", [lambda webhook: webhook, lambda webhook: [webhook]])
def test_the_argument_may_stand_with_or_without_its_array(shop: Shop, form: Any):
    assert shop.answer("call", [None, "webhook.create", form(WEBHOOK)])["result"] is True


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"is_active": 2}, "is_active", "must be 0 or 1"),
        ({"is_active": "yes"}, "is_active", "must be 0 or 1"),
        ({"is_active": None}, "is_active", "must be 0 or 1"),
        ({"is_active": [1]}, "is_active", "must be 0 or 1"),
        ({"topics": ""}, "topics", "name 1 to 200"),
        ({"topics": []}, "topics", "name 1 to 200"),
        ({"topics": ["a"] * 3 + [5]}, "topics[3]", "must be a text"),
        ({"topics": {"0": "order:created"}}, "topics", "must be an array"),
        ({"topics": "order created"}, "topics[0]", "letters, digits"),
        ({"topics": ["*:created"]}, "topics[0]", "may only stand at the end"),
        ({"topics": [f"t{number}" for number in range(201)]}, "topics", "name 1 to 200"),
        ({"topics": None}, "topics", "is required"),
        ({"url": None}, "url", "is required"),
        ({"url": 5}, "url", "expected `str`"),
        ({"url": "ftp://127.0.0.1/"}, "url", "http"),
        ({"url": "http://10.0.0.1/"}, "url", "private"),
        ({"url": "http://127.0.0.1:49151/" + "x" * 3000}, "url", "2048"),
        ({"secret_key": 5}, "secret_key", "expected `str"),
        ({"secret_key": "x" * 257}, "secret_key", "256"),
        ({"secret_key": "a\nb"}, "secret_key", "line breaks"),
        ({"extra_headers": 5}, "extra_headers", "lines"),
        ({"extra_headers": [5]}, "extra_headers", "lines"),
        ({"extra_headers": "no colon"}, "extra_headers", "line 1 is not"),
        ({"extra_headers": "A: 1\nA: 2"}, "extra_headers", "line 2 repeats"),
        ({"extra_headers": "A: 1\na: 2"}, "extra_headers.a", "occurs twice"),
        ({"extra_headers": {"A": 1}}, "extra_headers.A", "expected `str`"),
        ({"extra_headers": {"A": "1\r\nB: 2"}}, "extra_headers.A", "line breaks"),
        ({"extra_headers": "Host: example.com"}, "extra_headers.Host", "cannot be chosen"),
        ({"extra_headers": "X-Plugin-Hmac-Sha256: x"}, "extra_headers.X-Plugin-Hmac-Sha256", "another name"),
        ({"extra_headers": "\n".join(f"X-{n}: 1" for n in range(51))}, "extra_headers", "at most 50"),
        ({"topic": "order:created"}, "topic", "did you mean 'topics'"),
        ({"webhook_id": 1}, "webhook_id", "cannot be chosen"),
        ({"x" * 9000: 1}, "x" * 80, "is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_field_and_fault(
    shop: Shop, given: dict[str, object], field: str, says: str
):
    error = shop.error("create", WEBHOOK | given)
    assert error["code"] == CREATE_DATA
    assert error["message"].startswith("Invalid data given. ")
    assert field in error["message"]
    assert says in faults(error)[field]
    assert shop.result("list") == []


def test_all_faults_are_named_and_a_secret_is_never_repeated(shop: Shop):
    error = shop.error("create", {"is_active": 3, "extra_headers": "x", "secret_key": "top-secret"})
    assert set(faults(error)) == {"topics", "url", "is_active", "extra_headers"}
    long = shop.error("create", WEBHOOK | {"secret_key": "top-secret" * 26, "url": "x"})
    assert set(faults(long)) == {"secret_key", "url"}
    assert "top-secret" not in json.dumps([error, long])


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("create", {f"topic{number}": 1 for number in range(3000)}),
        ("create", WEBHOOK | {"topics": [5] * 3000}),
        ("update_status", {f"topic{number}": 1 for number in range(3000)}),
    ],
)
def test_of_very_many_faults_the_first_are_named(shop: Shop, name: str, argument: object):
    """Naming them all would hold up every other request."""
    assert 100 <= len(shop.error(name, argument)["data"]["faults"]) < 120


@pytest.mark.parametrize("arguments", [(5,), (["order:created"],), (WEBHOOK, WEBHOOK), ("x",)])
def test_create_takes_one_object(shop: Shop, arguments: tuple[object, ...]):
    assert shop.error("create", *arguments)["code"] == CREATE_DATA
    assert shop.error("create")["code"] == MISSING


def test_webhooks_that_are_switched_off_cannot_be_made(api: Api, shop: Shop):
    tenant = api.run(api.services.tenants.get(shop.tenant))
    assert api.patch(f"/v1/tenants/{tenant.id}", {"webhooks": False})["webhooks"] is False
    error = shop.error("create", WEBHOOK)
    assert error["code"] == NOT_CREATED
    assert error["message"].startswith("Webhook not created. webhooks are switched off")


def test_webhooks_that_are_switched_off_can_be_seen_and_deleted_but_not_used(api: Api, shop: Shop):
    webhook_id = shop.make()
    api.patch(f"/v1/tenants/{shop.tenant}", {"webhooks": False})
    assert shop.active() == {webhook_id: 0}
    for name, argument, code in (("test", webhook_id, DENIED), ("update_status", {"status": 1}, STATUS)):
        error = shop.error(name, argument)
        assert (error["code"], "switched off" in error["message"]) == (code, True)
    assert shop.result("delete", webhook_id) is True


def test_secrets_are_shown_to_those_alone_who_may_read_them(shop: Shop):
    shop.make(extra_headers="Authorization: Bearer abc")
    (own,) = shop.result("list")
    assert (own["secret_key"], own["extra_headers"]) == ("2RUJ8NXLnLRrAj3", "Authorization: Bearer abc")
    for scopes in (["read"], ["subscriptions:read", "subscriptions:update"]):
        (seen,) = shop.answer("call", [None, "webhook.list", []], shop.key(*scopes))["result"]
        assert (seen["secret_key"], seen["extra_headers"]) == (MASK, f"Authorization: {MASK}")


def test_a_long_list_is_whole_and_in_order(shop: Shop):
    create = {"jsonrpc": "2.0", "id": 1, "method": "call", "params": [None, "webhook.create", [WEBHOOK]]}
    for _ in range(5):
        assert shop.send([create] * 50).status == 200
    ids = [webhook["webhook_id"] for webhook in shop.result("list")]
    assert len(ids) == 250
    assert ids == sorted(set(ids))


def test_the_increment_is_the_number_of_the_newest_message(api: Api, shop: Shop):
    webhook_id = shop.make()
    storage = api.services.storage

    async def deliver() -> None:
        shard = (await storage.subscription_by_no(webhook_id)).shard
        lease = await storage.lease(shard, "w", 0, 1000)
        assert lease is not None
        lane = LaneState(webhook_id, cursor=9, sequence=3, live=False)
        await storage.record(Record(shard=shard, epoch=lease.epoch, now=1, watermark=0, lanes=[lane]))

    api.run(deliver())
    assert shop.result("list")[0]["increment_id"] == 3


# --- webhook.update_status --------------------------------------------------------------------------------


def test_a_topic_means_the_webhooks_that_list_it(shop: Shop):
    created = shop.make(topics="order:created")
    both = shop.make(topics="product:created,order:created")
    family = shop.make(topics="order:*")
    assert shop.result("update_status", "order:created", 0) is True
    assert shop.active() == {created: 0, both: 0, family: 1}
    assert shop.result("update_status", "order:*", 0) is True
    assert shop.result("update_status", "product:created", 1) is True
    assert shop.active() == {created: 0, both: 1, family: 0}


@pytest.mark.parametrize("status", [0, "0", False])
@pytest.mark.parametrize("form", ["object", "array", "null"])
def test_a_status_alone_means_all_webhooks(shop: Shop, status: object, form: str):
    first, second = shop.make(), shop.make(topics="*")
    given = {"object": {"status": status}, "array": [{"status": status}], "null": [None, status]}[form]
    assert shop.answer("call", [None, "webhook.update_status", given])["result"] is True
    assert shop.active() == {first: 0, second: 0}
    assert shop.result("update_status", {"status": 1}) is True
    assert shop.active() == {first: 1, second: 1}


def test_an_object_may_name_the_topic_or_the_webhook(shop: Shop):
    first, second = shop.make(topics="order:created"), shop.make(topics="*")
    assert shop.result("update_status", {"topic": "*", "status": "0"}) is True
    assert shop.active() == {first: 1, second: 0}
    assert shop.result("update_status", {"webhook_id": str(first), "status": 0}) is True
    assert shop.active() == {first: 0, second: 0}


def test_a_number_in_place_of_the_topic_is_an_id(shop: Shop):
    first, second = shop.make(), shop.make()
    assert shop.result("update_status", second, 0) is True
    assert shop.result("update_status", str(second), 0) is True
    assert shop.active() == {first: 1, second: 0}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["order:shipped", 0], STATUS),
        ([999_999_999, 0], STATUS),
        ([10**30, 0], STATUS),
        ([0, 0], STATUS),
        ([], MISSING),
        (["order:created"], MISSING),
        ([1], MISSING),
        ([{}], MISSING),
        ([{"status": None}], MISSING),
        ([{"topic": "order:created"}], MISSING),
        (["order:created", 2], PARAMS),
        (["order:created", None], PARAMS),
        (["order:created", [0]], PARAMS),
        ([["order:created"], 0], PARAMS),
        (["", 0], PARAMS),
        ([True, 0], PARAMS),
        (["order:created", 0, 0], PARAMS),
        ([{"status": 0, "topics": "order:created"}], PARAMS),
        ([{"status": 0, "topic": "order:created", "webhook_id": 1}], PARAMS),
        ([{"status": 0, "webhook_id": "x"}], PARAMS),
    ],
)
def test_a_status_that_cannot_be_set_changes_nothing(shop: Shop, arguments: list[object], code: int):
    webhook_id = shop.make()
    error = shop.error("update_status", *arguments)
    assert error["code"] == code
    assert shop.active() == {webhook_id: 1}


def test_a_webhook_that_is_off_is_a_subscription_that_is_paused(shop: Shop):
    """It keeps its place in the log: what comes meanwhile is not lost."""
    shop.make()
    shop.result("update_status", {"status": 0})
    (paused,) = shop.native.get("/v1/subscriptions")["data"]
    assert paused["state"] == "paused"
    shop.result("update_status", {"status": 1})
    (running,) = shop.native.get("/v1/subscriptions")["data"]
    assert running["state"] == "active"


class Racing(MemoryStorage):
    """Deletes a subscription right after it was listed."""

    unlucky: frozenset[int] = frozenset()

    async def list_subscriptions(self, *args: Any, **kwargs: Any) -> Any:
        found = await super().list_subscriptions(*args, **kwargs)
        for number in self.unlucky:
            await self.set_subscription_state(number, SubscriptionState.DELETED, "", 1)
        self.unlucky = frozenset()
        return found


def test_a_webhook_that_is_deleted_meanwhile_does_not_keep_the_others_on():
    storage = Racing()
    with api_server(lambda: storage) as api:
        shop = Shop(api.new_tenant("shop", profile="shipstream"), "shop")
        first, gone, last = shop.make(), shop.make(), shop.make()
        storage.unlucky = frozenset({gone})
        assert shop.result("update_status", {"status": 0}) is True
        assert shop.active() == {first: 0, last: 0}
        storage.unlucky = frozenset({first, last})
        assert shop.error("update_status", {"status": 1})["code"] == STATUS


# --- webhook.delete and webhook.test ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [lambda no: [no], lambda no: [str(no)], lambda no: no, lambda no: [{"webhook_id": no}]]
)
def test_a_webhook_is_deleted_by_its_id(shop: Shop, form: Any):
    gone, left = shop.make(), shop.make()
    assert shop.answer("call", [None, "webhook.delete", form(gone)])["result"] is True
    assert list(shop.active()) == [left]
    error = shop.error("delete", gone)
    assert (error["code"], error["message"]) == (UNKNOWN, "Webhook not exists.")
    assert shop.error("test", gone)["code"] == UNKNOWN


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], MISSING),
        ([None], MISSING),
        ([{}], MISSING),
        ([0], UNKNOWN),
        ([-1], UNKNOWN),
        ([2**31], UNKNOWN),
        ([10**40], UNKNOWN),
        (["9" * 20], UNKNOWN),
        (["9" * 21], PARAMS),
        (["x"], PARAMS),
        (["1.0"], PARAMS),
        ([1.0], PARAMS),
        ([True], PARAMS),
        ([[1]], PARAMS),
        ([1, 2], PARAMS),
    ],
)
def test_what_is_no_id_of_a_webhook_deletes_nothing(shop: Shop, arguments: list[object], code: int):
    webhook_id = shop.make()
    assert shop.error("delete", *arguments)["code"] == code
    assert list(shop.active()) == [webhook_id]


def test_a_test_event_is_sent_at_once_and_its_fate_is_told(api: Api, shop: Shop):
    async def ping() -> tuple[Any, Any]:
        async with receiver(answer_ok) as this:
            url = f"http://127.0.0.1:{this.port}/hook"
            webhook_id = await asyncio.to_thread(shop.make, url=url)
            result = await asyncio.to_thread(shop.result, "test", webhook_id)
            return result, this.requests

    result, received = asyncio.run(ping())
    assert result == {"accepted": True, "status": 200, "detail": ""}
    (request,) = received
    body = json.loads(request.body)
    assert body["topic"] == "test:ping"
    assert body["message"]["webhook_increment_id"] == 0
    assert request.headers["x-plugin-hmac-sha256"]
    assert shop.result("list")[0]["increment_id"] == 0


def test_a_test_event_that_nobody_takes_is_told_so(shop: Shop):
    webhook_id = shop.make(url="http://127.0.0.1:1024/closed")
    result = shop.result("test", webhook_id)
    assert (result["accepted"], result["status"]) == (False, 0)
    assert result["detail"]
    assert shop.error("test", 999_999_999)["code"] == UNKNOWN


def test_the_native_test_sends_the_same_topic(shop: Shop):
    shop.make(url="http://127.0.0.1:1024/closed")
    (made,) = shop.native.get("/v1/subscriptions")["data"]
    trial = shop.native.post(f"/v1/subscriptions/{made['id']}/test", {"type": "test:ping"})
    assert json.loads(trial["attempt"]["request"]["body"])["topic"] == "test:ping"


# --- what belongs to others -----------------------------------------------------------------------------------


def test_only_webhooks_of_this_platform_and_tenant_are_seen_and_touched(api: Api, shop: Shop):
    mine = shop.make()
    other = Shop(api.new_tenant(f"{shop.tenant}o", profile="shipstream"), f"{shop.tenant}o")
    theirs = other.make()
    native = shop.native.post("/v1/subscriptions", {"url": URL, "profile": "standard"}, 201)
    foreign = api.run(api.services.storage.get_subscription(_no(api, shop), native["id"])).no
    assert list(shop.active()) == [mine]
    for untouchable in (theirs, foreign):
        for name in ("delete", "test"):
            assert shop.error(name, untouchable)["code"] == UNKNOWN
        assert shop.error("update_status", untouchable, 0)["code"] == STATUS
    shop.result("update_status", {"status": 0})
    assert other.active() == {theirs: 1}
    assert shop.native.get(f"/v1/subscriptions/{native['id']}")["state"] == "active"


def _no(api: Api, shop: Shop) -> int:
    return api.run(api.services.tenants.get(shop.tenant)).no


def test_a_webhook_is_a_subscription_with_what_the_platform_states(shop: Shop):
    shop.make(extra_headers="X-Token: t")
    (made,) = shop.native.get("/v1/subscriptions")["data"]
    assert made["profile"] == "shipstream"
    assert made["events"] == WEBHOOK["topics"]
    assert made["timeout"] == {"connect": 3.0, "total": 5.0}
    assert len(made["retry"]["delays"]) == 14
    assert made["signing"]["scheme"] == "shipstream"
    assert made["signing"]["signature_header"] == "X-Plugin-Hmac-Sha256"
    assert made["secret_headers"] == {"X-Token": MASK}


def test_a_webhook_of_the_native_api_shows_plain_headers_too(shop: Shop):
    shop.native.post(
        "/v1/subscriptions", {"url": URL, "headers": {"X-A": "1"}, "secret_headers": {"X-B": "2"}}, 201
    )
    (listed,) = shop.result("list")
    assert listed["extra_headers"] == "X-A: 1\nX-B: 2"
    (seen,) = shop.answer("call", [None, "webhook.list"], shop.key("read"))["result"]
    assert seen["extra_headers"] == f"X-A: 1\nX-B: {MASK}"


def test_a_change_is_told_to_the_worker_and_a_question_is_not(shop: Shop):
    def told(name: str, *arguments: object) -> bool:
        before = len(shop.native.changes)
        shop.result(name, *arguments)
        return len(shop.native.changes) > before

    assert told("create", WEBHOOK)
    assert not told("list")
    assert told("update_status", {"status": 0})
    assert told("delete", shop.result("list")[0]["webhook_id"])


# --- when the storage does not answer ---------------------------------------------------------------------------


class Failing(MemoryStorage):
    """Does not answer to what is named in ``down``."""

    down: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "down"):
            raise StorageUnavailable
        return object.__getattribute__(self, name)


def test_a_storage_that_does_not_answer_is_an_unexpected_error():
    storage = Failing()
    with api_server(lambda: storage) as api:
        shop = Shop(api.new_tenant("shop", profile="shipstream"), "shop")
        webhook_id = shop.make()
        storage.down = frozenset(
            {"create_subscription", "list_subscriptions", "set_subscription_state", "lane_state"}
        )
        assert shop.error("create", WEBHOOK)["code"] == CREATE_CRASH
        assert shop.error("delete", webhook_id)["code"] == DELETE_CRASH
        for name, arguments in (("list", ()), ("update_status", ({"status": 1},))):
            error = shop.error(name, *arguments)
            assert error["code"] == INTERNAL
            assert "storage is not available" in error["message"]
        storage.down = frozenset({"find_key"})
        api.services.keyring.forget()
        answer = shop.send({"jsonrpc": "2.0", "id": 1, "method": "call", "params": [None, "webhook.list"]})
        assert (answer.status, answer.json["error"]["code"]) == (503, INTERNAL)
        assert answer.headers["retry-after"]
        batch = [{"jsonrpc": "2.0", "id": n, "method": "login", "params": ["shop", "key"]} for n in (1, 2)]
        answers = shop.send(batch, {}).json
        assert [each["error"]["code"] for each in answers] == [INTERNAL, INTERNAL]
