"""The demo's input: 63 types of real platforms, and a day that is told with them."""

from collections import Counter
from datetime import date
from itertools import pairwise

import jsonschema_rs
import pytest

from hookline.demo.catalogue import demo_types, sample
from hookline.demo.shop import PlannedEvent, plan_day
from hookline.demo.supply import SCENARIOS

DAY = date(2026, 3, 14)

# ShipStream's reference page, "Event": the keys of each message but webhook_increment_id, which the server counts.
STATUS = {"unique_id", "old_status", "new_status", "old_state", "new_state"}
SHIPSTREAM = {
    **{f"order:{name}": {"unique_id"} for name in ("holded", "completed", "address_validation_failed")},
    **{f"product:{name}": {"sku"} for name in ("created", "updated", "deleted")},
    **{f"product_media:{name}": {"sku"} for name in ("created", "updated", "deleted")},
    **{
        f"delivery:{name}": {"unique_id"}
        for name in ("created", "canceled", "accepted", "processed", "exception", "putaway")
    },
    **{f"import:{name}": {"unique_id"} for name in ("created", "completed")},
    **{name: {"unique_id", "stock_adjustments"} for name in ("order:created", "order:canceled")},
    "delivery:committed": {"unique_id", "stock_adjustments"},
    "inventory:adjusted": {"stock_adjustments"},
    "order:status_changed": STATUS,
    "delivery:status_changed": STATUS,
    "track:created": {
        "unique_id",
        "shipment_unique_id",
        "order_unique_id",
        "source",
        "track_number",
        "carrier",
    },
}


def day(count: int = 600, seed: int = 7) -> list[PlannedEvent]:
    return plan_day(seed, count, DAY, SCENARIOS)


@pytest.mark.parametrize(("system", "types"), [("shipstream", 24), ("avvyr", 20), ("frontsystems", 19)])
def test_all_types_that_the_day_tells_of_are_there(system: str, types: int):
    entries = [entry for entry in demo_types().values() if entry.system == system]
    assert len(entries) == types
    assert all(entry.description and entry.usage and entry.example for entry in entries)
    assert len(demo_types()) == 24 + 20 + 19


def test_shipstream_messages_have_exactly_the_keys_of_the_vendor():
    ours = {entry.name: set(entry.example) for entry in demo_types().values() if entry.system == "shipstream"}
    assert ours == SHIPSTREAM


def test_shipstream_values_have_the_kinds_of_the_vendor():
    assert isinstance(sample("order:created")["unique_id"], str)
    assert isinstance(sample("import:created")["unique_id"], int)
    assert isinstance(sample("track:created")["order_unique_id"], int)
    assert sample("order:created", "stock_adjustments", "sku123") == {"qty_adjust": -5, "qty_available": 95}
    assert sample("order:status_changed")["old_status"] is None


def test_a_sample_is_a_copy():
    sample("orderCreated")["totals"]["grandTotal"] = 0
    assert sample("orderCreated", "totals")["grandTotal"] == 54.7


def test_every_sample_fits_its_own_schema():
    for entry in demo_types().values():
        assert jsonschema_rs.validator_for(entry.schema).is_valid(entry.example), entry.name


@pytest.mark.parametrize("seed", [1, 7, 23])
def test_every_event_of_a_day_fits_the_schema_of_its_type_and_has_its_fields(seed: int):
    validators = {
        entry.name: jsonschema_rs.validator_for(entry.schema, validate_formats=True)
        for entry in demo_types().values()
    }
    for event in day(1500, seed):
        validators[event.type].validate(event.data)
        assert event.data.keys() == demo_types()[event.type].example.keys(), event.type


def test_three_hundred_events_are_enough_to_tell_of_all_types():
    assert {event.type for event in day(300)} == demo_types().keys()


@pytest.mark.parametrize("count", [1, 50, 300, 1234])
def test_a_day_has_as_many_events_as_asked_for_with_rising_ids_and_times(count: int):
    events = day(count)
    assert len(events) == count
    assert all(earlier.id < later.id and earlier.at <= later.at for earlier, later in pairwise(events))
    assert events[0].at >= 0
    assert events[-1].at < 86_400


def test_the_same_seed_tells_the_same_day_and_another_one_another():
    assert day(200, 3) == day(200, 3)
    assert day(200, 3) != day(200, 4)


def test_an_order_is_one_story():
    events = day(1000)
    delivered = Counter(event.key for event in events if event.type == "order:completed")
    number = next(iter(delivered))
    story = [event for event in events if event.key == number]
    types = [event.type for event in story]
    assert types.index("orderCreated") < types.index("order:created") < types.index("fulfillmentCreated")
    assert types.index("track:created") < types.index("order:completed")
    assert len({event.correlation_id for event in story}) == 1
    lines = next(event.data["lines"] for event in story if event.type == "orderCreated")
    adjusted = next(event.data["stock_adjustments"] for event in story if event.type == "order:created")
    assert {line["sku"]: -line["quantity"] for line in lines} == {
        sku: entry["qty_adjust"] for sku, entry in adjusted.items()
    }


def test_the_sums_of_an_order_are_right():
    for event in day(1000):
        if event.type == "orderCreated":
            totals = event.data["totals"]
            assert totals["subTotal"] == pytest.approx(sum(line["total"] for line in event.data["lines"]))
            assert totals["grandTotal"] == pytest.approx(totals["subTotal"] + totals["shipping"])
            assert event.data["payment"]["amount"] == totals["grandTotal"]


def test_every_event_says_what_it_is_about_and_who_made_it():
    for event in day(600):
        assert event.object_type
        assert event.object_id
        assert event.key
        assert event.application
        assert event.user
        assert event.correlation_id
        assert event.occurred_at.startswith("2026-03-14T")
