-- What can be believed of the filter of account ids in Redis (server/src/cache/filter.rs), in its only row: build is which
-- filter, state 0 off, 1 building, 2 sound, 3 revoked; keyspace tells this database from others that share a Redis.
-- Whoever inserts into accounts other than through the service sets state = 3 in the same transaction.
CREATE TABLE account_filter (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    keyspace TEXT    NOT NULL,
    build    INTEGER NOT NULL,
    state    INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3)
) STRICT;

INSERT INTO account_filter (id, keyspace, build, state) VALUES (1, lower(hex(randomblob(16))), 0, 0);
