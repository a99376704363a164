"""Tenants, keys, event types and subscriptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import (
    ApiKey,
    Definition,
    EventType,
    Order,
    RateLimit,
    Retention,
    RetryKind,
    RetryPolicy,
    SchemaMode,
    Scope,
    Subscription,
    SubscriptionState,
    Tenant,
)
from hookline.ports import Storage
from tests.contract.conftest import Backend
from tests.contract.make import NOW, World, api_key

PLAIN = Definition(url="https://example.test/hook")
FULL = Definition(
    url="https://example.test/hook?a=1",
    events=("order:*", "stock:adjusted"),
    name="Lager Süd",
    method="PUT",
    headers={"x-a": "b"},
    query={"q": "1"},
    retry=RetryPolicy(kind=RetryKind.EXPONENTIAL, max_attempts=3),
    rate_limit=RateLimit(5, 1.5),
    order=Order.STRICT,
    filter='data.total > 5 and type != "x"',
    metadata={"team": "Nord"},
)


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


@pytest.fixture
async def tenant(world: World) -> Tenant:
    return await world.tenant()


# --- tenants and keys --------------------------------------------------------------------------------


async def test_a_tenant_comes_with_its_first_key(storage: Storage) -> None:
    tenant = await storage.create_tenant("acme", "Acme", "avvyr", api_key("first", 99), NOW)
    assert (tenant.id, tenant.name, tenant.profile, tenant.created_at) == ("acme", "Acme", "avvyr", NOW)
    assert (tenant.schema_mode, tenant.retention) == (SchemaMode.LOG, None)
    assert await storage.list_keys(tenant.no) == [api_key("first", tenant.no)]
    assert await storage.find_tenant("acme") == await storage.get_tenant(tenant.no) == tenant


async def test_a_taken_tenant_id_stores_nothing(storage: Storage, tenant: Tenant) -> None:
    with pytest.raises(Conflict):
        await storage.create_tenant("acme", "Other", "standard", api_key("second"), NOW)
    with pytest.raises(Conflict):
        await storage.create_tenant("new", "New", "standard", api_key("acme"), NOW)
    assert await storage.find_tenant("new") is None
    assert await storage.find_key(api_key("second").digest) is None


async def test_webhooks_can_be_switched_off(storage: Storage, tenant: Tenant) -> None:
    assert tenant.webhooks
    off = await storage.update_tenant(tenant.no, "Acme", "avvyr", SchemaMode.LOG, None, False)
    assert off.webhooks is (await storage.get_tenant(tenant.no)).webhooks is False
    on = await storage.update_tenant(tenant.no, "Acme", "avvyr", SchemaMode.LOG, None, True)
    assert on.webhooks is True


def session(name: str, tenant_no: int, of: str, expires_at: int) -> ApiKey:
    return replace(api_key(name, tenant_no), expires_at=expires_at, session_of=f"key_{of}")


async def test_a_session_is_a_key_that_no_list_shows(storage: Storage, tenant: Tenant) -> None:
    version = await storage.version()
    opened = session("s", tenant.no, "acme", NOW + 5)
    await storage.add_session(opened, 10, NOW)
    assert await storage.find_key(opened.digest) == opened
    assert [key.id for key in await storage.list_keys(tenant.no)] == ["key_acme"]
    assert await storage.version() == version
    with pytest.raises(Conflict):
        await storage.add_session(opened, 10, NOW)


async def test_sessions_end_by_time_by_number_and_with_their_key(storage: Storage, tenant: Tenant) -> None:
    await storage.add_key(api_key("other", tenant.no))
    await storage.add_session(session("theirs", tenant.no, "other", NOW + 5), 2, NOW)
    for number, expires_at in enumerate((NOW + 1, NOW + 9, NOW + 9, NOW + 9)):
        await storage.add_session(session(f"s{number}", tenant.no, "acme", expires_at), 2, NOW + number)
    names = ("theirs", "s0", "s1", "s2", "s3")
    assert [await storage.find_key(api_key(name).digest) is not None for name in names] == [
        True, False, False, True, True,
    ]  # fmt: skip
    await storage.revoke_key(tenant.no, "key_acme", NOW)
    assert [await storage.find_key(api_key(name).digest) is not None for name in names] == [
        True, False, False, False, False,
    ]  # fmt: skip


async def test_tenants_change(storage: Storage, tenant: Tenant) -> None:
    kept = Retention(events=1, attempts=2, bodies=3)
    changed = await storage.update_tenant(tenant.no, "Neu", "shipstream", SchemaMode.STRICT, kept)
    assert changed == replace(
        tenant, name="Neu", profile="shipstream", schema_mode=SchemaMode.STRICT, retention=kept
    )
    assert await storage.get_tenant(tenant.no) == changed
    again = await storage.update_tenant(tenant.no, "Neu", "shipstream", SchemaMode.OFF, None)
    assert again.retention is None


async def test_tenants_are_paged_by_id(world: World) -> None:
    for name in ("cc", "aa", "bb"):
        await world.tenant(name)
    assert [each.id for each in await world.storage.list_tenants("", 2)] == ["aa", "bb"]
    assert [each.id for each in await world.storage.list_tenants("bb", 2)] == ["cc"]


async def test_keys_of_operators_and_tenants_are_apart(storage: Storage, tenant: Tenant) -> None:
    operator = replace(api_key("root"), scopes=(Scope.OPERATOR, Scope.MANAGE))
    await storage.add_key(operator)
    await storage.add_key(api_key("more", tenant.no))
    assert await storage.list_keys(None) == [operator]
    assert [key.id for key in await storage.list_keys(tenant.no)] == ["key_acme", "key_more"]
    assert await storage.find_key(operator.digest) == operator
    assert await storage.find_key(b"nothing") is None


async def test_a_revoked_key_is_kept(storage: Storage, tenant: Tenant) -> None:
    revoked = await storage.revoke_key(tenant.no, "key_acme", NOW + 1)
    assert revoked == replace(api_key("acme", tenant.no), revoked_at=NOW + 1)
    assert await storage.revoke_key(tenant.no, "key_acme", NOW + 9) == revoked
    assert await storage.find_key(revoked.digest) == revoked


@pytest.mark.parametrize("place", [(None, "key_acme"), (99, "key_acme"), (1, "key_none")])
async def test_keys_are_revoked_by_their_owner_only(
    storage: Storage, tenant: Tenant, place: tuple[int | None, str]
) -> None:
    with pytest.raises(NotFound):
        await storage.revoke_key(*place, NOW)
    assert (await storage.list_keys(tenant.no))[0].revoked_at is None


async def test_a_key_is_stored_once(storage: Storage, tenant: Tenant) -> None:
    with pytest.raises(Conflict):
        await storage.add_key(api_key("acme"))
    with pytest.raises(Conflict):
        await storage.add_key(replace(api_key("other"), digest=api_key("acme").digest))


# --- event types -------------------------------------------------------------------------------------


async def test_event_types_are_created_replaced_and_paged(storage: Storage, tenant: Tenant) -> None:
    types = [EventType(tenant.no, name, "d", 1, NOW, NOW) for name in ("b:two", "a:one", "c:three")]
    for each in types:
        await storage.put_event_type(each)
    await storage.put_event_type(EventType(tenant.no + 1, "a:other", "d", 1, NOW, NOW))
    full = replace(
        types[0], version=2, group="g", usage="u", schema=b'{"a":1}', example=b"1", deprecated_at=NOW
    )
    await storage.put_event_type(full)
    assert await storage.get_event_type(tenant.no, "b:two") == full
    assert await storage.get_event_type(tenant.no, "a:other") is None
    assert [each.name for each in await storage.list_event_types(tenant.no, "", 2)] == ["a:one", "b:two"]
    assert [each.name for each in await storage.list_event_types(tenant.no, "b:two", 2)] == ["c:three"]


# --- subscriptions -----------------------------------------------------------------------------------


async def test_a_new_subscription_matches_from_the_next_position(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 4)
    created = await world.storage.create_subscription("sub_1", tenant.no, FULL, b"\x00sealed", NOW)
    assert created == Subscription(
        created.no, "sub_1", tenant.no, 0, 1, 5, FULL, b"\x00sealed", NOW, NOW, state_at=NOW, start_after=4
    )
    assert await world.storage.get_subscription(tenant.no, "sub_1") == created
    assert await world.storage.subscription_by_no(created.no) == created
    (version,) = await world.storage.definition_versions(created.no)
    assert (version.version, version.matches_from, version.definition) == (1, 5, FULL)


@pytest.mark.parametrize(("start_after", "expected"), [(0, 0), (2, 2), (4, 4), (50, 4)])
async def test_a_backfill_starts_earlier(
    world: World, tenant: Tenant, start_after: int, expected: int
) -> None:
    await world.publish(tenant, 4)
    created = await world.subscription(tenant, start_after=start_after)
    assert (created.start_after, created.matches_from) == (expected, expected + 1)


async def test_subscription_ids_belong_to_their_tenant(world: World, tenant: Tenant) -> None:
    await world.subscription(tenant, "same")
    with pytest.raises(Conflict):
        await world.subscription(tenant, "same")
    other = await world.tenant("other")
    theirs = await world.subscription(other, "same")
    assert (await world.storage.get_subscription(other.no, "same")).no == theirs.no
    with pytest.raises(NotFound):
        await world.storage.create_subscription("x", 99, PLAIN, b"", NOW)


async def test_a_new_version_decides_from_the_next_position(world: World, tenant: Tenant) -> None:
    created = await world.subscription(tenant)
    await world.publish(tenant, 3)
    updated = await world.storage.update_subscription(created.no, 1, FULL, b"new", NOW + 1)
    assert updated == replace(
        created, version=2, matches_from=4, definition=FULL, sealed=b"new", updated_at=NOW + 1
    )
    again = await world.storage.update_subscription(created.no, 2, PLAIN, b"new", NOW + 2)
    versions = await world.storage.definition_versions(created.no)
    assert [(each.version, each.matches_from) for each in versions] == [(1, 1), (2, 4), (3, 4)]
    assert await world.storage.subscription_by_no(created.no) == again


async def test_a_stale_update_is_refused(world: World, tenant: Tenant) -> None:
    created = await world.subscription(tenant)
    await world.storage.update_subscription(created.no, 1, FULL, b"", NOW)
    before = await world.storage.version()
    with pytest.raises(Conflict):
        await world.storage.update_subscription(created.no, 1, PLAIN, b"", NOW)
    with pytest.raises(NotFound):
        await world.storage.update_subscription(99, 1, PLAIN, b"", NOW)
    assert await world.storage.version() == before
    assert len(await world.storage.definition_versions(created.no)) == 2


async def test_states_change_without_a_new_version(world: World, tenant: Tenant) -> None:
    created = await world.subscription(tenant)
    await world.publish(tenant, 3)
    storage = world.storage
    paused = await storage.set_subscription_state(created.no, SubscriptionState.PAUSED, "by hand", NOW + 1)
    assert paused == replace(
        created,
        state=SubscriptionState.PAUSED,
        state_reason="by hand",
        state_at=NOW + 1,
        updated_at=NOW + 1,
    )
    resumed = await storage.set_subscription_state(
        created.no, SubscriptionState.ACTIVE, "", NOW + 2, skip=True
    )
    assert (resumed.skip_to, resumed.version, resumed.matches_from) == (3, 1, 1)
    await world.publish(tenant)
    later = await storage.set_subscription_state(created.no, SubscriptionState.PAUSED, "", NOW + 3)
    assert later.skip_to == 3


async def test_a_deleted_subscription_is_hidden_and_known_by_number(world: World, tenant: Tenant) -> None:
    storage = world.storage
    created = await world.subscription(tenant)
    before = await storage.version()
    deleted = await storage.set_subscription_state(created.no, SubscriptionState.DELETED, "", NOW)
    assert await storage.subscription_by_no(created.no) == deleted
    assert await storage.list_subscriptions(tenant.no, 0, 10) == []
    for wrong in (
        storage.get_subscription(tenant.no, "sub"),
        storage.update_subscription(created.no, 1, PLAIN, b"", NOW),
        storage.set_subscription_state(created.no, SubscriptionState.ACTIVE, "", NOW),
    ):
        with pytest.raises(NotFound):
            await wrong
    changes = (await storage.read_log(0, 0, 1, before)).changes
    assert [each.state for each in changes.subscriptions] == [SubscriptionState.DELETED]
    assert not (await storage.read_log(0, 0, 1, 0)).changes.subscriptions


@pytest.mark.parametrize("tenant_no", [1, 2])
async def test_subscriptions_that_are_not_there(world: World, tenant: Tenant, tenant_no: int) -> None:
    with pytest.raises(NotFound):
        await world.storage.get_subscription(tenant_no, "nothing")
    with pytest.raises(NotFound):
        await world.storage.subscription_by_no(99)
    with pytest.raises(NotFound):
        await world.storage.subscription_by_no(1 << 60)
    assert await world.storage.list_subscriptions(tenant_no, 1 << 60, 10) == []
    assert await world.storage.definition_versions(99) == []


async def test_subscriptions_are_paged_by_number(world: World, tenant: Tenant) -> None:
    other = await world.tenant("other")
    numbers: list[int] = []
    for index in range(5):
        numbers.append((await world.subscription(tenant, f"s{index}")).no)
        await world.subscription(other, f"s{index}")
    await world.storage.set_subscription_state(numbers[1], SubscriptionState.DELETED, "", NOW)
    first = await world.storage.list_subscriptions(tenant.no, 0, 3)
    rest = await world.storage.list_subscriptions(tenant.no, first[-1].no, 3)
    assert [each.no for each in first + rest] == [number for number in numbers if number != numbers[1]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"search": "SÜD"}, ["full"]),
        ({"search": "nord"}, ["full"]),
        ({"search": "team"}, ["full"]),
        ({"search": "example.test"}, ["full", "plain"]),
        ({"search": "nothing"}, []),
        ({"event": "order:*"}, ["full"]),
        ({"event": "order:created"}, []),
        ({"event": "*"}, ["plain"]),
        ({"url": "hook?a"}, ["full"]),
        ({"url": "HOOK"}, []),
        ({"url": "hook", "event": "*", "search": "EXAMPLE"}, ["plain"]),
    ],
)
async def test_subscriptions_are_found(
    world: World, tenant: Tenant, wanted: dict[str, str], expected: list[str]
) -> None:
    await world.subscription(tenant, "full", FULL)
    await world.subscription(tenant, "plain", PLAIN)
    found = await world.storage.list_subscriptions(tenant.no, 0, 10, **wanted)
    assert [each.id for each in found] == expected


async def test_a_search_is_paged(world: World, tenant: Tenant) -> None:
    for index in range(6):
        await world.subscription(tenant, f"s{index}", FULL if index % 2 else PLAIN)
    first = await world.storage.list_subscriptions(tenant.no, 0, 2, search="lager")
    rest = await world.storage.list_subscriptions(tenant.no, first[-1].no, 2, search="lager")
    assert [each.id for each in first + rest] == ["s1", "s3", "s5"]


async def test_resealing_changes_every_secret(world: World, tenant: Tenant) -> None:
    storage = world.storage
    subs = [await world.subscription(tenant, f"s{index}") for index in range(3)]
    await storage.set_subscription_state(subs[2].no, SubscriptionState.DELETED, "", NOW)
    before = await storage.version()
    assert await storage.reseal(lambda sealed, context: sealed + b"+" + context.encode()) == 3
    sealed = [(await storage.subscription_by_no(sub.no)).sealed for sub in subs]
    assert sealed == [b"sealed+s0", b"sealed+s1", b"sealed+s2"]
    assert len((await storage.read_log(0, 0, 1, before)).changes.subscriptions) == 3
    assert await storage.reseal(lambda sealed, _: sealed) == 0


async def test_a_reseal_that_fails_changes_nothing(world: World, tenant: Tenant) -> None:
    for index in range(3):
        await world.subscription(tenant, f"s{index}")

    def reseal(sealed: bytes, context: str) -> bytes:
        if context == "s1":
            raise Conflict("unknown key")
        return b"new"

    with pytest.raises(Conflict):
        await world.storage.reseal(reseal)
    found = await world.storage.list_subscriptions(tenant.no, 0, 10)
    assert {each.sealed for each in found} == {b"sealed"}


Change = Callable[[Storage, Tenant, Subscription], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "tenant": lambda s, t, _: s.create_tenant("b", "B", "standard", api_key("b"), NOW),
    "tenant changed": lambda s, t, _: s.update_tenant(t.no, "x", "standard", SchemaMode.OFF, None),
    "key": lambda s, t, _: s.add_key(api_key("c", t.no)),
    "revoked": lambda s, t, _: s.revoke_key(t.no, "key_acme", NOW),
    "type": lambda s, t, _: s.put_event_type(EventType(t.no, "a", "", 1, NOW, NOW)),
    "subscription": lambda s, t, _: s.create_subscription("n", t.no, PLAIN, b"", NOW),
    "definition": lambda s, t, sub: s.update_subscription(sub.no, 1, FULL, b"", NOW),
    "state": lambda s, t, sub: s.set_subscription_state(sub.no, SubscriptionState.PAUSED, "", NOW),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
async def test_every_change_raises_the_version(storage_factory: Backend, change: Change) -> None:
    storage, other = await storage_factory.connect(), await storage_factory.connect()
    world = World(storage)
    tenant = await world.tenant()
    subscription = await world.subscription(tenant)
    before = await other.version()
    await change(storage, tenant, subscription)
    assert await other.version() > before


async def test_tenants_that_are_not_there(storage: Storage) -> None:
    assert await storage.find_tenant("x") is None
    with pytest.raises(NotFound):
        await storage.get_tenant(9)
    with pytest.raises(NotFound):
        await storage.update_tenant(9, "x", "standard", SchemaMode.OFF, None)
    assert await storage.version() == 0


@pytest.mark.parametrize("name", ["\0", "a\0b"])
async def test_a_name_that_no_row_can_hold_is_not_there(storage: Storage, tenant: Tenant, name: str) -> None:
    assert await storage.find_tenant(name) is None
    assert await storage.get_event_type(tenant.no, name) is None
    assert await storage.find_event(tenant.no, name) is None
    for looked_for in (
        storage.get_subscription(tenant.no, name),
        storage.get_replay(name),
        storage.cancel_replay(name, NOW),
        storage.revoke_key(tenant.no, name, NOW),
    ):
        with pytest.raises(NotFound):
            await looked_for
