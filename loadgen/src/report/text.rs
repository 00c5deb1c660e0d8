//! A run's result in words.

use std::fmt::Write as _;

use uuid::Uuid;
use zbl_client::Money;

use super::{Pair, Report, counted};
use crate::verdict::Verdict;

/// Lost updates that are told one by one; the JSON has them all.
const WITNESSES: usize = 3;

/// The digits of a request id that the timeline shows.
const SHORT_ID: usize = 8;

/// From here on, in microseconds, tenths of a millisecond are noise.
const WHOLE_MILLIS_FROM: u64 = 100_000;

/// Column where the figures begin.
const LABEL_WIDTH: usize = 16;

/// The result: the verdict, the figures behind it and, for a loss, the first witnesses.
pub fn text(report: &Report) -> String {
    let mut out = headline(report);
    out.push_str("\n\n");
    for (label, figure) in figures(report) {
        let _ = writeln!(out, "  {label:<LABEL_WIDTH$}{figure}");
    }
    let remarks = remarks(report);
    if !remarks.is_empty() {
        out.push('\n');
    }
    for remark in remarks {
        let _ = writeln!(out, "  {remark}");
    }
    out
}

fn headline(report: &Report) -> String {
    let Report { verdict, strategy, store, .. } = report;
    let stopped = if report.interrupted { " (partial: not every deduction was made)" } else { "" };
    let found = match verdict {
        Verdict::Clean => "every acknowledged deduction is in the balance".to_owned(),
        Verdict::Lost => harm(report),
        Verdict::Inconclusive => "nothing is known to be lost, but not everything could be checked".to_owned(),
    };
    format!("{verdict}  {strategy} on {store}: {found}{stopped}")
}

/// What makes it LOST: the money, or where none is gone what else does not hold.
fn harm(report: &Report) -> String {
    if !report.lost_updates.is_empty() {
        return format!("{} gone in {}", report.lost, counted(report.lost_updates.len() as u64, "lost update"));
    }
    let mut found = Vec::new();
    if report.lost != Money::ZERO {
        found.push(format!("{} gone, which no lost update explains", report.lost));
    }
    for (count, what) in [
        (forgotten(report), "accepted and forgotten"),
        (report.missing.len() as u64, "acknowledged and not in the journal"),
        (report.differing.len() as u64, "acknowledged with another result than the journal's"),
        (report.miscalculated.len() as u64, "journaled with a wrong balance"),
        (report.doubled, "journaled twice"),
    ] {
        if count > 0 {
            found.push(format!("{} {what}", counted(count, "operation")));
        }
    }
    found.join("; ")
}

fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let latency = report.latency_us;
    let per_acknowledged =
        report.attempts_per_acknowledged().map_or_else(String::new, |ratio| format!(" ({ratio:.2} per acknowledged)"));
    let mut figures = vec![
        ("account", format!("{}, opened with {}", report.user_id, report.opening)),
        ("load", load(report)),
        (
            "acknowledged",
            format!(
                "{}, {} in all; the balance could pay for {}",
                counted(report.acknowledged.count, "deduction"),
                report.acknowledged.amount,
                report.affordable
            ),
        ),
        ("refused", with_reasons(report)),
        ("contended", report.contended().to_string()),
        ("unknown", report.unknown.to_string()),
        ("final balance", report.last.to_string()),
        ("lost", format!("{} (unattributed {}, difference {})", report.lost, report.unattributed, report.difference)),
        ("attempts", format!("{}{per_acknowledged}", report.attempts)),
        ("retries", format!("{} contended, {} outage", report.contended_retries, report.outage_retries)),
        ("cancelled", report.cancelled.to_string()),
        ("throughput", format!("{:.0} answers/s over {:.2} s", report.throughput_per_s, seconds(report.duration_ms))),
        (
            "latency",
            format!("p50 {} ms, p99 {} ms, max {} ms", millis(latency.p50), millis(latency.p99), millis(latency.max)),
        ),
        ("seed", report.seed.to_string()),
    ];
    figures.extend(report.cost.map(|cost| ("cost", cost.to_string())));
    figures.extend(report.queued.as_ref().map(|queued| ("accepted", queued.to_string())));
    for (label, count) in [
        ("forgotten", forgotten(report)),
        ("doubled", report.doubled),
        ("missing", report.missing.len() as u64),
        ("receipts differ", report.differing.len() as u64),
        ("miscalculated", report.miscalculated.len() as u64),
    ] {
        if count > 0 {
            figures.push((label, count.to_string()));
        }
    }
    figures
}

/// How many were accepted and are not known any more.
fn forgotten(report: &Report) -> u64 {
    report.queued.as_ref().map_or(0, |queued| queued.forgotten.len() as u64)
}

fn load(report: &Report) -> String {
    let workers = counted(report.workers.into(), "worker");
    let deductions = counted(report.deductions.into(), "deduction");
    let spread = if report.servers > 1 { format!(", over {} servers", report.servers) } else { String::new() };
    format!("{workers} x {deductions} of {}{spread}", report.amount)
}

fn with_reasons(report: &Report) -> String {
    let contended = zbl_client::Reason::Contended.as_str();
    let reasons: Vec<_> = report
        .failed
        .iter()
        .filter(|(reason, _)| **reason != contended)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if reasons.is_empty() { "0".to_owned() } else { format!("{} ({})", report.refused(), reasons.join(", ")) }
}

fn remarks(report: &Report) -> Vec<String> {
    // The plain ones first, in which both had read the same; and one per overwriter, because a write far behind the others
    // destroys dozens, all with the same words.
    let mut witnesses = report.lost_updates.clone();
    witnesses.sort_by_key(|pair| pair.victim.version_before != pair.overwriter.version_before);
    witnesses.dedup_by_key(|pair| pair.overwriter.version);
    witnesses.truncate(WITNESSES);
    let untold = report.lost_updates.len() - witnesses.len();
    let mut remarks: Vec<String> = witnesses.iter().map(witness).collect();
    if untold > 0 {
        remarks.push(format!("... and {untold} more; --json has them all"));
    }
    remarks.extend(report.scope_note());
    remarks.extend(report.contention_note());
    remarks.extend(report.doubts.iter().map(|doubt| format!("doubt: {doubt}")));
    remarks
}

/// The first digits of a request id, as many as the timeline shows.
pub(crate) fn short(request_id: Uuid) -> String {
    let mut id = request_id.simple().to_string();
    id.truncate(SHORT_ID);
    id
}

/// One lost update as a witness tells it. The request ids are as the timeline and the picture of a race show them.
pub fn witness(pair: &Pair) -> String {
    let Pair { victim, overwriter, amount } = pair;
    let read = if victim.version_before == overwriter.version_before {
        "the same".to_owned()
    } else {
        format!("{} at version {}", overwriter.balance_before, overwriter.version_before)
    };
    let what = match amount.checked_neg() {
        Some(deposit) if deposit > Money::ZERO => format!("a deposit of {deposit}"),
        _ => amount.to_string(),
    };
    format!(
        "A {} read {} at version {}; B {}, which had read {read}, wrote over it at version {}: {what} gone",
        short(victim.request_id),
        victim.balance_before,
        victim.version_before,
        short(overwriter.request_id),
        overwriter.version
    )
}

/// Microseconds in milliseconds, to a tenth where that can be told.
pub(super) fn millis(micros: u64) -> String {
    if micros >= WHOLE_MILLIS_FROM {
        return (micros / 1_000).to_string();
    }
    format!("{}.{}", micros / 1_000, micros % 1_000 / 100)
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}
