-- What is kept of a call once it has ended: its messages without their secrets, and why it ended as it did.
CREATE TABLE traces (
    conversation_id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX traces_by_age ON traces (created_at, conversation_id);

-- Null in rows that were written before there was anything to look them up by.
ALTER TABLE decisions ADD COLUMN conversation_id TEXT;
ALTER TABLE decisions ADD COLUMN sip_call_id TEXT;
CREATE INDEX decisions_by_conversation ON decisions (conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX decisions_by_call ON decisions (sip_call_id) WHERE sip_call_id IS NOT NULL;
