//! The result of a soak, for machines (`soak.schema.json` next to this crate is the published form). It owns the figures
//! over time and what may change in them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::memory::{Sample, Trend, median, percent};
use crate::report::bench::{Bench, Checked, Window};
use crate::verdict::Verdict;

/// The parts that the whole is told in: as many as a picture has columns.
const WINDOWS: u64 = 60;

/// An allocator keeps back so much more or less from one hour to the next, however small the process is.
const NOISE_BYTES: u64 = 8 * 1024 * 1024;

/// A call takes so much longer or shorter from one minute to the next on any machine that does something else as well.
const NOISE_US: u64 = 5_000;

/// What may change from the second quarter to the last, in percent. What is less than noise always may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// By how much the server's memory may grow.
    pub memory_growth_percent: f64,
    /// By how much the 99th percentile of latency may.
    pub p99_drift_percent: f64,
}

/// What one who watched the timeline all the time saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// Times that the stream was opened: once, if it was never lost.
    pub connected: u64,
    /// Spans and races that arrived.
    pub events: u64,
    /// Events that the server said are missing, because the watcher was too slow.
    pub missed: u64,
}

/// A soak that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// 1; it grows when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Always `soak`.
    pub kind: &'static str,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_unix_ms: u64,
    /// How long operations counted, in milliseconds.
    pub duration_ms: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// The worst verdict of its works.
    pub verdict: Verdict,
    /// Operations acknowledged, of all works.
    pub acknowledged: u64,
    /// Operations without effect, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Operations whose outcome was unknown when they ended.
    pub unknown: u64,
    /// The whole in parts. Latencies are the medians over the part's seconds and works of p50 and p99, and the longest of
    /// all.
    pub windows: Vec<Window>,
    /// What the server held.
    pub memory: Vec<Sample>,
    /// Whether that grew; `None` where there were too few samples.
    pub memory_trend: Option<Trend>,
    /// The 99th percentile of the second quarter's windows, in microseconds.
    pub p99_start_us: u64,
    /// That of the last quarter's.
    pub p99_end_us: u64,
    /// What the watcher of the timeline saw.
    pub timeline: Watched,
    /// What may not change, and whether it did.
    pub limits: Vec<Checked>,
    /// Its works, each as a bench.
    pub works: Vec<Bench>,
}

impl Soak {
    pub(super) fn new(
        limits: Limits,
        began: SystemTime,
        works: Vec<Bench>,
        memory: Vec<Sample>,
        timeline: Watched,
    ) -> Self {
        let windows = windows(&works);
        let trend = Trend::of(&memory);
        let quarter = windows.len() / 4;
        let p99 = |part: &[Window]| median(part.iter().map(|window| window.p99_us)).unwrap_or_default();
        let (start, end) = (p99(&windows[quarter..2 * quarter]), p99(&windows[3 * quarter..]));
        let mut failed: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in works.iter().flat_map(|work| &work.failed) {
            *failed.entry(reason.clone()).or_default() += count;
        }
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            schema_version: 1,
            kind: "soak",
            began_unix_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
            duration_ms: works.iter().map(|work| work.duration_ms).max().unwrap_or_default(),
            interrupted: works.iter().any(|work| work.interrupted),
            verdict: verdict(&works),
            acknowledged: works.iter().map(|work| work.acknowledged).sum(),
            failed,
            unknown: works.iter().map(|work| work.unknown).sum(),
            limits: vec![
                grown(
                    "memory_growth",
                    limits.memory_growth_percent,
                    trend.map(|t| (t.start_bytes, t.end_bytes)),
                    NOISE_BYTES,
                ),
                grown("p99_drift", limits.p99_drift_percent, (quarter > 0).then_some((start, end)), NOISE_US),
            ],
            windows,
            memory,
            memory_trend: trend,
            p99_start_us: start,
            p99_end_us: end,
            timeline,
            works,
        }
    }
}

/// Whether something grew more than it may; what could not be measured does not pass.
fn grown(name: &str, limit_percent: f64, between: Option<(u64, u64)>, noise: u64) -> Checked {
    let expression = format!("{name}<={limit_percent}%");
    let Some((start, end)) = between else {
        return Checked { expression, value: "too short to tell".to_owned(), passed: false };
    };
    let grown = percent(start, end);
    let passed = grown <= limit_percent || end.saturating_sub(start) <= noise;
    Checked { expression, value: format!("{grown:+.1}%"), passed }
}

/// The worst there is.
fn verdict(works: &[Bench]) -> Verdict {
    let gravity = |verdict: &Verdict| match verdict {
        Verdict::Clean => 0,
        Verdict::Inconclusive => 1,
        Verdict::Lost => 2,
    };
    let verdicts = works.iter().filter_map(|work| Some(work.verdict.as_ref()?.verdict));
    verdicts.max_by_key(gravity).unwrap_or(Verdict::Inconclusive)
}

/// The windows of all works, brought together in fewer.
fn windows(works: &[Bench]) -> Vec<Window> {
    let all: Vec<&Window> = works.iter().flat_map(Bench::whole_windows).collect();
    let end = all.iter().map(|window| window.at_ms + window.length_ms).max().unwrap_or_default();
    let longest = all.iter().map(|window| window.length_ms).max().unwrap_or(1);
    // A part has at least one of them from each work.
    let length_ms = end.div_ceil(WINDOWS).max(longest).div_ceil(longest) * longest;
    let mut parts: BTreeMap<u64, Vec<&Window>> = BTreeMap::new();
    for window in all {
        parts.entry(window.at_ms / length_ms).or_default().push(window);
    }
    // The last part may be shorter: calls would seem fewer.
    parts.retain(|number, _| (number + 1) * length_ms <= end);
    let sum = |part: &[&Window], of: fn(&Window) -> u64| part.iter().map(|window| of(window)).sum();
    let middle = |part: &[&Window], of: fn(&Window) -> u64| median(part.iter().map(|w| of(w))).unwrap_or_default();
    let whole = |(number, part): (u64, Vec<&Window>)| Window {
        at_ms: number * length_ms,
        length_ms,
        acknowledged: sum(&part, |window| window.acknowledged),
        failed: sum(&part, |window| window.failed),
        p50_us: middle(&part, |window| window.p50_us),
        p99_us: middle(&part, |window| window.p99_us),
        max_us: part.iter().map(|window| window.max_us).max().unwrap_or_default(),
    };
    parts.into_iter().map(whole).collect()
}
