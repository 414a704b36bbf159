-- An agent version's secrets as a JSON object of names and values, sealed; never in config.
ALTER TABLE agent_versions ADD COLUMN secrets TEXT;
