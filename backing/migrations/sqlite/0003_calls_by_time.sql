-- Old history is forgotten by its age, whatever its Account.

CREATE INDEX calls_by_time ON calls (created_at);
