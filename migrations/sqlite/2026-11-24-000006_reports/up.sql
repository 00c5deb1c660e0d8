-- Read models of the journal, which the projector keeps (server/src/projector.rs). Every row belongs to a generation: a rebuild
-- fills a new one from nothing while the old one is read, and takes its place in one transaction. state: 0 building, 1 active,
-- 2 retired.
--
-- A projection is a generation's totals and how far it has come. Of seq, which is only where to look, it keeps two: up to seq
-- nothing is missing and nothing can come any more; up to read_seq everything was projected that was there then. adjusted is what
-- RESET and REPAIR changed, signed.
--
-- Sums of money can leave 64 bits, beyond which SQLite computes in floats. They are minor units in 39 digits of text, which sort as
-- the numbers do where none is negative, and are added up by the service alone.
CREATE TABLE projections (
    generation INTEGER NOT NULL PRIMARY KEY,
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 2),
    seq        INTEGER NOT NULL DEFAULT 0,
    read_seq   INTEGER NOT NULL DEFAULT 0,
    steps      INTEGER NOT NULL DEFAULT 0,
    owner      TEXT    NOT NULL DEFAULT '',
    accounts   INTEGER NOT NULL DEFAULT 0,
    entries    INTEGER NOT NULL DEFAULT 0,
    opened     TEXT    NOT NULL DEFAULT '000000000000000000000000000000000000000',
    adjusted   TEXT    NOT NULL DEFAULT '000000000000000000000000000000000000000',
    resets     INTEGER NOT NULL DEFAULT 0,
    spent      TEXT    NOT NULL DEFAULT '000000000000000000000000000000000000000',
    deposited  TEXT    NOT NULL DEFAULT '000000000000000000000000000000000000000',
    deductions INTEGER NOT NULL DEFAULT 0,
    deposits   INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO projections (generation, state) VALUES (1, 1);

-- What an account has spent and was paid. version is how far its journal is in it: that is what makes it exactly once.
CREATE TABLE report_accounts (
    generation INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    spent      TEXT    NOT NULL,
    deposited  TEXT    NOT NULL,
    deductions INTEGER NOT NULL,
    deposits   INTEGER NOT NULL,
    PRIMARY KEY (generation, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX report_accounts_top ON report_accounts (generation, spent DESC, user_id);

-- The same for each day (UTC) on which there was something.
CREATE TABLE report_days (
    generation INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    day        TEXT    NOT NULL,
    spent      TEXT    NOT NULL,
    deposited  TEXT    NOT NULL,
    deductions INTEGER NOT NULL,
    deposits   INTEGER NOT NULL,
    PRIMARY KEY (generation, user_id, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX report_days_top ON report_days (generation, day, spent DESC, user_id);
