-- Where an account stood at a version of its journal, in minor units, so that a fold need not begin with the first entry.
-- What a version left behind never changes, so a snapshot is never wrong; it may be deleted at any time.
CREATE TABLE snapshots (
    user_id    INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    balance    INTEGER NOT NULL,
    created_at TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (user_id, version)
) STRICT, WITHOUT ROWID;
