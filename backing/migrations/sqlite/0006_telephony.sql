-- What an Account has of telephony: a row for each Trunk, Number, Queue and so on, as JSON without its secrets. A claim is what
-- one row of all Accounts alone may have: a user of digest authentication.

CREATE TABLE telephony (
    account_id  TEXT NOT NULL REFERENCES accounts (account_id),
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    definition  TEXT NOT NULL,
    claim       TEXT,
    PRIMARY KEY (account_id, kind, name)
);
CREATE UNIQUE INDEX telephony_by_claim ON telephony (claim);

-- Their secrets, encrypted by the key of that id.
CREATE TABLE telephony_secrets (
    account_id  TEXT NOT NULL REFERENCES accounts (account_id),
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    field       TEXT NOT NULL,
    key_id      TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (account_id, kind, name, field)
);
CREATE INDEX telephony_secrets_by_key ON telephony_secrets (key_id);

-- How often the rows of an Account have changed, and when they last did: others look for what changed lately.
CREATE TABLE telephony_versions (
    account_id  TEXT    NOT NULL PRIMARY KEY REFERENCES accounts (account_id),
    version     INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
);
CREATE INDEX telephony_versions_by_change ON telephony_versions (changed_at);

-- The call records of phone calls: a row for each Leg.
CREATE TABLE legs (
    account_id        TEXT    NOT NULL REFERENCES accounts (account_id),
    leg_id            TEXT    NOT NULL,
    call_id           TEXT    NOT NULL,
    direction         TEXT    NOT NULL,
    trunk             TEXT,
    phone             TEXT,
    user_id           TEXT,
    from_remote       TEXT,
    to_remote         TEXT,
    caller_name       TEXT,
    number            TEXT,
    queue             TEXT,
    created_at        INTEGER NOT NULL,
    ringing_at        INTEGER,
    answered_at       INTEGER,
    ended_at          INTEGER,
    reason            TEXT,
    sip_status        INTEGER,
    cause             INTEGER,
    ended_by          TEXT,
    codec             TEXT,
    encrypted         INTEGER,
    packets_received  INTEGER,
    packets_lost      INTEGER,
    packets_sent      INTEGER,
    jitter_micros     INTEGER,
    round_trip_micros INTEGER,
    mos_hundredths    INTEGER,
    recording         TEXT,
    PRIMARY KEY (account_id, leg_id)
);
CREATE INDEX legs_by_account ON legs (account_id, created_at, leg_id);
CREATE INDEX legs_by_user ON legs (account_id, user_id, created_at, leg_id);
CREATE INDEX legs_by_call ON legs (account_id, call_id);
CREATE INDEX legs_by_time ON legs (created_at);

-- Messages in the mailboxes of Users (mailbox_kind user) and Queues (queue).
CREATE TABLE voicemails (
    account_id    TEXT    NOT NULL REFERENCES accounts (account_id),
    voicemail_id  TEXT    NOT NULL,
    mailbox_kind  TEXT    NOT NULL,
    mailbox       TEXT    NOT NULL,
    call_id       TEXT,
    from_remote   TEXT,
    caller_name   TEXT,
    left_at       INTEGER NOT NULL,
    millis        INTEGER NOT NULL,
    format        TEXT    NOT NULL,
    heard_at      INTEGER,
    PRIMARY KEY (account_id, voicemail_id)
);
CREATE INDEX voicemails_by_mailbox ON voicemails (account_id, mailbox_kind, mailbox, left_at, voicemail_id);
