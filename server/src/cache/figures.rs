//! What the cache has done, counted where it happens and told twice: to GetStatus by [`Figures`], to Prometheus by the
//! `metrics` crate. No id of anybody is in a label.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge};

use super::Served;

/// What the cache of one server has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Reads that Redis answered, refusals of absent accounts included.
    pub hits: u64,
    /// Reads for which Redis had nothing.
    pub misses: u64,
    /// Reads that went to the database because they asked for it, because a change was under way, or because Redis could
    /// not be asked.
    pub bypasses: u64,
    /// Hits among them that said there is no such account.
    pub filtered: u64,
    /// Misses that shared another's query.
    pub spared: u64,
    /// Calls to Redis that failed, or were not made because one had just failed.
    pub failures: u64,
    /// Accounts that were written while Redis could not be told, and still have to be.
    pub owed: u64,
    /// Accounts of which that was forgotten, because there were too many: only the life of a balance bounds these.
    pub forgotten: u64,
}

/// The counters behind [`Figures`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    bypasses: AtomicU64,
    filtered: AtomicU64,
    spared: AtomicU64,
    failures: AtomicU64,
    owed: AtomicU64,
    forgotten: AtomicU64,
}

impl Counters {
    /// Told as none from the start: of what appears with its first time nobody sees that it has grown.
    pub(super) fn new() -> Self {
        for name in ["cache_filtered_total", "cache_queries_spared_total", "cache_forgotten_total"] {
            counter!(name).increment(0);
        }
        gauge!("cache_owed_accounts").set(0.0);
        Self::default()
    }

    pub(super) fn served(&self, served: Served) {
        let one = match served {
            Served::Hit => &self.hits,
            Served::Miss => &self.misses,
            Served::Bypass => &self.bypasses,
        };
        one.fetch_add(1, Ordering::Relaxed);
        counter!("cache_requests_total", "result" => served.name()).increment(1);
    }

    pub(super) fn filtered(&self) {
        self.filtered.fetch_add(1, Ordering::Relaxed);
        counter!("cache_filtered_total").increment(1);
    }

    pub(super) fn spared(&self) {
        self.spared.fetch_add(1, Ordering::Relaxed);
        counter!("cache_queries_spared_total").increment(1);
    }

    pub(super) fn failed(&self, operation: &'static str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        counter!("cache_failures_total", "operation" => operation).increment(1);
    }

    pub(super) fn owed(&self, accounts: usize) {
        self.owed.store(accounts as u64, Ordering::Relaxed);
        gauge!("cache_owed_accounts").set(accounts as f64);
    }

    pub(super) fn forgotten(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        counter!("cache_forgotten_total").increment(1);
    }

    pub(super) fn read(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            hits: read(&self.hits),
            misses: read(&self.misses),
            bypasses: read(&self.bypasses),
            filtered: read(&self.filtered),
            spared: read(&self.spared),
            failures: read(&self.failures),
            owed: read(&self.owed),
            forgotten: read(&self.forgotten),
        }
    }
}
