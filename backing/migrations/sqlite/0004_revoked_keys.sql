-- Keys that were revoked lately are looked for every few seconds, whatever their Account.

CREATE INDEX api_keys_by_revocation ON api_keys (revoked_at);
