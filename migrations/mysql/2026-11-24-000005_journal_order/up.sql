-- seq: about the order in which entries were written, over all accounts, for whoever follows the journal. It is not the order
-- of their commits (that of one account's it is), has gaps, and is not declared unique: a unique key over all accounts would
-- keep the table from being partitioned by user_id.
-- digest: SHA-256 over the entry and the digest of the one before it in the account; NULL where the chain was off.
-- It makes the table anew, and nobody writes to it meanwhile: on a large journal, stop the servers first.
ALTER TABLE entries
    ADD COLUMN seq BIGINT NOT NULL AUTO_INCREMENT,
    ADD COLUMN digest BINARY(32) NULL,
    ADD KEY entries_seq (seq);
