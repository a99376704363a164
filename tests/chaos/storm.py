"""Subscriptions of every kind under load, and what must hold of them after any number of crashes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from tests.support.load import Load
from tests.support.receipts import (
    Receiver,
    assert_in_order,
    assert_sequences_follow_the_log,
    assert_signed,
    duplicates,
    sequences,
)
from tests.support.server import Api
from tests.support.waiting import eventually

RETRY = {"kind": "exponential", "base": 0.1, "factor": 1.5, "cap": 1.0, "max_attempts": 100}
"""Quick, and longer than any of these tests."""
BREAKER = {"failures": 0}

EDITED = "edited"
EDITS = (["order:*"], ["stock:*"])

SUBSCRIPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "any": ("", {}),
    "orders": ("", {"events": ["order:*"]}),
    "by-key": ("fail=1", {"order": "key"}),
    "strict": ("", {"order": "strict"}),
    "flaky": ("fail=2", {}),
    "slow": ("delay=0.03", {"max_in_flight": 16}),
    EDITED: ("", {"events": EDITS[0]}),
}
"""Endpoint: how it behaves, and what differs from the default in its subscription."""


@dataclass
class Storm:
    """One tenant with all of ``SUBSCRIPTIONS``."""

    api: Api
    receiver: Receiver
    ids: dict[str, str] = field(default_factory=dict[str, str])
    edits: int = 0

    @classmethod
    async def prepare(cls, operator: Api, receiver: Receiver) -> Storm:
        api = await operator.new_tenant("shop")
        storm = cls(api, receiver)
        for endpoint, (behaviour, fields) in SUBSCRIPTIONS.items():
            storm.ids[endpoint] = await api.subscribe(
                receiver.url(endpoint, behaviour),
                **{"retry": RETRY, "breaker": BREAKER, "signing": {"secret": receiver.secret}, **fields},
            )
        return storm

    async def edit(self) -> None:
        """Let the edited subscription ask for other events from now on."""
        self.edits += 1
        await self.api.patch(
            f"/v1/subscriptions/{self.ids[EDITED]}", {"events": EDITS[self.edits % len(EDITS)]}
        )

    # --- the end

    async def settle(self, load: Load) -> None:
        """Return once everything that was accepted has arrived and is recorded."""
        everything = list(load.accepted)
        orders = [event.id for event in load.accepted.values() if event.type.startswith("order:")]
        expected = {
            endpoint: orders if endpoint == "orders" else everything
            for endpoint in SUBSCRIPTIONS
            if endpoint != EDITED
        }
        await self.receiver.receipts.complete(expected)
        for subscription in self.ids.values():
            await eventually(
                lambda one=subscription: self.api.get(f"/v1/subscriptions/{one}/health"),
                lambda health: health["lag"] == 0 and health["waiting"] == 0,
                f"{subscription} has settled",
            )
        self.receiver.receipts.read()

    async def check(self, load: Load) -> None:
        """All promises of the design that a receiver, a publisher and a reader of the API can see."""
        receipts = self.receiver.receipts
        log = await self._check_log(load)
        assert_signed(receipts.all)
        orders = [event for event in log if load.accepted[event].type.startswith("order:")]
        for endpoint in SUBSCRIPTIONS:
            matching = orders if endpoint == "orders" else log
            if endpoint == EDITED:
                matching = self._check_edited(log, load)
            assert_sequences_follow_the_log(receipts.of(endpoint), matching)
            await self._check_records(endpoint, sequences(receipts.of(endpoint)))
        assert_in_order(receipts.of("strict"), lambda _: "all")
        assert_in_order(receipts.of("by-key"), lambda receipt: load.accepted[receipt.event].key)

    async def _check_log(self, load: Load) -> list[str]:
        """The ids in the log's order: each accepted event once, nothing else, at dense positions."""
        events = await self.api.listing("/v1/events")
        events.reverse()
        assert [event["position"] for event in events] == list(range(1, len(events) + 1))
        ids = [event["id"] for event in events]
        assert sorted(ids) == sorted(load.accepted)
        return ids

    def _check_edited(self, log: Sequence[str], load: Load) -> list[str]:
        """See ``check_edited``."""
        got = {receipt.event for receipt in self.receiver.receipts.of(EDITED)}
        return check_edited(got, log, load, self.edits)

    async def _check_records(self, endpoint: str, known: dict[str, int]) -> None:
        """The API tells the same story as the receiver: each delivery once, succeeded, with this sequence."""
        listed = await self.api.listing(f"/v1/subscriptions/{self.ids[endpoint]}/deliveries")
        assert {one["event"]: one["sequence"] for one in listed} == known
        assert len(listed) == len(known)
        assert {one["state"] for one in listed} == {"succeeded"}

    async def check_answers_to_repeats(self, load: Load, count: int = 40) -> None:
        """Publishing again is recognised, and other content under the same id refused."""
        events = list(load.accepted.values())
        for event in events[:: max(1, len(events) // count)]:
            again = await self.api.call("POST", "/v1/events", event.body)
            assert (again.status, again.json) == (202, {"id": event.id, "duplicate": True})
            other = await self.api.call("POST", "/v1/events", event.body.replace(b"12.50", b"99.99"))
            assert (other.status, other.code) == (409, "event_id_conflict")

    def repeats(self) -> int:
        """How many deliveries arrived more than once."""
        return len(duplicates(self.receiver.receipts.all))

    def survivors(self, lives: Sequence[int]) -> int:
        """How many deliveries failed in one life of the server and succeeded in a later one."""
        failed: dict[tuple[str, str], int] = {}
        survived = 0
        for receipt in self.receiver.receipts.all:
            place, life = (receipt.endpoint, receipt.event), sum(start <= receipt.at for start in lives)
            if not receipt.accepted:
                failed[place] = life
            elif failed.pop(place, life) < life:
                survived += 1
        return survived


def check_edited(got: Collection[str], log: Sequence[str], load: Load, edits: int) -> list[str]:
    """An edit takes effect at one place of the log: between two edits nothing of the type is missing.

    Returns what the endpoint got, in the log's order.
    """
    places = [place for place, event in enumerate(log) if event in got]
    group = [load.accepted[log[place]].type.partition(":")[0] for place in places]
    stretches = [[place for place, _ in pairs] for _, pairs in _by_group(places, group)]
    assert len(stretches) <= edits + 1
    for stretch in stretches:
        kind = load.accepted[log[stretch[0]]].type.partition(":")[0]
        between = range(stretch[0], stretch[-1] + 1)
        assert stretch == [place for place in between if load.accepted[log[place]].type.startswith(kind)]
    return [log[place] for place in places]


def _by_group(places: Iterable[int], group: Iterable[str]) -> Iterable[tuple[str, list[tuple[int, str]]]]:
    for name, pairs in groupby(zip(places, group, strict=True), key=lambda pair: pair[1]):
        yield name, list(pairs)
