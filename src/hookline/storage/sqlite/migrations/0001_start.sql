-- Times are milliseconds, UTC. A subscription's or tenant's `no` never changes and is never used again.

-- The log's end and the right to deliver it. The head stays when retention removes all events.
CREATE TABLE shards (
    shard         INTEGER PRIMARY KEY,
    head          INTEGER NOT NULL DEFAULT 0,
    last_received INTEGER NOT NULL DEFAULT 0,
    watermark     INTEGER NOT NULL DEFAULT 0,
    epoch         INTEGER NOT NULL DEFAULT 0,
    owner         TEXT,
    expires_at    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO shards (shard) VALUES (0);

-- One row: the version of the configuration; `pings` is what a health check writes.
CREATE TABLE config (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL DEFAULT 0,
    pings    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO config (only_row) VALUES (1);

CREATE TABLE tenants (
    no          INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    profile     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    schema_mode TEXT NOT NULL,
    retention   TEXT
) STRICT;

CREATE TABLE api_keys (
    no         INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    tenant_no  INTEGER REFERENCES tenants (no),
    name       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE,
    hint       TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_tenant ON api_keys (tenant_no, no);

CREATE TABLE event_types (
    tenant_no     INTEGER NOT NULL,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    group_name    TEXT NOT NULL,
    usage         TEXT NOT NULL,
    schema        BLOB,
    example       BLOB,
    deprecated_at INTEGER,
    PRIMARY KEY (tenant_no, name)
) STRICT;

CREATE TABLE subscriptions (
    no           INTEGER PRIMARY KEY,
    id           TEXT NOT NULL,
    tenant_no    INTEGER NOT NULL REFERENCES tenants (no),
    shard        INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    matches_from INTEGER NOT NULL,
    definition   BLOB NOT NULL,
    sealed       BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    state        TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    state_at     INTEGER NOT NULL,
    skip_to      INTEGER NOT NULL,
    start_after  INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL,  -- the configuration's version that its last change made
    UNIQUE (tenant_no, id)
) STRICT;
CREATE INDEX subscriptions_tenant ON subscriptions (tenant_no, no);
CREATE INDEX subscriptions_changed ON subscriptions (shard, changed_at);

CREATE TABLE definition_versions (
    subscription_no INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    matches_from    INTEGER NOT NULL,
    definition      BLOB NOT NULL,
    PRIMARY KEY (subscription_no, version)
) STRICT, WITHOUT ROWID;

-- The configuration's version that the last resend or replay job of a subscription made.
CREATE TABLE requeues (
    subscription_no INTEGER PRIMARY KEY,
    version         INTEGER NOT NULL
) STRICT;
CREATE INDEX requeues_version ON requeues (version);

CREATE TABLE events (
    position           INTEGER PRIMARY KEY,
    tenant_no          INTEGER NOT NULL,
    id                 TEXT NOT NULL,
    type               TEXT NOT NULL,
    data               BLOB NOT NULL,
    occurred_at        INTEGER NOT NULL,
    received_at        INTEGER NOT NULL,  -- never falls: time is searched over the primary key
    object_type        TEXT,
    object_id          TEXT,
    source_application TEXT,
    source_user        TEXT,
    key                TEXT,
    correlation_id     TEXT
) STRICT;
CREATE UNIQUE INDEX events_id ON events (tenant_no, id);
CREATE INDEX events_tenant ON events (tenant_no, position);
CREATE INDEX events_object ON events (tenant_no, object_id, position) WHERE object_id IS NOT NULL;
CREATE INDEX events_correlation ON events (tenant_no, correlation_id, position)
    WHERE correlation_id IS NOT NULL;

-- Which blocks of 1,024 positions hold events with a label (`t:` and the type, `o:` and the object type): lists by
-- label visit those blocks alone, for a tenth of what an index entry for each event costs.
CREATE TABLE event_blocks (
    tenant_no INTEGER NOT NULL,
    label     TEXT NOT NULL,
    block     INTEGER NOT NULL,
    PRIMARY KEY (tenant_no, label, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE lanes (
    subscription_no INTEGER PRIMARY KEY,
    cursor          INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    live            INTEGER NOT NULL,
    ahead           INTEGER NOT NULL,
    failing_since   INTEGER NOT NULL,
    warned_at       INTEGER NOT NULL
) STRICT;

-- Settled deliveries; state 1 is succeeded, 2 failed, 3 expired.
CREATE TABLE deliveries (
    subscription_no INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    settled_at      INTEGER NOT NULL,
    status          INTEGER NOT NULL,
    error           TEXT NOT NULL,
    PRIMARY KEY (subscription_no, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_lost ON deliveries (subscription_no, state, position) WHERE state <> 1;

-- Deliveries that wait; small and hot.
CREATE TABLE unsettled (
    subscription_no INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    due_at          INTEGER NOT NULL,
    first_at        INTEGER NOT NULL,
    runs            INTEGER NOT NULL,
    key             TEXT,
    status          INTEGER NOT NULL,
    error           TEXT NOT NULL,
    PRIMARY KEY (subscription_no, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX unsettled_due ON unsettled (subscription_no, due_at, position);

-- In the order of recording, with an index led by the tenant and the position: both grow at their end however many
-- subscriptions there are, where a key led by the subscription would write a page for each attempt.
CREATE TABLE attempts (
    no                 INTEGER PRIMARY KEY,
    tenant_no          INTEGER NOT NULL,
    subscription_no    INTEGER NOT NULL,
    position           INTEGER NOT NULL,
    number             INTEGER NOT NULL,
    version            INTEGER NOT NULL,
    started_at         INTEGER NOT NULL,
    method             TEXT NOT NULL,
    url                TEXT NOT NULL,
    status             INTEGER NOT NULL,
    error              TEXT NOT NULL,
    detail             TEXT NOT NULL,
    address            TEXT NOT NULL,
    dns_us             INTEGER NOT NULL,
    connect_us         INTEGER NOT NULL,
    tls_us             INTEGER NOT NULL,
    first_byte_us      INTEGER NOT NULL,
    total_us           INTEGER NOT NULL,
    request_headers    TEXT NOT NULL,
    request_bytes      INTEGER NOT NULL,
    response_headers   BLOB NOT NULL,
    response_truncated INTEGER NOT NULL,
    has_body           INTEGER NOT NULL  -- 1: its answer's body is in response_bodies
) STRICT;
CREATE UNIQUE INDEX attempts_place ON attempts (tenant_no, position, subscription_no, number);
CREATE INDEX attempts_bodies ON attempts (tenant_no, started_at) WHERE has_body = 1;

CREATE TABLE response_bodies (
    attempt_no INTEGER PRIMARY KEY,
    body       BLOB NOT NULL
) STRICT;

CREATE TABLE replays (
    no              INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    subscription_no INTEGER NOT NULL,
    after_position  INTEGER NOT NULL,
    until_position  INTEGER NOT NULL,
    states          TEXT NOT NULL,
    rate            REAL NOT NULL,
    total           INTEGER NOT NULL,
    done            INTEGER NOT NULL,
    progress        INTEGER NOT NULL,
    state           TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX replays_subscription ON replays (subscription_no, no);
CREATE INDEX replays_running ON replays (subscription_no) WHERE state = 'running';

CREATE TABLE usage (
    tenant_no     INTEGER NOT NULL,
    day           TEXT NOT NULL,
    events        INTEGER NOT NULL DEFAULT 0,
    event_bytes   INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    attempt_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_no, day)
) STRICT, WITHOUT ROWID;
