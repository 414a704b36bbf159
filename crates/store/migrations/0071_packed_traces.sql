-- MessagePack: messages stand in it as they are, where text would escape every line end. `record` holds the traces of
-- earlier releases, and is empty since.
ALTER TABLE traces ADD COLUMN packed BYTEA;
