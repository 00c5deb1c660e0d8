//! What a lock has done, counted: for a status page, and as metrics. No key and no name of a request becomes a label.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Error, Lost};

/// What this process knows of one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The key.
    pub key: String,
    /// `instance/request` of who holds it, as far as known.
    pub holder: Option<String>,
    /// What is left of its lease, as far as known: of our own until the next renewal, of another's as last seen.
    pub ttl: Option<Duration>,
    /// How many callers of this process wait for it.
    pub waiters: usize,
}

/// What has been done so far; only growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Leases given out.
    pub acquired: u64,
    /// Callers who gave up waiting.
    pub busy: u64,
    /// Callers turned away because too few nodes did their part.
    pub down: u64,
    /// Leases that were lost while somebody held them.
    pub lost: u64,
    /// Time waited, by those who got a lease and those who gave up.
    pub waited: Duration,
    /// Time for which leases that have ended were held.
    pub held: Duration,
}

/// The counters behind [`Figures`], times in ns.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    name: String,
    acquired: AtomicU64,
    busy: AtomicU64,
    down: AtomicU64,
    lost: AtomicU64,
    waited: AtomicU64,
    held: AtomicU64,
}

impl Counters {
    pub(crate) fn new(name: &str) -> Self {
        let counters = Self { name: name.to_owned(), ..Self::default() };
        // Told as none from the start: of a counter that appears with the first loss nobody sees that it has grown.
        counters.leases_lost().increment(0);
        counters
    }

    /// An acquisition ended.
    pub(crate) fn asked<T>(&self, result: &Result<T, Error>, waited: Duration) {
        let counter = match result {
            Ok(_) => &self.acquired,
            Err(Error::Busy { .. }) => &self.busy,
            Err(Error::Down(_)) => {
                self.down.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.waited.fetch_add(ns(waited), Ordering::Relaxed);
        metrics::histogram!("redis_lock_wait_duration_seconds", "lock" => self.name.clone())
            .record(waited.as_secs_f64());
    }

    /// A lease is no longer held.
    pub(crate) fn held(&self, held: Duration) {
        self.held.fetch_add(ns(held), Ordering::Relaxed);
        metrics::histogram!("redis_lock_hold_duration_seconds", "lock" => self.name.clone()).record(held.as_secs_f64());
    }

    /// A lease was lost.
    pub(crate) fn lost(&self, key: &str, why: Lost) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.leases_lost().increment(1);
        tracing::warn!(lock = self.name, key, "{why}");
    }

    fn leases_lost(&self) -> metrics::Counter {
        metrics::counter!("redis_lock_leases_lost_total", "lock" => self.name.clone())
    }

    pub(crate) fn read(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            acquired: read(&self.acquired),
            busy: read(&self.busy),
            down: read(&self.down),
            lost: read(&self.lost),
            waited: Duration::from_nanos(read(&self.waited)),
            held: Duration::from_nanos(read(&self.held)),
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
