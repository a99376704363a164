"""A slash at the end of a path of the compatible APIs: it is the same path, and nothing is redirected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Answer, Api, api_server
from tests.integration.frontsystems import BASE, Shop

URL = "http://127.0.0.1:49151/hooks"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_server(MemoryStorage) as running:
        yield running


class Client:
    """A client of one platform, and where its webhooks are."""

    def __init__(self, api: Api, platform: str) -> None:
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {"url": URL, "events": ["order.created"]}
        if platform == "frontsystems":
            shop = Shop(api)
            self.api, self.headers = shop.native.as_key(""), shop.credentials
            self.path, self.body = f"{BASE}/Webhooks", {"url": URL, "event": "SaleCreated"}
            return
        self.api = api.new_tenant(platform, profile=platform)
        self.path = "/evolutionx/api/v1/webhooks"
        if platform == "avvyr":
            self.path = "/avvyr/v1/avvyr/account/event-subscriptions"
            self.body = {"eventType": "orderCreated", "destination": URL}

    def call(self, method: str, path: str, body: object = None) -> Answer:
        return self.api.call(method, self.path + path, body, headers=self.headers)


@pytest.mark.parametrize("platform", ["avvyr", "evolutionx", "frontsystems"])
def test_a_slash_at_the_end_changes_nothing(api: Api, platform: str):
    client = Client(api, platform)
    made = client.call("POST", "/", client.body)
    assert made.status in (200, 201), made.body
    one = f"/{made.json['id']}"
    for path in ("", one):
        plain, slashed = client.call("GET", path), client.call("GET", f"{path}/")
        assert (slashed.status, slashed.json) == (200, plain.json)
    assert (
        client.call("GET", f"{one}/?limit=x&nothing=1").status
        == client.call("GET", f"{one}?limit=x&nothing=1").status
    )
    assert client.call("TRACE", "/").status == 405
    for path in ("//", f"{one}//", f"/{one}", "/%0A", f"{one}%0A", f"{one}/%0A"):
        assert client.call("GET", path).status == 404, path
    assert client.call("DELETE", f"{one}/").status in (200, 204)
    assert client.call("GET", one).status == 404


def test_other_paths_of_front_systems_too(api: Api):
    client = Client(api, "frontsystems")
    client.path = BASE
    for path in ("/webhookstypes/", "/WebhooksTypes/SaleCreated/schema/"):
        assert client.call("GET", path).status == 200
    assert client.call("GET", "/WebhooksTypes/").json == client.call("GET", "/WebhooksTypes").json
