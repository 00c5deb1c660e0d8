//! RunAttack: loadgen's engine against this server's own port. The stream owns the attack: dropped, it stops it.

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{sync::watch, task::JoinHandle};
use tonic::Status;
use zbl_loadgen::{
    attack::{self, Attack, AttackError, Manner, Patience, Progress, Stopper},
    pacer::Pacer,
    report::Report,
    verdict::Verdict,
    workload::Workload,
};
use zbl_proto::v1::{self, run_attack_response::Step};

use super::{
    super::{convert, status::status},
    Lab,
};
use crate::{
    account::Money,
    error::{Backend, Error, Invalid, InvalidReason},
};

/// Connections the workers share; one would make its own flow control the bottleneck.
const CONNECTIONS: usize = 4;

/// The most workers: each holds a call, and the server's own bound on changes in flight must stay out of reach.
const WORKERS_MOST: u32 = 1000;

/// The most operations: the history of an attack is held in memory, some 200 bytes each.
const OPERATIONS_MOST: u64 = 100_000;

/// The most lost updates told one by one.
const LOST_UPDATES_TOLD: usize = 1000;

/// How often progress is told: as often as an eye can use it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// An attack under way, as its stream sees it.
struct Running {
    progress: watch::Receiver<Progress>,
    outcome: JoinHandle<Result<Report, AttackError>>,
    /// Stops the attack when the stream is dropped.
    stop: StopOnDrop,
    /// Becomes true when the server is to stop.
    stopping: watch::Receiver<bool>,
}

struct StopOnDrop(Stopper);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Begins an attack and returns its steps.
pub(super) fn start(
    lab: &Arc<Lab>,
    request: &v1::RunAttackRequest,
) -> Result<impl Stream<Item = Result<v1::RunAttackResponse, Status>> + Send + use<>, Error> {
    let workload = workload(request)?;
    let turn = Arc::clone(&lab.attacks).try_acquire_owned().map_err(|_| {
        Error::Overloaded("another attack is running, or a schedule is being played; one at a time".to_owned())
    })?;
    let clients = (0..CONNECTIONS).map(|_| lab.premises.own.client()).collect::<Result<Vec<_>, _>>()?;
    let (stopper, stop) = attack::stop();
    let (progress, seen) = watch::channel(Progress::default());
    let attack =
        Attack { clients, workload, pacer: Pacer::ClosedLoop, patience: Patience::default(), manner: Manner::Deduct };
    let outcome = tokio::spawn(async move {
        let outcome = attack::run(&attack, &progress, &stop).await;
        // Only now: a stopped attack goes on settling what it began.
        drop(turn);
        outcome
    });
    let running =
        Running { progress: seen, outcome, stop: StopOnDrop(stopper), stopping: lab.premises.stopping.clone() };
    Ok(stream::unfold(Some(running), |running| async {
        let mut running = running?;
        let (step, over) = running.next().await;
        Some((step.map(|step| v1::RunAttackResponse { step: Some(step) }), (!over).then_some(running)))
    }))
}

impl Running {
    /// The next step, and whether it is the last.
    async fn next(&mut self) -> (Result<Step, Status>, bool) {
        tokio::select! {
            outcome = &mut self.outcome => {
                let report = match outcome {
                    Ok(outcome) => outcome.map_err(failed),
                    Err(error) => Err(Error::Bug(format!("the attack's task ended early: {error}"))),
                };
                (report.map(|report| Step::Result(result(&report))).map_err(|error| status(&error)), true)
            }
            _ = self.stopping.wait_for(|stopping| *stopping) => {
                self.stop.0.stop();
                (Err(status(&Error::Stopping)), true)
            }
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                let progress = *self.progress.borrow_and_update();
                let step = v1::AttackProgress {
                    total: signed(progress.total),
                    done: signed(progress.done),
                    acknowledged: signed(progress.acknowledged),
                    user_id: progress.user_id,
                };
                (Ok(Step::Progress(step)), false)
            }
        }
    }
}

fn invalid(field: &'static str, description: String) -> Error {
    Invalid { field, reason: InvalidReason::Attack, description }.into()
}

/// A count of the request, or its default where it is 0.
fn count(field: &'static str, value: i32, default: u32, most: u32) -> Result<u32, Error> {
    match u32::try_from(value) {
        Ok(0) => Ok(default),
        Ok(count) if count <= most => Ok(count),
        _ => Err(invalid(field, format!("{value} is not between 1 and {most}"))),
    }
}

fn workload(request: &v1::RunAttackRequest) -> Result<Workload, Error> {
    let or = |text: &str, default: i64, field| match text {
        "" => Ok(Money::from_minor(default)),
        text => convert::balance(field, text),
    };
    let workload = Workload {
        workers: count("workers", request.workers, 100, WORKERS_MOST)?,
        deductions: count("deductions", request.deductions, 10, u32::MAX)?,
        amount: or(&request.amount, 1_000, "amount")?,
        opening: or(&request.opening_balance, 100_000, "opening_balance")?,
        strategy: convert::strategy(&request.strategy)?.map_or("", |row| row.name).to_owned(),
        user_id: None,
        seed: rand::random(),
    };
    if workload.operations() > OPERATIONS_MOST {
        return Err(invalid("deductions", format!("workers times deductions exceed {OPERATIONS_MOST}")));
    }
    workload.check().map_err(|error| invalid("amount", error.to_string()))?;
    Ok(workload)
}

/// Why there is no result, in the server's own terms.
fn failed(error: AttackError) -> Error {
    match error {
        AttackError::StrategyUnavailable { name, reason } => match crate::strategy::find(&name) {
            Ok(row) => Error::StrategyUnavailable { name: row.name, reason },
            Err(unknown) => Error::Bug(unknown.to_string()),
        },
        AttackError::Unreachable { .. } | AttackError::Unreadable { .. } => {
            Error::BackendDown { backend: Backend::Service, reason: error.to_string() }
        }
        other => Error::Bug(other.to_string()),
    }
}

fn signed(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) const fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Clean => v1::Verdict::Clean,
        Verdict::Lost => v1::Verdict::Lost,
        Verdict::Inconclusive => v1::Verdict::Inconclusive,
    }
}

fn result(report: &Report) -> v1::AttackResult {
    let lost_updates = report.lost_updates.iter().take(LOST_UPDATES_TOLD).map(|pair| v1::LostUpdate {
        victim_request_id: pair.victim.request_id.to_string(),
        victim_version: pair.victim.version,
        overwriter_request_id: pair.overwriter.request_id.to_string(),
        overwriter_version: pair.overwriter.version,
        amount: pair.amount.to_string(),
    });
    v1::AttackResult {
        user_id: report.user_id,
        strategy: report.strategy.clone(),
        guarantee: report.guarantee.into(),
        verdict: verdict(report.verdict).into(),
        opening_balance: report.opening.to_string(),
        final_balance: report.last.to_string(),
        acknowledged: signed(report.acknowledged.count),
        acknowledged_amount: report.acknowledged.amount.to_string(),
        affordable: signed(report.affordable),
        failed: report.failed.iter().map(|(reason, count)| ((*reason).to_owned(), signed(*count))).collect(),
        unknown: signed(report.unknown),
        lost: report.lost.to_string(),
        unattributed: report.unattributed.to_string(),
        lost_updates: lost_updates.collect(),
        lost_updates_total: signed(report.lost_updates.len() as u64),
        throughput_per_s: report.throughput_per_s,
        latency_p50_us: signed(report.latency_us.p50),
        latency_p99_us: signed(report.latency_us.p99),
        attempts: signed(report.attempts),
        duration: Duration::from_millis(report.duration_ms).try_into().ok(),
    }
}
