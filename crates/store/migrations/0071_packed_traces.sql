-- MessagePack: it costs a third of the text to write. `record` holds the traces of earlier releases, and is empty since.
ALTER TABLE traces ADD COLUMN packed BYTEA;
