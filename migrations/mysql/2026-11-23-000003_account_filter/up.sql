-- What can be believed of the filter of account ids in Redis (server/src/cache/filter.rs), in its only row. Whoever
-- inserts into accounts other than through the service sets state = 3 in the same transaction.
CREATE TABLE account_filter (
    id       SMALLINT NOT NULL PRIMARY KEY,
    keyspace CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'tells this database from others that share a Redis',
    build    BIGINT   NOT NULL COMMENT 'which filter; each build has a random number of its own',
    state    SMALLINT NOT NULL COMMENT '0 off, 1 building, 2 sound, 3 revoked',
    CONSTRAINT account_filter_is_one_row CHECK (id = 1),
    CONSTRAINT account_filter_state_is_known CHECK (state BETWEEN 0 AND 3)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT INTO account_filter (id, keyspace, build, state) VALUES (1, REPLACE(UUID(), '-', ''), 0, 0);
