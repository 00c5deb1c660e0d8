-- The balance of an account, in minor units (cents), and the journal position it belongs to. Every statement that
-- changes a balance says version = version + 1: the database counts, so versions are contiguous.
CREATE TABLE accounts (
    user_id    INTEGER NOT NULL PRIMARY KEY,
    balance    INTEGER NOT NULL CHECK (balance >= 0),
    version    INTEGER NOT NULL,
    fence      INTEGER NOT NULL DEFAULT 0,
    created_at TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;

CREATE TRIGGER accounts_touched AFTER UPDATE OF balance ON accounts BEGIN
    UPDATE accounts SET updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE user_id = NEW.user_id;
END;

-- The journal. An entry commits in one transaction with the balance it explains. version_before is the version the
-- operation had read: the parent in the history tree.
CREATE TABLE entries (
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
    -- Strategies that promise never to overwrite are held to it by the database. Those named here make no such promise.
    CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex'))
) STRICT, WITHOUT ROWID;
