import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from hookline.core.errors import Fault
from hookline.core.schema import compile_schema
from hookline.demo.shop import plan_day
from hookline.demo.supply import SCENARIOS
from hookline.profiles.catalogue import shipped
from tests.support.schemas import grown, keywords

Json = dict[str, Any]

FILES = sorted((Path(__file__).parents[2] / "src/hookline/profiles/frontsystems/catalogue").glob("*.json"))

STATED = """
SaleCreated CustomerCreated CustomerUpdated DeliveryItemsReceived DeliveryCompleted InvoiceCreated
StockMovementCreated OmniChannelEndlessAisleOrderCreated OmniChannelOrderFulfilled
OmniChannelOrderRefundUpdated OmniChannelOrderUpdated ProductTransferCreated ProductTransferReceived
ProductTransferVirtualCreated ProductTransferVirtualReceived SaleExternalCreated StockAdjustmentCreated
StockCountReconciled POSSettlementCreated
""".split()
"""The page's list, in its order."""

GROUPS = ["Sales", "Customers", "Deliveries", "Stock", "Omnichannel", "Product transfers", "Settlement"]
"""Ours: the page has none."""

# What the platform's public documents name (a sample of a customer event, models of the REST API).
CUSTOMER = """customerId customerExtId customerGuid email firstName lastName companyName taxId gender address1 city
province postalCode country countryCode phoneCountryPrefix phone description agreedSendEmail agreedSendSMS isEmployee
birthday cardNo tags gdprUpdatedDateTime registeredStoreId createdDateTime updatedDateTime deleted""".split()
ORDER = """orderId orderNo orderType receiptNo receiptUrl createdDateTime updatedDateTime dueDateTime
expirationDateTime comment paymentLines orderLines orderEvents shipmentInfo fulfillmentLocation store customer
shippingAddress vatTotal total status""".split()
ORDER_LINE = """rowId gtin externalSKU quantity price fullPrice discount discountPercent vat vatPercent sizeText
status""".split()
MOVEMENT = """movementId type sku gtin quantity stockLevel reservedLevel availableLevel stockId createdById
createdDateTime storeId productName orderId""".split()
SETTLEMENT = """settlementId batchNumber currency grossTotal netTotal vatTotal discrepancy paymentTypes withdrawals
deposits""".split()

LOADED: list[Json] = [json.loads(file.read_text("utf-8")) for file in FILES]
ENTRIES: list[Json] = [entry for group in LOADED for entry in group["types"]]
TYPES: dict[str, Json] = {entry["name"]: entry for entry in ENTRIES}
SHIPPED = shipped("frontsystems")
SCHEMAS: dict[str, Json] = {name: json.loads(made.schema or b"") for name, made in SHIPPED.items()}
ORDERS = [name for name in STATED if name.startswith("OmniChannel")]


def faults(name: str, data: object) -> list[Fault]:
    return compile_schema(json.dumps(SCHEMAS[name]).encode()).faults(data)


def parts(schema: Json, defs: Json) -> list[Json]:
    """The schemas that look at the whole payload."""
    if "$ref" in schema:
        return parts(defs[schema["$ref"].rpartition("/")[2]], defs)
    return [schema, *(part for child in schema.get("allOf", []) for part in parts(child, defs))]


def required(name: str) -> list[str]:
    return [key for part in parts(SCHEMAS[name], SCHEMAS[name]["$defs"]) for key in part.get("required", [])]


def test_the_types_are_those_of_the_page_in_its_order():
    assert len(STATED) == len(ENTRIES) == 19
    assert [entry["name"] for entry in sorted(ENTRIES, key=lambda entry: entry["order"])] == STATED
    assert sorted(entry["order"] for entry in ENTRIES) == list(range(1, 20))
    assert SHIPPED.keys() == TYPES.keys()


def test_the_groups_keep_the_order_of_the_page():
    assert [group["group"] for group in LOADED] == GROUPS
    for group in LOADED:
        numbers = [entry["order"] for entry in group["types"]]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("name", STATED)
def test_a_type_has_the_trigger_and_usage_of_the_page(name: str):
    entry = TYPES[name]
    assert entry["description"].startswith("When ")
    assert entry["usage"].startswith(("To ", "For "))
    assert entry["description"].endswith(".")
    assert entry["usage"].endswith(".")
    assert entry["object_type"]
    assert entry["origin"] == ("stated" if name.startswith("Customer") else "choice")


def test_the_count_says_all_that_its_page_says():
    assert "api/stock/adjust" in TYPES["StockCountReconciled"]["description"]
    assert "StockStatus endpoint" in TYPES["StockCountReconciled"]["usage"]
    assert "snapShotDateTime" in TYPES["StockCountReconciled"]["usage"]


@pytest.mark.parametrize("name", STATED)
def test_the_example_fits_the_schema(name: str):
    schema, example = SCHEMAS[name], TYPES[name]["example"]
    assert faults(name, example) == []
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(example)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(example)


@pytest.mark.parametrize("name", STATED)
def test_no_required_field_may_be_missing_or_of_another_kind(name: str):
    example = TYPES[name]["example"]
    assert len(required(name)) >= 6
    for key in required(name):
        rest = {field: value for field, value in example.items() if field != key}
        assert faults(name, rest) == [Fault(f"data.{key}", "is missing")]
        assert faults(name, example | {key: ["unexpected"]}), key


def test_parts_of_an_entity_are_checked_too():
    sale = copy.deepcopy(TYPES["SaleCreated"]["example"])
    del sale["saleLines"][1]["gtin"], sale["paymentLines"][0]["amount"]
    sale["createdDateTime"] = "14.03.2026 10:04"
    found = {fault.field for fault in faults("SaleCreated", sale)}
    assert found == {"data.saleLines[1].gtin", "data.paymentLines[0].amount", "data.createdDateTime"}


@pytest.mark.parametrize(
    "when", ["2026-03-14T10:04:12", "2026-03-14T10:04:12.02", "2026-03-14T10:04:12.0212345+01:00"]
)
def test_times_are_taken_in_all_forms_that_the_platform_shows(when: str):
    for name in STATED:
        example = TYPES[name]["example"]
        times = {key: when for key in example if key.endswith("DateTime")}
        assert times
        assert faults(name, example | times) == []


@pytest.mark.parametrize("name", STATED)
def test_new_fields_and_new_states_fit(name: str):
    example = grown(TYPES[name]["example"])
    if "status" in example:
        example["status"] = "ANewOne"
    assert faults(name, example) == []
    assert keywords(SCHEMAS[name]).isdisjoint({"enum", "const"})


# --- what the platform's documents name -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CustomerCreated", "CustomerUpdated"])
def test_a_customer_has_the_keys_of_the_platforms_sample_and_no_envelope(name: str):
    assert list(TYPES[name]["example"]) == CUSTOMER


@pytest.mark.parametrize("name", ORDERS)
def test_an_omnichannel_order_has_the_keys_of_the_rest_api(name: str):
    example = TYPES[name]["example"]
    assert list(example) == ORDER
    assert [set(line) for line in example["orderLines"]] == [set(ORDER_LINE)]
    assert example["orderEvents"][-1]["status"] == example["status"]


def test_a_stock_movement_and_a_settlement_have_the_keys_that_were_seen():
    assert set(MOVEMENT) <= TYPES["StockMovementCreated"]["example"].keys()
    assert set(SETTLEMENT) <= TYPES["POSSettlementCreated"]["example"].keys()


# --- sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lines"),
    [("SaleCreated", "saleLines"), ("SaleExternalCreated", "saleLines"), ("InvoiceCreated", "invoiceLines")],
)
def test_the_sums_of_a_sale_are_right(name: str, lines: str):
    example = TYPES[name]["example"]
    assert example["total"] == pytest.approx(sum(line["price"] * line["quantity"] for line in example[lines]))
    assert example["vatTotal"] == pytest.approx(sum(line["vat"] for line in example[lines]))
    paid = example.get("paymentLines", [{"amount": example["total"]}])
    assert example["total"] == pytest.approx(sum(payment["amount"] for payment in paid))


def test_the_sums_of_a_settlement_are_right():
    report = TYPES["POSSettlementCreated"]["example"]
    paid = {entry["type"]: entry["amount"] for entry in report["paymentTypes"]}
    taken = sum(entry["amount"] for entry in report["withdrawals"])
    assert report["grossTotal"] == pytest.approx(sum(paid.values()))
    assert report["grossTotal"] == pytest.approx(report["netTotal"] + report["vatTotal"])
    assert report["closingCashBalance"] == pytest.approx(report["openingCashBalance"] + paid["Cash"] - taken)


def test_the_demos_stores_publish_what_the_catalogue_says():
    found = [event for event in plan_day(11, 400, date(2026, 3, 14), SCENARIOS) if event.type in TYPES]
    assert {event.type for event in found} == set(STATED)
    assert [(event.type, wrong) for event in found if (wrong := faults(event.type, event.data))] == []
