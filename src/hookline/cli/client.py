"""A plain client of the native API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from hookline import __version__
from hookline.cli.failures import ApiRefused, Unreachable, Usage

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
PAGE = 100
NO_CONTENT = 204

Query = Mapping[str, str | int | None]


def path(*parts: str) -> str:
    """A path below /v1 whose parts may hold any characters (``order:created``)."""
    return "/v1/" + "/".join(quote(part, safe=":") for part in parts)


class Api:
    """One server, one key. Methods raise ``ApiRefused`` and ``Unreachable``; making it, ``Usage``."""

    def __init__(self, url: str, key: str = "", tenant: str = "") -> None:
        self.url = _base(url)
        _check_header(key, "--key or HOOKLINE_KEY")
        _check_header(tenant, "--tenant or HOOKLINE_TENANT")
        headers = {"accept": "application/json", "user-agent": f"hookline-cli/{__version__}"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        if tenant:
            headers["hookline-tenant"] = tenant
        self._pool = urllib3.PoolManager(
            headers=headers,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        )

    def get(self, where: str, query: Query | None = None) -> Any:
        """Read something."""
        return self.send("GET", where, query=query)

    def send(self, method: str, where: str, body: object = None, *, query: Query | None = None) -> Any:
        """Send a JSON body (None: no body) and return the decoded answer."""
        raw = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        return self.send_raw(method, where, raw, query=query)

    def send_raw(
        self,
        method: str,
        where: str,
        body: bytes | None,
        *,
        content_type: str = "application/json",
        query: Query | None = None,
    ) -> Any:
        """Send bytes as they are and return the decoded answer."""
        status, answer = self.exchange(method, where, body, content_type=content_type, query=query)
        decoded = _decoded(answer) if answer else None
        if 200 <= status < 300 and (decoded is not None or status == NO_CONTENT):
            return decoded
        if isinstance(decoded, dict) and status >= 400:
            raise ApiRefused(status, cast("dict[str, Any]", decoded))
        raise self._stranger(f"{status}, but not as Hookline does")

    def read_page(self, where: str, query: Query | None = None) -> dict[str, Any]:
        """One page of a list, or a list that comes whole: its items are in ``data``."""
        page = self.get(where, query)
        if isinstance(page, dict):
            known = cast("dict[str, Any]", page)
            if isinstance(known.get("data"), list):
                return known
        raise self._stranger("with something else than a list")

    def _stranger(self, how: str) -> Unreachable:
        return Unreachable(f"{self.url} answers {how}; is the URL right?")

    def exchange(
        self,
        method: str,
        where: str,
        body: bytes | None = None,
        *,
        content_type: str = "application/json",
        query: Query | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer, whatever they are."""
        fields = {name: str(value) for name, value in (query or {}).items() if value not in (None, "")}
        url = self.url + where + ("?" + urlencode(fields) if fields else "")
        headers = dict(self._pool.headers) | ({"content-type": content_type} if body is not None else {})
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"cannot reach {self.url}: {_reason(error)}") from error
        return answer.status, answer.data

    def pages(self, where: str, query: Query | None = None, limit: int = 0) -> Iterator[dict[str, Any]]:
        """Up to ``limit`` items of a list, page by page (0: all)."""
        left, cursor = limit, None
        while True:
            size = min(left, PAGE) if limit else PAGE
            page = self.read_page(where, {**(query or {}), "limit": size, "cursor": cursor})
            yield from page["data"]
            left, cursor = left - len(page["data"]), page.get("next")
            if not cursor or (limit and left <= 0):
                return


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        good = False
    if not good:
        raise Usage(f"--url or HOOKLINE_URL: {url!r} is not a URL such as http://127.0.0.1:8480")
    return url.rstrip("/")


def _check_header(value: str, source: str) -> None:
    if not (value.isascii() and value.isprintable()):
        raise Usage(f"{source} holds a letter that cannot be in it: a line break, or one beyond ASCII")


def _decoded(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        refused = "refused" in str(error).lower()
        return (
            "nothing listens there; is `hookline serve` running?"
            if refused
            else str(error).rpartition(": ")[2]
        )
    return str(error) or type(error).__name__
