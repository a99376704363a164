"""The demo's account must notice whatever can go wrong: each test plants one fault in a day that is all right."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from hookline.demo.cast import CAST, Behaviour, Role, subscription_of
from hookline.demo.ledger import Ledger, PublishBook, Published, percentile
from hookline.demo.receipts import Receipt
from hookline.demo.shop import PlannedEvent
from hookline.demo.verdict import Logged, Report, judge

STEADY = Role("steady", "takes everything", ("*",))
BY_KEY = Role("by-key", "in order by key", ("order:*",), order="key")
STRICT = Role("strict", "in order", ("order:*",), order="strict")
BIG = Role(
    "big", "filtered", ("order:*",), filter="data.total > 100", passes=lambda data: data["total"] > 100
)
AWAY = Role("away", "cuts connections", ("order:*",), Behaviour(away_share=0.2), repeats=2)
ROLES = (STEADY, BY_KEY, STRICT, BIG, AWAY)


def planned(number: int) -> PlannedEvent:
    """Twelve events of three orders, every fourth a sale without a type that most want."""
    return PlannedEvent(
        id=f"e-{number:03d}", type="SaleCreated" if number % 4 == 0 else "order:created",
        data={"total": number * 20}, at=float(number), object_type="order", object_id=str(number % 3),
        application="shop", user="u", key=str(number % 3), correlation_id="c", occurred_at="",
    )  # fmt: skip


def receipt(role: Role, published: Published, sequence: int) -> Receipt:
    at, digest = published.sent_at + 700, published.digest
    return Receipt(role.name, published.event.id, sequence, 1, at, 204, True, digest)


class Day:
    """A day without a fault: every test spoils something before it asks for the account."""

    def __init__(self) -> None:
        events = [planned(number) for number in range(1, 13)]
        self.book = PublishBook(
            {event.id: Published(event, 1000 * n, f"d{n}") for n, event in enumerate(events)}
        )
        self.receipts: list[Receipt] = []
        self.logs: dict[str, list[Logged]] = {}
        for role in ROLES:
            wanted = [published for published in self.book.published.values() if role.wants(published.event)]
            self.logs[role.name] = [
                Logged(published.event.id, sequence, "succeeded", 1)
                for sequence, published in enumerate(wanted, 1)
            ]
            self.receipts += [
                receipt(role, published, sequence) for sequence, published in enumerate(wanted, 1)
            ]

    def place(self, role: Role, number: int) -> int:
        """Where the receiver's ``number``-th receipt (1, 2, …) stands."""
        return [place for place, receipt in enumerate(self.receipts) if receipt.receiver == role.name][
            number - 1
        ]

    def change(self, role: Role, number: int, **changes: object) -> None:
        place = self.place(role, number)
        self.receipts[place] = replace(self.receipts[place], **changes)

    def report(self) -> Report:
        return judge(12, ROLES, self.book, self.receipts, self.logs)


def test_a_day_without_a_fault_is_all_right():
    report = Day().report()
    assert report.faults == []
    assert report.ok
    assert [row.expected for row in report.rows] == [12, 9, 9, 5, 9]
    assert report.expected == report.delivered == report.verified == 44
    assert (report.extra, report.gaps, report.disordered, report.retries) == (0, 0, 0, 0)
    assert (report.p50_us, report.p99_us) == (700, 700)


def lose(day: Day) -> None:
    del day.receipts[day.place(STEADY, 12)]


def lose_in_the_middle(day: Day) -> None:
    del day.receipts[day.place(STEADY, 5)]


def bad_signature(day: Day) -> None:
    day.change(STEADY, 3, verified=False, status=401)
    day.receipts.append(replace(day.receipts[day.place(STEADY, 3)], attempt=2, verified=True, status=204))
    day.logs["steady"][2] = replace(day.logs["steady"][2], attempts=2)


def accepted_without_a_signature(day: Day) -> None:
    day.change(STEADY, 3, verified=False)


def altered_data(day: Day) -> None:
    day.change(STEADY, 3, digest="other")


def changed_sequence(day: Day) -> None:
    first = day.receipts[day.place(STEADY, 3)]
    day.receipts.insert(day.place(STEADY, 3), replace(first, status=500, sequence=99))


def repeated_sequence(day: Day) -> None:
    day.change(STEADY, 3, sequence=4)
    day.change(STEADY, 4, sequence=4)


def no_sequence(day: Day) -> None:
    day.change(STEADY, 1, sequence=0)


def unwanted(day: Day) -> None:
    day.receipts.append(Receipt("big", "e-001", 6, 1, 0, 204, True, "d0"))


def again(day: Day) -> None:
    day.receipts.append(day.receipts[day.place(STEADY, 3)])


def again_too_often(day: Day) -> None:
    day.receipts += [day.receipts[day.place(AWAY, number)] for number in (1, 2, 3)]


def swapped(role: Role, one: int, other: int) -> Callable[[Day], None]:
    def swap(day: Day) -> None:
        here, there = day.place(role, one), day.place(role, other)
        day.receipts[here], day.receipts[there] = day.receipts[there], day.receipts[here]

    return swap


def overtaken_while_it_waits(day: Day) -> None:
    """The first try of number 2 fails, and 3 arrives before the second try."""
    place = day.place(STRICT, 2)
    second = day.receipts[place]
    day.receipts[place] = replace(second, status=500)
    day.receipts.insert(place + 2, replace(second, attempt=2))
    day.logs["strict"][1] = replace(day.logs["strict"][1], attempts=2)


def against_the_story(day: Day) -> None:
    """Delivered in the order of the sequences, but the later event of the key has the smaller one."""
    here, there = day.place(BY_KEY, 1), day.place(BY_KEY, 6)
    first, later = day.receipts[here], day.receipts[there]
    assert planned(1).key == planned(7).key
    assert (first.event_id, later.event_id) == ("e-001", "e-007")
    day.receipts[here], day.receipts[there] = replace(later, sequence=1), replace(first, sequence=6)


def log_misses_one(day: Day) -> None:
    day.logs["big"].pop()


def log_invents_one(day: Day) -> None:
    day.logs["big"].append(Logged("e-404", 6, "succeeded", 1))


def log_lists_one_twice(day: Day) -> None:
    day.logs["big"].append(day.logs["big"][-1])


def log_has_another_sequence(day: Day) -> None:
    day.logs["big"][0] = replace(day.logs["big"][0], sequence=2)


def log_has_other_attempts(day: Day) -> None:
    day.logs["big"][0] = replace(day.logs["big"][0], attempts=2)


def log_says_failed(day: Day) -> None:
    day.logs["big"][0] = replace(day.logs["big"][0], state="failed")


def no_log(day: Day) -> None:
    del day.logs["big"]


def one_event_not_taken(day: Day) -> None:
    day.book.refused.append("e-013: 422 no such type")


def one_event_less(day: Day) -> None:
    """As if the publisher had forgotten one, and everybody else with it."""
    del day.book.published["e-012"]
    day.receipts = [receipt for receipt in day.receipts if receipt.event_id != "e-012"]
    for name, log in day.logs.items():
        day.logs[name] = [entry for entry in log if entry.event_id != "e-012"]


def a_duplicate_taken_as_new(day: Day) -> None:
    day.book.duplicates_sent, day.book.duplicates_refused = 5, 4


FAULTS = {
    lose: "steady: 1 of 12 events never arrived, such as e-012",
    lose_in_the_middle: "steady: 1 faults in the sequence numbers",
    bad_signature: "steady: 1 requests did not verify",
    accepted_without_a_signature: "steady: 1 requests did not verify",
    altered_data: "steady: 1 requests carried other data",
    changed_sequence: "faults in the sequence numbers",
    repeated_sequence: "steady: 2 faults in the sequence numbers",
    no_sequence: "steady: 2 faults in the sequence numbers",
    unwanted: "big: 1 events arrived that it did not want, such as e-001",
    again: "steady: 1 deliveries arrived again, at most 0",
    again_too_often: "away: 3 deliveries arrived again, at most 2",
    swapped(STRICT, 2, 3): "strict: 1 deliveries out of order (strict)",
    swapped(BY_KEY, 1, 6): "by-key: 1 deliveries out of order (key)",
    overtaken_while_it_waits: "strict: 1 deliveries out of order",
    against_the_story: "deliveries out of order (key)",
    log_misses_one: "big: the log and the receiver differ on 1 events",
    log_invents_one: "big: the log and the receiver differ on 1 events, such as e-404",
    log_lists_one_twice: "big: the log lists 1 events twice",
    log_has_another_sequence: "big: the log has other sequences or attempts for 1 events",
    log_has_other_attempts: "big: the log has other sequences or attempts for 1 events",
    log_says_failed: "big: 1 deliveries did not succeed in the log",
    no_log: "big: the log and the receiver differ on 5 events",
    one_event_not_taken: "publishing: 1 requests were refused",
    one_event_less: "publishing: 12 events were planned, 11 were taken",
    a_duplicate_taken_as_new: "publishing: 5 events were sent twice, but 4",
}


@pytest.mark.parametrize(("plant", "fault"), FAULTS.items())
def test_a_planted_fault_is_found(plant: Callable[[Day], None], fault: str):
    day = Day()
    plant(day)
    report = day.report()
    assert not report.ok
    assert any(fault in line for line in report.faults), report.faults


def test_retries_and_explained_repeats_are_no_faults():
    day = Day()
    place = day.place(STRICT, 2)
    day.receipts.insert(place, replace(day.receipts[place], status=500))
    day.change(STRICT, 3, attempt=2)
    day.logs["strict"][1] = replace(day.logs["strict"][1], attempts=2)
    day.receipts += [day.receipts[day.place(AWAY, number)] for number in (1, 2)]
    report = day.report()
    assert report.faults == []
    assert (report.retries, report.extra) == (1, 2)


def test_keys_may_overtake_each_other():
    day = Day()
    swapped(BY_KEY, 1, 2)(day)
    assert day.report().ok


def test_streams_of_receivers_without_order_may_be_mixed():
    day = Day()
    swapped(STEADY, 1, 12)(day)
    assert day.report().ok


def test_the_receivers_of_the_demo_want_what_they_subscribe_to():
    event = planned(1)
    by_name = {role.name: role for role in CAST}
    sale, cheap = (
        replace(event, type="SaleCreated", data={"total": 100.1}),
        replace(event, type="SaleCreated"),
    )
    assert by_name["fraud-watch"].wants(sale)
    assert not by_name["fraud-watch"].wants(cheap)
    assert by_name["order-history"].wants(replace(event, type="orderCreated"))
    assert by_name["order-history"].wants(replace(event, type="order:created"))
    assert not by_name["partner-portal"].wants(replace(event, type="orderCreated"))
    assert not by_name["stock-ledger"].wants(replace(event, type="delivery:created"))
    assert by_name["analytics"].wants(cheap)


def test_a_subscription_asks_for_what_its_role_says():
    by_name = {role.name: role for role in CAST}
    body = subscription_of(by_name["fraud-watch"], "http://127.0.0.1:9/hooks")
    assert body["filter"] == "data.total > 100"
    assert body["url"] == "http://127.0.0.1:9/hooks"
    assert subscription_of(by_name["order-history"], "x")["order"] == "key"
    assert "filter" not in subscription_of(by_name["analytics"], "x")


def test_the_ledger_counts_as_the_notes_come_in():
    ledger = Ledger([STEADY, BIG])
    for event in (planned(1), planned(6)):
        ledger.publish(event, 1000, "d")
    assert not ledger.complete
    first = Receipt("steady", "e-001", 1, 1, 1700, 500, True, "d")
    ledger.receive([first, replace(first, attempt=2, status=204), replace(first, attempt=2, status=204)])
    steady, big = ledger.tallies["steady"], ledger.tallies["big"]
    assert (steady.expected, len(steady.delivered), steady.backlog, steady.retries) == (2, 1, 1, 1)
    assert (big.expected, big.backlog) == (1, 1)
    assert list(steady.recent) == [700]
    ledger.receive(
        [replace(first, event_id="e-006", status=204), Receipt("big", "e-006", 1, 1, 1, 204, True, "d")]
    )
    assert ledger.complete


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([], 0.5, 0), ([5], 0.99, 5), (range(100), 0.99, 99)]
)
def test_percentiles(values: list[int], share: float, expected: int):
    assert percentile(values, share) == expected
