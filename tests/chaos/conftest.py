"""The database of the tests with several nodes: a server for each module, with its syncs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    """A server of the module's own: its tests crash it, cut it off and fill it up."""
    server = PostgresServer(durable=True, max_connections="80")
    yield server
    server.remove()
