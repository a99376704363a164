import contextlib
import re
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core import ids
from hookline.core.errors import NotFound

NUMBERS = st.integers(0, 2**60 - 1)


def test_the_alphabet_has_no_letters_that_look_alike():
    seen = {ids.attempt_id(number, 0, 0).removeprefix("att_")[0] for number in range(32)}
    assert seen == set("0123456789abcdefghjkmnpqrstvwxyz")


@given(
    st.integers(0, 2**47),
    st.integers(0, 2**47),
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=10, max_size=10),
)
def test_ids_sort_by_time(one: int, other: int, entropy: bytes, other_entropy: bytes):
    first, second = ids.time_ordered("evt", one, entropy), ids.time_ordered("evt", other, other_entropy)
    if one != other:
        assert (first < second) is (one < other)
    assert re.fullmatch(r"evt_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", first)
    assert ids.EVENT_ID.fullmatch(first)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_derived_ids_lead_back(subscription_no: int, position: int, number: int):
    delivery = ids.delivery_id(subscription_no, position)
    attempt = ids.attempt_id(subscription_no, position, number)
    assert ids.parse_delivery_id(delivery) == (subscription_no, position)
    assert ids.parse_attempt_id(attempt) == (subscription_no, position, number)
    assert "." not in delivery + attempt


@pytest.mark.parametrize(
    "text",
    ["", "dlv_", "dlv_1", "dlv_1-2-3", "att_1-2", "dlv_1-", "dlv_-1", "dlv_1-i", "dlv_1-A", "dlv_1-٣", "1-2",
     "dlv_1-" + "1" * 13, "dlv_1-2 ", "DLV_1-2", "dlv_1-2\n"],
)  # fmt: skip
def test_what_is_no_delivery_id(text: str):
    with pytest.raises(NotFound):
        ids.parse_delivery_id(text)


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_not_found(text: str):
    for parse in (ids.parse_delivery_id, ids.parse_attempt_id):
        with contextlib.suppress(NotFound):
            assert all(number >= 0 for number in parse(text))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("ord-1_2:3", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a.b", False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("a\n", False),
    ],
)
def test_event_ids(text: str, good: bool):
    assert bool(ids.EVENT_ID.fullmatch(text)) is good


@given(st.integers(0, 2**47), st.binary(min_size=10, max_size=10))
def test_stored_ids_are_uuids(now: int, entropy: bytes):
    made = ids.time_ordered("sub", now, entropy)
    uuid = UUID(ids.uuid_of(made))
    assert (uuid.version, uuid.variant) == (7, RFC_4122)
    assert ids.from_uuid("sub", str(uuid)) == ids.from_uuid("sub", str(uuid).upper()) == made


@pytest.mark.parametrize(
    "text", ["", "1", "g" * 32, "0" * 32, "00000000-0000-7000-8000-00000000000", "{" + "0" * 36]
)
def test_what_is_no_uuid_names_nothing(text: str):
    with pytest.raises(NotFound):
        ids.from_uuid("sub", text)
    with pytest.raises(NotFound):
        ids.DeliveryUuids("sub_1").position(text)


@given(st.integers(0, 2**62 - 1), st.text(max_size=40))
def test_a_delivery_has_one_uuid_that_leads_back(position: int, subscription_id: str):
    uuids = ids.DeliveryUuids(subscription_id)
    text = uuids.of(position)
    assert (UUID(text).version, UUID(text).variant, str(UUID(text))) == (8, RFC_4122, text)
    assert uuids.position(text) == position
    with pytest.raises(NotFound):
        ids.DeliveryUuids(subscription_id + "x").position(text)
