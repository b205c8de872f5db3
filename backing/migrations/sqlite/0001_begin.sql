-- Every row names its Account. Ids are ULIDs as text, so that they sort by time; moments are milliseconds since 1970.

CREATE TABLE accounts (
    account_id  TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
);

CREATE TABLE api_keys (
    api_key_id  TEXT    NOT NULL PRIMARY KEY,
    account_id  TEXT    NOT NULL REFERENCES accounts (account_id),
    secret      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
);
CREATE INDEX api_keys_by_account ON api_keys (account_id, api_key_id);

CREATE TABLE users (
    account_id       TEXT    NOT NULL REFERENCES accounts (account_id),
    user_id          TEXT    NOT NULL,
    name             TEXT,
    seen_at          INTEGER NOT NULL,
    history_seen_at  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, user_id)
);
CREATE INDEX users_by_seen ON users (account_id, seen_at);

CREATE TABLE devices (
    account_id  TEXT    NOT NULL REFERENCES accounts (account_id),
    user_id     TEXT    NOT NULL,
    device_id   TEXT    NOT NULL,
    name        TEXT,
    device_key  TEXT    NOT NULL,
    seen_at     INTEGER NOT NULL,
    PRIMARY KEY (account_id, user_id, device_id)
);

CREATE TABLE calls (
    account_id     TEXT    NOT NULL REFERENCES accounts (account_id),
    call_id        TEXT    NOT NULL,
    caller         TEXT    NOT NULL,
    caller_name    TEXT,
    caller_device  TEXT,
    callee         TEXT    NOT NULL,
    callee_name    TEXT,
    callee_device  TEXT,
    audio          INTEGER NOT NULL,
    video          INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    answered_at    INTEGER,
    ended_at       INTEGER,
    reason         TEXT,
    cause          INTEGER,
    ended_by       TEXT,
    missed         INTEGER NOT NULL,
    replaces       TEXT,
    into_call      TEXT,
    PRIMARY KEY (account_id, call_id)
);
CREATE INDEX calls_by_caller ON calls (account_id, caller, created_at, call_id);
CREATE INDEX calls_by_callee ON calls (account_id, callee, created_at, call_id);
CREATE INDEX calls_missed ON calls (account_id, callee, missed, ended_at);
