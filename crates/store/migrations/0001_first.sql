-- One file for every engine: TEXT ids (UUID), BIGINT microseconds since the epoch, TEXT JSON, no engine's own functions.
CREATE TABLE organizations (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    sip_endpoint_allowed_addresses TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The organization's data key, wrapped by the node's key.
CREATE TABLE organization_keys (
    organization_id TEXT PRIMARY KEY NOT NULL REFERENCES organizations (id),
    wrapped TEXT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    email TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id),
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    PRIMARY KEY (user_id, organization_id)
);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    scopes TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE trunks (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    managed_account_id TEXT,
    inbound_config TEXT,
    outbound_config TEXT,
    -- Sealed; never in outbound_config.
    outbound_password TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX trunks_by_organization ON trunks (organization_id, created_at, id);

CREATE TABLE agents (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    description TEXT,
    active BOOLEAN NOT NULL,
    is_demo BOOLEAN NOT NULL,
    metadata TEXT NOT NULL,
    sip_deployed BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX agents_by_organization ON agents (organization_id, created_at, id);

CREATE TABLE agent_versions (
    id TEXT PRIMARY KEY NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    version BIGINT NOT NULL,
    published BOOLEAN NOT NULL,
    published_at BIGINT,
    config TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (agent_id, version)
);

CREATE TABLE phone_numbers (
    phone_number TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    trunk_id TEXT NOT NULL REFERENCES trunks (id),
    inbound_agent_version_id TEXT REFERENCES agent_versions (id),
    outbound_agent_version_id TEXT REFERENCES agent_versions (id),
    outbound_shareable BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX phone_numbers_by_organization ON phone_numbers (organization_id, created_at, phone_number);
CREATE INDEX phone_numbers_by_trunk ON phone_numbers (trunk_id);
CREATE INDEX phone_numbers_by_inbound ON phone_numbers (inbound_agent_version_id);
CREATE INDEX phone_numbers_by_outbound ON phone_numbers (outbound_agent_version_id);

CREATE TABLE conversations (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL,
    direction TEXT NOT NULL,
    status TEXT NOT NULL,
    final BOOLEAN NOT NULL,
    user_id TEXT NOT NULL,
    agent_id TEXT,
    agent_version_id TEXT,
    agent_number TEXT,
    trunk_id TEXT,
    duration BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- The whole record as JSON; the columns above are what lists filter by.
    record TEXT NOT NULL
);
CREATE INDEX conversations_by_organization ON conversations (organization_id, created_at, id);
CREATE INDEX conversations_open ON conversations (final) WHERE NOT final;

CREATE TABLE decisions (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT,
    trunk_id TEXT,
    created_at BIGINT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX decisions_by_trunk ON decisions (trunk_id, created_at, id);

-- Every write of the configuration, in order; written in the same transaction as the change itself.
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    ref TEXT NOT NULL
);
