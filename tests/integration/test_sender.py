"""The sender with receivers that behave: what is sent, what is reported, how connections are used."""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from hookline.app.parts import SystemClock
from hookline.core.model import Auth, AuthKind
from hookline.engine.tokens import TokenCache
from hookline.ports import ErrorClass, Outcome
from hookline.sender import CurlSender
from hookline.sender.transfer import SENT_AGAIN
from tests.integration.receivers import OK, Exchange, answer, receiver, status, stay_silent
from tests.integration.senders import LOOPBACK, PATIENCE, begin, open_sender, request, send, until


@pytest.fixture
async def sender() -> AsyncIterator[CurlSender]:
    async with open_sender() as made:
        yield made


# --- requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_request_arrives_as_it_was_given(sender: CurlSender, method: str) -> None:
    body = bytes(range(256)) * 10
    async with receiver() as there:
        outcome = await send(
            sender,
            there.url("/a/../b?c=%20d&e[]=1"),
            method=method,
            headers=["x-one: 1", "X-Two: zwei"],
            body=body,
        )
    (got,) = there.requests
    assert outcome.status == 200
    assert (got.method, got.target, got.body) == (method, "/a/../b?c=%20d&e[]=1", body)
    assert (got.headers["x-one"], got.headers["x-two"]) == ("1", "zwei")
    assert {"expect", "accept-encoding", "authorization"} & got.headers.keys() == set()


async def test_a_header_without_a_value_arrives(sender: CurlSender) -> None:
    async with receiver() as there:
        await send(sender, there.url(), headers=["x-empty: ", "X-One: 1"])
    (got,) = there.requests
    assert (got.headers["x-empty"], got.headers["x-one"]) == ("", "1")


async def test_get_has_no_body_and_an_empty_post_says_so(sender: CurlSender) -> None:
    async with receiver() as there:
        await send(sender, there.url(), method="GET", body=b"left out")
        await send(sender, there.url(), body=None)
        await send(sender, there.url(), body=b"full")
        await send(sender, there.url(), method="GET", body=None)
    assert [(got.method, got.body) for got in there.requests] == [
        ("GET", b""),
        ("POST", b""),
        ("POST", b"full"),
        ("GET", b""),
    ]
    assert "content-length" not in there.requests[0].headers
    assert there.requests[1].headers["content-length"] == "0"


async def test_a_large_body_is_sent_without_asking_first(sender: CurlSender) -> None:
    async with receiver() as there:
        outcome = await send(sender, there.url(), body=b"x" * 3_000_000)
    assert outcome.status == 200
    assert len(there.requests[0].body) == 3_000_000
    assert "expect" not in there.requests[0].headers


async def test_what_cannot_be_sent_is_an_internal_error(sender: CurlSender) -> None:
    for outcome in (
        await send(sender, "https://127.0.0.1/", headers=["x: \u00fc"]),
        await send(sender, "https://127.0.0.1/\x00"),
    ):
        assert outcome.error is ErrorClass.INTERNAL
        assert outcome.detail.startswith("the request cannot be sent")
    assert sender.in_flight == 0


# --- answers ---------------------------------------------------------------------------------------------


async def test_an_answer_comes_back_whole_with_times_and_address(sender: CurlSender) -> None:
    async with receiver(status(202, "X-A: b", body=b"taken")) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.error, outcome.detail) == (202, None, "")
    assert outcome.headers == b"HTTP/1.1 202 Status\r\nContent-Length: 5\r\nX-A: b\r\n\r\n"
    assert (outcome.body, outcome.truncated) == (b"taken", False)
    assert outcome.address == f"127.0.0.1:{there.port}"
    assert 0 < outcome.first_byte_us <= outcome.total_us < 10_000_000
    assert 0 < outcome.connect_us <= outcome.first_byte_us
    assert outcome.tls_us == 0


@pytest.mark.parametrize("code", [200, 204, 400, 401, 407, 410, 429, 500, 503])
async def test_every_status_is_an_answer(sender: CurlSender, code: int) -> None:
    async with receiver(status(code, "WWW-Authenticate: Basic", "Proxy-Authenticate: Basic")) as there:
        assert (await send(sender, there.url())).status == code
    assert len(there.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_reported_and_never_followed(sender: CurlSender, code: int) -> None:
    async with receiver() as elsewhere, receiver(status(code, f"Location: {elsewhere.url()}")) as there:
        outcome = await send(sender, there.url())
    assert outcome.status == code
    assert f"Location: {elsewhere.url()}".encode() in outcome.headers
    assert elsewhere.connections == 0


async def test_interim_answers_are_passed_over(sender: CurlSender) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with receiver(answer(early + OK)) as there:
        outcome = await send(sender, there.url())
    assert outcome.status == 200
    assert outcome.headers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Link" not in outcome.headers


async def test_trailers_are_kept_with_the_headers(sender: CurlSender) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n"
    async with receiver(answer(chunked)) as there:
        outcome = await send(sender, there.url())
    assert (outcome.status, outcome.body) == (200, b"ok")
    assert b"X-Late: 1" in outcome.headers


# --- connections -----------------------------------------------------------------------------------------


async def test_connections_are_kept_and_used_again(sender: CurlSender) -> None:
    async with receiver() as there:
        first = await send(sender, there.url())
        others = [await send(sender, there.url(), method=method) for method in ("POST", "PUT", "GET") * 10]
    assert there.connections == 1
    assert first.connect_us > 0
    assert {(one.status, one.connect_us, one.dns_us) for one in others} == {(200, 0, 0)}
    assert {one.address for one in others} == {first.address}


async def test_a_connection_closed_while_idle_costs_no_request(sender: CurlSender) -> None:
    closed = asyncio.Event()

    async def answer_then_close(exchange: Exchange) -> None:
        await exchange.send(OK)
        exchange.hang_up()
        await exchange.writer.wait_closed()
        closed.set()

    async with receiver(answer_then_close) as there:
        for number in range(5):
            outcome = await send(sender, there.url(f"/{number}"))
            assert outcome.status == 200
            await asyncio.wait_for(closed.wait(), 60)
            closed.clear()
    assert [got.target for got in there.requests] == [f"/{number}" for number in range(5)]


async def test_a_request_repeated_on_a_new_connection_is_reported(sender: CurlSender) -> None:
    """The endpoint closes a kept connection just as the next request comes: the classic race."""

    async def close_on_the_second(exchange: Exchange) -> None:
        if exchange.number == 2:
            exchange.hang_up()
        else:
            await exchange.send(OK)

    async with receiver(close_on_the_second) as there:
        first = await send(sender, there.url("/1"))
        second = await send(sender, there.url("/2"))
    assert (first.status, first.detail) == (200, "")
    assert (second.status, second.detail) == (200, SENT_AGAIN)
    assert [got.target for got in there.requests] == ["/1", "/2", "/2"]


async def test_a_request_is_repeated_once_at_most(sender: CurlSender) -> None:
    """The endpoint drops this request on whatever connection: it gets it twice, never a third time."""

    async def hold_then_close(exchange: Exchange) -> None:
        if exchange.request.target == "/keep":
            if len(there.requests) == 3:
                all_in.set()
            await all_in.wait()
            await exchange.send(OK)
        else:
            exchange.hang_up()

    all_in = asyncio.Event()
    async with receiver(hold_then_close) as there:
        kept = [begin(sender, request(there.url("/keep"))) for _ in range(3)]
        assert [one.status for one in await asyncio.gather(*kept)] == [200, 200, 200]
        outcome = await send(sender, there.url("/drop"))
    assert outcome.error is ErrorClass.RESET
    assert outcome.detail == f"the endpoint closed the connection before answering ({SENT_AGAIN})"
    assert [got.target for got in there.requests].count("/drop") == 2


async def test_hundreds_of_requests_at_once(sender: CurlSender) -> None:
    async def answer_late(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        await exchange.send(OK)

    async with receiver(answer_late) as there:
        waiting = [
            begin(sender, request(there.url(f"/{number}"), body=b"%d" % number)) for number in range(400)
        ]
        assert sender.in_flight == 400
        outcomes = await asyncio.gather(*waiting)
    assert [one.status for one in outcomes] == [200] * 400
    assert sorted(int(got.body) for got in there.requests) == list(range(400))
    assert all(got.target == f"/{int(got.body)}" for got in there.requests)
    assert sender.in_flight == 0


async def test_requests_in_flight_are_bounded() -> None:
    async with receiver(stay_silent) as there, open_sender(max_in_flight=2) as sender:
        for _ in range(2):
            begin(sender, request(there.url()))
        outcome = await send(sender, there.url())
    assert outcome.error is ErrorClass.INTERNAL
    assert outcome.detail == "more than 2 requests are in flight"


async def test_the_next_request_can_be_started_from_an_answer(sender: CurlSender) -> None:
    finished: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def chain(outcome: Outcome) -> None:
        if len(there.requests) < 50:
            sender.start(request(there.url()), chain)
        else:
            finished.set_result(outcome)

    async with receiver() as there:
        sender.start(request(there.url()), chain)
        outcome = await asyncio.wait_for(finished, 60)
    assert outcome.status == 200
    assert there.connections == 1


async def test_a_failing_receiver_of_outcomes_does_not_stop_the_others(sender: CurlSender) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))

    def broken(outcome: Outcome) -> None:
        raise LookupError(outcome.status)

    async with receiver() as there:
        sender.start(request(there.url()), broken)
        assert (await send(sender, there.url())).status == 200
        assert (await send(sender, there.url())).status == 200
    assert failures == ["a callback of the sender failed"]


# --- life ------------------------------------------------------------------------------------------------


def _sockets() -> set[int]:
    found: set[int] = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            if stat.S_ISSOCK(os.fstat(int(entry)).st_mode):
                found.add(int(entry))
        except OSError:
            continue
    return found


async def test_close_gives_up_what_is_in_flight_and_frees_all_sockets() -> None:
    outcomes: list[Outcome] = []
    async with receiver(stay_silent) as silent, receiver() as there:
        before = _sockets()
        sender = CurlSender(LOOPBACK)
        for _ in range(20):
            sender.start(request(silent.url()), outcomes.append)
        await send(sender, there.url())
        await until(lambda: len(silent.requests) == 20)
        await sender.close()
        await sender.close()
        await until(lambda: not _sockets() - before)  # the receivers' ends go when they notice
        with pytest.raises(RuntimeError, match="closed"):
            sender.start(request(there.url()), outcomes.append)
    assert outcomes == []


async def test_close_does_not_wait_for_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.sender.curl.CLOSE_SECONDS", 0.05)
    sender = CurlSender(LOOPBACK)
    free, resolved, freed = sender._multi.close, threading.Event(), threading.Event()

    class Hanging:
        def close(self) -> None:  # where libcurl waits for threads in getaddrinfo()
            resolved.wait(PATIENCE)
            free()
            freed.set()

    monkeypatch.setattr(sender, "_multi", Hanging())
    await asyncio.wait_for(sender.close(), 60)
    assert not freed.is_set()
    resolved.set()
    assert await asyncio.to_thread(freed.wait, PATIENCE)


async def test_a_failure_to_start_is_not_told_after_close() -> None:
    outcomes: list[Outcome] = []
    sender = CurlSender(LOOPBACK)
    sender.start(request("https://127.0.0.1/", headers=["x: \u00fc"]), outcomes.append)
    await sender.close()
    await asyncio.sleep(0)
    assert outcomes == []


async def test_sockets_are_not_inherited_by_child_processes(sender: CurlSender) -> None:
    before = _sockets()
    async with receiver() as there:
        await send(sender, there.url())
        new = _sockets() - before
        assert len(new) >= 2
        assert not any(os.get_inheritable(fd) for fd in new)


def test_it_runs_on_uvloop() -> None:
    async def run() -> list[Outcome]:
        async with receiver() as there, receiver(stay_silent) as silent, open_sender() as sender:
            slow = begin(sender, request(silent.url(), total=1.0))
            good = [begin(sender, request(there.url())) for _ in range(100)]
            return await asyncio.gather(slow, *good)

    slow, *good = uvloop.run(run())
    assert slow.error is ErrorClass.TIMEOUT
    assert [one.status for one in good] == [200] * 100


# --- surroundings ----------------------------------------------------------------------------------------


async def test_proxies_and_passwords_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with receiver() as proxy, receiver() as there:
        for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        async with open_sender() as sender:
            assert (await send(sender, there.url())).status == 200
    assert proxy.connections == 0
    assert "authorization" not in there.requests[0].headers


async def test_a_configured_proxy_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    async with receiver() as proxy, open_sender(proxy=proxy.url("")) as sender:
        outcome = await send(sender, "http://shop.example/hook")
    assert outcome.status == 200
    assert proxy.requests[0].target == "http://shop.example/hook"


async def test_a_proxy_that_refuses_says_so() -> None:
    async with receiver(status(403)) as proxy, open_sender(proxy=proxy.url("")) as sender:
        outcome = await send(sender, "https://shop.example/hook")
    assert (outcome.status, outcome.error) == (0, ErrorClass.CONNECT)
    assert outcome.detail.startswith("the proxy refused the connection")
    assert proxy.requests[0].method == "CONNECT"


async def test_connections_beyond_the_number_kept_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets come, idle, and go while their numbers are given out again."""
    monkeypatch.setattr("hookline.sender.curl.MAX_IDLE_CONNECTIONS", 4)
    async with open_sender() as sender:
        for _ in range(5):
            async with receiver() as first, receiver() as second:
                both = [begin(sender, request(one.url())) for one in (first, second) * 20]
                assert [one.status for one in await asyncio.gather(*both)] == [200] * 40


async def test_tokens_come_through_the_same_sender(sender: CurlSender) -> None:
    got: list[tuple[str, str]] = []
    granted = b'{"access_token": "t1", "token_type": "bearer", "expires_in": 60}'
    async with receiver(status(200, body=granted)) as there:
        cache = TokenCache(sender, SystemClock())
        for url in (there.url("/token"), "https://10.0.0.1/token"):
            told = asyncio.Event()

            def done(token: str, error: str, told: asyncio.Event = told) -> None:
                got.append((token, error))
                told.set()

            cache.get(Auth(kind=AuthKind.OAUTH2, token_url=url, client_id="a", secret="b"), done)
            await asyncio.wait_for(told.wait(), 60)
    assert got == [
        ("t1", ""),
        ("", "the token endpoint could not be reached: 10.0.0.1 is a private address (RFC 1918)"),
    ]
