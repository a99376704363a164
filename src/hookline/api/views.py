"""How the stored things become answers. Secrets are masked; what receivers sent may hold anything at all."""

from __future__ import annotations

from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Literal

from msgspec import UNSET, Raw, UnsetType

from hookline.api.wire import (
    AttemptView,
    AuthView,
    BodyView,
    ClientCertificateView,
    DeliveryView,
    EventDeliveryView,
    EventTypeView,
    EventView,
    HealthView,
    KeyCreated,
    KeyView,
    ObjectView,
    PreviewView,
    ReasonView,
    ReplayView,
    SecretsView,
    SecretView,
    SigningView,
    SourceView,
    SubscriptionView,
    TenantCreated,
    TenantView,
    Timings,
    TrialView,
    UsageView,
)
from hookline.core import ids
from hookline.core.model import (
    ApiKey,
    AuthKind,
    ClientCertificate,
    Event,
    EventType,
    Millis,
    Replay,
    Secrets,
    SignatureScheme,
    SigningKey,
    Subscription,
    SubscriptionState,
    Tenant,
    Usage,
)
from hookline.core.signing import public_key
from hookline.core.times import rfc3339
from hookline.engine.dispatch.ordered import PARKED_DUE
from hookline.engine.manage import MASK, IssuedKey, Preview, Trial
from hookline.engine.read import AttemptItem, DeliveryItem, Health, Story
from hookline.ports import Outcome as Answer


def tenant_view(tenant: Tenant) -> TenantView:
    return TenantView(
        id=tenant.id,
        name=tenant.name,
        profile=tenant.profile,
        schema_mode=tenant.schema_mode,
        retention=tenant.retention,
        webhooks=tenant.webhooks,
        created_at=rfc3339(tenant.created_at),
    )


def tenant_created(tenant: Tenant, issued: IssuedKey) -> TenantCreated:
    return TenantCreated(
        id=tenant.id,
        name=tenant.name,
        profile=tenant.profile,
        schema_mode=tenant.schema_mode,
        retention=tenant.retention,
        webhooks=tenant.webhooks,
        created_at=rfc3339(tenant.created_at),
        api_key=issued.secret,
        api_key_id=issued.key.id,
    )


def key_view(key: ApiKey) -> KeyView:
    return KeyView(
        key.id, key.name, key.hint, list(key.scopes), rfc3339(key.created_at), time_or_none(key.revoked_at)
    )


def key_created(issued: IssuedKey) -> KeyCreated:
    view = key_view(issued.key)
    return KeyCreated(
        view.id, view.name, view.hint, view.scopes, view.created_at, view.revoked_at, issued.secret
    )


def event_view(event: Event, *, payload: bool) -> EventView:
    has_object = event.object_type is not None or event.object_id is not None
    has_source = event.source_application is not None or event.source_user is not None
    return EventView(
        id=event.id,
        type=event.type,
        occurred_at=rfc3339(event.occurred_at),
        received_at=rfc3339(event.received_at),
        position=event.position,
        object=ObjectView(event.object_type, event.object_id) if has_object else None,
        source=SourceView(event.source_application, event.source_user) if has_source else None,
        key=event.key,
        correlation_id=event.correlation_id,
        data=Raw(event.data) if payload else UNSET,
    )


def event_type_view(found: EventType) -> EventTypeView:
    return EventTypeView(
        name=found.name,
        description=found.description,
        group=found.group,
        usage=found.usage,
        version=found.version,
        created_at=rfc3339(found.created_at),
        updated_at=rfc3339(found.updated_at),
        deprecated_at=time_or_none(found.deprecated_at),
        source=found.source,
        object_type=found.object_type,
        origin=found.origin,
        deprecation=found.deprecation,
        schema=None if found.schema is None else Raw(found.schema),
        example=None if found.example is None else Raw(found.example),
    )


def subscription_view(found: Subscription, secrets: Secrets, *, reveal: bool = False) -> SubscriptionView:
    """``reveal`` shows the signing secret in full: for the answers that made it."""
    definition = found.definition
    return SubscriptionView(
        id=found.id,
        version=found.version,
        enabled=found.state is SubscriptionState.ACTIVE,
        state=found.state,
        state_reason=found.state_reason,
        state_at=time_or_none(found.state_at),
        url=definition.url,
        events=definition.events,
        name=definition.name,
        method=definition.method,
        headers=definition.headers,
        secret_headers=dict.fromkeys(secrets.headers, MASK),
        query=definition.query,
        auth=_auth_view(secrets),
        client_certificate=_certificate_view(secrets.client_certificate),
        profile=definition.profile,
        signing=_signing_view(found, secrets, reveal=reveal),
        retry=definition.retry,
        timeout=definition.timeout,
        rate_limit=definition.rate_limit,
        max_in_flight=definition.max_in_flight,
        order=definition.order,
        filter=definition.filter,
        breaker=definition.breaker,
        disable_after=definition.disable_after,
        disable_on_gone=definition.disable_on_gone,
        tracking_headers=definition.tracking_headers,
        profile_options=definition.profile_options,
        metadata=definition.metadata,
        created_at=rfc3339(found.created_at),
        updated_at=rfc3339(found.updated_at),
    )


def _auth_view(secrets: Secrets) -> AuthView:
    auth = secrets.auth
    return AuthView(
        kind=auth.kind,
        username=auth.username,
        secret=MASK if auth.secret else "",
        header=auth.header if auth.kind is AuthKind.API_KEY else "",
        token_url=auth.token_url,
        client_id=auth.client_id,
        scope=auth.scope,
    )


def _certificate_view(found: ClientCertificate | None) -> ClientCertificateView | None:
    return None if found is None else ClientCertificateView(found.certificate, MASK)


def _signing_view(found: Subscription, secrets: Secrets, *, reveal: bool) -> SigningView:
    signing = found.definition.signing
    secret = secrets.keys[0].secret if secrets.keys else None
    return SigningView(
        scheme=signing.scheme,
        id_header=signing.id_header,
        timestamp_header=signing.timestamp_header,
        signature_header=signing.signature_header,
        secret=secret if reveal or secret is None else MASK,
        public_key=_public(signing.scheme, secret),
    )


def _public(scheme: SignatureScheme, secret: str | None) -> str | None:
    return public_key(secret) if scheme is SignatureScheme.V1A and secret is not None else None


def secrets_view(scheme: SignatureScheme, keys: Sequence[SigningKey]) -> SecretsView:
    return SecretsView(
        scheme,
        [
            SecretView(
                key.secret,
                _public(scheme, key.secret),
                rfc3339(key.created_at),
                time_or_none(key.expires_at),
            )
            for key in keys
        ],
    )


def health_view(health: Health) -> HealthView:
    found = health.subscription
    return HealthView(
        id=found.id,
        state=found.state,
        state_reason=found.state_reason,
        cursor=health.cursor,
        head=health.head,
        lag=health.lag,
        sequence=health.sequence,
        waiting=health.waiting,
        next_due_at=due_or_none(health.next_due),
        failing_since=time_or_none(health.failing_since),
    )


def delivery_view(item: DeliveryItem, *, payload: bool = False) -> DeliveryView:
    delivery, event = item.delivery, item.event
    attempts = item.attempts
    raw: Raw | UnsetType | None = UNSET
    if payload:
        raw = None if event is None else Raw(event.data)
    return DeliveryView(
        id=ids.delivery_id(delivery.subscription_no, delivery.position),
        subscription=item.subscription.id,
        event=None if event is None else event.id,
        type=None if event is None else event.type,
        position=delivery.position,
        sequence=delivery.sequence,
        state=delivery.state,
        attempts=delivery.attempts,
        status=delivery.status,
        error=delivery.error or None,
        received_at=None if event is None else rfc3339(event.received_at),
        settled_at=time_or_none(delivery.settled_at),
        due_at=due_or_none(delivery.due_at),
        payload=raw,
        attempt_log=UNSET
        if attempts is None
        else [attempt_view(item.subscription, event, sent) for sent in attempts],
    )


def story_view(story: Story, event: Event) -> EventDeliveryView:
    found, delivery = story.subscription, story.delivery
    return EventDeliveryView(
        subscription=found.id,
        name=found.definition.name,
        url=found.definition.url,
        outcome=story.outcome,
        reason=story.reason,
        delivery=None if delivery is None else delivery_view(DeliveryItem(delivery, found, event)),
    )


def attempt_view(subscription: Subscription, event: Event | None, sent: AttemptItem) -> AttemptView:
    attempt = sent.attempt
    return AttemptView(
        id=ids.attempt_id(attempt.subscription_no, attempt.position, attempt.number),
        delivery=ids.delivery_id(attempt.subscription_no, attempt.position),
        subscription=subscription.id,
        event=None if event is None else event.id,
        number=attempt.number,
        version=attempt.version,
        started_at=rfc3339(attempt.started_at),
        method=attempt.method,
        url=attempt.url,
        address=attempt.address,
        status=attempt.status,
        error=attempt.error or None,
        detail=attempt.detail,
        timings=Timings(
            attempt.dns_us, attempt.connect_us, attempt.tls_us, attempt.first_byte_us, attempt.total_us
        ),
        request=body_view(attempt.request_headers.splitlines(), sent.body),
        response=body_view(
            _lines(attempt.response_headers),
            attempt.response_body or None,
            truncated=attempt.response_truncated,
        ),
    )


def trial_view(subscription: Subscription, trial: Trial) -> TrialView:
    request, answer = trial.composed.request, trial.outcome
    attempt = AttemptView(
        id=trial.event.id,
        delivery=None,
        subscription=subscription.id,
        event=trial.event.id,
        number=1,
        version=subscription.version,
        started_at=rfc3339(trial.started_at),
        method=request.method,
        url=request.url,
        address=answer.address,
        status=answer.status,
        error=None if answer.error is None else answer.error.value,
        detail=answer.detail,
        timings=_timings(answer),
        request=body_view(trial.composed.masked_headers.splitlines(), request.body),
        response=body_view(_lines(answer.headers), answer.body or None, truncated=answer.truncated),
    )
    return TrialView(trial.accepted, attempt)


def _timings(answer: Answer) -> Timings:
    return Timings(answer.dns_us, answer.connect_us, answer.tls_us, answer.first_byte_us, answer.total_us)


def preview_view(preview: Preview) -> PreviewView:
    request = preview.composed.request
    return PreviewView(
        matches=preview.matches,
        reasons=[ReasonView(reason.rule, reason.passed, reason.detail) for reason in preview.reasons],
        method=request.method,
        url=request.url,
        request=body_view(preview.composed.masked_headers.splitlines(), request.body),
    )


def body_view(lines: Sequence[str], body: bytes | None, *, truncated: bool = False) -> BodyView:
    """Header lines and a body that may hold anything at all."""
    headers = [
        (name.strip(), value.strip())
        for name, colon, value in (line.partition(":") for line in lines)
        if colon
    ]
    if body is None:
        return BodyView(headers, None, "utf-8", truncated)
    return BodyView(headers, *readable(body, truncated=truncated), truncated)


def readable(body: bytes, *, truncated: bool) -> tuple[str, Literal["utf-8", "base64"]]:
    """A body as text, or in base64 if it is no UTF-8. Where it was cut, a letter of which only a part is left goes."""
    try:
        return getincrementaldecoder("utf-8")().decode(body, not truncated), "utf-8"
    except UnicodeDecodeError:
        return b64encode(body).decode(), "base64"


def _lines(block: bytes) -> list[str]:
    return block.decode("latin-1").split("\n")


def replay_view(subscription: Subscription, replay: Replay, *, dry_run: bool = False) -> ReplayView:
    return ReplayView(
        id=None if dry_run else replay.id,
        subscription=subscription.id,
        dry_run=dry_run,
        states=list(replay.states),
        rate=replay.rate,
        total=replay.total,
        done=replay.done,
        state=None if dry_run else replay.state,
        created_at=rfc3339(replay.created_at),
        updated_at=rfc3339(replay.updated_at),
    )


def usage_view(usage: Usage) -> UsageView:
    return UsageView(usage.day, usage.events, usage.event_bytes, usage.attempts, usage.attempt_bytes)


def time_or_none(time: Millis | None) -> str | None:
    """RFC 3339, or None where the model says "none" by None or 0."""
    return rfc3339(time) if time else None


def due_or_none(time: Millis | None) -> str | None:
    """As ``time_or_none``, and None for what waits behind another delivery, not for a time."""
    return None if time == PARKED_DUE else time_or_none(time)
