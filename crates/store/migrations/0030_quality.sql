-- How calls sounded, second by second. Apart from the calls, whose rows are read in lists.
CREATE TABLE conversation_qualities (
    conversation_id TEXT PRIMARY KEY NOT NULL,
    record TEXT NOT NULL
);
