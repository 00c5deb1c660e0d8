-- A lease can lapse while its holder is paused, and then it overwrites: the strategies that rely on one alone make no
-- promise that the database could hold them to.
ALTER TABLE entries DROP CONSTRAINT entries_overwrite_only_where_expected;
ALTER TABLE entries ADD CONSTRAINT entries_overwrite_only_where_expected
    CHECK (version = version_before + 1 OR strategy IN ('none', 'mutex', 'redis_lock', 'redlock'));
