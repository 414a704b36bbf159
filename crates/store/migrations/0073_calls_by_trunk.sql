-- A call to an agent's URI is on no trunk.
DROP INDEX conversations_by_trunk;
CREATE INDEX conversations_by_trunk ON conversations (trunk_id, created_at, id) WHERE trunk_id IS NOT NULL;
