"""What the demo asks of the server besides publishing: a tenant, a catalogue, subscriptions, the log."""

from __future__ import annotations

from typing import Any

from hookline.demo.cast import CAST, subscription_of
from hookline.demo.catalogue import demo_types
from hookline.demo.client import Client
from hookline.demo.receipts import Ports
from hookline.demo.verdict import Logged

TENANT = "demo-shop"
PAGE = 200


async def create_tenant(operator: Client) -> str:
    """The demo's tenant, strict about schemas; returns its API key."""
    body = {"id": TENANT, "name": "A day of a shop", "schema_mode": "strict"}
    created = await operator.call("POST", "/v1/tenants", body)
    return str(created["api_key"])


async def create_types(client: Client) -> None:
    """All 63 types, of three platforms in one catalogue."""
    for entry in demo_types().values():
        body = {
            "name": entry.name,
            "group": entry.system,
            "description": entry.description,
            "usage": entry.usage,
            "schema": entry.schema,
            "example": entry.example,
        }
        await client.call("POST", "/v1/event-types", body)


async def create_subscriptions(client: Client, ports: Ports) -> tuple[dict[str, str], dict[str, str]]:
    """One for each receiver; returns their ids and their signing secrets, by receiver."""
    ids: dict[str, str] = {}
    signing: dict[str, str] = {}
    for role in CAST:
        url = f"http://127.0.0.1:{ports.receivers[role.name]}/hooks/{role.name}"
        created = await client.call("POST", "/v1/subscriptions", subscription_of(role, url))
        ids[role.name], signing[role.name] = created["id"], created["signing"]["secret"]
    return ids, signing


async def read_log(client: Client, subscription_id: str) -> list[Logged]:
    """Every delivery of a subscription, as the server's log has it."""
    found: list[Logged] = []
    cursor = ""
    while True:
        where = f"/v1/subscriptions/{subscription_id}/deliveries?limit={PAGE}"
        page: Any = await client.call("GET", f"{where}&cursor={cursor}" if cursor else where)
        found += [
            Logged(entry["event"], entry["sequence"], entry["state"], entry["attempts"])
            for entry in page["data"]
        ]
        cursor = page["next"] or ""
        if not cursor:
            return found
