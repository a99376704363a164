"""Ports that stay ours, before, between and after the lives of the server that they are for."""

from __future__ import annotations

import socket


def own_port() -> int:
    """A port of 127.0.0.1 that nobody else is given as long as this process lives.

    A socket is bound to it and never listens: connections are refused until a server of ours listens there, which may
    end and come back as often as it likes. The server must set SO_REUSEADDR, as all of ours do, and those of Go,
    PostgreSQL and Python.
    """
    placeholder = socket.socket()
    placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    placeholder.bind(("127.0.0.1", 0))
    port: int = placeholder.getsockname()[1]
    placeholder.detach()  # open until the process ends
    return port
