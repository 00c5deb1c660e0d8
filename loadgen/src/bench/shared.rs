//! What the lanes of a run share: little of it is touched for each operation, and none of that under a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::Progress;
use super::operation::Wording;
use super::series::Series;
use super::tally::Tally;

/// More unknown outcomes than this are an outage, not a measurement, and settling each locks a row.
pub(super) const MOST_UNSETTLED: usize = 100_000;

/// A run's lanes have this in common.
pub(super) struct Shared {
    pub(super) wording: Wording,
    /// When operations begin to count.
    pub(super) counts_from: Instant,
    /// When no operation is due any more.
    pub(super) until: Instant,
    pub(super) counting: Counting,
    /// How long a server that is away is waited for.
    pub(super) outage: Duration,
    pub(super) tally: Tally,
    pub(super) progress: watch::Sender<Progress>,
    /// Whether a number of operations ends the run, and not the time.
    counted: bool,
    /// Operations that still may count.
    left: AtomicU64,
    halted: AtomicBool,
    unsettled: Mutex<Vec<Unsettled>>,
    series: Mutex<Series>,
}

/// A deduction that may or may not have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsettled {
    pub(super) account: u32,
    pub(super) request_id: Uuid,
}

/// When operations are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) counts_from: Instant,
    pub(super) until: Instant,
    /// The most that count; `u64::MAX` where time decides.
    pub(super) requests: u64,
    pub(super) counting: Counting,
}

/// Which operations count between the two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// Those that end, for a closed loop of fixed length: as many are under way when it begins as when it ends, so that
    /// the last ones neither count nor stretch the time, however slow they are.
    WhatEnds,
    /// Those that are due, however late they end. An open loop must answer for all it was to send, and a number of
    /// requests is to be kept.
    WhatIsDue,
}

impl Shared {
    pub(super) fn new(
        wording: Wording,
        span: Span,
        outage: Duration,
        tally: Tally,
        series: Series,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            wording,
            counts_from: span.counts_from,
            until: span.until,
            counting: span.counting,
            outage,
            tally,
            progress,
            counted: span.requests < u64::MAX,
            left: AtomicU64::new(span.requests),
            halted: AtomicBool::new(false),
            unsettled: Mutex::default(),
            series: Mutex::new(series),
        }
    }

    /// Takes one of the operations that count; false when there is none left.
    pub(super) fn take_one(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Whether none of the operations that count is left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Whether the run ends by a number of operations, of which some are left.
    pub(super) fn is_short(&self) -> bool {
        self.counted && !self.is_exhausted()
    }

    /// Whether the run is to end because it cannot be kept account of.
    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// Keeps an operation whose outcome is unknown. Too many of them end the run, which then is judged as it is.
    pub(super) fn keep(&self, unsettled: Unsettled) {
        let mut kept = lock(&self.unsettled);
        if kept.len() >= MOST_UNSETTLED {
            self.halted.store(true, Ordering::Relaxed);
        }
        kept.push(unsettled);
    }

    pub(super) fn series(&self) -> MutexGuard<'_, Series> {
        lock(&self.series)
    }

    pub(super) fn take_unsettled(&self) -> Vec<Unsettled> {
        std::mem::take(&mut *lock(&self.unsettled))
    }

    pub(super) fn take_series(&self) -> Series {
        std::mem::replace(&mut *self.series(), Series::new(0, None))
    }
}

/// What is kept here stays whole if a thread panics between two additions to it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use zbl_client::Money;

    use super::super::operation::RequestIds;
    use super::*;

    fn shared(requests: u64) -> Shared {
        let (now, zero) = (Instant::now(), Money::ZERO);
        let ids = RequestIds::new(1);
        let wording = Wording { ids, first_user: 1, amount: zero, delta: zero, strategy: String::new() };
        let span = Span { counts_from: now, until: now, requests, counting: Counting::WhatIsDue };
        Shared::new(wording, span, Duration::ZERO, Tally::new(1), Series::new(1, None), watch::Sender::default())
    }

    #[test]
    fn no_more_operations_count_than_were_asked_for() {
        let shared = shared(2);
        assert_eq!([(); 4].map(|()| shared.take_one()), [true, true, false, false]);
    }

    #[test]
    fn too_many_unknown_outcomes_halt_the_run_and_none_is_forgotten() {
        let shared = shared(0);
        let unsettled = Unsettled { account: 0, request_id: Uuid::nil() };
        (0..MOST_UNSETTLED).for_each(|_| shared.keep(unsettled));
        assert!(!shared.is_halted());
        shared.keep(unsettled);
        assert!(shared.is_halted());
        assert_eq!(shared.take_unsettled().len(), MOST_UNSETTLED + 1);
    }
}
