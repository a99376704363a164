"""OAuth2 client credentials (RFC 6749 §4.4): access tokens for endpoints, fetched once and shared.

The token endpoint is called through the same ``Sender`` as the deliveries, so the same guard covers it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Struct

from hookline.core.model import Auth
from hookline.ports import Clock, Outcome, Request, Sender

MAX_TOKENS = 10_000
MAX_WAITERS = 10_000
CONNECT_TIMEOUT = 5.0
TOTAL_TIMEOUT = 10.0

_DEFAULT_LIFE = 300.0
"""Seconds a token is used if its issuer does not say (``expires_in`` is only recommended, RFC 6749 §5.1)."""

_MAX_LIFE = 86400.0
_MARGIN = 30.0
"""Seconds before its end from which a token is not used: a request takes time, and clocks differ."""

_PAUSE_AFTER_ERROR = 1.0
"""Seconds in which a failure is the answer, so that a broken token endpoint is not asked at every delivery."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")  # printable: it goes into a header line

TokenDone = Callable[[str, str], None]
Key = tuple[str, str, str, str]


class _Granted(Struct):
    """The answer of a token endpoint, good or bad (RFC 6749 §5). Some send ``expires_in`` as text."""

    access_token: str = ""
    token_type: str = "bearer"  # noqa: S105 - the name of a kind of token
    expires_in: float | str | None = None
    error: str = ""
    error_description: str = ""


class _Entry(Struct):
    """What is known for a credential: a token, or an error that holds for a moment, or who waits for either."""

    token: str = ""
    error: str = ""
    until: float = 0.0
    waiting: list[TokenDone] | None = None


class TokenCache:
    """Tokens by credential. One request is in flight for each, however many deliveries wait for it."""

    def __init__(
        self, sender: Sender, clock: Clock, *, max_tokens: int = MAX_TOKENS, max_waiters: int = MAX_WAITERS
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._max_tokens = max_tokens
        self._max_waiters = max_waiters
        self._entries: dict[Key, _Entry] = {}

    def get(self, auth: Auth, done: TokenDone) -> None:
        """Call ``done(token, "")`` or ``done("", error)``: at once if that is known, else when it comes."""
        key = _key(auth)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._new_entry(key)
        if entry.waiting is not None:
            if len(entry.waiting) >= self._max_waiters:
                return done("", "too many deliveries wait for the token endpoint")
            entry.waiting.append(done)
            return None
        if self._clock.monotonic() < entry.until:
            return done(entry.token, entry.error)
        entry.waiting = [done]
        self._sender.start(_request(auth), lambda outcome: self._settle(entry, outcome))
        return None

    def forget(self, auth: Auth, token: str = "") -> None:
        """Drop the token after the endpoint refused it. With ``token``, only if it is still that one: another
        delivery may have brought a new one meanwhile."""
        entry = self._entries.get(_key(auth))
        if entry and entry.token and token in ("", entry.token):
            entry.token = ""
            entry.until = 0.0

    def _new_entry(self, key: Key) -> _Entry:
        """Make room by dropping the oldest credential that nobody waits for."""
        if len(self._entries) >= self._max_tokens:
            oldest = next((known for known, entry in self._entries.items() if entry.waiting is None), None)
            if oldest:
                del self._entries[oldest]
        entry = self._entries[key] = _Entry()
        return entry

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        entry.token, entry.error, seconds = _read(outcome)
        entry.until = self._clock.monotonic() + seconds
        waiting, entry.waiting = entry.waiting or [], None
        failure: Exception | None = None
        for done in waiting:
            try:
                done(entry.token, entry.error)
            except Exception as error:  # noqa: BLE001 - the others still wait; it is raised after them
                failure = failure or error
        if failure:
            raise failure


def _key(auth: Auth) -> Key:
    return auth.token_url, auth.client_id, auth.secret, auth.scope


def _request(auth: Auth) -> Request:
    """The client identifies itself by HTTP Basic, which token endpoints must accept (RFC 6749 §2.3.1)."""
    identity = f"{quote_plus(auth.client_id)}:{quote_plus(auth.secret)}".encode()
    form = {"grant_type": "client_credentials"}
    if auth.scope:
        form["scope"] = auth.scope
    return Request(
        method="POST",
        url=auth.token_url,
        headers=[
            "Content-Type: application/x-www-form-urlencoded",
            "Accept: application/json",
            f"Authorization: Basic {base64.b64encode(identity).decode()}",
        ],
        body=urlencode(form).encode(),
        connect_timeout=CONNECT_TIMEOUT,
        total_timeout=TOTAL_TIMEOUT,
    )


def _read(outcome: Outcome) -> tuple[str, str, float]:
    """Token, error, and the seconds for which this answer holds."""
    if outcome.error is not None:
        return "", f"the token endpoint could not be reached: {outcome.detail}", _PAUSE_AFTER_ERROR
    granted = _decode(outcome.body)
    if outcome.status != 200:
        reason = f": {granted.error[:100]} {granted.error_description[:200]}" if granted else ""
        return "", f"the token endpoint answered {outcome.status}{reason}".rstrip(), _PAUSE_AFTER_ERROR
    if granted is None or not _TOKEN.fullmatch(granted.access_token):
        return "", "the token endpoint's answer has no usable access_token", _PAUSE_AFTER_ERROR
    if granted.token_type.lower() != "bearer":
        kind = granted.token_type[:50]
        return "", f"the token endpoint gave a token of type {kind!r}, not a bearer token", _PAUSE_AFTER_ERROR
    return granted.access_token, "", _life(granted.expires_in)


def _decode(body: bytes) -> _Granted | None:
    try:
        return msgspec.json.decode(body, type=_Granted)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _life(expires_in: float | str | None) -> float:
    try:
        seconds = _DEFAULT_LIFE if expires_in is None else float(expires_in)
    except ValueError:
        seconds = _DEFAULT_LIFE
    if not 0 < seconds < _MAX_LIFE:  # false for NaN
        seconds = _MAX_LIFE if seconds >= _MAX_LIFE else 0.0
    return max(seconds - _MARGIN, seconds / 2)
