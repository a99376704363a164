"""Addresses of NATS servers, and the user or token that stands in them."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import unquote, urlsplit, urlunsplit


class Login(TypedDict, total=False):
    """Who we are to all servers, as ``nats.connect`` takes it."""

    user: str
    password: str
    token: str


def split_login(url: str) -> tuple[list[str], Login]:
    """The addresses, which are parted by commas, without a login, and the first login in them.

    ``nats-py`` takes the login of an address without decoding it: a password with ``%40`` for ``@`` would be wrong.
    """
    servers: list[str] = []
    login: Login = {}
    for one in (part.strip() for part in url.split(",")):
        if not one:
            continue
        parts = urlsplit(one if "://" in one else f"nats://{one}")
        servers.append(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
        login = login or _login(parts.username, parts.password)
    return servers, login


def _login(user: str | None, password: str | None) -> Login:
    if user and password is not None:
        return {"user": unquote(user), "password": unquote(password)}
    return {"token": unquote(user)} if user else {}
