//! The result of a bench, put together from what its lanes measured. It owns the arithmetic of the figures and refuses to
//! judge.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::AdditionError;
use zbl_client::{Client, Guarantee};

use super::plan::{Plan, Transport};
use super::remark::{Noted, remarks};
use super::sheet::{Figures, Punctuality, Sheet};
use crate::attack::servers;
use crate::recorder::Recorder;
use crate::report::bench::{
    Bench, BenchVerdict, Kind, Method, MethodFigures, Pacing, SCHEMA_VERSION, Schedule, Window,
};
use crate::report::{Cost, advice, is_decision, per_second};

/// What there is besides what the lanes measured.
pub(super) struct Circumstances {
    pub(super) strategy: Option<(String, Guarantee)>,
    pub(super) store: String,
    /// The first of the accounts.
    pub(super) first_user: Option<i64>,
    /// When operations began to count.
    pub(super) began: SystemTime,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    pub(super) series: Vec<Window>,
    pub(super) cost: Option<Cost>,
    pub(super) noted: Noted,
    pub(super) verdict: Option<BenchVerdict>,
}

/// Puts the result together and holds it against the thresholds.
///
/// # Errors
/// Never for histograms made by this program, whose bounds are the same.
pub(super) fn bench(plan: &Plan, sheet: &Sheet, circumstances: Circumstances) -> Result<Bench, AdditionError> {
    let Circumstances { strategy, store, first_user, began, elapsed, interrupted, series, cost, noted, verdict } =
        circumstances;
    let called = || Method::ALL.into_iter().zip(&sheet.methods).filter(|(method, _)| plan.mix.contains_key(method));
    let mut latency: Option<Recorder> = None;
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for (_, figures) in called() {
        match &mut latency {
            Some(sum) => sum.merge(&figures.latency)?,
            None => latency = Some(figures.latency.clone()),
        }
        for (reason, count) in &figures.failed {
            *failed.entry((*reason).to_owned()).or_default() += count;
        }
    }
    let sum = |of: fn(&Figures) -> u64| called().map(|(_, figures)| of(figures)).sum::<u64>();
    let acknowledged = sum(|figures| figures.acknowledged);
    let punctuality = matches!(plan.pacing, Pacing::Open { .. }).then_some(&sheet.punctuality);
    let only = if plan.mix.len() == 1 { plan.mix.keys().next().copied() } else { None };
    let (strategy, guarantee) = strategy.unzip();
    let mut bench = Bench {
        schema_version: SCHEMA_VERSION,
        kind: Kind::Bench,
        method: only,
        mix: only.is_none().then(|| plan.mix.clone()),
        stream: plan.transport == Transport::Stream,
        strategy,
        guarantee,
        store,
        servers: servers(plan.clients.iter().map(Client::address)),
        accounts: plan.accounts,
        first_user,
        zipf: plan.zipf,
        amount: plan.deducts().then_some(plan.amount),
        opening: (plan.first_user.is_none() && plan.uses_accounts()).then_some(plan.opening),
        seed: plan.seed,
        pacing: plan.pacing,
        connections: u32::from(plan.connections),
        warmup_ms: millis(plan.warmup),
        began_unix_ms: began.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis),
        duration_ms: millis(elapsed),
        interrupted,
        requests: sum(Figures::requests),
        acknowledged,
        failed,
        unknown: sum(|figures| figures.unknown),
        throughput_per_s: per_second(sum(answered), elapsed),
        acknowledged_per_s: per_second(acknowledged, elapsed),
        latency_us: latency.as_ref().map(Recorder::latency).unwrap_or_default(),
        methods: called().map(|(method, figures)| (method, of_method(figures, elapsed))).collect(),
        observed_latency_us: punctuality.map(|punctuality| punctuality.observed.latency()),
        schedule: punctuality.map(schedule),
        series,
        spectrum: latency.as_ref().map(Recorder::spectrum).unwrap_or_default(),
        attempts: sheet.attempts,
        outage_retries: sheet.outage_retries,
        // The servers count the work of all calls together; a mix has others than deductions.
        cost: cost.filter(|_| only == Some(Method::Deduct)),
        remarks: Vec::new(),
        advice: None,
        thresholds: Vec::new(),
        verdict,
    };
    bench.remarks = remarks(&bench, &noted);
    bench.advice = advice::for_bench(&bench);
    bench.thresholds = plan.thresholds.iter().map(|threshold| threshold.check(&bench)).collect();
    Ok(bench)
}

fn of_method(figures: &Figures, elapsed: Duration) -> MethodFigures {
    MethodFigures {
        requests: figures.requests(),
        acknowledged: figures.acknowledged,
        failed: figures.failures(),
        unknown: figures.unknown,
        throughput_per_s: per_second(answered(figures), elapsed),
        latency_us: figures.latency.latency(),
    }
}

/// Operations that the service did or decided not to do.
fn answered(figures: &Figures) -> u64 {
    let decided = figures.failed.iter().filter(|(reason, _)| is_decision(reason)).map(|(_, count)| count);
    figures.acknowledged + decided.sum::<u64>()
}

fn schedule(punctuality: &Punctuality) -> Schedule {
    Schedule {
        sent: punctuality.sent,
        late: punctuality.late,
        dropped: punctuality.dropped,
        lag_us: punctuality.lag.latency(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
