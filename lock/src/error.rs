//! Why a lock could not be had, or kept. Every message names the fix; none holds a password.

use std::time::Duration;

/// Why an operation on a lock failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address of a node, or the set of them, cannot be used.
    #[error("{0}")]
    Url(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Settings(String),
    /// The key cannot be locked.
    #[error("{0}")]
    Key(String),
    /// A fencing token cannot be raised to this.
    #[error("{0}")]
    Token(String),
    /// Too many callers of this process wait for one key.
    #[error("{waiters} callers wait for the lock of {key:?} here already; spread the work or refuse it earlier")]
    Crowded {
        /// The key.
        key: String,
        /// How many wait.
        waiters: usize,
    },
    /// Too few nodes did their part: they did not answer in time, could not be reached, or refused.
    #[error("{0}")]
    Down(String),
    /// Somebody else held the lock for as long as the caller was ready to wait.
    #[error("held by {holder}, waited {waited:?}; try again, or raise the time to wait")]
    Busy {
        /// `instance/request` of who held it last, as far as known.
        holder: String,
        /// Whether a node said so. Else the caller was not the first of this process to wait for it until its time was over,
        /// and nobody was asked.
        asked: bool,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The lease had been lost.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a lease no longer protects anything. Whoever finds this must not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It ran out by this process's monotonic clock: it could not be renewed in time, or the process stood still.
    #[error("the lease ran out before it could be renewed; do not write, begin anew")]
    RanOut,
    /// Redis no longer knows it: it ran out there, was given up, or Redis lost its memory.
    #[error("Redis no longer knows this lease; do not write, begin anew")]
    NotOurs,
}
