-- Deductions that were accepted, or are about to be, and are not settled yet (server/src/outbox.rs). The journal decides what became
-- of one; this table says what was promised. A row goes when the journal has its id, and stays where it FAILED: it keeps the reason.
--
-- Another program may write user_id, request_id and amount in a transaction of its own: everything else has a default. Such a row
-- carries no claim, so the relay sends it as soon as it is committed.
--
-- Times are UTC whatever the session's time zone is. There is no foreign key to accounts: it would take S on the account's row, the
-- very one that deductions queue for.
CREATE TABLE deduction_outbox (
    user_id       BIGINT        NOT NULL,
    request_id    BINARY(16)    NOT NULL,
    amount        DECIMAL(20,2) NOT NULL,
    strategy      VARCHAR(32)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '' COMMENT 'empty: the worker''s',
    state         VARCHAR(13)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'RECORDED',
    reason        VARCHAR(64)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '' COMMENT 'of FAILED and DEAD_LETTERED',
    detail        VARCHAR(500)  NOT NULL DEFAULT '',
    sender        BINARY(16)    NULL COMMENT 'who sends it while the claim lasts',
    claimed_until DATETIME(6)   NULL COMMENT 'NULL: nobody sends it',
    promised      BOOLEAN       NOT NULL DEFAULT TRUE COMMENT 'FALSE: whoever wrote it may take it back while its claim lasts',
    traceparent   VARCHAR(55)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    created_at    DATETIME(6)   NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    updated_at    DATETIME(6)   NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (user_id, request_id),
    -- The relay's page and the oldest of each state.
    KEY deduction_outbox_state (state, created_at),
    CONSTRAINT deduction_outbox_account_is_one CHECK (user_id > 0),
    CONSTRAINT deduction_outbox_amount_in_range CHECK (amount BETWEEN 0.01 AND 92233720368547758.07),
    CONSTRAINT deduction_outbox_state_is_known CHECK (state IN ('RECORDED', 'SENT', 'FAILED', 'DEAD_LETTERED')),
    CONSTRAINT deduction_outbox_ends_have_reasons CHECK ((state IN ('FAILED', 'DEAD_LETTERED')) = (reason <> ''))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
