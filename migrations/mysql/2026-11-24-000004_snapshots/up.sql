-- Where an account stood at a version of its journal, so that a fold need not begin with the first entry. What a version
-- left behind never changes, so a snapshot is never wrong; it may be deleted at any time.
CREATE TABLE snapshots (
    user_id    BIGINT        NOT NULL,
    version    BIGINT        NOT NULL,
    balance    DECIMAL(20,2) NOT NULL,
    created_at DATETIME(6)   NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    PRIMARY KEY (user_id, version)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
