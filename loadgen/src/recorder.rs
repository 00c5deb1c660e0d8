//! Latencies in constant memory: one HDR histogram, three significant digits, whatever the number of operations.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency told apart, an hour in microseconds; longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Three digits: a p99 of 12.3 ms is not told from one of 12.31 ms.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Points of the percentile curve for every halving of what is left to 100 %.
const STEPS_PER_HALVING: u32 = 4;

/// More points than this no curve needs: 25 halvings tell one operation in 30 million.
const LONGEST_SPECTRUM: usize = 100;

/// Records latencies.
#[derive(Clone, Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
}

/// Percentiles of the recorded latencies, in microseconds; all zero when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50: u64,
    /// 90 % took no longer.
    pub p90: u64,
    /// 99 % took no longer.
    pub p99: u64,
    /// 99.9 % took no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Recorder {
    /// An empty recorder.
    ///
    /// # Errors
    /// Only when the bounds above contradict each other.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self { histogram: Histogram::new_with_bounds(1, LONGEST_US, SIGNIFICANT_DIGITS)? })
    }

    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what another one recorded.
    ///
    /// # Errors
    /// Never for recorders made here, whose bounds are the same.
    pub fn merge(&mut self, other: &Self) -> Result<(), hdrhistogram::AdditionError> {
        if other.is_empty() { Ok(()) } else { self.histogram.add(&other.histogram) }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        // Memory that was never used is not even touched.
        if !self.is_empty() {
            self.histogram.clear();
        }
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// What was recorded, in microseconds.
    pub const fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// The percentile curve, closer towards its end as HdrHistogram's plotters draw it: quantile and latency in
    /// microseconds, both ascending.
    pub fn spectrum(&self) -> Vec<(f64, u64)> {
        let curve = self.histogram.iter_quantiles(STEPS_PER_HALVING);
        curve.map(|step| (step.quantile(), step.value_iterated_to())).take(LONGEST_SPECTRUM).collect()
    }

    /// The percentiles so far.
    pub fn latency(&self) -> Latency {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.histogram.max() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_percentiles_to_three_digits() {
        let mut recorder = Recorder::new().unwrap();
        assert_eq!(recorder.latency(), Latency::default());
        for micros in 1..=1_000 {
            recorder.record(Duration::from_micros(micros));
        }
        let expected = Latency { p50: 500, p90: 900, p99: 990, p999: 999, max: 1_000 };
        assert_eq!(recorder.latency(), expected);
        recorder.record(Duration::MAX);
        assert!(recorder.latency().max >= LONGEST_US);
    }
}
