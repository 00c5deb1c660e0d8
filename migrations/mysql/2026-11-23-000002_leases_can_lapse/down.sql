ALTER TABLE entries DROP CONSTRAINT entries_overwrite_only_where_expected;
ALTER TABLE entries ADD CONSTRAINT entries_overwrite_only_where_expected
    CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex'));
