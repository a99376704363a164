"""A tenant of Front Systems' profile, as the tests of its API need one."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.integration.apiserver import Answer, Api

BASE = "/frontsystems/restapi/V2/api"
URL = "https://erp.example.com/hooks?token=s3cret"
ORDER = "OmniChannelEndlessAisleOrderCreated"
ALWAYS = "from=2020-01-01&to=2100-01-01"


class Shop:
    """A tenant of the profile, and a client with both of its credentials."""

    def __init__(self, api: Api, **fields: object) -> None:
        self.name = f"shop-{uuid4().hex[:8]}"
        self.native = api.new_tenant(self.name, **{"profile": "frontsystems", **fields})
        self.credentials = {"x-api-key": self.native.key, "Ocp-Apim-Subscription-Key": self.name}
        self._api = self.native.as_key("")

    def call(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        headers = self.credentials | more.pop("headers", {})
        return self._api.call(method, BASE + path, body, headers=headers, **more)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def webhook(self, event: str = ORDER, **fields: object) -> Any:
        answer = self.call("POST", "/webhooks", {"event": event, "url": URL, **fields})
        assert answer.status == 200, answer.body
        return answer.json

    def refused(self, method: str, path: str, body: object = None, **more: Any) -> dict[str, list[str]]:
        """The faults by field of an answer 400."""
        answer = self.call(method, path, body, **more)
        assert answer.status == 400, (answer.status, answer.body)
        return answer.json["errors"]
