//! What one run of a case came to: the result file of `loadgen bench` read for the figures that are reported, and what
//! the processes used meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::usage::Looks;

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Acknowledged calls.
    RatePerS,
    P50Ms,
    P99Ms,
    /// The part of the calls that were sent and answered without effect.
    RefusedShare,
    /// The part of the calls that were due and never sent: too many were in flight.
    DroppedShare,
    /// Round trips to the database for one acknowledged deduction.
    RoundTrips,
    /// Commits for one acknowledged deduction.
    Commits,
    /// Processor time of the server for a thousand acknowledged calls.
    ServerCpuMs,
    /// The same of the database.
    DatabaseCpuMs,
    /// The same of all Redis servers together.
    RedisCpuMs,
    /// The same of the load generator.
    ClientCpuMs,
    /// How many cores all of these kept busy; of all there are: the processor is what bounds the rate.
    BusyCores,
    /// The most resident memory of the server while the case ran: a server serves all cases, so what earlier ones left
    /// counts too.
    ServerPeakMib,
    /// Spans that one who watched received, warm-up included.
    SpansSeen,
    /// Events that they were told are missing.
    EventsMissed,
}

/// The figures of one run.
pub(crate) type Sample = BTreeMap<Metric, f64>;

/// What of `loadgen bench --json` is reported here.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    /// When the calls that count began, since the Unix epoch.
    began_unix_ms: u64,
    duration_ms: u64,
    requests: u64,
    acknowledged: u64,
    acknowledged_per_s: f64,
    latency_us: Latency,
    schedule: Option<Schedule>,
    cost: Option<Cost>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Debug, Deserialize)]
struct Schedule {
    sent: u64,
    dropped: u64,
}

#[derive(Debug, Deserialize)]
struct Cost {
    round_trips: f64,
    commits: f64,
}

impl Outcome {
    /// Its figures, together with what the processes used while its calls counted. `metrics` says where the processor
    /// time of each process goes, in the order in which they were looked at.
    pub(crate) fn sample(&self, looks: &Looks, metrics: &[Metric], ticks_per_s: f64) -> Sample {
        let mut sample = Sample::from([
            (Metric::RatePerS, self.acknowledged_per_s),
            (Metric::P50Ms, self.latency_us.p50 / 1000.0),
            (Metric::P99Ms, self.latency_us.p99 / 1000.0),
            (Metric::RefusedShare, share(self.requests - self.acknowledged.min(self.requests), self.requests)),
        ]);
        if let Some(Schedule { sent, dropped }) = self.schedule {
            sample.insert(Metric::DroppedShare, share(dropped, sent + dropped));
        }
        if let Some(Cost { round_trips, commits }) = self.cost {
            sample.extend([(Metric::RoundTrips, round_trips), (Metric::Commits, commits)]);
        }
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(self.began_unix_ms);
        let ended = began + Duration::from_millis(self.duration_ms);
        for (process, metric) in metrics.iter().enumerate() {
            if let Some(ticks) = looks.ticks_per_s(process, began, ended) {
                let cores = ticks / ticks_per_s;
                *sample.entry(*metric).or_default() += cores * 1000.0 / (self.acknowledged_per_s / 1000.0);
                *sample.entry(Metric::BusyCores).or_default() += cores;
            }
        }
        let server = metrics.iter().position(|metric| *metric == Metric::ServerCpuMs);
        if let Some(mib) = server.and_then(|server| looks.peak_mib(server)) {
            sample.insert(Metric::ServerPeakMib, mib);
        }
        sample
    }
}

/// A part of a whole; nothing of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(more: &str) -> Outcome {
        let text = format!(
            r#"{{"schema_version": 1, "began_unix_ms": 1000, "duration_ms": 2000, "requests": 10500, "acknowledged": 10000,
                "acknowledged_per_s": 5000.0, "latency_us": {{"p50": 1500, "p90": 1, "p99": 12250, "p999": 1, "max": 1}} {more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_figures_are_those_of_the_result_file() {
        let sample = outcome("").sample(&Looks::default(), &[], 100.0);
        let refused = 500.0 / 10_500.0;
        let expected =
            [(Metric::RatePerS, 5000.0), (Metric::P50Ms, 1.5), (Metric::P99Ms, 12.25), (Metric::RefusedShare, refused)];
        assert_eq!(sample, expected.into());
    }

    #[test]
    fn what_only_some_runs_tell_is_told_of_them() {
        let more =
            r#", "schedule": {"sent": 300, "late": 1, "dropped": 100}, "cost": {"round_trips": 1.5, "commits": 0.25}"#;
        let sample = outcome(more).sample(&Looks::default(), &[], 100.0);
        let told = [Metric::DroppedShare, Metric::RoundTrips, Metric::Commits].map(|metric| sample.get(&metric));
        assert_eq!(told, [Some(&0.25), Some(&1.5), Some(&0.25)]);
    }

    #[test]
    fn processor_time_is_that_of_the_calls_that_count() {
        // The server takes a whole core while calls count, 100 ticks a second, and none before and after.
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let busy = [(at(0), [7, 0, 0]), (at(1000), [7, 0, 0]), (at(3000), [207, 20, 40]), (at(9000), [207, 90, 90])];
        let metrics = [Metric::ServerCpuMs, Metric::RedisCpuMs, Metric::RedisCpuMs];
        let sample = outcome("").sample(&Looks::of(busy), &metrics, 100.0);
        // A second of processor time for 5000 calls; the two Redis servers took 0.1 and 0.2 of one.
        let told = [Metric::ServerCpuMs, Metric::RedisCpuMs, Metric::BusyCores].map(|metric| sample[&metric]);
        for (told, expected) in told.into_iter().zip([200.0, 60.0, 1.3]) {
            assert!((told - expected).abs() < 1e-9, "{told}, expected {expected}");
        }
        assert!(!sample.contains_key(&Metric::DatabaseCpuMs));
    }
}
