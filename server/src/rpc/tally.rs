//! Changes, counted and timed as their callers see them: deductions for `/metrics`, by strategy and by what came of them;
//! all changes for the status of the server that they were asked of. Whose they are is told nowhere.

use std::{
    collections::HashMap,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{Counter, Histogram, counter, histogram};

use zbl_proto::Reason;

use super::status::reason;
use crate::{
    account::Receipt,
    error::Error,
    strategy::{REGISTRY, Row},
};

/// What is counted of deductions that name a strategy which is not in the registry.
const UNKNOWN: &str = "unknown";

/// What is counted of a strategy. Kept, because to look it up would cost more than to count.
struct Of {
    ok: Counter,
    attempts: Counter,
    time: Histogram,
}

/// Outcomes that are waited for: told as none from the start, or the first of them would not be seen as one more.
const RARE: [Reason; 3] = [Reason::Contended, Reason::OutcomeUnknown, Reason::Bug];

impl Of {
    fn new(strategy: &'static str) -> Self {
        for reason in RARE {
            counter!("deduct_requests_total", "status" => reason.as_str(), "strategy" => strategy).increment(0);
        }
        Self {
            ok: counter!("deduct_requests_total", "status" => "OK", "strategy" => strategy),
            attempts: counter!("deduct_attempts_total", "strategy" => strategy),
            time: histogram!("deduct_duration_seconds", "strategy" => strategy),
        }
    }
}

static ALL: LazyLock<HashMap<&'static str, Of>> =
    LazyLock::new(|| REGISTRY.iter().map(|row| row.name).chain([UNKNOWN]).map(|name| (name, Of::new(name))).collect());

/// Begins to count, at nothing.
pub(super) fn begin() {
    LazyLock::force(&ALL);
}

/// The edges of the buckets of [`Changes`], µs: four a decade, from what no change takes to what nobody waits for.
const EDGES: [u64; 23] = [
    100, 180, 320, 560, 1_000, 1_800, 3_200, 5_600, 10_000, 18_000, 32_000, 56_000, 100_000, 180_000, 320_000, 560_000,
    1_000_000, 1_800_000, 3_200_000, 5_600_000, 10_000_000, 18_000_000, 30_000_000,
];

/// The changes that one server's callers were answered. Read while they go on, its numbers are of slightly different
/// moments, as those of any such counters.
#[derive(Debug, Default)]
pub struct Changes {
    succeeded: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    /// By how long they took; the last has no upper edge.
    latency: [AtomicU64; EDGES.len() + 1],
}

impl Changes {
    fn count(&self, result: &Result<Receipt, Error>, took: Duration) {
        let came_to = match result {
            Ok(_) => &self.succeeded,
            Err(Error::Refused(_) | Error::Invalid(_)) => &self.refused,
            Err(_) => &self.failed,
        };
        came_to.fetch_add(1, Ordering::Relaxed);
        let bucket = EDGES.partition_point(|edge| took > Duration::from_micros(*edge));
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Those acknowledged, refused by the rules, and failed.
    pub(super) fn outcomes(&self) -> [u64; 3] {
        [&self.succeeded, &self.refused, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }

    /// How many took longer than the edge before, and at most as long as this one.
    pub(super) fn latency(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let edges = EDGES.into_iter().map(|edge| Some(Duration::from_micros(edge))).chain([None]);
        edges.zip(self.latency.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Counts a deposit, which began then.
pub(super) async fn deposit(
    changes: &Changes,
    work: impl Future<Output = Result<Receipt, Error>>,
) -> Result<Receipt, Error> {
    let began = Instant::now();
    let result = work.await;
    changes.count(&result, began.elapsed());
    result
}

/// Counts a deduction by `strategy` (`None`: one that does not exist), which began then.
pub(super) async fn deduction(
    changes: &Changes,
    strategy: Option<&'static Row>,
    work: impl Future<Output = Result<Receipt, Error>>,
) -> Result<Receipt, Error> {
    let strategy = strategy.map_or(UNKNOWN, |row| row.name);
    let began = Instant::now();
    let result = work.await;
    let took = began.elapsed();
    changes.count(&result, took);
    if let Some(of) = ALL.get(strategy) {
        of.time.record(took.as_secs_f64());
        match &result {
            Ok(receipt) => {
                of.ok.increment(1);
                of.attempts.increment(receipt.attempts.into());
            }
            Err(error) => {
                if let Error::Contended { attempts, .. } = error {
                    of.attempts.increment((*attempts).into());
                }
                let status = reason(error).as_str();
                counter!("deduct_requests_total", "status" => status, "strategy" => strategy).increment(1);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_in_the_bucket_whose_edge_it_does_not_exceed() {
        let changes = Changes::default();
        for (micros, bucket) in [(0, 0), (100, 0), (101, 1), (1_000, 4), (1_001, 5), (30_000_000, 22), (30_000_001, 23)]
        {
            let before: Vec<_> = changes.latency().collect();
            changes.count(&Err(Error::Expired), Duration::from_micros(micros));
            let grown: Vec<usize> = changes
                .latency()
                .zip(before)
                .enumerate()
                .filter(|(_, (now, then))| now != then)
                .map(|(at, _)| at)
                .collect();
            assert_eq!(grown, [bucket], "{micros}");
        }
        assert_eq!((changes.outcomes(), changes.latency().count()), ([0, 0, 7], 24));
        assert!(EDGES.is_sorted());
    }
}
