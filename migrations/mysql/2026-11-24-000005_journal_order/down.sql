ALTER TABLE entries DROP KEY entries_seq, DROP COLUMN seq, DROP COLUMN digest;
