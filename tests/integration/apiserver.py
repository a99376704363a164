"""The native API as its users meet it: real uvicorn on loopback, on a loop of its own in a thread."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from urllib3 import HTTPConnectionPool

from hookline.api import Options, Services, build_services, create_app
from hookline.app.parts import SystemClock
from hookline.core.address import AddressRule
from hookline.core.definition import Rules
from hookline.core.errors import TokenRefused
from hookline.core.model import Auth
from hookline.core.vault import AesGcmVault
from hookline.engine.catalogue import Catalogue
from hookline.engine.publish import Publisher
from hookline.engine.types import EventTypeCatalogue, Shelves, follow_folder
from hookline.observe import Metrics
from hookline.ports import Storage
from hookline.profiles import PROFILES
from hookline.profiles.folder import CatalogueFolder
from hookline.sender.curl import CurlSender
from hookline.storage.wake import LocalWake

T = TypeVar("T")
OPERATOR = "hk_operator-key-of-the-tests"
PATIENCE = 60.0


class Tokens:
    """Gives a token to everyone whose client secret is "right"."""

    async def token(self, auth: Auth) -> str:
        if auth.secret != "right":
            raise TokenRefused("invalid_client")
        return "granted"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Heard(LocalWake):
    """Keeps what was notified."""

    def __init__(self) -> None:
        super().__init__()
        self.shards: list[int] = []

    def notify(self, shards: Collection[int] | None = None) -> None:
        assert shards is not None, "all shards were woken"
        self.shards += shards


@dataclass
class Api:
    """A running server, and a client that speaks as one key."""

    port: int
    services: Services
    loop: asyncio.AbstractEventLoop
    key: str = OPERATOR
    tenant: str = ""
    changes: list[int] = field(default_factory=list[int])
    woken: list[int] = field(default_factory=list[int])
    """The shards whose worker was told that there is something to send again, in turn."""

    def __post_init__(self) -> None:
        self.pool = HTTPConnectionPool("127.0.0.1", self.port, maxsize=1, retries=False, timeout=PATIENCE)

    def as_key(self, key: str, tenant: str = "") -> Api:
        return Api(self.port, self.services, self.loop, key, tenant, self.changes, self.woken)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        given = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.tenant:
            given["Hookline-Tenant"] = self.tenant
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            given["Content-Type"] = "application/json"
        response = self.pool.urlopen(method, path, body=raw, headers=given | dict(headers or {}))
        return Answer(response.status, response.headers, response.data)

    def get(self, path: str, expect: int = 200) -> Any:
        answer = self.call("GET", path)
        assert answer.status == expect, answer.body
        return answer.json

    def post(self, path: str, body: object = None, expect: int = 200) -> Any:
        answer = self.call("POST", path, body)
        assert answer.status == expect, answer.body
        return answer.json if answer.body else None

    def patch(self, path: str, body: object, expect: int = 200) -> Any:
        answer = self.call("PATCH", path, body)
        assert answer.status == expect, answer.body
        return answer.json

    def run(self, work: Awaitable[T]) -> T:
        """Do something on the server's loop, as the delivery worker would."""

        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(PATIENCE)

    def new_tenant(self, tenant_id: str, **fields: object) -> Api:
        """A tenant, and a client with its first key."""
        made = self.post("/v1/tenants", {"id": tenant_id, "name": tenant_id.title(), **fields}, 201)
        return self.as_key(made["api_key"])


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:  # tests keep their own
        pass


@contextmanager
def api_server(
    make_storage: Callable[[], Storage],
    options: Options | None = None,
    catalogue_dir: Path = Path("no-such-folder"),
) -> Iterator[Api]:
    """Run the API over a storage; everything is gone afterwards."""
    ready: list[Api] = []
    started, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_serve(make_storage(), options, catalogue_dir, ready, started, stop))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="api")
    thread.start()
    assert started.wait(PATIENCE)
    if failures:
        raise failures[0]
    try:
        yield ready[0]
    finally:
        ready[0].pool.close()
        stop.set()
        thread.join(PATIENCE)
    assert not failures, failures
    assert not thread.is_alive()


async def _serve(
    storage: Storage,
    options: Options | None,
    catalogue_dir: Path,
    ready: list[Api],
    started: threading.Event,
    stop: threading.Event,
) -> None:
    await storage.open()
    clock, metrics = SystemClock(), Metrics()
    folder, shelves = CatalogueFolder(catalogue_dir), Shelves()
    shelves.put(folder.read() or ())
    types = EventTypeCatalogue(storage, shelves)
    catalogue = Catalogue(types)
    publisher = Publisher(storage, catalogue, clock, os.urandom, LocalWake(), metrics)
    rule = AddressRule([ip_network("127.0.0.0/8")], allow_http=True)
    sender = CurlSender(rule)
    changes: list[int] = []
    heard = Heard()

    def changed() -> None:
        catalogue.forget()
        changes.append(1)

    services = build_services(
        storage=storage,
        clock=clock,
        entropy=os.urandom,
        vault=AesGcmVault([bytes(32)], os.urandom),
        sender=sender,
        tokens=Tokens(),
        types=types,
        publisher=publisher,
        metrics=metrics,
        rules=Rules(rule, frozenset(PROFILES)),
        on_change=changed,
        wake=heard,
        options=options,
    )
    await services.tenants.adopt_operator_key(OPERATOR)
    config = uvicorn.Config(
        create_app(services),
        port=0,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publisher.run())
        following = tasks.create_task(follow_folder(folder, shelves, services.changed))
        serving = tasks.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        ready.append(Api(port, services, asyncio.get_running_loop(), changes=changes, woken=heard.shards))
        started.set()
        await asyncio.to_thread(stop.wait)
        server.should_exit = True
        await serving
        publishing.cancel()
        following.cancel()
    await sender.close()
    await storage.close()
