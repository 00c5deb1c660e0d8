//! What one connection measured: counts and histograms that only its own task writes, so that nothing is shared while
//! operations run. They are merged when it ends; the windows of the series once a second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{AdditionError, CreationError};

use crate::recorder::Recorder;
use crate::report::bench::Method;
use crate::report::is_decision;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As asked.
    Acknowledged {
        /// Transactions the server ran for it.
        attempts: u32,
    },
    /// Without effect.
    Failed(&'static str),
    /// Nobody knows.
    Unknown,
}

impl Outcome {
    /// Whether the service did the operation or decided not to. To be turned away takes it no time, which is none of its
    /// latencies.
    pub(super) fn is_decided(self) -> bool {
        match self {
            Self::Acknowledged { .. } => true,
            Self::Failed(reason) => is_decision(reason),
            Self::Unknown => false,
        }
    }
}

/// Something kept for each method.
pub(super) type PerMethod<T> = [T; Method::ALL.len()];

/// The figures of one method.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) acknowledged: u64,
    pub(super) failed: BTreeMap<&'static str, u64>,
    pub(super) unknown: u64,
    /// Latencies of operations that were decided, from when they were due.
    pub(super) latency: Recorder,
}

/// How the schedule was kept; only an open loop has one.
#[derive(Clone, Debug)]
pub(super) struct Punctuality {
    pub(super) sent: u64,
    pub(super) late: u64,
    pub(super) dropped: u64,
    pub(super) lag: Recorder,
    /// Latencies from the sending.
    pub(super) observed: Recorder,
}

/// What happened within one second.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) acknowledged: u64,
    pub(super) failed: u64,
    pub(super) latencies: PerMethod<Recorder>,
}

/// Everything a connection measured.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) methods: PerMethod<Figures>,
    pub(super) punctuality: Punctuality,
    pub(super) attempts: u64,
    pub(super) outage_retries: u64,
}

/// From here on a sending counts as late: a timer's resolution.
const LATE: Duration = Duration::from_millis(1);

impl Figures {
    fn new() -> Result<Self, CreationError> {
        Ok(Self { acknowledged: 0, failed: BTreeMap::new(), unknown: 0, latency: Recorder::new()? })
    }

    /// Operations that count.
    pub(super) fn requests(&self) -> u64 {
        self.acknowledged + self.failures() + self.unknown
    }

    /// Operations without effect.
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn record(&mut self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Acknowledged { .. } => self.acknowledged += 1,
            Outcome::Failed(reason) => *self.failed.entry(reason).or_default() += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        if outcome.is_decided() {
            self.latency.record(latency);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        self.latency.merge(&other.latency)
    }
}

impl Punctuality {
    fn new() -> Result<Self, CreationError> {
        Ok(Self { sent: 0, late: 0, dropped: 0, lag: Recorder::new()?, observed: Recorder::new()? })
    }

    /// An operation was sent this long after it was due.
    pub(super) fn record_sending(&mut self, lag: Duration) {
        self.sent += 1;
        self.late += u64::from(lag > LATE);
        self.lag.record(lag);
    }

    fn merge(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.sent += other.sent;
        self.late += other.late;
        self.dropped += other.dropped;
        self.lag.merge(&other.lag)?;
        self.observed.merge(&other.observed)
    }
}

impl Part {
    pub(super) fn new() -> Result<Self, CreationError> {
        Ok(Self { acknowledged: 0, failed: 0, latencies: per_method(Recorder::new)? })
    }

    /// Records an operation that ended in this second.
    pub(super) fn record(&mut self, method: Method, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Acknowledged { .. } => self.acknowledged += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unknown => {}
        }
        if outcome.is_decided() {
            self.latencies[method as usize].record(latency);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.latencies.iter_mut().zip(&other.latencies).try_for_each(|(mine, theirs)| mine.merge(theirs))
    }

    pub(super) fn clear(&mut self) {
        (self.acknowledged, self.failed) = (0, 0);
        self.latencies.iter_mut().for_each(Recorder::clear);
    }
}

impl Sheet {
    pub(super) fn new() -> Result<Self, CreationError> {
        let methods = per_method(Figures::new)?;
        Ok(Self { methods, punctuality: Punctuality::new()?, attempts: 0, outage_retries: 0 })
    }

    /// Records an operation that counts.
    pub(super) fn record(&mut self, method: Method, outcome: Outcome, latency: Duration) {
        self.methods[method as usize].record(outcome, latency);
        if let Outcome::Acknowledged { attempts } = outcome {
            self.attempts += u64::from(attempts);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.attempts += other.attempts;
        self.outage_retries += other.outage_retries;
        self.punctuality.merge(&other.punctuality)?;
        self.methods.iter_mut().zip(&other.methods).try_for_each(|(mine, theirs)| mine.merge(theirs))
    }
}

fn per_method<T>(make: impl Fn() -> Result<T, CreationError>) -> Result<PerMethod<T>, CreationError> {
    Ok([make()?, make()?, make()?])
}
