-- Times are milliseconds, UTC; days are counted from 1970-01-01, UTC. A subscription's or tenant's `no` never changes and
-- is never used again. Texts that are ordered or looked up compare by code point (COLLATE "C").

-- How the log is cut; never changed, because positions and leases depend on it. One row, as in `config`.
CREATE TABLE hookline.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    shards   integer NOT NULL CHECK (shards > 0),
    slices   integer NOT NULL CHECK (slices > 0)
);

-- The version of the configuration, and the last numbers given: in a row, so that a refused change takes none.
CREATE TABLE hookline.config (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version       bigint NOT NULL DEFAULT 0,
    tenants       integer NOT NULL DEFAULT 0,
    subscriptions integer NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO hookline.config DEFAULT VALUES;

-- The log's ends. An append holds the rows of its shards until its commit, so events become visible in order.
CREATE TABLE hookline.shard_heads (
    shard         integer PRIMARY KEY,
    head          bigint NOT NULL DEFAULT 0,
    last_received bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- The configuration's version that the last change made which readers of the shard must follow.
CREATE TABLE hookline.shard_changes (
    shard   integer PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- The right to deliver a slice. Whatever writes deliveries holds this row, so such writes take turns.
CREATE TABLE hookline.shard_leases (
    shard      integer NOT NULL,
    slice      integer NOT NULL,
    watermark  bigint NOT NULL DEFAULT 0,
    epoch      bigint NOT NULL DEFAULT 0,
    expires_at bigint NOT NULL DEFAULT 0,
    recorded   bigint NOT NULL DEFAULT 0,
    owner      text,
    PRIMARY KEY (shard, slice)
) WITH (fillfactor = 10);

CREATE TABLE hookline.nodes (
    id         text COLLATE "C" PRIMARY KEY,
    role       text NOT NULL,
    version    text NOT NULL,
    started_at bigint NOT NULL,
    seen_at    bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE hookline.tenants (
    no          integer PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    name        text NOT NULL,
    profile     text NOT NULL,
    created_at  bigint NOT NULL,
    schema_mode text NOT NULL,
    retention   text,
    webhooks    boolean NOT NULL DEFAULT true
);

-- Tenant 0 has the operators' keys.
CREATE TABLE hookline.api_keys (
    no         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         text COLLATE "C" NOT NULL UNIQUE,
    tenant_no  integer NOT NULL,
    name       text NOT NULL,
    digest     bytea NOT NULL UNIQUE,
    hint       text NOT NULL,
    scopes     text NOT NULL,
    created_at bigint NOT NULL,
    revoked_at bigint,
    expires_at bigint,
    session_of text COLLATE "C"
);
CREATE INDEX api_keys_tenant ON hookline.api_keys (tenant_no, no);
CREATE INDEX api_keys_sessions ON hookline.api_keys (session_of, no) WHERE session_of IS NOT NULL;

CREATE TABLE hookline.event_types (
    tenant_no     integer NOT NULL,
    name          text COLLATE "C" NOT NULL,
    description   text NOT NULL,
    version       integer NOT NULL,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    group_name    text NOT NULL,
    usage         text NOT NULL,
    schema        bytea,
    example       bytea,
    deprecated_at bigint,
    PRIMARY KEY (tenant_no, name)
);

CREATE TABLE hookline.subscriptions (
    no           integer PRIMARY KEY,
    id           text COLLATE "C" NOT NULL,
    tenant_no    integer NOT NULL REFERENCES hookline.tenants (no),
    shard        integer NOT NULL,
    slice        integer NOT NULL,
    version      integer NOT NULL,
    matches_from bigint NOT NULL,
    definition   bytea NOT NULL,
    sealed       bytea NOT NULL,
    created_at   bigint NOT NULL,
    updated_at   bigint NOT NULL,
    state        text NOT NULL,
    state_reason text NOT NULL,
    state_at     bigint NOT NULL,
    skip_to      bigint NOT NULL,
    start_after  bigint NOT NULL,
    changed_at   bigint NOT NULL,  -- the configuration's version that its last change made
    UNIQUE (tenant_no, id)
);
CREATE INDEX subscriptions_tenant ON hookline.subscriptions (tenant_no, no);
CREATE INDEX subscriptions_changed ON hookline.subscriptions (shard, changed_at);
CREATE INDEX subscriptions_slice ON hookline.subscriptions (shard, slice, no);

CREATE TABLE hookline.definition_versions (
    subscription_no integer NOT NULL,
    version         integer NOT NULL,
    matches_from    bigint NOT NULL,
    definition      bytea NOT NULL,
    PRIMARY KEY (subscription_no, version)
);

-- The configuration's version that the last resend or replay job of a subscription made.
CREATE TABLE hookline.requeues (
    subscription_no integer PRIMARY KEY,
    shard           integer NOT NULL,
    version         bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX requeues_version ON hookline.requeues (shard, version);

-- --- the log -----------------------------------------------------------------------------------------------------------
-- Partitioned by the day of `received_at`, which never falls along a shard: (day, position) is the log's order.

CREATE TABLE hookline.events (
    position           bigint NOT NULL,
    occurred_at        bigint NOT NULL,
    received_at        bigint NOT NULL,
    shard              integer NOT NULL,
    day                integer NOT NULL,
    tenant_no          integer NOT NULL,
    id                 text NOT NULL,
    type               text NOT NULL,
    data               bytea NOT NULL,
    object_type        text,
    object_id          text,
    source_application text,
    source_user        text,
    key                text,
    correlation_id     text,
    PRIMARY KEY (shard, day, position)
) PARTITION BY RANGE (day);
CREATE INDEX events_tenant ON hookline.events (tenant_no, day, position);
CREATE INDEX events_object ON hookline.events (tenant_no, object_id, day, position) WHERE object_id IS NOT NULL;
CREATE INDEX events_correlation ON hookline.events (tenant_no, correlation_id, day, position)
    WHERE correlation_id IS NOT NULL;

-- An id is unique in its tenant over all days; it goes with its event.
CREATE TABLE hookline.event_ids (
    tenant_no integer NOT NULL,
    day       integer NOT NULL,
    position  bigint NOT NULL,
    id        text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_no, id)
);

-- The first position of each day of a shard.
CREATE TABLE hookline.shard_days (
    shard          integer NOT NULL,
    day            integer NOT NULL,
    first_position bigint NOT NULL,
    PRIMARY KEY (shard, day)
);

-- Which blocks of 1,024 positions may hold events with a label (`t:` and the type, `o:` and the object type): lists by
-- label visit those blocks alone, for a tenth of what an index entry for each event costs.
CREATE TABLE hookline.event_blocks (
    tenant_no integer NOT NULL,
    block     bigint NOT NULL,
    label     text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_no, label, block)
);

-- --- deliveries --------------------------------------------------------------------------------------------------------

CREATE TABLE hookline.lanes (
    subscription_no integer PRIMARY KEY,
    cursor          bigint NOT NULL,
    sequence        bigint NOT NULL,
    live            boolean NOT NULL,
    ahead           boolean NOT NULL,
    failing_since   bigint NOT NULL,
    warned_at       bigint NOT NULL
) WITH (fillfactor = 50);

-- Settled deliveries, partitioned by the day of `settled_at`; state 1 is succeeded, 2 failed, 3 expired.
CREATE TABLE hookline.deliveries (
    position        bigint NOT NULL,
    sequence        bigint NOT NULL,
    settled_at      bigint NOT NULL,
    subscription_no integer NOT NULL,
    day             integer NOT NULL,
    attempts        integer NOT NULL,
    status          integer NOT NULL,
    state           smallint NOT NULL,
    error           text NOT NULL,
    PRIMARY KEY (subscription_no, position, day)
) PARTITION BY RANGE (day);
CREATE INDEX deliveries_lost ON hookline.deliveries (subscription_no, state, position) WHERE state <> 1;

-- Deliveries that wait; small and hot.
CREATE TABLE hookline.unsettled (
    position        bigint NOT NULL,
    sequence        bigint NOT NULL,
    due_at          bigint NOT NULL,
    first_at        bigint NOT NULL,
    subscription_no integer NOT NULL,
    attempts        integer NOT NULL,
    runs            integer NOT NULL,
    status          integer NOT NULL,
    key             text,
    error           text NOT NULL,
    PRIMARY KEY (subscription_no, position)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX unsettled_due ON hookline.unsettled (subscription_no, due_at, position);

-- Partitioned by the day of `started_at`. The key is led by tenant and position: it grows at its end however many
-- subscriptions there are.
CREATE TABLE hookline.attempts (
    position           bigint NOT NULL,
    started_at         bigint NOT NULL,
    dns_us             bigint NOT NULL,
    connect_us         bigint NOT NULL,
    tls_us             bigint NOT NULL,
    first_byte_us      bigint NOT NULL,
    total_us           bigint NOT NULL,
    request_bytes      bigint NOT NULL,
    tenant_no          integer NOT NULL,
    subscription_no    integer NOT NULL,
    day                integer NOT NULL,
    number             integer NOT NULL,
    version            integer NOT NULL,
    status             integer NOT NULL,
    response_truncated boolean NOT NULL,
    has_body           boolean NOT NULL,  -- the answer's body is in response_bodies, until its retention ends
    method             text NOT NULL,
    url                text NOT NULL,
    error              text NOT NULL,
    detail             text NOT NULL,
    address            text NOT NULL,
    request_headers    text NOT NULL,
    response_headers   bytea NOT NULL,
    PRIMARY KEY (tenant_no, position, subscription_no, number, day)
) PARTITION BY RANGE (day);

-- Apart from the attempts, because they are kept for a shorter time; on the same days.
CREATE TABLE hookline.response_bodies (
    position        bigint NOT NULL,
    started_at      bigint NOT NULL,
    tenant_no       integer NOT NULL,
    subscription_no integer NOT NULL,
    day             integer NOT NULL,
    number          integer NOT NULL,
    body            bytea NOT NULL,
    PRIMARY KEY (tenant_no, position, subscription_no, number, day)
) PARTITION BY RANGE (day);

CREATE TABLE hookline.replays (
    no              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              text COLLATE "C" NOT NULL UNIQUE,
    subscription_no integer NOT NULL,
    after_position  bigint NOT NULL,
    until_position  bigint NOT NULL,
    states          text NOT NULL,
    rate            double precision NOT NULL,
    total           bigint NOT NULL,
    done            bigint NOT NULL,
    progress        bigint NOT NULL,
    state           text NOT NULL,
    created_at      bigint NOT NULL,
    updated_at      bigint NOT NULL
);
CREATE INDEX replays_subscription ON hookline.replays (subscription_no, no);
CREATE INDEX replays_running ON hookline.replays (subscription_no) WHERE state = 'running';

-- In several rows for a day, so that those who count do not wait for each other: part 0 is the log's, the others the
-- recorders'. Their sum counts.
CREATE TABLE hookline.usage (
    tenant_no     integer NOT NULL,
    part          smallint NOT NULL,
    events        bigint NOT NULL DEFAULT 0,
    event_bytes   bigint NOT NULL DEFAULT 0,
    attempts      bigint NOT NULL DEFAULT 0,
    attempt_bytes bigint NOT NULL DEFAULT 0,
    day           text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_no, day, part)
) WITH (fillfactor = 50);

-- --- the hot path ------------------------------------------------------------------------------------------------------
-- One call for each batch: one round trip, and no lock is held while a client thinks. A change makes a new version of the
-- function beside the old one, so that old and new nodes can run at once. The settings keep plans on the indexes, whatever
-- the statistics of a partition say that was made a moment ago.

-- Append events that come in the order of their shards (`p_shards` ascending, each with the number of events before it and
-- of its own; `p_slot` says which of them an event belongs to). Arrays may be NULL if all their values are. Fails with
-- unique_violation on event_ids if an id is there.
CREATE FUNCTION hookline.append_v1(
    p_now bigint,
    p_today text,
    p_shards integer[], p_offsets bigint[], p_counts bigint[],
    p_slot integer[], p_tenant integer[], p_id text[], p_type text[], p_data bytea[], p_occurred bigint[],
    p_object_type text[], p_object_id text[], p_application text[], p_user text[], p_key text[], p_correlation text[],
    p_label_slot integer[], p_label_tenant integer[], p_label text[],
    p_usage_tenant integer[], p_usage_events bigint[], p_usage_bytes bigint[],
    OUT o_bases bigint[],
    OUT o_received bigint[]
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_last bigint[];
    v_days integer[];
    v_shifts bigint[];
    v_slot integer;
BEGIN
    SELECT array_agg(h.head), array_agg(h.last_received) INTO o_bases, v_last
    FROM (
        SELECT head, last_received FROM hookline.shard_heads WHERE shard = ANY (p_shards)
        ORDER BY shard FOR NO KEY UPDATE
    ) AS h;
    UPDATE hookline.shard_heads AS h
    SET head = h.head + n.events, last_received = greatest(h.last_received, p_now)
    FROM unnest(p_shards, p_counts) AS n (shard, events) WHERE h.shard = n.shard;

    FOR v_slot IN 1 .. cardinality(p_shards) LOOP
        o_received[v_slot] := greatest(v_last[v_slot], p_now);
        v_days[v_slot] := o_received[v_slot] / 86400000;
        v_shifts[v_slot] := o_bases[v_slot] - p_offsets[v_slot];
        IF v_last[v_slot] / 86400000 < v_days[v_slot] THEN
            INSERT INTO hookline.shard_days (shard, day, first_position)
            VALUES (p_shards[v_slot], v_days[v_slot], o_bases[v_slot] + 1) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;

    INSERT INTO hookline.event_ids (tenant_no, id, day, position)
    SELECT e.tenant_no, e.id, v_days[e.slot], v_shifts[e.slot] + e.n
    FROM unnest(p_slot, p_tenant, p_id) WITH ORDINALITY AS e (slot, tenant_no, id, n);

    INSERT INTO hookline.events (position, occurred_at, received_at, shard, day, tenant_no, id, type, data,
        object_type, object_id, source_application, source_user, key, correlation_id)
    SELECT v_shifts[e.slot] + e.n, coalesce(e.occurred_at, o_received[e.slot]), o_received[e.slot],
        p_shards[e.slot], v_days[e.slot], e.tenant_no, e.id, e.type, e.data,
        e.object_type, e.object_id, e.source_application, e.source_user, e.key, e.correlation_id
    FROM unnest(p_slot, p_tenant, p_id, p_type, p_data, p_occurred, p_object_type, p_object_id, p_application, p_user,
            p_key, p_correlation)
        WITH ORDINALITY AS e (slot, tenant_no, id, type, data, occurred_at, object_type, object_id,
            source_application, source_user, key, correlation_id, n);

    INSERT INTO hookline.event_blocks (tenant_no, label, block)
    SELECT l.tenant_no, l.label, b.block
    FROM unnest(p_label_slot, p_label_tenant, p_label) AS l (slot, tenant_no, label),
        generate_series((o_bases[l.slot] + 1) >> 10, (o_bases[l.slot] + p_counts[l.slot]) >> 10) AS b (block)
    ON CONFLICT DO NOTHING;

    INSERT INTO hookline.usage AS u (tenant_no, day, part, events, event_bytes)
    SELECT n.tenant_no, p_today, 0, n.events, n.bytes
    FROM unnest(p_usage_tenant, p_usage_events, p_usage_bytes) AS n (tenant_no, events, bytes)
    ON CONFLICT (tenant_no, day, part) DO UPDATE
    SET events = u.events + excluded.events, event_bytes = u.event_bytes + excluded.event_bytes;
END $$;

-- Record one batch of outcomes. 1: written; 0: it was written before, by its number; -1: the epoch is another's, and
-- nothing is written. `p_gone_…` are places whose settled delivery, on `p_gone_since` or later, is replaced by what this
-- batch says of them.
CREATE FUNCTION hookline.record_v1(
    p_shard integer, p_slice integer, p_epoch bigint, p_watermark bigint, p_number bigint,
    p_today text, p_part smallint,
    a_tenant integer[], a_subscription integer[], a_position bigint[], a_number integer[], a_version integer[],
    a_started bigint[], a_method text[], a_url text[], a_status integer[], a_error text[], a_detail text[],
    a_address text[], a_dns bigint[], a_connect bigint[], a_tls bigint[], a_first bigint[], a_total bigint[],
    a_headers text[], a_bytes bigint[], a_answer bytea[], a_body bytea[], a_truncated boolean[],
    g_subscription integer[], g_position bigint[], g_since integer,
    s_subscription integer[], s_position bigint[], s_sequence bigint[], s_state smallint[], s_attempts integer[],
    s_settled bigint[], s_status integer[], s_error text[],
    u_subscription integer[], u_position bigint[], u_sequence bigint[], u_attempts integer[], u_due bigint[],
    u_first bigint[], u_runs integer[], u_key text[], u_status integer[], u_error text[],
    l_subscription integer[], l_cursor bigint[], l_sequence bigint[], l_live boolean[], l_ahead boolean[],
    l_failing bigint[], l_warned bigint[],
    p_usage_tenant integer[], p_usage_attempts bigint[], p_usage_bytes bigint[]
) RETURNS integer LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE hookline.shard_leases SET watermark = p_watermark, recorded = greatest(recorded, p_number)
    WHERE shard = p_shard AND slice = p_slice AND epoch = p_epoch AND owner IS NOT NULL
        AND (p_number = 0 OR recorded < p_number);
    IF NOT FOUND THEN
        RETURN coalesce((SELECT 0 FROM hookline.shard_leases
            WHERE shard = p_shard AND slice = p_slice AND epoch = p_epoch AND owner IS NOT NULL), -1);
    END IF;

    IF a_position IS NOT NULL THEN
        INSERT INTO hookline.attempts (tenant_no, subscription_no, position, number, version, started_at, method, url,
            status, error, detail, address, dns_us, connect_us, tls_us, first_byte_us, total_us, request_headers,
            request_bytes, response_headers, response_truncated, has_body, day)
        SELECT a.tenant_no, a.subscription_no, a.position, a.number, a.version, a.started_at, a.method, a.url,
            a.status, a.error, a.detail, a.address, a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.total_us,
            a.request_headers, a.request_bytes, a.response_headers, a.truncated, a.body IS NOT NULL,
            a.started_at / 86400000
        FROM unnest(a_tenant, a_subscription, a_position, a_number, a_version, a_started, a_method, a_url, a_status,
                a_error, a_detail, a_address, a_dns, a_connect, a_tls, a_first, a_total, a_headers, a_bytes, a_answer,
                a_body, a_truncated)
            AS a (tenant_no, subscription_no, position, number, version, started_at, method, url, status, error,
                detail, address, dns_us, connect_us, tls_us, first_byte_us, total_us, request_headers, request_bytes,
                response_headers, body, truncated)
        ON CONFLICT (tenant_no, position, subscription_no, number, day) DO UPDATE
        SET version = excluded.version, started_at = excluded.started_at, method = excluded.method,
            url = excluded.url, status = excluded.status, error = excluded.error, detail = excluded.detail,
            address = excluded.address, dns_us = excluded.dns_us, connect_us = excluded.connect_us,
            tls_us = excluded.tls_us, first_byte_us = excluded.first_byte_us, total_us = excluded.total_us,
            request_headers = excluded.request_headers, request_bytes = excluded.request_bytes,
            response_headers = excluded.response_headers, response_truncated = excluded.response_truncated,
            has_body = excluded.has_body;
        IF a_body IS NOT NULL THEN
            INSERT INTO hookline.response_bodies (tenant_no, subscription_no, position, number, started_at, body, day)
            SELECT a.tenant_no, a.subscription_no, a.position, a.number, a.started_at, a.body, a.started_at / 86400000
            FROM unnest(a_tenant, a_subscription, a_position, a_number, a_started, a_body)
                AS a (tenant_no, subscription_no, position, number, started_at, body)
            WHERE a.body IS NOT NULL
            ON CONFLICT (tenant_no, position, subscription_no, number, day) DO UPDATE
            SET started_at = excluded.started_at, body = excluded.body;
        END IF;
        INSERT INTO hookline.usage AS u (tenant_no, day, part, attempts, attempt_bytes)
        SELECT n.tenant_no, p_today, p_part, n.attempts, n.bytes
        FROM unnest(p_usage_tenant, p_usage_attempts, p_usage_bytes) AS n (tenant_no, attempts, bytes)
        ON CONFLICT (tenant_no, day, part) DO UPDATE
        SET attempts = u.attempts + excluded.attempts, attempt_bytes = u.attempt_bytes + excluded.attempt_bytes;
    END IF;

    IF g_position IS NOT NULL THEN
        DELETE FROM hookline.deliveries AS d USING unnest(g_subscription, g_position) AS g (subscription_no, position)
        WHERE d.subscription_no = g.subscription_no AND d.position = g.position AND d.day >= g_since;
    END IF;

    IF u_position IS NOT NULL THEN
        INSERT INTO hookline.unsettled (subscription_no, position, sequence, attempts, due_at, first_at, runs, key,
            status, error)
        SELECT * FROM unnest(u_subscription, u_position, u_sequence, u_attempts, u_due, u_first, u_runs, u_key, u_status,
            u_error)
        ON CONFLICT (subscription_no, position) DO UPDATE
        SET sequence = excluded.sequence, attempts = excluded.attempts, due_at = excluded.due_at,
            first_at = excluded.first_at, runs = excluded.runs, key = excluded.key, status = excluded.status,
            error = excluded.error;
    END IF;

    IF s_position IS NOT NULL THEN
        DELETE FROM hookline.unsettled AS u USING unnest(s_subscription, s_position) AS s (subscription_no, position)
        WHERE u.subscription_no = s.subscription_no AND u.position = s.position;
        INSERT INTO hookline.deliveries (subscription_no, position, sequence, state, attempts, settled_at, status, error,
            day)
        SELECT s.*, s.settled_at / 86400000
        FROM unnest(s_subscription, s_position, s_sequence, s_state, s_attempts, s_settled, s_status, s_error)
            AS s (subscription_no, position, sequence, state, attempts, settled_at, status, error)
        ON CONFLICT (subscription_no, position, day) DO UPDATE
        SET sequence = excluded.sequence, state = excluded.state, attempts = excluded.attempts,
            settled_at = excluded.settled_at, status = excluded.status, error = excluded.error;
    END IF;

    IF l_subscription IS NOT NULL THEN
        INSERT INTO hookline.lanes (subscription_no, cursor, sequence, live, ahead, failing_since, warned_at)
        SELECT * FROM unnest(l_subscription, l_cursor, l_sequence, l_live, l_ahead, l_failing, l_warned)
        ON CONFLICT (subscription_no) DO UPDATE
        SET cursor = excluded.cursor, sequence = excluded.sequence, live = excluded.live, ahead = excluded.ahead,
            failing_since = excluded.failing_since, warned_at = excluded.warned_at;
    END IF;
    RETURN 1;
END $$;

-- The position before the first event of the shard that was received at `p_time` or later; the head if there is none.
-- A binary search over the one day that can hold it: `received_at` has no index of its own.
CREATE FUNCTION hookline.position_at_v1(p_shard integer, p_time bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_day integer := p_time / 86400000;
    v_low bigint;
    v_high bigint;
    v_middle bigint;
    v_answer bigint;
    v_found record;
BEGIN
    SELECT position INTO v_low FROM hookline.events
    WHERE shard = p_shard AND day = v_day ORDER BY position LIMIT 1;
    SELECT position INTO v_high FROM hookline.events
    WHERE shard = p_shard AND day = v_day ORDER BY position DESC LIMIT 1;
    v_low := v_low - 1;
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2 + 1;
        SELECT position, received_at INTO v_found FROM hookline.events
        WHERE shard = p_shard AND day = v_day AND position >= v_middle ORDER BY position LIMIT 1;
        IF v_found.received_at < p_time THEN
            v_low := v_found.position;
        ELSE
            v_high := v_middle - 1;
            v_answer := v_found.position - 1;
        END IF;
    END LOOP;
    IF v_answer IS NULL THEN
        SELECT position - 1 INTO v_answer FROM hookline.events
        WHERE shard = p_shard AND day > v_day ORDER BY day, position LIMIT 1;
    END IF;
    RETURN coalesce(v_answer, (SELECT head FROM hookline.shard_heads WHERE shard = p_shard));
END $$;
