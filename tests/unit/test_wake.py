"""Wake-ups between processes: many listeners, dead ones, long paths."""

import asyncio
import time
from pathlib import Path

from hookline.storage.wake import LOOK_AGAIN, LocalBell, LocalWake, SocketWake, WakeListener

LONG = 30.0


async def woken(bell: LocalBell) -> float:
    """How long it waited."""
    began = time.monotonic()
    await bell.wait(LONG)
    return time.monotonic() - began


async def test_every_listener_is_woken(tmp_path: Path) -> None:
    wakes = [LocalWake() for _ in range(3)]
    listeners = [WakeListener(tmp_path / "wake", wake) for wake in wakes]
    sender = SocketWake(tmp_path / "wake")
    waiting = [asyncio.create_task(woken(wake.listen(0))) for wake in wakes]
    sender.notify()
    assert max(await asyncio.gather(*waiting)) < LONG
    for listener in listeners:
        listener.close()
    sender.close()


async def test_one_that_goes_takes_nothing_from_the_others(tmp_path: Path) -> None:
    wake = LocalWake()
    bell = wake.listen(0)
    stays, goes = WakeListener(tmp_path / "wake", wake), WakeListener(tmp_path / "wake", LocalWake())
    sender = SocketWake(tmp_path / "wake")
    sender.notify()
    goes.close()
    await woken(bell)
    waiting = asyncio.create_task(woken(bell))
    sender.notify()
    assert await waiting < LONG
    stays.close()
    sender.close()
    assert list((tmp_path / "wake").iterdir()) == []


async def test_a_late_listener_is_found(tmp_path: Path) -> None:
    sender, wake = SocketWake(tmp_path / "wake"), LocalWake()
    bell = wake.listen(0)
    sender.notify()
    listener = WakeListener(tmp_path / "wake", wake)
    waiting = asyncio.create_task(woken(bell))
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
    bell = wake.listen(0)
    listener, sender = WakeListener(folder / "wake", wake), SocketWake(folder / "wake")
    sender.notify()
    assert await woken(bell) < LONG
    listener.close()
    sender.close()


async def test_only_the_bells_of_the_shards_ring() -> None:
    wake = LocalWake()
    bells = [wake.listen(shard) for shard in (0, 1, 1)]
    wake.notify({1})
    await asyncio.gather(woken(bells[1]), woken(bells[2]))
    waiting = [asyncio.create_task(bell.wait(LONG)) for bell in bells]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    bells[2].close()
    wake.notify()
    await asyncio.gather(*waiting[:2])
    waiting[2].cancel()
