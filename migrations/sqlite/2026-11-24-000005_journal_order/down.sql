CREATE TABLE entries_old (
    user_id        INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    request_id     BLOB    NOT NULL CHECK (length(request_id) = 16),
    kind           TEXT    NOT NULL,
    delta          INTEGER NOT NULL,
    balance_after  INTEGER NOT NULL,
    version_before INTEGER NOT NULL,
    strategy       TEXT    NOT NULL,
    created_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (user_id, version),
    UNIQUE (user_id, request_id),
    CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex', 'redis_lock', 'redlock'))
) STRICT, WITHOUT ROWID;
INSERT INTO entries_old
    SELECT user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at FROM entries;
DROP TABLE entries;
ALTER TABLE entries_old RENAME TO entries;
