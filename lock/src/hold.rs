//! One taking of a lock: what a node is asked with. It owns the names of the keys in Redis.

use crate::{Settings, owner::nonce};

/// One taking of a lock by an owner. Another try is another hold, so that giving the first back, which may be late, does
/// not end the second.
#[derive(Debug)]
pub(crate) struct Hold {
    /// The lock's key in Redis.
    pub(crate) lock: String,
    /// The key of the processes that wait for it.
    pub(crate) wanted: String,
    /// The owner's text.
    pub(crate) owner: String,
    /// Which of the owner's holds.
    pub(crate) id: String,
    /// The process, for taking turns.
    pub(crate) process: String,
    /// How long the lock stays taken.
    pub(crate) lease_ms: u64,
}

impl Hold {
    pub(crate) fn new(settings: &Settings, process: &str, key: &str, owner: &str) -> Self {
        Self {
            lock: lock_key(settings, key),
            wanted: format!("{}wanted:{key}", settings.prefix),
            owner: owner.to_owned(),
            id: nonce(),
            process: process.to_owned(),
            lease_ms: settings.lease_ms(),
        }
    }
}

/// Where a lock is.
pub(crate) fn lock_key(settings: &Settings, key: &str) -> String {
    format!("{}lock:{key}", settings.prefix)
}

/// Where the one counter of fencing tokens is. One for all locks: one for each would have to be kept for ever.
pub(crate) fn fence_key(settings: &Settings) -> String {
    format!("{}fence", settings.prefix)
}
