-- The feature of webhooks can be switched off for a tenant; keys can be sessions that end by themselves.

ALTER TABLE tenants ADD COLUMN webhooks INTEGER NOT NULL DEFAULT 1;

ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;
ALTER TABLE api_keys ADD COLUMN session_of TEXT;
CREATE INDEX api_keys_sessions ON api_keys (session_of, no) WHERE session_of IS NOT NULL;
