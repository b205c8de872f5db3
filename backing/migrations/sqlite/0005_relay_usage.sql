-- What the relay carried for each Account in each hour. A process writes rows of its own, with sums since it began, so that
-- a row that is written twice counts once. An Account is what user names of the relay say: an id, or the word an operator
-- gave a static user; a relay that shares only its secret with others knows no Accounts, so there is no reference to them.

CREATE TABLE relay_usage (
    account_id          TEXT    NOT NULL,
    hour                INTEGER NOT NULL,
    node_id             TEXT    NOT NULL,
    allocations         INTEGER NOT NULL,
    packets_to_peers    INTEGER NOT NULL,
    bytes_to_peers      INTEGER NOT NULL,
    packets_to_clients  INTEGER NOT NULL,
    bytes_to_clients    INTEGER NOT NULL,
    PRIMARY KEY (account_id, hour, node_id)
);
CREATE INDEX relay_usage_by_hour ON relay_usage (hour);
