-- Names as lists are searched by: SQL's own LOWER knows ASCII alone. Null until the row is next looked after at start.
ALTER TABLE trunks ADD COLUMN name_folded TEXT;
ALTER TABLE agents ADD COLUMN name_folded TEXT;

-- What a trunk's carrier last answered to OPTIONS, and since when it answers so.
CREATE TABLE trunk_probes (
    trunk_id TEXT PRIMARY KEY NOT NULL REFERENCES trunks (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    since BIGINT NOT NULL,
    reachable BOOLEAN NOT NULL,
    sip_status BIGINT,
    detail TEXT NOT NULL
);

CREATE INDEX conversations_by_trunk ON conversations (trunk_id, created_at, id);
