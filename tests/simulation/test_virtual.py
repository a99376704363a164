"""Virtual time does what time does, only at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.simulation.virtual import NothingToWaitFor, Process, VirtualClock
from tests.simulation.world import run_virtual

DAY = 86400.0


def test_a_year_takes_no_time():
    async def year() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for _ in range(365):
            await asyncio.sleep(DAY)
            seen.append(loop.time())
        return seen

    began = time.process_time()
    assert run_virtual(year()) == [DAY * day for day in range(1, 366)]
    assert time.process_time() - began < 5


def test_timers_fire_in_order_of_their_time_then_of_their_making():
    async def fire() -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        for name, delay in (("late", 3.0), ("first", 1.0), ("second", 1.5), ("third", 2.0)):
            loop.call_later(delay, seen.append, name)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.sleep(100)
        return seen

    assert run_virtual(fire()) == ["first", "second", "third"]


def test_waiting_for_what_nobody_does_is_an_error():
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingToWaitFor):
        run_virtual(wait())


def test_a_frozen_process_does_nothing_and_then_all_of_it():
    async def story() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        process = Process("one")
        ticks: list[float] = []

        async def tick() -> None:
            for _ in range(4):
                await asyncio.sleep(1)
                ticks.append(loop.time())

        work = process.spawn(tick(), "ticks")
        await asyncio.sleep(1.5)
        process.freeze()
        await asyncio.sleep(10)
        frozen = ticks.copy()
        process.thaw()
        await work
        return frozen, ticks

    frozen, ticks = run_virtual(story())
    assert frozen == [1.0]
    assert ticks == [1.0, 11.5, 12.5, 13.5]


def test_clock_is_off_by_its_skew():
    async def times() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        right, wrong = VirtualClock(loop), VirtualClock(loop, skew=0.25)
        await asyncio.sleep(3)
        return wrong.now() - right.now(), int(wrong.monotonic())

    assert run_virtual(times()) == (250, 3)
