"""Which server a command talks to, and as whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from hookline.cli import output
from hookline.cli.client import Api, Query
from hookline.cli.output import Columns, Item

OPERATOR_KEY_FILE = "operator.key"


@Parameter(name="*", group="Server")
@dataclass(frozen=True)
class Target:
    """The options that all client commands share.

    The operator key of this machine's settings or data folder is never sent to another machine.
    """

    url: Annotated[
        str, Parameter(env_var="HOOKLINE_URL", help="Base URL. Default: this machine's server.")
    ] = ""
    key: Annotated[
        str, Parameter(env_var="HOOKLINE_KEY", help="API key. Default: this machine's operator key.")
    ] = ""
    tenant: Annotated[
        str,
        Parameter(env_var="HOOKLINE_TENANT", help="The tenant to act for, if the key is an operator key."),
    ] = ""
    json: Annotated[bool, Parameter(help="Print JSON lines.")] = False

    @cached_property
    def api(self) -> Api:
        """The server as a client. Raises ``SettingsInvalid`` if the settings are needed and wrong."""
        url = self.url or self._local_url()
        return Api(url, self.key or _local_key(url), self.tenant)

    def another(self) -> Api:
        """The same server and key over a connection of its own, for another thread."""
        return Api(self.api.url, self.key or _local_key(self.api.url), self.tenant)

    def _local_url(self) -> str:
        from hookline.settings import load

        return f"http://127.0.0.1:{load().port}"

    def list(self, where: str, columns: Columns, query: Query | None = None, limit: int = 0) -> None:
        """Print a list of the API."""
        self.show_all(self.api.pages(where, query, limit), columns)

    def list_whole(self, where: str, columns: Columns, query: Query | None = None) -> None:
        """Print a list of the API that comes in one piece."""
        self.show_all(self.api.read_page(where, query)["data"], columns)

    def show_all(self, items: Iterable[Item], columns: Columns) -> None:
        """Print items in the form that was asked for."""
        output.show_list(items, columns, as_json=self.json)

    def show(self, item: Item) -> None:
        """Print one item in the form that was asked for."""
        output.show_item(item, as_json=self.json)

    def done(self, message: str) -> None:
        """Say that something was done, unless a program is reading."""
        if not self.json:
            output.put(message)


def _local_key(url: str) -> str:
    if not is_local(url):
        return ""
    from hookline.settings import load

    settings = load()
    if settings.operator_key:
        return settings.operator_key
    return _read(settings.data_dir / OPERATOR_KEY_FILE)


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine by a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
