"""Subscriptions: who gets what, where and how."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, field

from hookline.api.paging import Cursor, Limit, cut, encode_cursor, place_after
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.views import (
    health_view,
    preview_view,
    secrets_view,
    subscription_view,
    trial_view,
)
from hookline.api.wire import (
    HealthView,
    PageView,
    PauseInput,
    PreviewInput,
    PreviewView,
    ResumeInput,
    RotateInput,
    SecretsView,
    SubscriptionView,
    TestInput,
    TrialView,
)
from hookline.core.errors import Conflict, Fault, InvalidInput, NotFound
from hookline.core.model import Event, Scope, Subscription
from hookline.engine.manage import SubscriptionSpec
from hookline.engine.manage.trials import as_event

TAG = "Subscriptions"


class SubscriptionInput(SubscriptionSpec, frozen=True, forbid_unknown_fields=True):
    """A new subscription. ``from`` starts it in the past: "beginning", or a time (RFC 3339)."""

    enabled: bool = True
    start: Annotated[str, Meta(examples=["beginning"])] = field(default="now", name="from")


class SubscriptionChange(SubscriptionSpec, frozen=True, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396): what is not named stays, null puts a field back to its default.

    ``version``, or the header ``If-Match``, makes the change fail if somebody else changed it meanwhile.
    """

    enabled: bool = True
    version: int = 0


class SubscriptionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which subscriptions."""

    limit: Limit = 50
    cursor: Cursor = ""
    search: Annotated[str, Meta(max_length=200, description="occurs in name, URL or metadata")] = ""
    event: Annotated[str, Meta(max_length=200, description="names this event type or pattern")] = ""
    url: Annotated[str, Meta(max_length=200, description="occurs in the URL")] = ""


async def list_subscriptions(call: Call[SubscriptionsQuery, Nothing]) -> PageView[SubscriptionView]:
    asked = call.query
    after = place_after("subscriptions", asked.cursor, int, 0)
    found = await call.services.storage.list_subscriptions(
        call.tenant.no, after, asked.limit + 1, asked.search, asked.event, asked.url
    )
    page, last = cut(found, asked.limit)
    following = None if last is None else encode_cursor("subscriptions", last.no)
    return PageView([_view(call, found) for found in page], following)


async def create_subscription(call: Call[NoQuery, object]) -> Reply:
    made = await call.services.subscriptions.create(call.tenant, call.body)
    return _reply(call, made, status=201, reveal=True)


async def get_subscription(call: Call[NoQuery, Nothing]) -> Reply:
    return _reply(call, await _found(call))


async def update_subscription(call: Call[NoQuery, object]) -> Reply:
    before = await _found(call)
    expected = _if_match(call.headers.get(b"if-match", b""))
    subscriptions = call.services.subscriptions
    changed = await subscriptions.update(call.tenant, call.path["id"], call.body, expected)
    made = subscriptions.secrets(before).keys != subscriptions.secrets(changed).keys
    return _reply(call, changed, reveal=made)


async def delete_subscription(call: Call[NoQuery, Nothing]) -> Reply:
    await call.services.subscriptions.delete(call.tenant, call.path["id"])
    return Reply()


async def pause_subscription(call: Call[NoQuery, PauseInput]) -> Reply:
    subscriptions = call.services.subscriptions
    return _reply(call, await subscriptions.pause(call.tenant, call.path["id"], call.body.reason))


async def resume_subscription(call: Call[NoQuery, ResumeInput]) -> Reply:
    skip = call.body.start == "now"
    return _reply(call, await call.services.subscriptions.resume(call.tenant, call.path["id"], skip=skip))


async def rotate_secret(call: Call[NoQuery, RotateInput]) -> Reply:
    asked = call.body
    subscriptions = call.services.subscriptions
    found = await subscriptions.rotate(call.tenant, call.path["id"], asked.overlap, asked.secret)
    return _reply(call, found, reveal=True)


async def get_secret(call: Call[NoQuery, Nothing]) -> SecretsView:
    found = await _found(call)
    return secrets_view(found.definition.signing.scheme, call.services.subscriptions.live_keys(found))


async def get_health(call: Call[NoQuery, Nothing]) -> HealthView:
    return health_view(await call.services.reader.health(await _found(call)))


async def test_subscription(call: Call[NoQuery, TestInput]) -> TrialView:
    trials, asked = call.services.trials, call.body
    found = await _found(call)
    data = bytes(asked.data) if isinstance(asked.data, Raw) else None
    event = await trials.synthetic(call.tenant, asked.type, data)
    return trial_view(found, await trials.send(call.tenant, found, event))


async def preview_delivery(call: Call[NoQuery, PreviewInput]) -> PreviewView:
    found = await _found(call)
    event = await _event_of(call)
    return preview_view(call.services.trials.preview(call.tenant, found, event))


async def _event_of(call: Call[NoQuery, PreviewInput]) -> Event:
    asked, services = call.body, call.services
    if asked.id is not None and not isinstance(asked.event, Raw):
        return await services.reader.event(call.tenant, asked.id)
    if asked.id is None and isinstance(asked.event, Raw):
        new = await services.publisher.check(call.tenant, bytes(asked.event))
        return as_event(new, services.clock.now())
    raise InvalidInput("give either id or event", [Fault("", "needs either id or event")])


async def _found(call: Call[Any, Any]) -> Subscription:
    return await call.services.storage.get_subscription(call.tenant.no, call.path["id"])


def _view(call: Call[Any, Any], found: Subscription, *, reveal: bool = False) -> SubscriptionView:
    return subscription_view(found, call.services.subscriptions.secrets(found), reveal=reveal)


def _reply(call: Call[Any, Any], found: Subscription, *, status: int = 200, reveal: bool = False) -> Reply:
    return Reply(_view(call, found, reveal=reveal), status, [(b"etag", b'"%d"' % found.version)])


def _if_match(value: bytes) -> int | None:
    text = value.strip().removeprefix(b"W/").strip(b'"')
    if not text or text == b"*":
        return None
    if not (text.isdigit() and len(text) < 10):
        raise InvalidInput("If-Match is not a version", [Fault("If-Match", 'must be a version such as "3"')])
    return int(text)


ONE = "/v1/subscriptions/{id}"

ROUTES: list[AnyRoute] = [
    Route(
        "GET", "/v1/subscriptions", list_subscriptions, "List and search subscriptions", TAG,
        PageView[SubscriptionView], SubscriptionsQuery, Nothing, scope=Scope.READ_SUBSCRIPTIONS,
    ),
    Route(
        "POST", "/v1/subscriptions", create_subscription, "Create a subscription", TAG, SubscriptionView,
        NoQuery, object, scope=Scope.CREATE_SUBSCRIPTIONS, status=201, document=SubscriptionInput, changes=True,
        description="Everything that is wrong is named at once. The signing secret is shown in full here.",
    ),
    Route(
        "GET", ONE, get_subscription, "Get a subscription", TAG, SubscriptionView,
        NoQuery, Nothing, scope=Scope.READ_SUBSCRIPTIONS, errors=(NotFound,),
    ),
    Route(
        "PATCH", ONE, update_subscription, "Change a subscription", TAG, SubscriptionView,
        NoQuery, object, scope=Scope.UPDATE_SUBSCRIPTIONS, document=SubscriptionChange, errors=(NotFound, Conflict),
        media_types=("application/json", "application/merge-patch+json"), changes=True,
        description="A change of events or filter holds for events published from now on; URL, headers, "
        "secrets and retries also for what still waits.",
    ),
    Route(
        "DELETE", ONE, delete_subscription, "Delete a subscription", TAG, None,
        NoQuery, Nothing, scope=Scope.DELETE_SUBSCRIPTIONS, status=204, errors=(NotFound,), changes=True,
        description="Its log stays readable by delivery and event; what still waited ends as expired.",
    ),
    Route(
        "POST", f"{ONE}/pause", pause_subscription, "Pause: stop sending, keep the place", TAG,
        SubscriptionView, NoQuery, PauseInput, scope=Scope.UPDATE_SUBSCRIPTIONS, body_required=False,
        errors=(NotFound,), changes=True,
    ),
    Route(
        "POST", f"{ONE}/resume", resume_subscription, "Resume, also after it was disabled", TAG,
        SubscriptionView, NoQuery, ResumeInput, scope=Scope.UPDATE_SUBSCRIPTIONS, body_required=False,
        errors=(NotFound, Conflict), changes=True,
    ),
    Route(
        "POST", f"{ONE}/rotate-secret", rotate_secret, "Replace the signing secret", TAG, SubscriptionView,
        NoQuery, RotateInput, scope=Scope.UPDATE_SUBSCRIPTIONS, body_required=False, errors=(NotFound, Conflict),
        changes=True, description="Requests carry a signature of each live key until the overlap is over.",
    ),
    Route(
        "GET", f"{ONE}/secret", get_secret, "Read the live signing secrets", TAG, SecretsView,
        NoQuery, Nothing, scope=Scope.MANAGE, errors=(NotFound,),
    ),
    Route(
        "GET", f"{ONE}/health", get_health, "How far a subscription is", TAG, HealthView,
        NoQuery, Nothing, scope=Scope.READ_SUBSCRIPTIONS, errors=(NotFound,),
    ),
    Route(
        "POST", f"{ONE}/test", test_subscription, "Send a test event right now", TAG, TrialView,
        NoQuery, TestInput, scope=Scope.UPDATE_SUBSCRIPTIONS, body_required=False, errors=(NotFound,),
        description="Not in the log and without a sequence. Answers 200 also if the endpoint refused it.",
    ),
    Route(
        "POST", f"{ONE}/preview", preview_delivery, "The exact request an event would become", TAG,
        PreviewView, NoQuery, PreviewInput, errors=(NotFound,),
    ),
]  # fmt: skip
