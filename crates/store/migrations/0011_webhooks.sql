-- Where an organization wants to hear of its calls.
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    url TEXT NOT NULL,
    -- Sealed.
    secret TEXT NOT NULL,
    -- Names of events, separated by spaces; null for all.
    events TEXT,
    enabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX webhooks_by_organization ON webhooks (organization_id, created_at, id);

-- What is to be told, written in the transaction of the fact itself; at last delivered or dead.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY NOT NULL,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    -- The conversation or decision as JSON; null for a test.
    fact TEXT,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    -- When it is next tried, while it is pending.
    due_at BIGINT NOT NULL,
    http_status BIGINT,
    error TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, created_at, id);
CREATE INDEX deliveries_due ON deliveries (webhook_id, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_by_age ON deliveries (updated_at) WHERE state <> 'pending';
