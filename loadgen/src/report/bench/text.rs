//! A bench's result in words.

use std::fmt::Write as _;

use super::diff::workload;
use super::{Bench, BenchVerdict};
use crate::recorder::Latency;
use crate::report::counted;
use crate::report::text::{millis, witness};
use crate::verdict::Verdict;

/// Lost updates that are told one by one; the JSON has more.
const WITNESSES: usize = 3;

/// Column where the figures begin.
const LABEL_WIDTH: usize = 16;

/// The result: the figures, the verdict and, for a loss, the first witnesses.
pub fn text(bench: &Bench) -> String {
    let mut out = headline(bench);
    out.push_str("\n\n");
    for (label, figure) in workload(bench).into_iter().chain(figures(bench)) {
        let _ = writeln!(out, "  {label:<LABEL_WIDTH$}{figure}");
    }
    let remarks = remarks(bench);
    if !remarks.is_empty() {
        out.push('\n');
    }
    for remark in remarks {
        let _ = writeln!(out, "  {remark}");
    }
    out
}

fn headline(bench: &Bench) -> String {
    let stopped = if bench.interrupted { " (partial: stopped before its end)" } else { "" };
    // Refusals are answered fast, and sell nothing.
    let figure = format!("{:.0} acknowledged/s", bench.acknowledged_per_s);
    let of = format!("{} on {}", bench.subject(), bench.store);
    match &bench.verdict {
        None => format!("{figure}  {of}{stopped}"),
        Some(judged) => format!("{figure}  {}  {of}: {}{stopped}", judged.verdict, found(judged)),
    }
}

/// What the verdict means for the money.
pub(super) fn found(judged: &BenchVerdict) -> String {
    match judged.verdict {
        Verdict::Clean => "every acknowledged deduction is in the balances".to_owned(),
        Verdict::Inconclusive => "nothing is known to be lost, but not everything could be checked".to_owned(),
        Verdict::Lost if judged.lost_updates_count > 0 => {
            format!("{} gone in {}", judged.lost, counted(judged.lost_updates_count, "lost update"))
        }
        Verdict::Lost => "what was acknowledged is not what the journals hold".to_owned(),
    }
}

fn figures(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("measured", format!("{} in {:.2} s", counted(bench.requests, "operation"), bench.duration_ms as f64 / 1e3)),
        ("acknowledged", format!("{}, {:.1} per second", bench.acknowledged, bench.acknowledged_per_s)),
        ("answered", format!("{:.1} per second, refusals included", bench.throughput_per_s)),
        ("failed", with_reasons(bench)),
        ("unknown", bench.unknown.to_string()),
        ("latency", percentiles(&bench.latency_us)),
    ];
    if bench.methods.len() > 1 {
        let of_method = |(method, figures): (&super::Method, &super::MethodFigures)| {
            (method.name(), format!("{:.0} answers/s, {}", figures.throughput_per_s, percentiles(&figures.latency_us)))
        };
        figures.extend(bench.methods.iter().map(of_method));
    }
    if let Some(observed) = &bench.observed_latency_us {
        figures.push(("  once sent", percentiles(observed)));
    }
    if let Some(schedule) = &bench.schedule {
        figures.push((
            "schedule",
            format!(
                "{} sent, {} of them late, {} dropped; lag {}",
                schedule.sent,
                schedule.late,
                schedule.dropped,
                percentiles(&schedule.lag_us)
            ),
        ));
    }
    if bench.outage_retries > 0 {
        figures.push(("outage", format!("{} repeated", counted(bench.outage_retries, "call"))));
    }
    figures.extend(bench.cost.map(|cost| ("cost", cost.to_string())));
    figures.extend(bench.verdict.as_ref().map(judged));
    figures.push(("seed", bench.seed.to_string()));
    figures
}

fn judged(judged: &BenchVerdict) -> (&'static str, String) {
    let BenchVerdict { accounts_checked, acknowledged, lost, unattributed, difference, .. } = judged;
    let figure = format!(
        "{} of {} in {}, warm-up included; lost {lost} (unattributed {unattributed}, difference {difference})",
        acknowledged.count,
        acknowledged.amount,
        counted(*accounts_checked, "account"),
    );
    ("judged", figure)
}

fn with_reasons(bench: &Bench) -> String {
    let reasons: Vec<_> = bench.failed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if reasons.is_empty() { "0".to_owned() } else { format!("{} ({})", bench.failures(), reasons.join(", ")) }
}

fn percentiles(latency: &Latency) -> String {
    let Latency { p50, p90, p99, p999, max } = *latency;
    format!(
        "p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
        millis(p50),
        millis(p90),
        millis(p99),
        millis(p999),
        millis(max)
    )
}

fn remarks(bench: &Bench) -> Vec<String> {
    let mut remarks = bench.remarks.clone();
    if let Some(judged) = &bench.verdict {
        // One per overwriter, because a write far behind the others destroys dozens, all with the same words.
        let mut shown = judged.lost_updates.clone();
        shown.dedup_by_key(|lost| (lost.user_id, lost.pair.overwriter.version));
        remarks.extend(
            shown.iter().take(WITNESSES).map(|lost| format!("account {}: {}", lost.user_id, witness(&lost.pair))),
        );
        remarks.extend(judged.doubts.iter().map(|doubt| format!("doubt: {doubt}")));
    }
    for checked in &bench.thresholds {
        let word = if checked.passed { "passed" } else { "FAILED" };
        remarks.push(format!("threshold {word}: {}, measured {}", checked.expression, checked.value));
    }
    remarks.extend(bench.advice.clone());
    if bench.opening.is_some()
        && let Some(first) = bench.first_user
        && bench.accounts > 1
    {
        remarks.push(format!("The accounts stay: --from-user {first} --accounts {} uses them again.", bench.accounts));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::super::sample::{closed, open};
    use super::*;

    #[test]
    fn tells_figures_verdict_and_thresholds() {
        let told = text(&closed());
        for part in [
            "9899 acknowledged/s  CLEAN  batched on mariadb: every acknowledged deduction is in the balances\n",
            "answered        9998.0 per second, refusals included\n",
            "  some calls had no known outcome\n",
            "failed          1000 (CONTENDED 10, INSUFFICIENT_BALANCE 990)\n",
            "latency         p50 1.0 ms, p90 5.0 ms, p99 12.3 ms, p99.9 19.0 ms, max 25.0 ms\n",
            "threshold passed: p99<20ms, measured 12.3ms\n",
            "one hot account: batched suits it\n",
        ] {
            assert!(told.contains(part), "{part} is missing in\n{told}");
        }
        assert!(!told.contains("schedule") && !told.contains("--from-user"), "{told}");
        let many = Bench { accounts: 10, ..closed() };
        assert!(text(&many).contains("--from-user 42 --accounts 10 uses them again"));
    }

    #[test]
    fn refusals_are_no_headline() {
        // Answered fast, and nothing sold.
        let refused = Bench { acknowledged: 0, acknowledged_per_s: 0.0, throughput_per_s: 1_753.0, ..closed() };
        assert!(text(&refused).starts_with("0 acknowledged/s  CLEAN"), "{}", text(&refused));
    }

    #[test]
    fn tells_losses_schedule_and_interruption() {
        let bench = Bench { interrupted: true, ..open() };
        let told = text(&bench);
        let schedule = bench.schedule.unwrap();
        let judged = bench.verdict.unwrap();
        for part in [
            format!("{} gone in {}", judged.lost, counted(judged.lost_updates_count, "lost update")),
            "(partial: stopped before its end)".to_owned(),
            format!("{} sent, {} of them late, {} dropped", schedule.sent, schedule.late, schedule.dropped),
            "once sent".to_owned(),
            "account 42: A ".to_owned(),
            format!("doubt: {}", judged.doubts[0]),
        ] {
            assert!(told.contains(&part), "{part} is missing in\n{told}");
        }
    }
}
