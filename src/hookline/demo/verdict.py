"""Was anything lost? A pure comparison of three accounts: what was published, what the receivers wrote down,
and what the server's log claims. Every disagreement becomes one line in ``faults``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from hookline.demo.cast import Role
from hookline.demo.ledger import PublishBook, Published, percentile
from hookline.demo.receipts import Receipt


class Logged(Struct, frozen=True):
    """A delivery as the server's own log shows it."""

    event_id: str
    sequence: int
    state: str
    attempts: int


class Row(Struct, frozen=True):
    """The account of one receiver. Times are microseconds from publishing to the accepted receipt."""

    name: str
    purpose: str
    expected: int
    delivered: int
    verified: int
    unverified: int
    altered: int
    extra: int
    lost: int
    unwanted: int
    gaps: int
    ordered: bool
    disordered: int
    retries: int
    p50_us: int
    p99_us: int
    log_agrees: bool


class Report(Struct, frozen=True):
    """The closing account of a day."""

    published: int
    planned: int
    batches: int
    duplicates_sent: int
    duplicates_refused: int
    expected: int
    delivered: int
    verified: int
    extra: int
    gaps: int
    disordered: int
    retries: int
    p50_us: int
    p99_us: int
    rows: list[Row]
    faults: list[str]

    @property
    def ok(self) -> bool:
        return not self.faults


class _Account:
    """One receiver's receipts, seen next to what it had to get."""

    def __init__(self, role: Role, published: Mapping[str, Published], receipts: Sequence[Receipt]) -> None:
        self.role = role
        self.receipts = receipts
        self.published = published
        self.expected = {name for name, entry in published.items() if role.wants(entry.event)}
        self.accepted = [receipt for receipt in receipts if 200 <= receipt.status < 300]
        self.first: dict[str, Receipt] = {}
        for receipt in self.accepted:
            self.first.setdefault(receipt.event_id, receipt)
        self.lost = self.expected - self.first.keys()
        self.unwanted = self.first.keys() - self.expected
        self.extra = len(self.accepted) - len(self.first)
        self.unverified = sum(not receipt.verified for receipt in receipts)

    def altered(self) -> int:
        """Requests whose data are not, byte for byte, what was published."""
        known = ((entry, self.published.get(entry.event_id)) for entry in self.receipts)
        return sum(1 for entry, origin in known if origin is not None and entry.digest != origin.digest)

    def gaps(self) -> int:
        """Numbers missing from 1, 2, 3 …, plus events that came under more than one number, plus numbers that
        were given twice."""
        numbers: dict[str, set[int]] = defaultdict(set)
        for receipt in self.receipts:
            numbers[receipt.event_id].add(receipt.sequence)
        seen = [number for several in numbers.values() for number in several]
        distinct = set(seen)
        missing = set(range(1, max(distinct, default=0) + 1)) - distinct
        unstable = sum(len(several) - 1 for several in numbers.values())
        shared = len(seen) - len(distinct)
        return len(missing) + unstable + shared + (0 in distinct)

    def disordered(self) -> int:
        """Requests that came before an earlier event of the same stream was accepted, plus neighbours whose
        sequence runs against the order of publishing. 0 for receivers that asked for no order."""
        if self.role.order == "none":
            return 0
        streams: dict[str, list[Receipt]] = defaultdict(list)
        for receipt in self.receipts:
            streams[self._stream(receipt.event_id)].append(receipt)
        return sum(_overtakings(stream) + self._against_story(stream) for stream in streams.values())

    def _stream(self, event_id: str) -> str:
        origin = self.published.get(event_id)
        return origin.event.key if origin is not None and self.role.order == "key" else ""

    def _against_story(self, stream: Sequence[Receipt]) -> int:
        """Only per key: one key is published by one connection, so its order is known."""
        if self.role.order != "key":
            return 0
        events = {receipt.event_id: receipt.sequence for receipt in stream}
        numbers = [events[event_id] for event_id in sorted(events)]  # ids rise with the day
        return sum(later < earlier for earlier, later in pairwise(numbers))

    def latencies(self) -> list[int]:
        return [
            receipt.at - origin.sent_at
            for event_id, receipt in self.first.items()
            if (origin := self.published.get(event_id)) is not None
        ]

    def retries(self) -> int:
        """Attempts before the accepted one, by the receiver's own header."""
        return sum(max(0, receipt.attempt - 1) for receipt in self.first.values())


def _overtakings(stream: Sequence[Receipt]) -> int:
    """Requests with a sequence above the lowest one that is not yet accepted."""
    waiting = sorted({receipt.sequence for receipt in stream}, reverse=True)
    accepted: set[int] = set()
    found = 0
    for receipt in stream:
        while waiting and waiting[-1] in accepted:
            waiting.pop()
        found += bool(waiting) and receipt.sequence > waiting[-1]
        if 200 <= receipt.status < 300:
            accepted.add(receipt.sequence)
    return found


def judge(
    planned: int,
    roles: Sequence[Role],
    book: PublishBook,
    receipts: Iterable[Receipt],
    logs: Mapping[str, Sequence[Logged]],
) -> Report:
    """Compare everything. ``logs`` are the server's deliveries by receiver."""
    by_receiver: dict[str, list[Receipt]] = {role.name: [] for role in roles}
    for receipt in receipts:
        by_receiver[receipt.receiver].append(receipt)
    accounts = [_Account(role, book.published, by_receiver[role.name]) for role in roles]
    faults = [*_publishing_faults(planned, book)]
    rows: list[Row] = []
    for account in accounts:
        disagreements = list(_log_faults(account, logs.get(account.role.name, ())))
        row = _row(account, log_agrees=not disagreements)
        faults += [*_row_faults(account, row), *disagreements]
        rows.append(row)
    latencies = [value for account in accounts for value in account.latencies()]
    return Report(
        published=len(book.published),
        planned=planned,
        batches=book.batches,
        duplicates_sent=book.duplicates_sent,
        duplicates_refused=book.duplicates_refused,
        expected=sum(row.expected for row in rows),
        delivered=sum(row.delivered for row in rows),
        verified=sum(row.verified for row in rows),
        extra=sum(row.extra for row in rows),
        gaps=sum(row.gaps for row in rows),
        disordered=sum(row.disordered for row in rows),
        retries=sum(row.retries for row in rows),
        p50_us=percentile(latencies, 0.5),
        p99_us=percentile(latencies, 0.99),
        rows=rows,
        faults=faults,
    )


def _row(account: _Account, log_agrees: bool) -> Row:
    latencies = account.latencies()
    return Row(
        name=account.role.name,
        purpose=account.role.purpose,
        expected=len(account.expected),
        delivered=len(account.first),
        verified=sum(receipt.verified for receipt in account.first.values()),
        unverified=account.unverified,
        altered=account.altered(),
        extra=account.extra,
        lost=len(account.lost),
        unwanted=len(account.unwanted),
        gaps=account.gaps(),
        ordered=account.role.order != "none",
        disordered=account.disordered(),
        retries=account.retries(),
        p50_us=percentile(latencies, 0.5),
        p99_us=percentile(latencies, 0.99),
        log_agrees=log_agrees,
    )


def _publishing_faults(planned: int, book: PublishBook) -> Iterable[str]:
    if book.refused:
        yield f"publishing: {len(book.refused)} requests were refused, first: {book.refused[0]}"
    if len(book.published) != planned:
        yield f"publishing: {planned} events were planned, {len(book.published)} were taken"
    if book.duplicates_refused != book.duplicates_sent:
        yield (
            f"publishing: {book.duplicates_sent} events were sent twice, but "
            f"{book.duplicates_refused} were answered as duplicates"
        )


def _row_faults(account: _Account, row: Row) -> Iterable[str]:
    name, role = row.name, account.role
    if account.lost:
        yield f"{name}: {row.lost} of {row.expected} events never arrived, such as {min(account.lost)}"
    if account.unwanted:
        yield f"{name}: {row.unwanted} events arrived that it did not want, such as {min(account.unwanted)}"
    if row.unverified:
        yield f"{name}: {row.unverified} requests did not verify"
    if row.altered:
        yield f"{name}: {row.altered} requests carried other data than were published"
    if row.gaps:
        yield f"{name}: {row.gaps} faults in the sequence numbers (missing, changed or given twice)"
    if row.disordered:
        yield f"{name}: {row.disordered} deliveries out of order ({role.order})"
    if row.extra > role.repeats:
        yield f"{name}: {row.extra} deliveries arrived again, at most {role.repeats} can be explained"


def _log_faults(account: _Account, log: Sequence[Logged]) -> Iterable[str]:
    """Where the server's log and the receiver's notes differ."""
    name = account.role.name
    claimed = {entry.event_id: entry for entry in log}
    if len(claimed) != len(log):
        yield f"{name}: the log lists {len(log) - len(claimed)} events twice"
    unsettled = [entry for entry in log if entry.state != "succeeded"]
    if unsettled:
        yield f"{name}: {len(unsettled)} deliveries did not succeed in the log, such as {unsettled[0]}"
    differing = claimed.keys() ^ account.first.keys()
    if differing:
        yield f"{name}: the log and the receiver differ on {len(differing)} events, such as {min(differing)}"
    last = {receipt.event_id: receipt for receipt in account.accepted}
    wrong = [
        event_id
        for event_id, receipt in last.items()
        if (entry := claimed.get(event_id)) is not None
        and (entry.sequence, entry.attempts) != (receipt.sequence, receipt.attempt)
    ]
    if wrong:
        yield f"{name}: the log has other sequences or attempts for {len(wrong)} events, such as {min(wrong)}"
