//! A soak's result in words and lines.

use std::fmt::Write as _;

use super::Soak;
use crate::report::bench::{Bench, Window};

/// From nothing to the most.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns of a picture: it fits a terminal with its label and figures.
const COLUMNS: usize = 60;

const LABEL_WIDTH: usize = 16;

/// The verdict, what changed over time as a picture, and each work in a line.
pub fn text(soak: &Soak) -> String {
    let stopped = if soak.interrupted { " (partial: stopped before its end)" } else { "" };
    let of = |of: fn(&Window) -> f64| soak.windows.iter().map(of).collect::<Vec<f64>>();
    let memory: Vec<f64> = soak.memory.iter().map(|sample| sample.bytes as f64 / 1e6).collect();
    let mut out = format!("{}  soak of {:.0} s{stopped}\n\n", soak.verdict, soak.duration_ms as f64 / 1e3);
    for (label, values, unit) in [
        ("acknowledged", of(Window::acknowledged_per_s), "/s"),
        ("failed", of(Window::failed_per_s), "/s"),
        ("p50", of(|window| window.p50_us as f64 / 1e3), "ms"),
        ("p99", of(|window| window.p99_us as f64 / 1e3), "ms"),
        ("memory", memory, "MB"),
    ] {
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().fold(most, f64::min);
        let _ = writeln!(out, "  {label:<LABEL_WIDTH$}{}  {least:.1} to {most:.1} {unit}", line(&values));
    }
    out.push('\n');
    let failed: Vec<String> = soak.failed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let mut figures = vec![
        ("acknowledged", soak.acknowledged.to_string()),
        ("failed", if failed.is_empty() { "0".to_owned() } else { failed.join(", ") }),
        ("unknown", soak.unknown.to_string()),
        ("timeline", {
            let seen = soak.timeline;
            format!("{} events, {} missed, opened {} times", seen.events, seen.missed, seen.connected)
        }),
    ];
    if let Some(trend) = soak.memory_trend {
        let [start, end, slope] = [trend.start_bytes as f64, trend.end_bytes as f64, trend.bytes_per_hour];
        figures.push(("memory", format!("{:.1} MB, then {:.1} MB; {:+.1} MB/h", start / 1e6, end / 1e6, slope / 1e6)));
    }
    figures.extend(soak.limits.iter().map(|limit| {
        (if limit.passed { "kept" } else { "NOT KEPT" }, format!("{}: {}", limit.expression, limit.value))
    }));
    for (label, figure) in figures {
        let _ = writeln!(out, "  {label:<LABEL_WIDTH$}{figure}");
    }
    out.push('\n');
    soak.works.iter().for_each(|work| out += &row(work));
    out
}

fn row(work: &Bench) -> String {
    let verdict = work.verdict.as_ref().map_or_else(String::new, |judged| judged.verdict.to_string());
    let (subject, by) = (work.subject(), if work.stream { " by DeductStream" } else { "" });
    let [p50, p99] = [work.latency_us.p50, work.latency_us.p99].map(|micros| micros as f64 / 1e3);
    let figures = format!("{} acknowledged, p50 {p50:.1} ms, p99 {p99:.1} ms", work.acknowledged);
    format!("  {verdict:<LABEL_WIDTH$}{subject}{by}: {figures}\n")
}

/// Values over time, each column the highest of its part.
fn line(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max);
    let level = |value: f64| LEVELS[((value / most.max(f64::MIN_POSITIVE) * 7.0).round() as usize).min(7)];
    let width = values.len().div_ceil(COLUMNS).max(1);
    values.chunks(width).map(|part| level(part.iter().copied().fold(0.0, f64::max))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_with_its_values_and_fits() {
        assert_eq!(line(&[0.0, 1.0, 7.0]), "▁▂█");
        assert_eq!(line(&[0.0, 0.0]), "▁▁");
        assert_eq!(line(&[]), "");
        let many: Vec<f64> = (0..1_000).map(f64::from).collect();
        assert!(line(&many).chars().count() <= COLUMNS);
    }
}
