-- The processes of the installation, and the number of the last batch of outcomes of an epoch.

ALTER TABLE shards ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0;

CREATE TABLE nodes (
    id         TEXT PRIMARY KEY,
    role       TEXT NOT NULL,
    version    TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
