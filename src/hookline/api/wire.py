"""What goes over the wire: the Structs of requests and answers, and how the stored things become answers.

Times are RFC 3339 in UTC, durations that a user sets are seconds, measured ones microseconds. Secrets are
masked. The Structs are also the source of the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hookline.core.errors import Fault
from hookline.core.model import (
    AuthKind,
    BreakerPolicy,
    DeliveryState,
    Order,
    RateLimit,
    ReplayState,
    Retention,
    RetryPolicy,
    SchemaMode,
    Scope,
    SignatureScheme,
    SubscriptionState,
    Timeout,
    TypeSource,
)
from hookline.engine.read import Outcome

T = TypeVar("T")
Time = Annotated[str, Meta(description="RFC 3339, UTC", examples=["2026-01-31T12:00:00.000Z"])]
Micros = Annotated[int, Meta(description="microseconds")]


class PageView(Struct, Generic[T], frozen=True):
    """A page of a list. ``next`` is the cursor of the next page, null on the last one."""

    data: list[T]
    next: str | None = None


class Problem(Struct, frozen=True):
    """An error as RFC 9457 describes it. ``code`` is stable; ``faults`` lists everything that is wrong."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    faults: list[Fault] = []


# --- tenants and keys ------------------------------------------------------------------------------------


class TenantView(Struct, frozen=True):
    """A tenant. ``retention`` of null means the installation's own."""

    id: str
    name: str
    profile: str
    schema_mode: SchemaMode
    retention: Retention | None
    webhooks: bool
    created_at: Time


class TenantCreated(TenantView, frozen=True):
    """A new tenant with its first API key, which is shown this once."""

    api_key: Annotated[str, Meta(examples=["hk_Xm3…"])]
    api_key_id: str


class TenantChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; the rest stays."""

    name: str | UnsetType = UNSET
    profile: str | UnsetType = UNSET
    schema_mode: SchemaMode | UnsetType = UNSET
    retention: Retention | UnsetType | None = UNSET
    webhooks: bool | UnsetType = UNSET


class KeyView(Struct, frozen=True):
    """An API key without its secret. ``hint`` is how the secret begins."""

    id: str
    name: str
    hint: str
    scopes: list[Scope]
    created_at: Time
    revoked_at: Time | None


class KeyCreated(KeyView, frozen=True):
    """A new key with its secret, which is shown this once."""

    secret: str


class WhoAmI(Struct, frozen=True):
    """The key that made the request, and the tenant it acts for (null: an operator key on its own)."""

    key: KeyView
    tenant: TenantView | None


# --- events ------------------------------------------------------------------------------------------------


class ObjectView(Struct, frozen=True):
    """The business object an event is about."""

    type: str | None
    id: str | None


class SourceView(Struct, frozen=True):
    """Which application and which of its users made the change."""

    application: str | None
    user_id: str | None


class EventView(Struct, frozen=True):
    """An event. ``data`` is the publisher's JSON, byte for byte; lists have it with ``include=payload``."""

    id: str
    type: str
    occurred_at: Time
    received_at: Time
    position: int
    object: ObjectView | None
    source: SourceView | None
    key: str | None
    correlation_id: str | None
    data: Raw | UnsetType = UNSET


class PublishedView(Struct, frozen=True):
    """The answer to one event. ``duplicate``: the same event was stored before under this id."""

    id: str
    duplicate: bool


class BatchItem(Struct, frozen=True, omit_defaults=True):
    """The result for one item of a batch: ``status`` 202 and the event's id, or the error of this item."""

    status: int
    id: str | None = None
    duplicate: bool | None = None
    error: Problem | None = None


class BatchResult(Struct, frozen=True):
    """One result for each item, in their order."""

    data: list[BatchItem]


# --- event types -------------------------------------------------------------------------------------------


class EventTypeView(Struct, frozen=True):
    """A type of the catalogue. ``version`` counts the changes of its schema.

    ``source`` tells whether it came with the tenant's profile (``shipped``), from a file of this installation
    (``file``) or was made or changed by API (``api``); the times of the first two are those of their file.
    """

    name: str
    description: str
    group: str
    usage: str
    version: int
    created_at: Time
    updated_at: Time
    deprecated_at: Time | None
    source: TypeSource = TypeSource.API
    object_type: str = ""
    """The type of object that its events are about, if that is known."""
    origin: str = ""
    """``stated`` if the platform documents the payload, ``choice`` if it is Hookline's choice."""
    deprecation: str = ""
    """What to use instead of a deprecated type."""
    schema: Raw | None = None
    example: Raw | None = None


class GroupView(Struct, frozen=True):
    """A heading of the catalogue, with the number of types under it."""

    name: str
    types: int


class GroupsView(Struct, frozen=True):
    """All groups, by name."""

    data: list[GroupView]


class EventTypeChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; the rest stays, and null removes a schema or example."""

    description: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    usage: str | UnsetType = UNSET
    schema: Raw | UnsetType | None = UNSET
    example: Raw | UnsetType | None = UNSET


class DeprecateInput(Struct, frozen=True, forbid_unknown_fields=True):
    """``deprecated`` of false takes a deprecation back."""

    deprecated: bool = True


# --- subscriptions -----------------------------------------------------------------------------------------


class AuthView(Struct, frozen=True, omit_defaults=True):
    """How requests authenticate; the secret is masked."""

    kind: AuthKind
    username: str = ""
    secret: str = ""
    header: str = ""
    token_url: str = ""
    client_id: str = ""
    scope: str = ""


class ClientCertificateView(Struct, frozen=True):
    """The client certificate that requests show (mutual TLS); its key is masked."""

    certificate: str
    key: str


class SigningView(Struct, frozen=True):
    """How requests are signed. ``secret`` is shown in full when it was just made, else masked."""

    scheme: SignatureScheme
    id_header: str
    timestamp_header: str
    signature_header: str
    secret: str | None
    public_key: str | None


class SubscriptionView(Struct, frozen=True):
    """A subscription. ``version`` rises with each change and is also the ``ETag``."""

    id: str
    version: int
    enabled: bool
    state: SubscriptionState
    state_reason: str
    state_at: Time | None
    url: str
    events: tuple[str, ...]
    name: str
    method: str
    headers: dict[str, str]
    secret_headers: dict[str, str]
    query: dict[str, str]
    auth: AuthView
    client_certificate: ClientCertificateView | None
    profile: str
    signing: SigningView
    retry: RetryPolicy
    timeout: Timeout
    rate_limit: RateLimit | None
    max_in_flight: int
    order: Order
    filter: str | None
    breaker: BreakerPolicy
    disable_after: float
    disable_on_gone: bool
    tracking_headers: bool
    profile_options: dict[str, str | bool]
    metadata: dict[str, str]
    created_at: Time
    updated_at: Time


class SecretView(Struct, frozen=True):
    """A signing key that is live. ``expires_at`` is set once it is rotated out."""

    secret: str
    public_key: str | None
    created_at: Time
    expires_at: Time | None


class SecretsView(Struct, frozen=True):
    """All live signing keys, the newest first."""

    scheme: SignatureScheme
    keys: list[SecretView]


class HealthView(Struct, frozen=True):
    """How far a subscription is. ``lag`` counts the events of the log it has not settled or looked at yet."""

    id: str
    state: SubscriptionState
    state_reason: str
    cursor: int
    head: int
    lag: int
    sequence: int
    waiting: int
    next_due_at: Time | None
    failing_since: Time | None


class PauseInput(Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is paused, for those who look later."""

    reason: Annotated[str, Meta(max_length=200)] = ""


class ResumeInput(Struct, frozen=True, forbid_unknown_fields=True):
    """``continue`` sends what was kept meanwhile; ``now`` passes it over."""

    start: Literal["continue", "now"] = field(default="continue", name="from")


class RotateInput(Struct, frozen=True, forbid_unknown_fields=True):
    """``overlap``: seconds that the old key goes on signing. ``secret``: the new one, else it is made."""

    overlap: Annotated[float, Meta(ge=0, le=2_592_000)] = 86_400
    secret: str | None = None


class TestInput(Struct, frozen=True, forbid_unknown_fields=True):
    """What to send: the example of ``type``, or ``data``, or (empty) a plain test event."""

    __test__ = False  # it is no test case

    type: str | None = None
    data: Raw | UnsetType = UNSET


class PreviewInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The ``id`` of a stored event, or an ``event`` written as it would be published."""

    id: str | None = None
    event: Raw | UnsetType = UNSET


# --- deliveries and attempts -------------------------------------------------------------------------------


class Timings(Struct, frozen=True):
    """Length of each phase; ``first_byte_us`` and ``total_us`` count from the start."""

    dns_us: Micros
    connect_us: Micros
    tls_us: Micros
    first_byte_us: Micros
    total_us: Micros


class BodyView(Struct, frozen=True):
    """Headers as (name, value) pairs, and the body: as text, or base64 if it is no UTF-8.

    ``body`` is null where there was none or it is past its retention.
    """

    headers: list[tuple[str, str]]
    body: str | None
    encoding: Literal["utf-8", "base64"]
    truncated: bool = False


class AttemptView(Struct, frozen=True):
    """One HTTP request. ``status`` is 0 if there was no answer; then ``error`` says why."""

    id: str
    delivery: str | None
    subscription: str
    event: str | None
    number: int
    version: int
    started_at: Time
    method: str
    url: str
    address: str
    status: int
    error: str | None
    detail: str
    timings: Timings
    request: BodyView
    response: BodyView


class DeliveryView(Struct, frozen=True):
    """One event for one subscription. ``status`` and ``error`` are those of the last attempt."""

    id: str
    subscription: str
    event: str | None
    type: str | None
    position: int
    sequence: int
    state: DeliveryState
    attempts: int
    status: int
    error: str | None
    received_at: Time | None
    settled_at: Time | None
    due_at: Time | None
    payload: Raw | UnsetType | None = UNSET
    attempt_log: list[AttemptView] | UnsetType = UNSET


class EventDeliveryView(Struct, frozen=True):
    """What became of an event for one subscription, and why."""

    subscription: str
    name: str
    url: str
    outcome: Outcome
    reason: str
    delivery: DeliveryView | None


class TrialView(Struct, frozen=True):
    """A test-send. ``accepted``: the endpoint answered 200 to 299."""

    accepted: bool
    attempt: AttemptView


class ReasonView(Struct, frozen=True):
    """One rule, whether the event passed it, and what was found."""

    rule: str
    passed: bool
    detail: str


class PreviewView(Struct, frozen=True):
    """The request that an event would become now, secrets masked, and whether it matches."""

    matches: bool
    reasons: list[ReasonView]
    method: str
    url: str
    request: BodyView


class ReplayInput(Struct, frozen=True, forbid_unknown_fields=True):
    """Which deliveries to send again: of events received between ``from`` and ``to`` (null: up to now), that
    ended in one of the states ``state`` (null: any). ``rate``: at most so many a second, 0 for no cap."""

    start: str = field(name="from")
    end: str | None = field(default=None, name="to")
    state: list[DeliveryState] | DeliveryState | None = None
    rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    dry_run: bool = False


class ReplayView(Struct, frozen=True):
    """A replay job. With ``dry_run`` nothing is sent and there is no ``id``."""

    id: str | None
    subscription: str
    dry_run: bool
    states: list[DeliveryState]
    rate: float
    total: int
    done: int
    state: ReplayState | None
    created_at: Time
    updated_at: Time


class UsageView(Struct, frozen=True):
    """What a tenant used on one day (UTC)."""

    day: str
    events: int
    event_bytes: int
    attempts: int
    attempt_bytes: int


class NodeView(Struct, frozen=True):
    """A process of the installation. ``slices`` counts the parts of the log's subscriptions that it delivers."""

    id: str
    role: str
    version: str
    started_at: Time
    seen_at: Time
    slices: int


class SliceView(Struct, frozen=True):
    """A part of the subscriptions of a shard. ``owner`` is the node that delivers it, null if there is none; ``lag``
    counts the events that are not settled for all its caught-up subscriptions; ``waiting`` deliveries wait for an
    attempt, of which the first has been due for ``overdue`` seconds; those of stopped subscriptions are never late."""

    shard: int
    slice: int
    owner: str | None
    lag: int
    waiting: int
    overdue: float


class NodesView(Struct, frozen=True):
    """Who does the work, and how far it is."""

    nodes: list[NodeView]
    slices: list[SliceView]


class Ready(Struct, frozen=True):
    """Whether this process can do its work, and what each part says."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


class Alive(Struct, frozen=True):
    """This process answers."""

    status: Literal["alive"]
    version: str
