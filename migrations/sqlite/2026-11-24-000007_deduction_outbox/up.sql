-- Deductions that were accepted, or are about to be, and are not settled yet (server/src/outbox.rs). The journal decides what became
-- of one; this table says what was promised. A row goes when the journal has its id, and stays where it FAILED: it keeps the reason.
--
-- Another program may write user_id, request_id and amount in a transaction of its own: everything else has a default. Such a row
-- carries no claim, so the relay sends it as soon as it is committed. strategy: empty is the worker's. sender: who sends it until
-- claimed_until; NULL is nobody. promised: 0 where whoever wrote it may take it back until then. reason: of FAILED and DEAD_LETTERED.
CREATE TABLE deduction_outbox (
    user_id       INTEGER NOT NULL CHECK (user_id > 0),
    request_id    BLOB    NOT NULL CHECK (length(request_id) = 16),
    amount        INTEGER NOT NULL CHECK (amount > 0),
    strategy      TEXT    NOT NULL DEFAULT '',
    state         TEXT    NOT NULL DEFAULT 'RECORDED' CHECK (state IN ('RECORDED', 'SENT', 'FAILED', 'DEAD_LETTERED')),
    reason        TEXT    NOT NULL DEFAULT '',
    detail        TEXT    NOT NULL DEFAULT '',
    sender        BLOB,
    claimed_until TEXT,
    promised      INTEGER NOT NULL DEFAULT 1 CHECK (promised IN (0, 1)),
    traceparent   TEXT    NOT NULL DEFAULT '',
    created_at    TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at    TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (user_id, request_id),
    CHECK ((state IN ('FAILED', 'DEAD_LETTERED')) = (reason <> ''))
) STRICT, WITHOUT ROWID;

-- The relay's page and the oldest of each state.
CREATE INDEX deduction_outbox_state ON deduction_outbox (state, created_at);
