-- seq is the order in which entries were written, over all accounts, for whoever follows the journal. digest is SHA-256 over the
-- entry and the digest of the one before it in the account; NULL where the chain was off. The table is made anew, because one
-- WITHOUT ROWID has no order but that of its key.
CREATE TABLE entries_new (
    seq            INTEGER NOT NULL PRIMARY KEY,
    user_id        INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    request_id     BLOB    NOT NULL CHECK (length(request_id) = 16),
    kind           TEXT    NOT NULL,
    delta          INTEGER NOT NULL,
    balance_after  INTEGER NOT NULL,
    version_before INTEGER NOT NULL,
    strategy       TEXT    NOT NULL,
    created_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    digest         BLOB    CHECK (length(digest) = 32),
    UNIQUE (user_id, version),
    UNIQUE (user_id, request_id),
    CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex', 'redis_lock', 'redlock'))
) STRICT;
INSERT INTO entries_new
    (user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at)
    SELECT user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at
    FROM entries ORDER BY created_at, user_id, version;
DROP TABLE entries;
ALTER TABLE entries_new RENAME TO entries;
