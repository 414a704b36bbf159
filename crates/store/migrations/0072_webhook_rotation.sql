-- What a webhook was signed with before its secret was replaced, and until when it still is. Sealed.
ALTER TABLE webhooks ADD COLUMN previous_secret TEXT;
ALTER TABLE webhooks ADD COLUMN previous_until BIGINT;
