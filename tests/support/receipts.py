"""The receiver's process as tests see it, and what can be said about its log."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support.http import Connection
from tests.support.receiver import CAUGHT_UP
from tests.support.server import ROOT, child_environment
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request that an endpoint got. ``at`` is in monotonic nanoseconds, ``line`` its place in the log."""

    endpoint: str
    event: str
    sequence: int
    attempt: int
    status: int
    at: int
    verified: bool

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Receipts:
    """The log of a receiver process, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self.all: list[Receipt] = []
        self.accepted: defaultdict[str, set[str]] = defaultdict(set)
        """The events that each endpoint has answered with 2xx."""

    def read(self) -> None:
        """Take in what is new."""
        with self._path.open("rb") as log:
            log.seek(self._place)
            news = log.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.decode().splitlines():
            endpoint, event, sequence, attempt, status, at, verified = line.split("\t")
            receipt = Receipt(
                endpoint, event, int(sequence), int(attempt), int(status), int(at), verified == "1"
            )
            self.all.append(receipt)
            if receipt.accepted:
                self.accepted[endpoint].add(event)

    def of(self, endpoint: str) -> list[Receipt]:
        """What one endpoint got, in order of arrival."""
        return [receipt for receipt in self.all if receipt.endpoint == endpoint]

    def count(self, endpoint: str) -> int:
        """How many different events an endpoint has accepted by now."""
        self.read()
        return len(self.accepted[endpoint])

    async def complete(self, expected: Mapping[str, Iterable[str]], seconds: float = 120.0) -> None:
        """Return once each endpoint has accepted all of its events."""
        wanted = {endpoint: set(events) for endpoint, events in expected.items()}

        def missing() -> dict[str, list[str]]:
            self.read()
            left = {endpoint: events - self.accepted[endpoint] for endpoint, events in wanted.items()}
            return {endpoint: sorted(events) for endpoint, events in left.items() if events}

        def explain() -> str:
            return "; ".join(
                f"{endpoint}: {len(events)} of {len(wanted[endpoint])} are missing, such as {events[:5]}"
                for endpoint, events in missing().items()
            )

        await until(lambda: not missing(), explain, seconds)


@dataclass(frozen=True)
class Receiver:
    """A running receiver process."""

    port: int
    secret: str
    receipts: Receipts

    def url(self, endpoint: str, behaviour: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{endpoint}" + (f"?{behaviour}" if behaviour else "")

    async def caught_up(self) -> int:
        """Return, with the time, once everything that had been sent to it is in its log."""
        connection = await Connection.open(self.port)
        await connection.request("GET", CAUGHT_UP)
        await connection.close()
        return time.monotonic_ns()


@asynccontextmanager
async def receiving(folder: Path) -> AsyncGenerator[Receiver]:
    """Run a receiver process with its log in ``folder``."""
    log, secret = folder / "receipts.log", "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    log.touch()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.receiver", str(log), secret],
        cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield Receiver(int(process.stdout.readline()), secret, Receipts(log))
        finally:
            process.kill()


# --- what must hold for any log, whatever happened --------------------------------------------------------


def assert_signed(receipts: Sequence[Receipt]) -> None:
    assert [receipt for receipt in receipts if not receipt.verified] == []


def sequences(receipts: Sequence[Receipt]) -> dict[str, int]:
    """The sequence of each event of one endpoint: the same at every attempt, and no two events share one."""
    known: dict[str, int] = {}
    for receipt in receipts:
        first = known.setdefault(receipt.event, receipt.sequence)
        assert first == receipt.sequence, f"{receipt.event} came as {first} and as {receipt.sequence}"
    shared = [sequence for sequence, times in Counter(known.values()).items() if times > 1]
    assert not shared, f"several events came as {shared[:5]}"
    return known


def assert_sequences_follow_the_log(receipts: Sequence[Receipt], log: Sequence[str]) -> None:
    """The matching events, in the order of the log, have 1, 2, 3 … without a gap."""
    known = sequences(receipts)
    assert [known.get(event) for event in log] == list(range(1, len(log) + 1))
    assert set(known) == set(log)


def duplicates(receipts: Iterable[Receipt]) -> list[Receipt]:
    """The receipts of events that the same endpoint had accepted before."""
    accepted: set[tuple[str, str]] = set()
    again: list[Receipt] = []
    for receipt in receipts:
        place = receipt.endpoint, receipt.event
        if place in accepted:
            again.append(receipt)
        elif receipt.accepted:
            accepted.add(place)
    return again


def assert_no_duplicates_within(lives: Sequence[int], receipts: Sequence[Receipt]) -> None:
    """No process sends what it has delivered already. ``lives`` are the times at which each one began."""
    starts = [*lives, sys.maxsize]
    for start, end in pairwise(starts):
        of_life = [receipt for receipt in receipts if start <= receipt.at < end]
        assert duplicates(of_life) == []


def assert_in_order(receipts: Sequence[Receipt], group: Callable[[Receipt], object]) -> None:
    """Within a group nothing is sent before all of lower sequence were accepted."""
    groups: defaultdict[object, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        groups[group(receipt)].append(receipt)
    for name, members in groups.items():
        to_come = deque(sorted({receipt.sequence for receipt in members}))
        accepted: set[int] = set()
        for receipt in members:
            assert receipt.sequence <= to_come[0], (
                f"{receipt} of {name!r} came before {to_come[0]} was accepted"
            )
            if receipt.accepted:
                accepted.add(receipt.sequence)
            while len(to_come) > 1 and to_come[0] in accepted:
                to_come.popleft()
