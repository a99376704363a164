"""Request forgery against the whole server: no way in makes it call an address that was not opened for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme

from tests.integration.receivers import Exchange, Receiver, authority, receiver, server_context, status
from tests.integration.resolver import Resolver, resolver
from tests.support.ports import own_port
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually, until

# What each of these reaches, or how a resolver would read it: practice of request forgery, one way a line.
CLOSED = """
https://127.0.0.1/ https://127.1/ https://2130706433/ https://0x7f000001/ https://0177.0.0.1/ https://017700000001/
https://0/ https://0.0.0.0/ https://10.0.0.1/ https://172.16.0.1/ https://192.168.1.1/ https://100.64.0.1/
https://169.254.169.254/latest/meta-data/ https://168.63.129.16/ https://100.100.100.200/ https://192.0.0.192/
https://198.18.0.1/ https://224.0.0.1/ https://255.255.255.255/ https://[::]/ https://[::1]/
https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/ https://[64:ff9b::7f00:1]/ https://[2002:7f00:1::]/
https://[fe80::1]/ https://[fe80::1%25eth0]/ https://[fc00::1]/ https://[fd00:ec2::254]/ https://[ff02::1]/
https://localhost/ https://LOCALHOST/ https://x.localhost/ https://localhost./ https://%31%32%37.0.0.1/
https://metadata.google.internal/ https://router.local/ https://intranet/ https://user:pass@127.0.0.1/
https://shop.example@127.0.0.1/ https://127.0.0.1#@shop.example/ https://127.0.0.1\\@shop.example/
https://\uff11\uff12\uff17.0.0.1/ https://\u2460\u2461\u2466.0.0.1/ http://8.8.8.8/ http://shop.example/
ftp://shop.example/ file:///etc/passwd gopher://127.0.0.1:6379/_FLUSHALL https://shop.example:22/
https://shop.example:6379/ https://shop.example:0/ https://shop.example:65536/ //shop.example/ shop.example
""".split()

NAME = "hooks.shop.example"
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return authority()


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As it is installed: nothing opened."""
    process = ServerProcess(tmp_path_factory.mktemp("strict") / "data", allow_networks="")
    try:
        asyncio.run(process.start())
        asyncio.run(Api(process).new_tenant("shop"))
        yield process
    finally:
        process.bury()


@pytest.fixture
def strict(strict_server: ServerProcess) -> Api:
    return Api(strict_server, tenant="shop")


def faults(answer: Any) -> list[str]:
    return [fault["field"] for fault in answer.json["faults"]]


async def trial(api: Api, subscription: str) -> dict[str, Any]:
    """The attempt of a test-send."""
    return (await api.post(f"/v1/subscriptions/{subscription}/test", {}))["attempt"]


async def first_attempt(api: Api, subscription: str, event: str) -> dict[str, Any]:
    """Publish; what became of the first attempt to deliver it."""
    await api.publish({"id": event, "type": "order:created", "data": {}})
    page = await eventually(
        lambda: api.get(f"/v1/subscriptions/{subscription}/deliveries?include=attempts"),
        lambda page: any(one["event"] == event and one["attempt_log"] for one in page["data"]),
        f"{event} is tried",
    )
    (delivery,) = (one for one in page["data"] if one["event"] == event)
    return delivery["attempt_log"][0]


# --- what a URL says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", CLOSED)
async def test_a_closed_target_is_refused_wherever_it_is_written(strict: Api, url: str) -> None:
    created = await strict.call("POST", "/v1/subscriptions", {"url": url})
    assert (created.status, faults(created)) == (422, ["url"])
    good = await strict.subscribe("https://hooks.shop.example/in", enabled=False)
    changed = await strict.call("PATCH", f"/v1/subscriptions/{good}", {"url": url})
    assert (changed.status, faults(changed)) == (422, ["url"])
    oauth = {"kind": "oauth2_client_credentials", "token_url": url, "client_id": "c", "secret": "s"}
    with_token = await strict.call("PATCH", f"/v1/subscriptions/{good}", {"auth": oauth})
    assert (with_token.status, faults(with_token)) == (422, ["auth.token_url"])
    assert (await strict.get(f"/v1/subscriptions/{good}"))["url"] == "https://hooks.shop.example/in"


async def test_the_server_does_not_call_itself(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path / "data", port=str(own_port())
    )  # known beforehand, as in any installation
    async with running(server):
        api = await Api(server).new_tenant("shop")
        own = await api.subscribe(f"http://127.0.0.1:{server.port}/v1/events")
        for attempt in (await trial(api, own), await first_attempt(api, own, "e1")):
            assert (attempt["status"], attempt["error"]) == (0, "address_refused")
            assert "this server itself" in attempt["detail"]


# --- what a name turns out to be -------------------------------------------------------------------------------


class Names:
    """The resolver's answers, changed by the test."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    def __call__(self, name: str, _time: int) -> list[str]:
        return self.addresses


@asynccontextmanager
async def resolving(
    ca: trustme.CA, folder: Path, names: Names, **settings: str
) -> AsyncGenerator[tuple[ServerProcess, Resolver]]:
    """A server that asks the test's own resolver."""
    ca.cert_pem.write_to_path(folder / "ca.pem")
    async with resolver(server_context(ca.issue_cert("127.0.0.1")), names) as dns:
        server = ServerProcess(folder / "data", doh_url=dns.url, ca_file=str(folder / "ca.pem"), **settings)
        async with running(server):
            yield server, dns


@pytest.mark.parametrize(
    "address", [METADATA, "10.0.0.1", "127.0.0.1", "::1", "fd00:ec2::254", "::ffff:127.0.0.1", "0.0.0.0"]
)
async def test_a_public_name_of_a_closed_address_is_not_called(
    ca: trustme.CA, tmp_path: Path, address: str
) -> None:
    async with (
        resolving(ca, tmp_path, Names(address), allow_networks="") as (server, dns),
        receiver(tls=server_context(ca.issue_cert(NAME))) as endpoint,
    ):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(endpoint.url(host=NAME))
        for attempt in (await trial(api, subscription), await first_attempt(api, subscription, "e1")):
            assert (attempt["status"], attempt["error"]) == (0, "address_refused"), attempt
        assert NAME in dns.asked
        assert endpoint.connections == 0


async def test_a_target_that_becomes_private_is_not_called_again(ca: trustme.CA, tmp_path: Path) -> None:
    """DNS rebinding: good while it is checked, something else when it counts."""
    names = Names("127.0.0.1")
    async with (
        resolving(ca, tmp_path, names, allow_networks="127.0.0.1/32") as (server, _),
        receiver(status(200, "Connection: close"), tls=server_context(ca.issue_cert(NAME))) as endpoint,
    ):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(endpoint.url(host=NAME))
        assert (await trial(api, subscription))["status"] == 200
        assert (await first_attempt(api, subscription, "e1"))["status"] == 200
        connections = endpoint.connections
        for address in (METADATA, "127.0.0.2", "10.0.0.1"):
            names.addresses = [address]
            assert await server.terminate() == 0  # a new process has resolved nothing yet
            await server.start()
            attempt = await first_attempt(api, subscription, f"at-{address.replace('.', '-')}")
            assert (attempt["status"], attempt["error"]) == (0, "address_refused")
            assert address in attempt["detail"]
        assert endpoint.connections == connections


async def test_one_closed_address_among_good_ones_spoils_the_name(ca: trustme.CA, tmp_path: Path) -> None:
    """Otherwise the attacker has only to wait until the good one does not answer."""
    async with (
        resolving(ca, tmp_path, Names(METADATA, "10.0.0.1"), allow_networks="127.0.0.1/32") as (server, _),
        receiver(tls=server_context(ca.issue_cert(NAME))) as endpoint,
    ):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(endpoint.url(host=NAME))
        assert (await trial(api, subscription))["error"] == "address_refused"
        assert endpoint.connections == 0


async def test_a_token_endpoint_that_is_private_is_not_called(ca: trustme.CA, tmp_path: Path) -> None:
    certificate = server_context(ca.issue_cert(NAME))
    async with (
        resolving(ca, tmp_path, Names(METADATA), allow_networks="127.0.0.1/32") as (server, dns),
        receiver() as endpoint,
        receiver(tls=certificate) as tokens,
    ):
        api = await Api(server).new_tenant("shop")
        oauth = {
            "kind": "oauth2_client_credentials",
            "token_url": tokens.url("/token", host=NAME),
            "client_id": "client",
            "secret": "a-secret",
        }
        subscription = await api.subscribe(endpoint.url(), auth=oauth)
        for attempt in (await trial(api, subscription), await first_attempt(api, subscription, "e1")):
            assert (attempt["status"], attempt["error"]) == (0, "auth"), attempt
            assert "a-secret" not in str(attempt)
        assert NAME in dns.asked
        assert (tokens.connections, endpoint.connections) == (0, 0)


# --- what an operator takes back, and where endpoints point ------------------------------------------------------


async def test_a_narrower_allow_list_closes_what_was_open(tmp_path: Path) -> None:
    """A restart without the network is enough: subscriptions that are stored already are judged at each request."""
    server = ServerProcess(tmp_path / "data", allow_networks="127.0.0.0/8")
    async with receiver(host="127.0.0.2") as endpoint, running(server):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(endpoint.url())
        assert (await first_attempt(api, subscription, "e1"))["status"] == 200
        assert await server.terminate() == 0
        connections = endpoint.connections
        for number, narrower in enumerate(("127.0.0.1/32", "")):
            server.settings["allow_networks"] = narrower
            await server.start()
            attempts = await trial(api, subscription), await first_attempt(api, subscription, f"n{number}")
            assert [(one["status"], one["error"]) for one in attempts] == [(0, "address_refused")] * 2
            paused = await api.call("POST", f"/v1/subscriptions/{subscription}/pause", {})
            assert paused.status == 200  # it can still be looked after
            await api.post(f"/v1/subscriptions/{subscription}/resume", {})
            assert await server.terminate() == 0
        assert endpoint.connections == connections


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(tmp_path: Path, code: int) -> None:
    server = ServerProcess(tmp_path / "data")
    async with receiver() as inside, running(server):
        for location in (inside.url(), "//127.0.0.1/", "http://169.254.169.254/", "file:///etc/passwd"):
            async with receiver(status(code, f"Location: {location}")) as endpoint:
                await redirect_once(server, endpoint, code)
        assert inside.connections == 0


async def redirect_once(server: ServerProcess, endpoint: Receiver, code: int) -> None:
    tenant = f"shop-{uuid4().hex[:8]}"
    api = await Api(server).new_tenant(tenant)
    subscription = await api.subscribe(endpoint.url(), retry={"kind": "none"})
    for attempt in (await trial(api, subscription), await first_attempt(api, subscription, "e1")):
        assert (attempt["status"], attempt["error"]) == (code, None)
    assert len(endpoint.requests) == 2


async def test_an_answer_of_an_endpoint_cannot_change_where_the_next_request_goes(tmp_path: Path) -> None:
    """Alt-Svc, Refresh and Location of a good answer are just text."""
    server = ServerProcess(tmp_path / "data")
    async with receiver() as inside, running(server):

        async def tempt(exchange: Exchange) -> None:
            lines = [
                f'Alt-Svc: http/1.1="127.0.0.1:{inside.port}"; ma=600',
                f"Refresh: 0; url={inside.url()}",
                f"Location: {inside.url()}",
                f"Content-Location: {inside.url()}",
            ]
            await status(200, *lines)(exchange)

        async with receiver(tempt) as endpoint:
            api = await Api(server).new_tenant("shop")
            subscription = await api.subscribe(endpoint.url())
            for number in range(3):
                assert (await first_attempt(api, subscription, f"e{number}"))["status"] == 200
            await until(lambda: len(endpoint.requests) == 3, "all arrive there")
        assert inside.connections == 0


async def test_the_server_never_calls_itself(tmp_path: Path) -> None:
    """A webhook to our own publish route would go round for ever; also on a port that the system chose."""
    server = ServerProcess(tmp_path / "data", host="localhost")
    async with running(server):
        tenant = await Api(server).new_tenant("shop")
        subscription = await tenant.subscribe(f"http://127.0.0.1:{server.port}/v1/events")
        trial = await tenant.post(f"/v1/subscriptions/{subscription}/test", {})
        assert trial["attempt"]["error"] == "address_refused", trial
