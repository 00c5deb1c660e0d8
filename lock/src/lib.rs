//! A distributed lock on Redis.
