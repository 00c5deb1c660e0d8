//! One sentence on what to choose for the workload that was measured. A pure function of the figures: it owns the
//! reasoning from contention, locks and commits to what a strategy should do instead, and refuses to advise where they do
//! not say. It names no strategy that the figures are not of: what else a server has, they do not tell.

use std::cmp::Ordering;

use zbl_client::{Guarantee, Reason};

use super::bench::{Bench, Method, MethodFigures, Pacing};
use super::{Cost, Report};
use crate::verdict::Verdict;

/// What would help those who wait for a lock or a commit of their own.
const SHARING: &str = "a strategy that shares commits between callers";

/// Share of calls turned away from which contention, and not chance, decides.
const MUCH_CONTENTION: f64 = 0.05;

/// Attempts per acknowledged deduction from which most work is done twice.
const MANY_ATTEMPTS: f64 = 1.5;

/// Share of the time from which on the hottest lock, and not what is around it, is the limit.
const BUSY_LOCK: f64 = 0.5;

/// Commits per deduction below which commits are shared.
const SHARED_COMMIT: f64 = 0.5;

/// Calls in flight from which on enough of them wait at once to share a commit.
const MANY_IN_FLIGHT: f64 = 8.0;

/// How many times faster one of two short runs must be to be called the faster strategy.
const CLEARLY_FASTER: f64 = 1.25;

/// What to choose for the workload of a bench; `None` when nothing was deducted, when most deductions were refused, or
/// when the figures do not say.
pub fn for_bench(bench: &Bench) -> Option<String> {
    let strategy = bench.strategy.as_deref()?;
    if bench.verdict.as_ref().is_some_and(|judged| judged.verdict == Verdict::Lost) {
        return Some(for_loss(strategy, bench.guarantee));
    }
    if bench.guarantee == Some(Guarantee::LosesUpdates) {
        return Some(format!("{strategy} guards nothing: that no loss was found says nothing about the next run."));
    }
    let deduct = bench.methods.get(&Method::Deduct)?;
    let contended = bench.failed.get(Reason::Contended.as_str()).copied().unwrap_or(0);
    let turned_away = contended as f64 / deduct.requests.max(1) as f64;
    let attempts = bench.attempts as f64 / deduct.acknowledged.max(1) as f64;
    if turned_away >= MUCH_CONTENTION || attempts >= MANY_ATTEMPTS {
        let shares = bench.cost.is_some_and(|cost| cost.commits < SHARED_COMMIT);
        let instead = if shares {
            "fewer callers at once are all that helps".to_owned()
        } else {
            format!("{SHARING} lets them wait for each other instead")
        };
        return Some(format!(
            "Callers collide: {:.0} % were turned away, and an acknowledged deduction took {attempts:.1} attempts; {instead}.",
            turned_away * 100.0,
        ));
    }
    // The servers count the work for refused deductions too, and what those cost is not what selling costs.
    let refused = deduct.failed > deduct.acknowledged;
    (!refused).then_some(bench.cost?).map(|cost| for_cost(bench, strategy, deduct, &cost))
}

/// Where money is gone, the promise decides what is wrong: the choice, or the strategy.
fn for_loss(strategy: &str, guarantee: Option<Guarantee>) -> String {
    let lost = format!("{strategy} lost acknowledged money, which no speed makes up for");
    if guarantee == Some(Guarantee::Always) {
        format!("{lost}, though it promises never to: do not use it until the cause is found.")
    } else {
        format!("{lost}; take one that the server lists as never losing an update.")
    }
}

/// What to choose where callers do not collide: it is then locks or commits that deductions wait for.
fn for_cost(bench: &Bench, strategy: &str, deduct: &MethodFigures, cost: &Cost) -> String {
    let busy = busy_share(bench, deduct, cost);
    let busy_percent = busy * 100.0;
    if cost.commits < SHARED_COMMIT {
        return format!(
            "About {:.0} deductions shared each commit: {strategy} suits this workload.",
            1.0 / cost.commits.max(1e-4)
        );
    }
    if busy >= BUSY_LOCK {
        return format!(
            "The lock of the hottest account was held {busy_percent:.0} % of the time and is the limit; {SHARING} holds it \
             once for all who wait."
        );
    }
    let own_commit = format!(
        "The hottest account was locked only {busy_percent:.0} % of the time, and each deduction paid for a commit of its own"
    );
    if in_flight(bench) >= MANY_IN_FLIGHT {
        return format!("{own_commit}; {SHARING} would save most of them.");
    }
    format!("{own_commit}; with so few calls at once any strategy suits that never loses an update.")
}

/// The share of the time for which the hottest account was locked: how long a deduction held its lock, times how many of
/// them the account took in that time. Deductions that share a commit also share the lock, which is not counted here.
fn busy_share(bench: &Bench, deduct: &MethodFigures, cost: &Cost) -> f64 {
    let seconds = bench.duration_ms as f64 / 1e3;
    let per_second = if seconds > 0.0 { deduct.acknowledged as f64 / seconds } else { 0.0 };
    (cost.lock_held_us / 1e6 * per_second * hottest_share(bench)).min(1.0)
}

/// The share of all operations that the hottest account takes.
fn hottest_share(bench: &Bench) -> f64 {
    let exponent = bench.zipf.unwrap_or(0.0);
    let weights: f64 = (1..=bench.accounts).map(|rank| f64::from(rank).powf(-exponent)).sum();
    1.0 / weights.max(1.0)
}

/// Calls in flight at once; in an open loop the rate times how long one takes.
fn in_flight(bench: &Bench) -> f64 {
    match bench.pacing {
        Pacing::Closed { concurrency } => f64::from(concurrency),
        Pacing::Open { rate_per_s, .. } => rate_per_s * bench.latency_us.p50 as f64 / 1e6,
    }
}

/// What to choose for the workload of a comparison; `None` unless two strategies kept their promise with several writers.
pub fn for_runs(runs: &[Report]) -> Option<String> {
    let mut safe: Vec<&Report> = runs
        .iter()
        .filter(|run| run.verdict == Verdict::Clean && run.guarantee == Guarantee::Always && !run.interrupted)
        .collect();
    safe.sort_by(|a, b| b.throughput_per_s.partial_cmp(&a.throughput_per_s).unwrap_or(Ordering::Equal));
    let [best, next, ..] = safe.as_slice() else { return None };
    let ratio = best.throughput_per_s / next.throughput_per_s;
    let workers = best.workers;
    if ratio.is_finite() && ratio >= CLEARLY_FASTER {
        return Some(format!(
            "For {workers} workers on one account: {}, {:.0} answers/s and {ratio:.1} times the next that lost nothing, {}.",
            best.strategy, best.throughput_per_s, next.strategy
        ));
    }
    let close = safe.iter().filter(|run| run.throughput_per_s * CLEARLY_FASTER > best.throughput_per_s);
    let names: Vec<_> = close.map(|run| run.strategy.as_str()).collect();
    Some(format!("For {workers} workers on one account any of {} suits: none is clearly faster.", names.join(", ")))
}

#[cfg(test)]
mod tests;
