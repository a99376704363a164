"""A small program that uses Avvyr's Events API, written from its pages alone; it needs nothing but Python.

    python avvyr_client.py <base URL> <tenantCode> <token>

It is an endpoint for webhooks and a client of the Management API. It reads commands from standard input, one a line,
and answers each with a line of JSON:

    subscribe [<field>=<JSON>]     one subscription for each authType, and one that is never retried
    answer <status> …              answer the next requests so, then 200
    test <name>                    the API's test operation
    switch <name> on|off           change `enabled`
    delete <name>
    manage                         create, get, list, search, update, delete, and look whether each does what it says
    report                         what arrived, and what was wrong with it
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
META = {"eventType", "entityType", "tenantId", "messageId", "timestamp"}

SECRET, USER, PASSWORD, TOKEN = "my-hmac-secret", "shop", "pässword:1", "token-of-mine"
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "none": {"eventType": "orderCreated", "authType": "none", "additionalHeaders": {"X-Shop": "7"}},
    "basic": {
        "eventType": "productUpdated",
        "authType": "basic",
        "authUsername": USER,
        "authPassword": PASSWORD,
    },
    "bearer": {"eventType": "cartDeleted", "authType": "bearer", "authToken": TOKEN},
    "hmac": {
        "eventType": "fulfillmentCreated",
        "authType": "hmac",
        "hmacSecret": SECRET,
        "additionalHeaders": {"X-Api-Key": "key-of-mine", "X-Source": "avvyr"},
    },
    "once": {"eventType": "transferUpdated", "authType": "none", "retryEnabled": False},
}
"""By name, which is also the path of the endpoint."""


# --- the endpoint ----------------------------------------------------------------------------------------------


class Inbox:
    """What arrived, and how to answer."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.answers: deque[int] = deque()
        self.requests: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.lock = threading.Lock()

    def take(self, name: str, headers: dict[str, str], body: bytes) -> int:
        """Judge a request, write it down, and say what to answer."""
        wrong = faults(name, headers, body, self.tenant)
        with self.lock:
            status = self.answers.popleft() if self.answers else 200
            if wrong:
                self.complaints += [f"{name}: {fault}" for fault in wrong]
                return 401
            self.requests.append(
                {
                    "name": name,
                    "delivery": headers["x-webhook-delivery"],
                    "message": json.loads(body)["_meta"]["messageId"],
                    "body": body.decode(),
                    "status": status,
                }
            )
        return status


def faults(name: str, headers: dict[str, str], body: bytes, tenant: str) -> list[str]:
    """What is not as "Event Delivery" says."""
    subscription = SUBSCRIPTIONS[name]
    wrong: list[str] = []
    if headers.get("content-type") != "application/json":
        wrong.append("the content type is not application/json")
    if headers.get("x-webhook-event") != subscription["eventType"]:
        wrong.append("X-Webhook-Event is not the type")
    if not UUID.fullmatch(headers.get("x-webhook-delivery", "")):
        wrong.append("X-Webhook-Delivery is no UUID")
    for header, value in subscription.get("additionalHeaders", {}).items():
        if headers.get(header.lower()) != value:
            wrong.append(f"the additional header {header} is not there")
    if not is_authentic(subscription["authType"], headers, body):
        wrong.append("it does not authenticate itself")
    return wrong + body_faults(subscription["eventType"], body, tenant)


def is_authentic(auth_type: str, headers: dict[str, str], body: bytes) -> bool:
    """By the rules of the subscription's authType."""
    given = headers.get("authorization", "")
    match auth_type:
        case "basic":
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return hmac.compare_digest(given, f"Basic {pair}")
        case "bearer":
            return hmac.compare_digest(given, f"Bearer {TOKEN}")
        case "hmac":
            expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            return hmac.compare_digest(headers.get("x-webhook-signature", ""), expected) and not given
        case _:
            return not given and "x-webhook-signature" not in headers


def body_faults(event_type: str, body: bytes, tenant: str) -> list[str]:
    """What is not as it should be in ``{"_meta": …, "data": …}``."""
    content = json.loads(body)
    if set(content) != {"_meta", "data"}:
        return ["the body is not _meta and data"]
    meta = content["_meta"]
    if set(meta) != META or not all(isinstance(value, str) for value in meta.values()):
        return [f"_meta is not the five texts: {meta}"]
    right = (
        meta["eventType"] == event_type
        and re.fullmatch(r"[a-z]+", meta["entityType"])
        and event_type.startswith(meta["entityType"])
        and meta["tenantId"] == tenant
        and meta["messageId"]
        and TIME.fullmatch(meta["timestamp"])
    )
    return [] if right else [f"_meta is not right: {meta}"]


def endpoint(inbox: Inbox) -> ThreadingHTTPServer:
    """Listens on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(inbox.take(self.path.strip("/"), headers, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: standard error is for faults."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        """Python's own value, 5, makes those wait who call while this program is not on the processor."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# --- the Management API ------------------------------------------------------------------------------------------


class Api:
    """Event subscriptions of one tenant."""

    def __init__(self, base: str, tenant: str, token: str) -> None:
        self._url = f"{base}/v1/{tenant}/account/event-subscriptions"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        """Status and JSON, also of errors."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def good(self, method: str, path: str = "", body: Any = None) -> Any:
        """The JSON of a good answer."""
        status, answer = self.call(method, path, body)
        assert status in (200, 201, 204), f"{method} {path}: {status} {answer}"
        return answer


class Client:
    """The commands."""

    def __init__(self, base: str, tenant: str, token: str) -> None:
        self.api = Api(base, tenant, token)
        self.inbox = Inbox(tenant)
        self.url = f"http://127.0.0.1:{endpoint(self.inbox).server_port}"
        self.ids: dict[str, str] = {}

    def subscribe(self, *more: str) -> Any:
        extra = {name: json.loads(value) for name, _, value in (each.partition("=") for each in more)}
        for name, fields in SUBSCRIPTIONS.items():
            body = {
                "destination": f"{self.url}/{name}",
                "enabled": True,
                "retryEnabled": True,
                "retryCount": 3,
                "comment": f"the endpoint {name}",
                **fields,
                **extra,
            }
            made = self.api.good("POST", "", body)
            self.ids[name] = made["id"]
            for secret in (SECRET, PASSWORD, TOKEN, "key-of-mine"):
                assert secret not in json.dumps(made, ensure_ascii=False)
            assert {field: made[field] for field in ("eventType", "destination", "enabled", "authType")} == {
                field: body[field] for field in ("eventType", "destination", "enabled", "authType")
            }
        return self.ids

    def answer(self, *statuses: str) -> Any:
        self.inbox.answers = deque(map(int, statuses))
        return "ok"

    def test(self, name: str) -> Any:
        return self.api.good("POST", f"/{self.ids[name]}/test")

    def switch(self, name: str, state: str) -> Any:
        return self.api.good("PATCH", f"/{self.ids[name]}", {"enabled": state == "on"})

    def delete(self, name: str) -> Any:
        self.api.good("DELETE", f"/{self.ids[name]}")
        return self.api.call("GET", f"/{self.ids[name]}")[0]

    def report(self) -> Any:
        with self.inbox.lock:
            return {"requests": self.inbox.requests, "complaints": self.inbox.complaints}

    def manage(self) -> Any:
        """One subscription through all operations, beside those that are there."""
        api, before = self.api, self.all()
        body = {
            "eventType": "purchaseCreated",
            "destination": f"{self.url}/none",
            "comment": "Purchases: ERP",
        }
        made = api.good("POST", "", body)
        one = f"/{made['id']}"
        assert api.good("GET", one) == made
        assert self.all() == [*before, made]
        for criteria in (
            {"eventType": "purchaseCreated"},
            {"comment": "purchases: erp"},
            {"destination": self.url, "comment": "ERP"},
        ):
            found = api.good("GET", f"/search?{urllib.parse.urlencode(criteria)}")["data"]
            assert found == api.good("POST", "/search", criteria)["data"] == [made], criteria
        assert api.good("POST", "/search", {"eventType": "purchaseDeleted"})["data"] == []

        changed = api.good("PATCH", one, {"enabled": False, "comment": "off"})
        assert (changed["enabled"], changed["comment"]) == (False, "off")
        changed = api.good("PUT", one, {**changed, "authType": "hmac", "hmacSecret": "s", "retryCount": 1})
        assert (changed["authType"], changed["enabled"], changed["retryCount"]) == ("hmac", False, 1)
        assert api.good("GET", one) == changed
        status, refused = api.call("PATCH", one, {"eventType": "noSuchEvent", "retryCount": "many"})
        assert status == 400
        assert {each["field"] for each in refused["error"]["details"]} == {"eventType", "retryCount"}
        api.good("DELETE", one)
        assert api.call("GET", one)[0] == api.call("DELETE", one)[0] == 404
        assert self.all() == before
        stranger = Api(self.api._url.partition("/v1/")[0], "another", "wrong")
        assert stranger.call("GET")[0] == 401
        return "ok"

    def all(self) -> list[Any]:
        """The whole list, in parts of two."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = self.api.good("GET", f"?limit=2&cursor={cursor}")
            found += page["data"]
            if page["next"] is None:
                return found
            cursor = page["next"]


def main() -> None:
    client = Client(*sys.argv[1:4])
    for line in sys.stdin:
        command, *words = line.split()
        sys.stdout.write(json.dumps(getattr(client, command)(*words)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
