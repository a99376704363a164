"""The nouns of Hookline, as immutable values.

Times are integer milliseconds since the Unix epoch, UTC (``Millis``); durations that a user sets are
seconds; measured durations are integer microseconds (``Micros``). A ``*_no`` is the compact number that
storage gives a row; the matching ``id`` is the public name of the same thing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

Millis = int
Micros = int
Position = int
Sequence = int

OPERATIONAL_PREFIX = "hookline."
"""Types that Hookline itself publishes. Only an explicit name or ``hookline.*`` subscribes to them."""


# --- tenants and keys -------------------------------------------------------------------------------


class SchemaMode(StrEnum):
    """What happens to an event whose payload does not fit its type's schema."""

    STRICT = "strict"
    LOG = "log"
    OFF = "off"


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """How many days each kind of record is kept (EvolutionX, "Event and Webhook Logs": 60/60/15)."""

    events: int = 60
    attempts: int = 60
    bodies: int = 15


class Tenant(Struct, frozen=True):
    """One isolated customer account."""

    no: int
    id: str
    name: str
    profile: str
    created_at: Millis
    schema_mode: SchemaMode = SchemaMode.LOG
    retention: Retention | None = None
    webhooks: bool = True
    """Whether the feature is switched on for this customer (EvolutionX sells it so). Off: nothing is sent, and
    subscriptions cannot be made or changed."""


class Scope(StrEnum):
    """What an API key may do. ``manage`` includes all that follow and ``read``; ``operator`` includes everything.

    The four on subscriptions are Avvyr's permissions (``EVENT_SUBSCRIPTIONS.CREATE`` and so on).
    """

    PUBLISH = "publish"
    READ = "read"
    MANAGE = "manage"
    CREATE_SUBSCRIPTIONS = "subscriptions:create"
    READ_SUBSCRIPTIONS = "subscriptions:read"
    UPDATE_SUBSCRIPTIONS = "subscriptions:update"
    DELETE_SUBSCRIPTIONS = "subscriptions:delete"
    OPERATOR = "operator"


class ApiKey(Struct, frozen=True):
    """A key as stored: its SHA-256 only. ``tenant_no`` is None for an operator key."""

    id: str
    tenant_no: int | None
    name: str
    digest: bytes
    hint: str
    scopes: tuple[Scope, ...]
    created_at: Millis
    revoked_at: Millis | None = None
    expires_at: Millis | None = None
    session_of: str | None = None
    """The id of the key that logged in, for a session (ShipStream, ``login``): it ends with that key."""


class TypeSource(StrEnum):
    """Where an event type comes from: its tenant's profile, a file of the installation, or its tenant by API."""

    SHIPPED = "shipped"
    FILE = "file"
    API = "api"


class EventType(Struct, frozen=True):
    """A name in a tenant's catalogue. ``schema`` and ``example`` are raw JSON, or None.

    A type from a file belongs to no tenant (``tenant_no`` 0), and its times are those of the file. What is below
    ``source`` is known of such types only and not stored.
    """

    tenant_no: int
    name: str
    description: str
    version: int
    created_at: Millis
    updated_at: Millis
    group: str = ""
    usage: str = ""
    schema: bytes | None = None
    example: bytes | None = None
    deprecated_at: Millis | None = None
    source: TypeSource = TypeSource.API
    object_type: str = ""
    """The type of object that its events are about."""
    origin: str = ""
    """Whether the platform states its payload (``stated``) or it is Hookline's choice (``choice``)."""
    deprecation: str = ""
    """What to use instead."""
    order: int = 0
    """Its place on the platform's own page (0: none); Hookline's own lists are in the order of the names."""


# --- events -----------------------------------------------------------------------------------------


class NewEvent(Struct, frozen=True, gc=False):
    """An event on its way into the log. ``data`` is the publisher's JSON, byte for byte.

    ``occurred_at`` of None means "when it was received".
    """

    tenant_no: int
    id: str
    type: str
    data: bytes
    occurred_at: Millis | None = None
    object_type: str | None = None
    object_id: str | None = None
    source_application: str | None = None
    source_user: str | None = None
    key: str | None = None
    correlation_id: str | None = None


class Event(Struct, frozen=True, gc=False):
    """One immutable fact in the log, at its position in its shard."""

    shard: int
    position: Position
    tenant_no: int
    id: str
    type: str
    data: bytes
    occurred_at: Millis
    received_at: Millis
    object_type: str | None = None
    object_id: str | None = None
    source_application: str | None = None
    source_user: str | None = None
    key: str | None = None
    correlation_id: str | None = None


class Appended(Struct, frozen=True, gc=False):
    """The answer of the log to one new event: its place, or the event that already has its id."""

    position: Position
    existing: Event | None = None


# --- subscriptions ----------------------------------------------------------------------------------


class Order(StrEnum):
    """Whether deliveries of a subscription may overtake each other."""

    NONE = "none"
    KEY = "key"
    STRICT = "strict"


class AuthKind(StrEnum):
    """How a delivery authenticates itself at the endpoint."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    API_KEY = "api_key"
    OAUTH2 = "oauth2_client_credentials"


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """Credentials for the endpoint. Which fields count depends on ``kind``.

    ``secret`` is the password, bearer token, API key or OAuth2 client secret.
    """

    kind: AuthKind = AuthKind.NONE
    username: str = ""
    secret: str = ""
    header: str = "X-API-Key"
    token_url: str = ""
    client_id: str = ""
    scope: str = ""


class ClientCertificate(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request shows of itself while TLS is set up (mutual TLS), both in PEM form: the ``certificate`` with those
    that issued it behind it, and its private ``key``."""

    certificate: str
    key: str


class SignatureScheme(StrEnum):
    """How a request is signed.

    ``v1`` (HMAC-SHA256) and ``v1a`` (Ed25519) are the forms of Standard Webhooks 1.0.0; the others are those of
    the platforms they are named for. ``core.signing`` says what each one signs.
    """

    NONE = "none"
    V1 = "v1"
    V1A = "v1a"
    AVVYR = "avvyr"
    EVOLUTIONX = "evolutionx"
    SHIPSTREAM = "shipstream"
    SHOPIFY = "shopify"
    STRIPE = "stripe"


class SigningKey(Struct, frozen=True):
    """One live key: ``whsec_…`` (``v1``), ``whsk_…`` (``v1a``), any text for the platforms' forms. ``expires_at`` is
    set once it is rotated out."""

    secret: str
    created_at: Millis
    expires_at: Millis | None = None


class Signing(Struct, frozen=True, forbid_unknown_fields=True):
    """How requests are signed, and the headers that go with it. An empty name means that the header is not sent."""

    scheme: SignatureScheme = SignatureScheme.V1
    id_header: str = "webhook-id"
    timestamp_header: str = "webhook-timestamp"
    signature_header: str = "webhook-signature"


class RetryKind(StrEnum):
    """The form of a retry schedule."""

    NONE = "none"
    LIST = "list"
    EXPONENTIAL = "exponential"


STANDARD_DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Seconds between attempts: the example schedule of Standard Webhooks 1.0.0."""


class RetryPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """When a failed attempt is tried again.

    ``list`` uses ``delays`` in turn; ``exponential`` waits ``base * factor**n`` up to ``cap`` seconds.
    ``max_attempts`` (first one included) and ``max_age`` (seconds since the first attempt) end both; 0 means
    no such limit. ``jitter`` is the fraction by which a delay may differ either way. ``retry_on`` names
    the answers that are worth another attempt: a status (``"503"``), a class (``"5xx"``) or ``"network"``
    for requests that got no answer.
    """

    kind: RetryKind = RetryKind.LIST
    delays: tuple[float, ...] = STANDARD_DELAYS
    base: float = 5.0
    factor: float = 2.0
    cap: float = 86400.0
    max_attempts: int = 0
    max_age: float = 0.0
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ("network", "1xx", "3xx", "4xx", "5xx")


class Timeout(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds to connect (DNS, TCP and TLS) and seconds for the whole request."""

    connect: float = 5.0
    total: float = 20.0


class RateLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """``count`` attempts in each ``seconds`` on average; up to ``burst`` at once after a rest (default: ``count``)."""

    count: int
    seconds: float = 1.0
    burst: int = 0


class BreakerPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Stop sending after ``failures`` attempts failed in a row; probe again after ``cooldown`` seconds,
    doubling up to ``max_cooldown``. ``failures`` of 0 switches the breaker off."""

    failures: int = 10
    cooldown: float = 5.0
    max_cooldown: float = 300.0


class Definition(Struct, frozen=True, forbid_unknown_fields=True):
    """What a subscription asks for, without its secrets. Each change makes a new version in the log's order."""

    url: str
    events: tuple[str, ...] = ("*",)
    name: str = ""
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    profile: str = "standard"
    signing: Signing = Signing()
    retry: RetryPolicy = RetryPolicy()
    timeout: Timeout = Timeout()
    rate_limit: RateLimit | None = None
    max_in_flight: int = 64
    order: Order = Order.NONE
    filter: str | None = None
    breaker: BreakerPolicy = BreakerPolicy()
    disable_after: float = 432000.0
    """Seconds of nothing but failures after which the subscription is disabled (5 days); 0 = never."""
    disable_on_gone: bool = True
    """Whether the answer 410 disables the subscription (Standard Webhooks) or is a failure like others."""
    tracking_headers: bool = True
    """Send ``hookline-sequence`` and ``hookline-attempt``."""
    profile_options: dict[str, str | bool] = field(default_factory=dict[str, str | bool])
    """Choices that the profile offers, by name."""
    metadata: dict[str, str] = field(default_factory=dict)


class Secrets(Struct, frozen=True):
    """All secret parts of a subscription; encrypted at rest as one value."""

    auth: Auth = Auth()
    keys: tuple[SigningKey, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    """Custom headers whose values are secret; they are sent like the others and shown masked."""
    client_certificate: ClientCertificate | None = None


class SubscriptionState(StrEnum):
    """``paused`` and ``disabled`` both stop the lane and keep its place in the log; deleted is for good."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    DELETED = "deleted"


class Subscription(Struct, frozen=True):
    """A standing order, as it is now.

    ``matches_from`` is the position from which the current ``definition`` decides what matches;
    ``skip_to`` is the position that a resume from "now" jumped to (0: never). ``sealed`` is the encrypted
    ``Secrets``.
    """

    no: int
    id: str
    tenant_no: int
    shard: int
    version: int
    matches_from: Position
    definition: Definition
    sealed: bytes
    created_at: Millis
    updated_at: Millis
    state: SubscriptionState = SubscriptionState.ACTIVE
    state_reason: str = ""
    state_at: Millis = 0
    skip_to: Position = 0
    start_after: Position = 0
    """The position before the first one the subscription may match: the head when it was made, or earlier
    for a backfill."""


class DefinitionVersion(Struct, frozen=True):
    """The part of a definition that matching needs, in force from position ``matches_from`` on."""

    subscription_no: int
    version: int
    matches_from: Position
    definition: Definition


# --- deliveries and attempts --------------------------------------------------------------------------


class DeliveryState(StrEnum):
    """Where a delivery stands. ``retrying`` waits for its next attempt; the last three are final."""

    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"


class Settled(Struct, frozen=True, gc=False):
    """A delivery that came to its end."""

    subscription_no: int
    position: Position
    sequence: Sequence
    state: DeliveryState
    attempts: int
    settled_at: Millis
    status: int = 0
    error: str = ""


class Unsettled(Struct, frozen=True, gc=False):
    """A delivery below its subscription's cursor that is not at its end: it waits for ``due_at``.

    ``attempts`` made so far; 0 for one that waits behind another event with the same key. ``first_at`` is the
    time of the first attempt (0: none yet), from which ``max_age`` counts. ``runs`` counts the attempts since the
    last explicit resend, which starts the retry schedule anew.
    """

    subscription_no: int
    position: Position
    sequence: Sequence
    attempts: int
    due_at: Millis
    first_at: Millis = 0
    runs: int = 0
    key: str | None = None
    status: int = 0
    error: str = ""


class Attempt(Struct, frozen=True, gc=False):
    """One HTTP request of a delivery, as the log keeps it.

    ``request_headers`` is the header block that was sent, secrets masked; the request body is not here: it is
    rendered again from the event and definition ``version``. ``error`` is an ``ErrorClass`` value or "".
    """

    subscription_no: int
    position: Position
    number: int
    version: int
    started_at: Millis
    method: str
    url: str
    status: int
    error: str
    detail: str
    address: str
    dns_us: Micros
    connect_us: Micros
    tls_us: Micros
    first_byte_us: Micros
    total_us: Micros
    request_headers: str
    request_bytes: int
    response_headers: bytes
    response_body: bytes
    response_truncated: bool


class LaneState(Struct, frozen=True, gc=False):
    """How far a subscription is, as a new owner needs it.

    Everything matched up to ``cursor`` is recorded and has sequences up to ``sequence``. ``live`` lanes are
    also settled up to their shard's watermark; ``ahead`` says that some deliveries above the cursor are recorded.
    ``failing_since`` is the time of the first of an unbroken run of failures (0: none).
    """

    subscription_no: int
    cursor: Position
    sequence: Sequence
    live: bool
    ahead: bool = False
    failing_since: Millis = 0
    warned_at: Millis = 0


class ReplayState(StrEnum):
    """The life of a replay job."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Replay(Struct, frozen=True):
    """A job that sends settled deliveries of a range of positions again, at most ``rate`` a second (0: no cap)."""

    id: str
    subscription_no: int
    after: Position
    until: Position
    states: tuple[DeliveryState, ...]
    rate: float
    total: int
    done: int
    progress: Position
    state: ReplayState
    created_at: Millis
    updated_at: Millis


class Usage(Struct, frozen=True):
    """What a tenant used on one day (UTC, ``YYYY-MM-DD``)."""

    tenant_no: int
    day: str
    events: int
    event_bytes: int
    attempts: int
    attempt_bytes: int
