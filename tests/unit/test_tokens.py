"""The token cache: one request for many deliveries, expiry, refusal, and token endpoints that misbehave."""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from hookline.core.model import Auth, AuthKind
from hookline.engine.tokens import TokenCache
from hookline.ports import ErrorClass, Outcome, Request

AUTH = Auth(
    kind=AuthKind.OAUTH2,
    token_url="https://id.example.com/token",
    client_id="shop:1",
    secret="s e+cret",
    scope="hooks read",
)
OTHER = msgspec.structs.replace(AUTH, client_id="shop:2")


class Endpoint:
    """Stands for the sender: keeps the requests until the test answers them."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self._waiting: list[Callable[[Outcome], None]] = []

    def start(self, request: Request, done: Callable[[Outcome], None]) -> None:
        self.asked.append(request)
        self._waiting.append(done)

    async def close(self) -> None:
        self._waiting.clear()

    def answer(self, status: int = 200, **fields: Any) -> None:
        self.raw(status, json.dumps(fields).encode())

    def raw(self, status: int, body: bytes) -> None:
        self._waiting.pop(0)(Outcome(status=status, body=body))

    def fail(self, error: ErrorClass, detail: str) -> None:
        self._waiting.pop(0)(Outcome(error=error, detail=detail))


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cache(endpoint: Endpoint, clock: HandClock) -> TokenCache:
    return TokenCache(endpoint, clock)


class Answers(list[tuple[str, str]]):
    """What the cache told, in order."""

    def note(self, token: str, error: str) -> None:
        self.append((token, error))


@pytest.fixture
def answers() -> Answers:
    return Answers()


def test_the_request_is_a_client_credentials_grant(
    cache: TokenCache, endpoint: Endpoint, answers: Answers
) -> None:
    cache.get(AUTH, answers.note)
    (request,) = endpoint.asked
    assert (request.method, request.url) == ("POST", AUTH.token_url)
    assert parse_qs((request.body or b"").decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["hooks read"],
    }
    authorization = next(line for line in request.headers if line.startswith("Authorization: Basic "))
    assert (
        base64.b64decode(authorization.split()[-1]) == b"shop%3A1:s+e%2Bcret"
    )  # encoded as RFC 6749 §2.3.1 says


def test_many_deliveries_share_one_request_and_then_the_token(
    cache: TokenCache, endpoint: Endpoint, answers: Answers
) -> None:
    for _ in range(100):
        cache.get(AUTH, answers.note)
    assert len(endpoint.asked) == 1
    assert answers == []
    endpoint.answer(access_token="t1", token_type="Bearer", expires_in=3600)
    cache.get(AUTH, answers.note)
    assert answers == [("t1", "")] * 101
    assert len(endpoint.asked) == 1


def test_credentials_do_not_share(cache: TokenCache, endpoint: Endpoint, answers: Answers) -> None:
    cache.get(AUTH, answers.note)
    cache.get(OTHER, answers.note)
    endpoint.answer(access_token="t1")
    endpoint.answer(access_token="t2")
    cache.get(OTHER, answers.note)
    assert [token for token, _ in answers] == ["t1", "t2", "t2"]


@pytest.mark.parametrize(
    ("expires_in", "good_for"),
    [(3600, 3570), ("3600", 3570), (40, 20), (None, 270), ("soon", 270), (10**12, 86370), ("inf", 86370)],
)
def test_a_token_is_used_until_shortly_before_its_end(
    cache: TokenCache,
    endpoint: Endpoint,
    clock: HandClock,
    answers: Answers,
    expires_in: object,
    good_for: float,
) -> None:
    cache.get(AUTH, answers.note)
    endpoint.answer(access_token="t1", expires_in=expires_in)
    clock.seconds += good_for - 0.01
    cache.get(AUTH, answers.note)
    assert len(endpoint.asked) == 1
    clock.seconds += 0.02
    cache.get(AUTH, answers.note)
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("expires_in", [0, -5, "nan"])
def test_a_token_without_life_serves_those_who_waited_only(
    cache: TokenCache, endpoint: Endpoint, answers: Answers, expires_in: object
) -> None:
    cache.get(AUTH, answers.note)
    endpoint.answer(access_token="t1", expires_in=expires_in)
    cache.get(AUTH, answers.note)
    assert answers == [("t1", "")]
    assert len(endpoint.asked) == 2


def test_a_refused_token_is_fetched_anew(cache: TokenCache, endpoint: Endpoint, answers: Answers) -> None:
    cache.get(AUTH, answers.note)
    endpoint.answer(access_token="t1")
    cache.forget(AUTH)
    cache.get(AUTH, answers.note)
    endpoint.answer(access_token="t2")
    cache.forget(AUTH, "t1")  # a late 401 for the old token
    cache.get(AUTH, answers.note)
    assert [token for token, _ in answers] == ["t1", "t2", "t2"]
    cache.forget(OTHER)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (
            401,
            b'{"error": "invalid_client", "error_description": "who?"}',
            "answered 401: invalid_client who?",
        ),
        (500, b"<html>", "answered 500"),
        (302, b"", "answered 302"),
        (200, b"<html>", "no usable access_token"),
        (200, b"{}", "no usable access_token"),
        (200, b'{"access_token": ""}', "no usable access_token"),
        (200, b'{"access_token": 7}', "no usable access_token"),
        (200, b'{"access_token": "a\\r\\nX-Evil: 1"}', "no usable access_token"),
        (200, b'{"access_token": "\xff"}', "no usable access_token"),
        (200, b'["t"]', "no usable access_token"),
        (200, b'{"access_token": "t", "token_type": "mac"}', "type 'mac'"),
    ],
)
def test_bad_answers_become_plain_errors(
    cache: TokenCache, endpoint: Endpoint, answers: Answers, status: int, body: bytes, why: str
) -> None:
    cache.get(AUTH, answers.note)
    endpoint.raw(status, body)
    ((token, error),) = answers
    assert token == ""
    assert why in error


def test_a_failure_holds_for_a_moment(
    cache: TokenCache, endpoint: Endpoint, clock: HandClock, answers: Answers
) -> None:
    cache.get(AUTH, answers.note)
    endpoint.fail(ErrorClass.ADDRESS_REFUSED, "10.0.0.1 is a private address (RFC 1918)")
    cache.get(AUTH, answers.note)
    assert (
        answers
        == [("", "the token endpoint could not be reached: 10.0.0.1 is a private address (RFC 1918)")] * 2
    )
    clock.seconds += 1.01
    cache.get(AUTH, answers.note)
    endpoint.answer(access_token="t1")
    assert answers[-1] == ("t1", "")


def test_waiters_are_bounded(endpoint: Endpoint, clock: HandClock, answers: Answers) -> None:
    cache = TokenCache(endpoint, clock, max_waiters=2)
    for _ in range(3):
        cache.get(AUTH, answers.note)
    assert [error for _, error in answers] == ["too many deliveries wait for the token endpoint"]
    endpoint.answer(access_token="t1")
    assert [token for token, _ in answers] == ["", "t1", "t1"]


def test_the_oldest_token_makes_room_but_never_one_that_is_waited_for(
    endpoint: Endpoint, clock: HandClock, answers: Answers
) -> None:
    cache = TokenCache(endpoint, clock, max_tokens=2)
    third = msgspec.structs.replace(AUTH, client_id="shop:3")
    cache.get(AUTH, answers.note)
    cache.get(OTHER, answers.note)
    cache.get(third, answers.note)
    for number in range(3):
        endpoint.answer(access_token=f"t{number}")
    assert [token for token, _ in answers] == ["t0", "t1", "t2"]
    cache.get(msgspec.structs.replace(AUTH, client_id="shop:4"), answers.note)
    cache.get(OTHER, answers.note)
    cache.get(AUTH, answers.note)
    assert [request.headers[2] == endpoint.asked[0].headers[2] for request in endpoint.asked] == [
        True, False, False, False, True,
    ]  # fmt: skip


def test_a_waiter_that_fails_does_not_rob_the_others(
    cache: TokenCache, endpoint: Endpoint, answers: Answers
) -> None:
    def broken(token: str, error: str) -> None:
        raise LookupError(token)

    cache.get(AUTH, broken)
    cache.get(AUTH, answers.note)
    with pytest.raises(LookupError):
        endpoint.answer(access_token="t1")
    assert answers == [("t1", "")]


def test_asking_again_from_an_answer_is_served_at_once(
    cache: TokenCache, endpoint: Endpoint, answers: Answers
) -> None:
    cache.get(AUTH, lambda token, error: cache.get(AUTH, answers.note))
    endpoint.answer(access_token="t1")
    assert answers == [("t1", "")]
