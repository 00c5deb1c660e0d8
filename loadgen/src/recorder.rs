//! Latencies in constant memory: one HDR histogram, three significant digits, whatever the number of operations.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart, an hour in microseconds; longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Three digits: a p99 of 12.3 ms is not told from one of 12.31 ms.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Records latencies.
#[derive(Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
}

/// Percentiles of the recorded latencies, in microseconds; all zero when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
