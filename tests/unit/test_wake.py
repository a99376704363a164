"""Wake-ups between processes: many listeners, dead ones, long paths."""

import asyncio
import time
from pathlib import Path

from hookline.storage.wake import LOOK_AGAIN, LocalWake, SocketWake, WakeListener

LONG = 30.0


async def woken(wake: LocalWake) -> float:
    """How long it waited."""
    began = time.monotonic()
    await wake.wait(LONG)
    return time.monotonic() - began


async def test_every_listener_is_woken(tmp_path: Path) -> None:
    wakes = [LocalWake() for _ in range(3)]
    listeners = [WakeListener(tmp_path / "wake", wake) for wake in wakes]
    sender = SocketWake(tmp_path / "wake")
    waiting = [asyncio.create_task(woken(wake)) for wake in wakes]
    sender.notify()
    assert max(await asyncio.gather(*waiting)) < LONG
    for listener in listeners:
        listener.close()
    sender.close()


async def test_one_that_goes_takes_nothing_from_the_others(tmp_path: Path) -> None:
    wake = LocalWake()
    stays, goes = WakeListener(tmp_path / "wake", wake), WakeListener(tmp_path / "wake", LocalWake())
    sender = SocketWake(tmp_path / "wake")
    sender.notify()
    goes.close()
    await woken(wake)
    waiting = asyncio.create_task(woken(wake))
    sender.notify()
    assert await waiting < LONG
    stays.close()
    sender.close()
    assert list((tmp_path / "wake").iterdir()) == []


async def test_a_late_listener_is_found(tmp_path: Path) -> None:
    sender, wake = SocketWake(tmp_path / "wake"), LocalWake()
    sender.notify()
    listener = WakeListener(tmp_path / "wake", wake)
    waiting = asyncio.create_task(woken(wake))
    deadline = time.monotonic() + 10 * LOOK_AGAIN
    while not waiting.done() and time.monotonic() < deadline:
        sender.notify()
        await asyncio.sleep(LOOK_AGAIN / 20)
    assert waiting.done()
    listener.close()
    sender.close()


async def test_what_a_dead_listener_left_is_removed(tmp_path: Path) -> None:
    listener = WakeListener(tmp_path / "wake", LocalWake())
    asyncio.get_running_loop().remove_reader(listener._socket.fileno())
    listener._socket.close()  # as the kernel does it after kill -9: the name stays
    assert len(list((tmp_path / "wake").iterdir())) == 1
    sender = SocketWake(tmp_path / "wake")
    sender.notify()
    assert list((tmp_path / "wake").iterdir()) == []
    sender.close()
    listener._folder.close()


async def test_the_path_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    wake = LocalWake()
    listener, sender = WakeListener(folder / "wake", wake), SocketWake(folder / "wake")
    sender.notify()
    assert await woken(wake) < LONG
    listener.close()
    sender.close()
