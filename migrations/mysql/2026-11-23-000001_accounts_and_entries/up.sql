-- The balance of an account and the journal position it belongs to. Every statement that changes a balance says
-- version = version + 1: the database counts, so versions are contiguous whatever the strategy does wrong.
CREATE TABLE accounts (
    user_id    BIGINT        NOT NULL PRIMARY KEY,
    balance    DECIMAL(20,2) NOT NULL,
    version    BIGINT        NOT NULL,
    fence      BIGINT        NOT NULL DEFAULT 0 COMMENT 'the highest fencing token that has read this row',
    created_at DATETIME(6)   NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at DATETIME(6)   NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    -- The upper end is i64::MAX minor units, which the service computes in; DECIMAL(20,2) would hold more.
    CONSTRAINT accounts_balance_in_range CHECK (balance BETWEEN 0 AND 92233720368547758.07)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The journal. An entry commits in one transaction with the balance it explains.
CREATE TABLE entries (
    user_id        BIGINT        NOT NULL,
    version        BIGINT        NOT NULL,
    request_id     BINARY(16)    NOT NULL,
    kind           VARCHAR(8)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    delta          DECIMAL(20,2) NOT NULL,
    balance_after  DECIMAL(20,2) NOT NULL,
    version_before BIGINT        NOT NULL COMMENT 'the version the operation had read: the parent in the history tree',
    strategy       VARCHAR(32)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at     DATETIME(6)   NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    PRIMARY KEY (user_id, version),
    UNIQUE KEY entries_request (user_id, request_id),
    -- Strategies that promise never to overwrite are held to it by the database. Those named here make no such promise.
    CONSTRAINT entries_overwrite_only_where_expected
        CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
