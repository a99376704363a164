import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.errors import InvalidInput
from hookline.core.matching import (
    MAX_PATTERNS,
    Matcher,
    Payload,
    Reason,
    events_faults,
    name_fault,
    pattern_fault,
    type_matches,
)
from hookline.core.model import Definition, Event

NAMES = st.text(string.ascii_letters + string.digits + "_.:-/", min_size=1, max_size=128)


def event(name: str, data: bytes = b"{}") -> Event:
    return Event(
        shard=0, position=1, tenant_no=1, id="evt_1", type=name, data=data, occurred_at=0, received_at=0
    )


def definition(*events: str, filter: str | None = None) -> Definition:
    return Definition(url="https://receiver.example/hook", events=events, filter=filter)


@pytest.mark.parametrize(
    "pattern", ["*", "order:*", "order:created", "SaleCreated", "a.b/c-d_e:*", "x" * 128, "x" * 128 + "*"]
)
def test_good_patterns(pattern: str):
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("", "1 to 128"),
        ("order *", "1 to 128"),
        ("x" * 129, "1 to 128"),
        ("x" * 129 + "*", "1 to 128"),
        ("order\n", "1 to 128"),
        ("órder", "1 to 128"),
        ("**", "only stand at the end"),
        ("*:created", "only stand at the end"),
        ("order:*:done", "only stand at the end"),
    ],
)
def test_bad_patterns(pattern: str, part: str):
    assert part in (pattern_fault(pattern) or "")


@given(NAMES)
def test_names_are_patterns_and_name_themselves(name: str):
    assert name_fault(name) is None
    assert pattern_fault(name) is None
    assert type_matches([name], name)


def test_a_wildcard_is_no_name():
    assert name_fault("order:*")


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        (["order:created"], "order:created", True),
        (["order:created"], "order:created2", False),
        (["order:*"], "order:created", True),
        (["order:*"], "order:", True),
        (["order:*"], "order", False),
        (["order:*"], "reorder:created", False),
        (["Order:*"], "order:created", False),
        (["stock:*", "order:c*"], "order:created", True),
        (["*"], "order:created", True),
        ([], "order:created", False),
        (["*"], "hookline.delivery.failed", False),
        (["hook*"], "hookline.delivery.failed", False),
        (["hookline*"], "hookline.delivery.failed", False),
        (["hookline.*"], "hookline.delivery.failed", True),
        (["hookline.delivery.*"], "hookline.delivery.failed", True),
        (["hookline.delivery.failed"], "hookline.delivery.failed", True),
        (["*", "hookline.subscription.*"], "hookline.delivery.failed", False),
        (["*"], "hooklines", True),
        (["hookline*"], "hooklines", True),
    ],
)
def test_types(patterns: list[str], name: str, matches: bool):
    assert type_matches(patterns, name) is matches
    assert Matcher(definition(*patterns)).matches(event(name), Payload(b"{}")) is matches


@given(
    st.lists(
        st.builds("{}{}".format, st.text("ahookline.:", max_size=12), st.sampled_from(["", "*"])), max_size=4
    ),
    NAMES,
)
def test_matcher_and_explanation_agree_with_the_rule(patterns: list[str], name: str):
    one = event(name)
    matcher = Matcher(definition(*patterns))
    assert matcher.matches(one, Payload(one.data)) is type_matches(patterns, name)
    (reason,) = matcher.explain(one, Payload(one.data))
    assert reason.passed is type_matches(patterns, name)


def test_faults_of_a_list_name_each_place():
    assert events_faults(["order:*", "no good", "*x"])[0].field == "events[1]"
    assert [fault.field for fault in events_faults(["order:*", "no good", "*x"])] == [
        "events[1]",
        "events[2]",
    ]
    assert [fault.field for fault in events_faults([])] == ["events"]
    assert [fault.field for fault in events_faults(["x"] * (MAX_PATTERNS + 1))] == ["events"]
    assert events_faults(["x"] * MAX_PATTERNS) == []


def test_type_and_filter_must_both_pass():
    matcher = Matcher(definition("order:*", filter="data.total > 100"))
    assert matcher.matches(event("order:paid"), Payload(b'{"total": 101}'))
    assert not matcher.matches(event("order:paid"), Payload(b'{"total": 100}'))
    assert not matcher.matches(event("stock:low"), Payload(b'{"total": 101}'))


def test_the_explanation_names_each_rule():
    matcher = Matcher(definition("order:*", "stock:low", filter="data.total > 100 and data.paid == true"))
    payload = Payload(b'{"total": 80, "paid": true}')
    assert matcher.explain(event("order:paid"), payload) == [
        Reason("events", True, "type order:paid is named by order:*"),
        Reason("data.total > 100", False, "data.total is 80, not > 100"),
        Reason("data.paid == true", True, "data.paid is true"),
    ]
    assert matcher.explain(event("refund"), payload)[0] == Reason(
        "events", False, "type refund is not named by order:*, stock:low"
    )


def test_the_explanation_tells_about_our_own_events():
    (reason,) = Matcher(definition("*")).explain(event("hookline.delivery.failed"), Payload(b"{}"))
    assert reason.detail.endswith("events of Hookline's own need their name or hookline.*")


def test_a_bad_filter_is_refused():
    with pytest.raises(InvalidInput):
        Matcher(definition("*", filter="data.total >"))


def test_the_payload_is_read_once_and_only_if_needed(monkeypatch: pytest.MonkeyPatch):
    from hookline.core import payload as module

    reads: list[bytes] = []

    class Decoder:
        def decode(self, data: bytes) -> object:
            reads.append(data)
            return {"a": 1}

    monkeypatch.setattr(module, "_decoder", Decoder())
    payload = Payload(b"raw")
    assert Matcher(definition("order:*")).matches(event("order:paid"), payload)
    assert reads == []
    for _ in range(3):
        assert Matcher(definition("*", filter="data.a == 1")).matches(event("order:paid"), payload)
    assert payload.fault == ""
    assert reads == [b"raw"]
