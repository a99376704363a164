"""A lean publisher over keep-alive connections: as fast as answers come, or at a given rate.

``load.py PORT SECONDS CONNECTIONS [RATE]``; from the environment come ``KEY`` (several, parted by commas, take turns),
``BODY`` and ``TARGET`` (the path). ``@SENT@`` in the body is replaced by the time in nanoseconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop


async def publish(port: int, connections: int, seconds: float, rate: float) -> int:
    """Publish for a while, ``rate`` requests a second if that is not 0; returns how many were accepted."""
    end = time.monotonic() + seconds
    counts = await asyncio.gather(
        *(
            _one(port, index, end, connections / rate if rate else 0.0, index / connections)
            for index in range(connections)
        )
    )
    return sum(counts)


async def _one(port: int, index: int, end: float, interval: float, phase: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    keys, body = os.environ["KEY"].split(","), os.environ["BODY"]
    target = os.environ.get("TARGET", "/v1/events")
    count, turn, due = 0, index, time.monotonic() + interval * phase
    while time.monotonic() < end:
        if interval:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += interval
        data = body.replace("@SENT@", str(time.time_ns())).encode()
        turn += 1
        head = (
            f"POST {target} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {keys[turn % len(keys)]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        count += b" 20" in answer[:12]
    writer.close()
    return count


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    print(
        uvloop.run(
            publish(
                int(arguments[0]),
                int(arguments[2]),
                arguments[1],
                arguments[3] if len(arguments) > 3 else 0.0,
            )
        )
    )
