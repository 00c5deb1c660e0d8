-- Read models of the journal, which the projector keeps (server/src/projector.rs). Every row belongs to a generation: a rebuild
-- fills a new one from nothing while the old one is read, and takes its place in one transaction.
--
-- A projection is a generation's totals and how far it has come. Of seq, which is only where to look, it keeps two: up to `seq`
-- nothing is missing and nothing can come any more; up to `read_seq` everything was projected that was there then.
CREATE TABLE projections (
    generation BIGINT        NOT NULL PRIMARY KEY,
    state      SMALLINT      NOT NULL COMMENT '0 building, 1 active, 2 retired',
    seq        BIGINT        NOT NULL DEFAULT 0,
    read_seq   BIGINT        NOT NULL DEFAULT 0,
    steps      BIGINT        NOT NULL DEFAULT 0 COMMENT 'grows with every transaction of a projector',
    owner      CHAR(32)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '' COMMENT 'the projector that made the last one',
    accounts   BIGINT        NOT NULL DEFAULT 0,
    entries    BIGINT        NOT NULL DEFAULT 0,
    opened     DECIMAL(38,2) NOT NULL DEFAULT 0,
    adjusted   DECIMAL(38,2) NOT NULL DEFAULT 0 COMMENT 'what RESET and REPAIR changed, signed',
    resets     BIGINT        NOT NULL DEFAULT 0,
    spent      DECIMAL(38,2) NOT NULL DEFAULT 0,
    deposited  DECIMAL(38,2) NOT NULL DEFAULT 0,
    deductions BIGINT        NOT NULL DEFAULT 0,
    deposits   BIGINT        NOT NULL DEFAULT 0,
    CONSTRAINT projections_state_is_known CHECK (state BETWEEN 0 AND 2)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT INTO projections (generation, state) VALUES (1, 1);

-- What an account has spent and was paid. version is how far its journal is in it: that is what makes it exactly once.
CREATE TABLE report_accounts (
    generation BIGINT        NOT NULL,
    user_id    BIGINT        NOT NULL,
    version    BIGINT        NOT NULL,
    spent      DECIMAL(38,2) NOT NULL,
    deposited  DECIMAL(38,2) NOT NULL,
    deductions BIGINT        NOT NULL,
    deposits   BIGINT        NOT NULL,
    PRIMARY KEY (generation, user_id),
    KEY report_accounts_top (generation, spent DESC, user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The same for each day (UTC) on which there was something.
CREATE TABLE report_days (
    generation BIGINT        NOT NULL,
    user_id    BIGINT        NOT NULL,
    day        DATE          NOT NULL,
    spent      DECIMAL(38,2) NOT NULL,
    deposited  DECIMAL(38,2) NOT NULL,
    deductions BIGINT        NOT NULL,
    deposits   BIGINT        NOT NULL,
    PRIMARY KEY (generation, user_id, day),
    KEY report_days_top (generation, day, spent DESC, user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
