"""Many clients that change one webhook at once through a compatible API: each is served, as on its platform."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import Answer, Api, api_server
from tests.integration.frontsystems import BASE, Shop

CLIENTS = 20
URL = "http://127.0.0.1:49151/hooks"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api_server(lambda: SqliteStorage(tmp_path_factory.mktemp("api") / Path("hookline.db"))) as running:
        yield running


def all_at_once(
    who: Api, method: str, path: str, bodies: list[dict[str, Any]], **headers: str
) -> list[Answer]:
    """The answers, in the order of the bodies; each client has a connection of its own."""
    clients = [who.as_key(who.key) for _ in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(
            pool.map(lambda client, body: client.call(method, path, body, headers=headers), clients, bodies)
        )


def statuses(answers: list[Answer]) -> dict[int, int]:
    found = [answer.status for answer in answers]
    return {status: found.count(status) for status in found}


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_evolutionx(api: Api, method: str):
    shop = api.new_tenant(f"evox-{method.lower()}", profile="evolutionx")
    path = "/evolutionx/api/v1/webhooks"
    path += "/" + shop.post(path, {"url": URL, "events": ["order.created"]}, 201)["id"]
    whole: dict[str, Any] = {"url": URL, "events": ["order.created"]} if method == "PUT" else {}
    bodies = [whole | {"description": f"client {number}"} for number in range(CLIENTS)]
    answers = all_at_once(shop, method, path, bodies)
    assert statuses(answers) == {200: CLIENTS}
    assert [answer.json["description"] for answer in answers] == [body["description"] for body in bodies]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_avvyr(api: Api, method: str):
    name = f"avvyr-{method.lower()}"
    shop = api.new_tenant(name, profile="avvyr")
    path = f"/avvyr/v1/{name}/account/event-subscriptions"
    made = shop.call("POST", path, {"eventType": "orderCreated", "destination": URL})
    assert made.status in (200, 201), made.body
    whole: dict[str, Any] = {"eventType": "orderCreated", "destination": URL} if method == "PUT" else {}
    bodies = [whole | {"comment": f"client {number}"} for number in range(CLIENTS)]
    answers = all_at_once(shop, method, f"{path}/{made.json['id']}", bodies)
    assert statuses(answers) == {200: CLIENTS}
    assert [answer.json["comment"] for answer in answers] == [body["comment"] for body in bodies]


def test_front_systems(api: Api):
    """Each PUT takes the place of the whole: the last one leaves nothing of the others."""
    shop = Shop(api)
    path = f"{BASE}/Webhooks/{shop.webhook('SaleCreated', storeId=1)['id']}"
    bodies = [
        {"event": event, "url": f"{URL}/{number}", "storeId": number}
        for number, event in enumerate(
            ["SaleCreated", "OmniChannelEndlessAisleOrderCreated"] * (CLIENTS // 2)
        )
    ]
    answers = all_at_once(shop.native.as_key(""), "PUT", path, bodies, **shop.credentials)
    assert statuses(answers) == {200: CLIENTS}
    sent = [{key: answer.json[key] for key in body} for answer, body in zip(answers, bodies, strict=True)]
    assert sent == bodies
    left = shop.get(path.removeprefix(BASE))
    assert {key: left[key] for key in bodies[0]} in bodies
