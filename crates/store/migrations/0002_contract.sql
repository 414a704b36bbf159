-- The whole REST contract: what carriers ask of a trunk, limits, inbound routing, idempotency keys.
ALTER TABLE trunks ADD COLUMN max_concurrent_calls BIGINT;
ALTER TABLE trunks ADD COLUMN max_calls_per_second BIGINT;
-- Sealed; never in inbound_config.
ALTER TABLE trunks ADD COLUMN inbound_password TEXT;

ALTER TABLE organizations ADD COLUMN allowed_destinations TEXT;
ALTER TABLE organizations ADD COLUMN daily_call_limit BIGINT;

-- Calls out that an organization placed on a day (days since the epoch, UTC); counted where the limit is checked.
CREATE TABLE daily_calls (
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    day BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (organization_id, day)
);

CREATE TABLE inbound_routing (
    organization_id TEXT PRIMARY KEY NOT NULL REFERENCES organizations (id),
    enabled BOOLEAN NOT NULL,
    workflow TEXT NOT NULL,
    -- Sealed; never in workflow.
    webhook_secret TEXT,
    fallback_agent_id TEXT REFERENCES agents (id),
    timeout_ms BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX inbound_routing_by_fallback ON inbound_routing (fallback_agent_id);

-- First answers of POST requests, sealed: one may hold a key that is shown once.
CREATE TABLE idempotency (
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    -- Null while the first request is in progress.
    status BIGINT,
    answer TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (organization_id, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at, id);
CREATE INDEX conversations_by_agent ON conversations (agent_id, final);
CREATE INDEX decisions_by_age ON decisions (created_at, id);
