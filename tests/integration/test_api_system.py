"""Health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hookline.api import Options
from hookline.core.errors import HooklineError, StorageUnavailable
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import OPERATOR, Api, api_server


class Failing(MemoryStorage):
    failing = False

    async def ping(self) -> None:
        if self.failing:
            raise StorageUnavailable("the disk is full")


@pytest.fixture
def api() -> Iterator[Api]:
    with api_server(Failing) as running:
        yield running


def test_alive_and_ready(api: Api) -> None:
    anyone = api.as_key("")
    assert anyone.get("/healthz")["status"] == "alive"
    assert anyone.get("/readyz") == {"status": "ready", "checks": {"storage": "writable"}}


def test_not_ready_without_storage(api: Api) -> None:
    storage = api.services.storage
    assert isinstance(storage, Failing)
    storage.failing = True
    problem = api.as_key("").get("/readyz", 503)
    assert problem["code"] == "not_ready"
    assert problem["faults"] == [{"field": "storage", "message": "the disk is full"}]
    assert api.as_key("").get("/healthz")["status"] == "alive"


def test_further_checks_count(api: Api) -> None:
    states = ["3 shards"]

    async def worker() -> str:
        if not states:
            raise HooklineError("the worker stopped")
        return states[0]

    checks = api.services.checks
    assert isinstance(checks, dict)
    checks["worker"] = worker
    assert api.get("/readyz")["checks"] == {"storage": "writable", "worker": "3 shards"}
    states.clear()
    assert api.get("/readyz", 503)["faults"] == [{"field": "worker", "message": "the worker stopped"}]


def test_metrics_are_for_operators(api: Api) -> None:
    answer = api.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"hookline_events_appended_total 0.0" in answer.body
    assert api.as_key("").get("/metrics", 401)["code"] == "unauthorized"
    assert api.new_tenant("acme").get("/metrics", 403)["code"] == "forbidden"


def test_metrics_can_be_opened() -> None:
    with api_server(MemoryStorage, Options(metrics="open")) as api:
        assert api.as_key("").call("GET", "/metrics").status == 200
        assert api.as_key(OPERATOR).call("GET", "/metrics").status == 200


def test_metrics_can_be_switched_off() -> None:
    with api_server(MemoryStorage, Options(metrics="off")) as api:
        assert api.as_key(OPERATOR).get("/metrics", 404)["detail"] == "metrics are switched off"
