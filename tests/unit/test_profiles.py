"""What each profile writes, and what a subscription gets from its profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.address import AddressRule
from hookline.core.definition import Rules, check_definition
from hookline.core.model import Event, RetryKind, Secrets, SignatureScheme, Tenant, Timeout
from hookline.core.retry import schedule
from hookline.engine.compose import format_of
from hookline.engine.manage.spec import SubscriptionSpec, current, drafted, merged
from hookline.engine.manage.subscriptions import profile_faults
from hookline.profiles import PROFILES
from hookline.profiles.cloudevents import CloudEventsOptions

NOW = 1_767_261_600_250
SHOP = Tenant(3, "shop", "The shop", "standard", 0)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
"""Any JSON value."""
WRITERS = (
    lambda value: json.dumps(value, ensure_ascii=True, indent=1),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    lambda value: f" \n{json.dumps(value)}\t",
)
"""Ways to write it: with escapes and line breaks, short, with space around."""


def event(data: str = "{}", **fields: Any) -> Event:
    given_fields: dict[str, Any] = {"id": "evt_1", "type": "order:created", "object_type": "order"} | fields
    return Event(
        shard=0, position=1, tenant_no=3, data=data.encode(), occurred_at=NOW, received_at=NOW, **given_fields
    )


def spec_of(profile: str, **fields: Any) -> SubscriptionSpec:
    draft = drafted({"url": "https://a.example", "profile": profile, **fields})
    assert draft.faults == []
    return draft.spec


def body(profile: str, of: Event, sequence: int = 1, tenant: Tenant = SHOP, **options: Any) -> bytes:
    return format_of(spec_of(profile, profile_options=options).definition(), tenant).body(of, sequence)


# --- any payload survives ---------------------------------------------------------------------------------


@given(JSON, st.sampled_from(WRITERS), st.text(max_size=20), st.text(max_size=20))
def test_any_payload_survives_each_format(value: Any, write: Any, object_type: str, object_id: str):
    text = write(value)
    about = event(
        text, object_type=object_type or None, object_id=object_id, source_user=object_id, key=object_id
    )
    for profile, place in (
        ("standard", "data"), ("avvyr", "data"), ("cloudevents", "data"), ("evolutionx", "data"),
    ):  # fmt: skip
        if profile == "evolutionx" and isinstance(value, dict) and "event_data" in value:
            continue
        options = {"include_object_record": True} if profile == "evolutionx" else {}
        written = body(profile, about, 1, SHOP, **options)
        assert text.encode() in written
        assert same(json.loads(written)[place], value)
    assert body("frontsystems", about) == body("cloudevents", about, mode="binary") == text.encode()


@pytest.mark.parametrize(
    "data",
    [
        '{"event_type": 1.50, "sku": "a", "sku": "b"}', '{"sku": "\\u00e9", "qty":  1e400, "qty": 2}',
        '{"webhook_url": "x", "\\u0061": 1, "a": 2}',
    ],
)  # fmt: skip
def test_shipstream_members_go_in_as_they_were_written(data: str):
    assert body(
        "shipstream", event(data), 7
    ) == b'{"topic":"order:created","message":{"webhook_increment_id":7,%b}' % (data[1:].encode())


@pytest.mark.parametrize("name", ["webhook_increment_id", "webhook\\u005fincrement_id"])
def test_shipstream_counts_by_its_own_member(name: str):
    written = body("shipstream", event(f'{{"sku": "a", "{name}": 99}}'), 7)
    assert written == b'{"topic":"order:created","message":{"webhook_increment_id":7,"sku":"a"}}'


def same(one: object, other: object) -> bool:
    """Equal with the kinds of numbers: 1, 1.0 and True differ."""
    return json.dumps(one) == json.dumps(other)


# --- CloudEvents, read by its own library -----------------------------------------------------------------


def read_cloud_event(of: Event, **options: Any) -> BaseCloudEvent:
    written = format_of(spec_of("cloudevents", profile_options=options).definition(), SHOP)
    headers = {"content-type": written.content_type}
    headers |= dict(line.split(": ", 1) for line in written.headers(of))
    return from_http(HTTPMessage(headers=headers, body=written.body(of, 1)), JSONFormat())


MODES = pytest.mark.parametrize("mode", ["structured", "binary"])


@MODES
def test_the_cloudevents_library_reads_every_attribute(mode: str):
    found = read_cloud_event(event('{"n": 1}', object_id="4471", key="k", correlation_id="c"), mode=mode)
    assert (found.get_specversion(), found.get_id(), found.get_type()) == ("1.0", "evt_1", "order:created")
    assert (found.get_source(), found.get_subject()) == ("/tenants/shop", "order/4471")
    time = found.get_time()
    assert time is not None
    assert round(time.timestamp() * 1000) == NOW
    assert (found.get_extension("partitionkey"), found.get_extension("correlationid")) == ("k", "c")
    assert found.get_data() == {"n": 1}


@MODES
@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
        lambda text: text == text.strip()
    )
)
def test_attributes_in_any_script_arrive(mode: str, text: str):
    found = read_cloud_event(event(object_type=None, object_id=text, key=text), mode=mode)
    assert (found.get_subject(), found.get_extension("partitionkey")) == (text, text)


@MODES
def test_the_source_can_be_chosen(mode: str):
    assert (
        read_cloud_event(event(), mode=mode, source="https://shop.example").get_source()
        == "https://shop.example"
    )


@pytest.mark.parametrize(
    "source",
    [
        "", "/shop", "shop", "?a=1", "#a", "//shop.example/x:y", "https://shop.example:8443/a%20b?c=d#e",
        "urn:example:shop", "https://[2001:db8::1]:8443/a", "https://me@[::1]", "a/b:c", f"/{'x' * 2047}",
    ],
)  # fmt: skip
def test_a_source_is_a_uri_reference(source: str):
    assert not list(CloudEventsOptions(source=source).faults())


@pytest.mark.parametrize(
    "source",
    [
        "a b", "é", "\n", "a\x00", "1:2", ":", "%zz", "%2", "<x>", '"', "a#b#c", "http://[::1", "a[1]", "a\\b",
        "https://[é]/", "/shop\n", f"/{'x' * 2048}",
    ],
)  # fmt: skip
def test_another_text_is_no_source(source: str):
    definition = spec_of("cloudevents", profile_options={"source": source}).definition()
    assert [fault.field for fault in profile_faults(definition, Secrets())] == ["profile_options.source"]


# --- defaults ---------------------------------------------------------------------------------------------


def test_a_subscription_has_the_parts_of_its_profile():
    stream = spec_of("shipstream").definition()
    assert stream.timeout == Timeout(3.0, 5.0)
    assert stream.signing.scheme is SignatureScheme.SHIPSTREAM
    assert [delay / 60 for delay in schedule(stream.retry)] == [
        1, 2, 4, 8, 15, 30, 60, 120, 240, 480, 960, 1440, 1440, 1440,
    ]  # fmt: skip
    assert spec_of("frontsystems").retry.kind is RetryKind.NONE
    assert spec_of("standard") == SubscriptionSpec("https://a.example")
    for name in ("avvyr", "evolutionx", "shipstream", "frontsystems"):
        spec = spec_of(name)
        assert (spec.breaker.failures, spec.disable_after, spec.disable_on_gone) == (0, 0, False)


def test_each_part_can_be_overridden_alone():
    spec = spec_of("shipstream", timeout={"total": 9.0}, retry={"delays": [1.0]}, signing={"secret": "x"})
    assert spec.timeout == Timeout(3.0, 9.0)
    assert (spec.retry.delays, spec.retry.jitter) == ((1.0,), 0.0)
    assert (spec.signing.scheme, spec.signing.signature_header) == (
        SignatureScheme.SHIPSTREAM,
        "X-Plugin-Hmac-Sha256",
    )


def test_a_scheme_brings_its_headers_unless_they_are_named():
    signing = spec_of("standard", signing={"scheme": "stripe"}).signing
    assert (signing.id_header, signing.timestamp_header, signing.signature_header) == (
        "",
        "",
        "Stripe-Signature",
    )
    named = spec_of(
        "standard", signing={"scheme": "stripe", "signature_header": "X-S", "id_header": "X-Id"}
    ).signing
    assert (named.id_header, named.signature_header) == ("X-Id", "X-S")
    unsigned = spec_of("frontsystems", signing={"scheme": "none"}).signing
    assert unsigned.id_header == "X-Webhook-Event-Id"


def changed(spec: SubscriptionSpec, patch: Mapping[str, Any]) -> SubscriptionSpec:
    draft = merged(current(spec.definition(), Secrets()), patch)
    assert draft.faults == []
    return draft.spec


@pytest.mark.parametrize("before", PROFILES)
@pytest.mark.parametrize("after", PROFILES)
def test_another_profile_brings_its_own_parts(before: str, after: str):
    url = {"url": "mailto:a@b.example"} if after == "mail" else {}
    moved = changed(spec_of(before), {"profile": after, **url})
    expected = spec_of(after).definition()
    assert moved.definition().retry == expected.retry
    assert moved.definition().signing == expected.signing
    assert moved.definition().timeout == expected.timeout


def test_what_was_chosen_stays_with_another_profile():
    spec = spec_of("standard", timeout={"total": 9.0}, retry={"max_attempts": 3})
    moved = changed(spec, {"profile": "shipstream"})
    assert moved.timeout == Timeout(3.0, 9.0)
    assert moved.retry.max_attempts == 3
    assert moved.retry.delays == spec_of("shipstream").retry.delays


def test_null_puts_a_part_back_to_the_profiles_default():
    spec = spec_of("shipstream", timeout={"total": 9.0}, retry={"kind": "none"})
    assert changed(spec, {"timeout": None, "retry": {"kind": None}}) == spec_of("shipstream")


def test_another_scheme_brings_its_headers_and_null_the_profiles():
    spec = spec_of("standard")
    moved = changed(spec, {"signing": {"scheme": "shopify"}})
    assert moved.signing.signature_header == "X-Shopify-Hmac-Sha256"
    assert changed(moved, {"signing": None}) == spec


# --- faults -----------------------------------------------------------------------------------------------


def faults(**fields: Any) -> list[str]:
    definition = spec_of(**fields).definition()
    rules = Rules(AddressRule(), frozenset(PROFILES))
    found = [*check_definition(definition, rules), *profile_faults(definition, Secrets())]
    return [f"{fault.field}: {fault.message}" for fault in found]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"profile": "shipstream", "profile_options": {"merchnat": True}},
            "profile_options.merchnat: is not known",
        ),
        (
            {"profile": "shipstream", "profile_options": {"merchant": "yes"}},
            "profile_options.merchant: expected",
        ),
        ({"profile": "cloudevents", "profile_options": {"mode": "batch"}}, "profile_options.mode: must be"),
        (
            {"profile": "standard", "profile_options": {"mode": "binary"}},
            "profile_options.mode: is not known",
        ),
        (
            {"profile": "avvyr", "headers": {"x-webhook-event": "a"}},
            "headers.x-webhook-event: is a header that the",
        ),
        (
            {"profile": "cloudevents", "headers": {"CE-Id": "a"}},
            "headers.CE-Id: is a header that the profile",
        ),
        (
            {"profile": "avvyr", "signing": {"id_header": "X-Webhook-Event"}},
            "signing.id_header: is a header that the",
        ),
        ({"profile": "standard", "signing": {"id_header": ""}}, "signing.id_header: is needed"),
        ({"profile": "standard", "signing": {"timestamp_header": ""}}, "signing.timestamp_header: is needed"),
        (
            {"profile": "evolutionx", "signing": {"timestamp_header": ""}},
            "signing.timestamp_header: is needed",
        ),
        (
            {"profile": "shipstream", "signing": {"signature_header": ""}},
            "signing.signature_header: is needed",
        ),
        (
            {"profile": "shipstream", "signing": {"id_header": "a", "signature_header": "A"}},
            "signing: must give",
        ),
    ],
)
def test_what_does_not_go_with_the_profile_is_named(fields: dict[str, Any], expected: str):
    assert [fault[: len(expected)] for fault in faults(**fields)] == [expected]


def test_a_profile_that_does_not_exist_is_one_fault():
    (fault,) = faults(profile="shopfiy")
    assert fault.startswith("profile: must be one of avvyr, cloudevents, evolutionx")


def test_titles_and_names_are_told():
    assert all(cast("str", profile.title) and name == profile.name for name, profile in PROFILES.items())


@pytest.mark.parametrize("hostile", [{}, [], 7, None, "x", True])
def test_what_is_no_profile_or_scheme_is_a_fault_not_a_crash(hostile: Any):
    for fields in ({"profile": hostile}, {"signing": {"scheme": hostile}}, {"signing": hostile}):
        draft = drafted({"url": "https://a.example", **fields})
        rules = Rules(AddressRule(), frozenset(PROFILES))
        assert draft.with_rules(check_definition(draft.spec.definition(), rules)) or hostile == {}


def test_an_unknown_name_with_a_full_stop_hides_no_other_fault():
    draft = drafted({"url": "https://a.example", "a.b": 1, "retry[0]": 2, "retry": {"kind": "never"}})
    assert {fault.field for fault in draft.faults} == {"a.b", "retry[0]", "retry.kind"}
    assert draft.spec.url == "https://a.example"
