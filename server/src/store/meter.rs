//! What a store has been made to do, counted where it happens: the price of a strategy is read from here. It only grows;
//! what a run cost is the difference of two readings.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The counters of one store.
#[derive(Debug, Default)]
pub(super) struct Meter {
    round_trips: AtomicU64,
    commits: AtomicU64,
    rollbacks: AtomicU64,
    locks_held_ns: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Statements sent; for an embedded database, calls into the library.
    pub round_trips: u64,
    /// Transactions whose commit was answered.
    pub commits: u64,
    /// Transactions that ended otherwise: rolled back, or lost with their link, at their commit perhaps.
    pub rollbacks: u64,
    /// How long transactions held row locks, or the only writer, added up: from the answer that brought the first lock
    /// to the end of the transaction.
    pub locks_held: Duration,
}

/// Since when a transaction holds locks, if it does.
#[derive(Debug, Default)]
pub(super) struct LockedSince(Option<Instant>);

impl LockedSince {
    /// A statement that locks was answered.
    pub(super) fn locked(&mut self) {
        self.0.get_or_insert_with(Instant::now);
    }
}

impl Meter {
    pub(super) fn round_trips(&self, count: u64) {
        self.round_trips.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, since: &LockedSince) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.released(since);
    }

    pub(super) fn rolled_back(&self, since: &LockedSince) {
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
        self.released(since);
    }

    fn released(&self, since: &LockedSince) {
        let held_ns = since.0.map_or(0, |began| u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.locks_held_ns.fetch_add(held_ns, Ordering::Relaxed);
    }

    pub(super) fn work(&self) -> Work {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            round_trips: read(&self.round_trips),
            commits: read(&self.commits),
            rollbacks: read(&self.rollbacks),
            locks_held: Duration::from_nanos(read(&self.locks_held_ns)),
        }
    }
}
