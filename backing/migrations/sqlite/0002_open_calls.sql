-- Calls that have no end, for the look after a restart: the index holds only those that are under way.
CREATE INDEX calls_open ON calls (created_at, account_id, call_id) WHERE ended_at IS NULL;
