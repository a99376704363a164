"""The guard in conftest.py works."""

import asyncio
import socket

import pytest

# 192.0.2.0/24 is for documentation (RFC 5737): nothing is there, should the guard fail.
OUTSIDE = ("192.0.2.1", 9)


@pytest.mark.parametrize("verb", ["connect", "connect_ex"])
def test_a_connection_to_the_outside_is_refused(verb):
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"192\.0\.2\.1.*loopback"):
        getattr(sock, verb)(OUTSIDE)


def test_a_datagram_to_the_outside_is_refused():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="loopback"):
        sock.sendto(b"x", OUTSIDE)


async def test_asyncio_is_guarded_too():
    with pytest.raises(RuntimeError, match="loopback"):
        await asyncio.open_connection(*OUTSIDE)


async def test_loopback_is_open():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
