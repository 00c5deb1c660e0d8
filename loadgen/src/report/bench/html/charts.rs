//! What is drawn of results: the percentile curve, and throughput and latency over time. One result shows its parts,
//! several show a line each.

use super::chart::{Axis, Chart, Line, Point, grouped};
use crate::report::bench::{Bench, Exhibit, Window};
use crate::report::text::millis;

/// The percentile curve ends where no operation is left to tell more nines apart; it shows at least two and at most seven.
const NINES: std::ops::RangeInclusive<f64> = 2.0..=7.0;

/// The latency that all but a tenth, a hundredth, … of the operations kept, as HdrHistogram's plots show it: every tick to
/// the right has another nine.
pub(super) fn spectrum(exhibits: &[Exhibit]) -> Chart<'static> {
    let requests = benches(exhibits).map(|(_, bench)| bench.requests).max().unwrap_or(1);
    let nines = (requests.max(1) as f64).log10().ceil().clamp(*NINES.start(), *NINES.end());
    let line = |(label, bench): (&str, &Bench)| {
        let points = bench.spectrum.iter().map(|(quantile, latency_us)| Point {
            x: nines_of(*quantile).min(nines),
            y: Some(*latency_us as f64 / 1e3),
            told: format!("{}: {} ms", percentile(*quantile), millis(*latency_us)),
        });
        Line { name: label.to_owned(), points: points.collect() }
    };
    let lines: Vec<Line> = benches(exhibits).map(line).collect();
    let ticks = (0..=nines as u32).map(|nines| (f64::from(nines), percentile(1.0 - 0.1_f64.powi(nines as i32))));
    Chart {
        title: "Latency by percentile",
        x: Axis::with_ticks("percentile", nines, ticks.collect()),
        y: Axis::beyond("ms", highest(&lines)),
        lines,
    }
}

/// How many nines a quantile has: 0.99 has two.
fn nines_of(quantile: f64) -> f64 {
    -(1.0 - quantile).max(f64::MIN_POSITIVE).log10()
}

/// A quantile in percent with as many decimals as its nines need.
fn percentile(quantile: f64) -> String {
    let decimals = (nines_of(quantile).round() - 2.0).clamp(0.0, 5.0) as usize;
    if quantile >= 1.0 { "100 %".to_owned() } else { format!("{:.decimals$} %", quantile * 100.0) }
}

/// Operations per second, window by window.
pub(super) fn throughput(exhibits: &[Exhibit]) -> Chart<'static> {
    let told = |per_second: f64| format!("{} per second", grouped(&format!("{per_second:.0}")));
    let of = |window: &Window| Some(window.acknowledged_per_s());
    let mut lines: Vec<Line> = benches(exhibits).map(|(label, bench)| over_time(label, bench, of, told)).collect();
    if let [Exhibit { bench: Some(bench), .. }] = exhibits {
        lines = vec![over_time("acknowledged", bench, of, told)];
        if bench.failures() > 0 {
            lines.push(over_time("failed", bench, |window| Some(window.failed_per_s()), told));
        }
    }
    timed("Operations per second over time", "per second", exhibits, lines)
}

/// Percentiles of latency, window by window: the p99 of each of several results, or p50 and p99 of one.
pub(super) fn latency(exhibits: &[Exhibit]) -> Chart<'static> {
    // A window in which nothing was decided has no latency, least of all a good one.
    let measured = |window: &Window, micros: u64| (window.max_us > 0).then_some(micros as f64 / 1e3);
    let told = |millis: f64| format!("{millis} ms");
    let p99 = |window: &Window| measured(window, window.p99_us);
    let mut lines: Vec<Line> = benches(exhibits).map(|(label, bench)| over_time(label, bench, p99, told)).collect();
    if let [Exhibit { bench: Some(bench), .. }] = exhibits {
        let p50 = |window: &Window| measured(window, window.p50_us);
        lines = vec![over_time("p50", bench, p50, told), over_time("p99", bench, p99, told)];
    }
    timed("Latency over time", "ms", exhibits, lines)
}

fn timed(title: &'static str, unit: &str, exhibits: &[Exhibit], lines: Vec<Line>) -> Chart<'static> {
    let ends = benches(exhibits)
        .filter_map(|(_, bench)| bench.whole_windows().last())
        .map(|last| last.at_ms.saturating_add(last.length_ms));
    let seconds = ends.max().unwrap_or(0) as f64 / 1e3;
    Chart { title, x: Axis::from_zero("seconds", seconds), y: Axis::beyond(unit, highest(&lines)), lines }
}

/// A figure of each window, in the middle of it.
fn over_time(name: &str, bench: &Bench, figure: impl Fn(&Window) -> Option<f64>, told: impl Fn(f64) -> String) -> Line {
    let point = |window: &Window| {
        let (x, y) = ((window.at_ms as f64 + window.length_ms as f64 / 2.0) / 1e3, figure(window));
        Point { x, y, told: y.map_or_else(String::new, |y| format!("{name}, {x:.1} s: {}", told(y))) }
    };
    Line { name: name.to_owned(), points: bench.whole_windows().map(point).collect() }
}

fn highest(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).filter_map(|point| point.y).fold(0.0, f64::max)
}

fn benches(exhibits: &[Exhibit]) -> impl Iterator<Item = (&str, &Bench)> {
    exhibits.iter().filter_map(|exhibit| Some((exhibit.label.as_str(), exhibit.bench.as_deref()?)))
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{closed, open, window};
    use super::*;

    fn exhibit(label: &str, bench: Bench) -> Exhibit {
        Exhibit::of(label.to_owned(), bench)
    }

    #[test]
    fn every_nine_is_as_far_from_the_last() {
        for (quantile, nines, shown) in [
            (0.0, 0.0, "0 %"),
            (0.9, 1.0, "90 %"),
            (0.99, 2.0, "99 %"),
            (0.999, 3.0, "99.9 %"),
            (0.99999, 5.0, "99.999 %"),
        ] {
            assert!((nines_of(quantile) - nines).abs() < 1e-9, "{quantile}");
            assert_eq!(percentile(quantile), shown);
        }
        assert_eq!(percentile(1.0), "100 %");
    }

    #[test]
    fn the_spectrum_ends_with_the_nines_that_the_operations_tell_apart() {
        let chart = spectrum(&[exhibit("a", Bench { requests: 100_000, ..closed() })]);
        let last = chart.lines[0].points.last().unwrap();
        assert!((last.x - 5.0).abs() < 1e-9 && last.y == Some(25.04), "{}", last.x);
        assert_eq!(last.told, "100 %: 25.0 ms");
        assert!(
            spectrum(&[exhibit("none", Bench { requests: 0, spectrum: vec![], ..closed() })]).drawn().contains("99 %")
        );
    }

    #[test]
    fn one_result_shows_its_parts_and_several_a_line_each() {
        let names = |chart: &Chart<'_>| chart.lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>();
        let one = [exhibit("a", closed())];
        assert_eq!(
            (names(&throughput(&one)), names(&latency(&one))),
            (vec!["acknowledged".into(), "failed".into()], vec!["p50".into(), "p99".into()])
        );
        let two = [exhibit("a", closed()), exhibit("b", open())];
        for chart in [spectrum(&two), throughput(&two), latency(&two)] {
            assert_eq!(names(&chart), ["a", "b"]);
        }
    }

    #[test]
    fn an_empty_window_has_no_latency_and_a_throughput_of_zero() {
        let empty = Window { p50_us: 0, p99_us: 0, max_us: 0, ..window(1, 0) };
        let series = vec![window(0, 100), empty, window(2, 100)];
        let one = [exhibit("a", Bench { series, ..closed() })];
        let figures =
            |chart: Chart<'_>, line: usize| chart.lines[line].points.iter().map(|point| point.y).collect::<Vec<_>>();
        assert_eq!(figures(latency(&one), 1), [Some(12.3), None, Some(12.3)]);
        assert_eq!(figures(throughput(&one), 0), [Some(100.0), Some(0.0), Some(100.0)]);
    }
}
