//! The bench: measures how fast the service answers and how long it takes, on one account or a million, and judges every
//! run, because a figure for a service that lost money is no figure. Data flows one way: a [`plan`] makes lanes, one for
//! each connection, which send what their pacer says is due and keep their own figures; these are summed up when all
//! have ended, and what was acknowledged is held against the journals.
//!
//! It prints nothing and repeats no refused call. It uses as little of the machine as it can, because it shares it with
//! what it measures: no operation is kept, none takes a lock or a task of its own.

use std::fs::File;
use std::io::BufWriter;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hdrhistogram::{AdditionError, CreationError};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use zbl_client::{Client, Error, Guarantee, Retry};

use crate::attack::{self, AttackError, BRIEF, Stop};
use crate::pacer::{Pacer, Timetable};
use crate::report::Cost;
use crate::report::bench::{Bench, BenchVerdict, HistogramLog, Pacing};

mod accounts;
mod alarm;
mod audit;
mod choice;
pub mod distribution;
mod exchange;
mod judgement;
mod lane;
mod operation;
pub mod plan;
mod remark;
mod series;
mod shared;
mod sheet;
mod streamed;
mod summary;
mod tally;
#[cfg(test)]
mod tests;
pub mod threshold;
mod unary;

use accounts::Accounts;
use audit::Audit;
use choice::Choice;
use lane::{Haul, Lane};
use operation::{RequestIds, Wording};
pub use plan::{Length, Plan, PlanError, Transport};
use remark::Noted;
use series::Series;
pub use series::SeriesError;
use shared::{Counting, Shared, Span};
use sheet::Sheet;
use streamed::Streamed;
use tally::Tally;
use unary::Unary;

/// The end of a run that ends by its number of requests, whatever happens.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A host that does not answer within this is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How far a bench is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// What there is to do in this stage; `None` where time decides.
    pub total: Option<u64>,
    /// What has come to an end.
    pub done: u64,
    /// Of the operations among it, those that were acknowledged.
    pub acknowledged: u64,
}

/// The stages of a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Accounts are opened, or read.
    #[default]
    Opening,
    /// Operations are sent.
    Measuring,
    /// Unknown outcomes are settled.
    Settling,
    /// Journals are read and judged.
    Judging,
}

/// Why a bench has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The server could not be prepared.
    #[error(transparent)]
    Setup(#[from] AttackError),
    /// It was stopped before anything was measured.
    #[error("stopped before anything was measured")]
    Stopped,
    /// Not one call succeeded, and none was a deduction that could be judged.
    #[error("no call succeeded; the first one failed with {0}")]
    Unanswered(Error),
    /// The second-by-second figures could not be kept.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// A histogram could not be made.
    #[error(transparent)]
    Recorder(#[from] CreationError),
    /// Histograms do not fit together.
    #[error("latencies cannot be merged: {0:?}")]
    Addition(AdditionError),
    /// A lane was lost.
    #[error("a connection's task was lost: {0}")]
    Lane(#[from] JoinError),
}

impl BenchError {
    fn setup(address: &str, source: Error) -> Self {
        Self::Setup(AttackError::setup(address, source))
    }
}

/// What the server is to work with.
struct Scene {
    clients: Vec<Client>,
    store: String,
    strategy: Option<(String, Guarantee)>,
    accounts: Accounts,
}

/// Makes a bench and judges it. After a stop it still settles and judges what was begun. With `log`, every second's
/// latencies are written there.
///
/// # Errors
/// [`BenchError`] when there is nothing to tell.
pub async fn run(
    plan: &Plan,
    log: Option<BufWriter<File>>,
    progress: &watch::Sender<Progress>,
    stop: &Stop,
) -> Result<Bench, BenchError> {
    plan.check()?;
    let mut stopped = stop.clone();
    let scene = tokio::select! {
        scene = prepare(plan, progress) => scene?,
        () = stopped.wait() => return Err(BenchError::Stopped),
    };
    let before = attack::work(&scene.clients).await;
    let shared = Arc::new(share(plan, &scene, log, progress)?);
    progress.send_modify(|progress| *progress = Progress { stage: Stage::Measuring, ..Progress::default() });
    let hauls = measure(plan, &shared, stop).await?;
    let after = attack::work(&scene.clients).await;

    let verdict =
        if plan.deducts() { Some(judge(plan, &scene, &shared, progress, stop).await) } else { answered(&hauls)? };
    let mut sheet = Sheet::new()?;
    hauls.iter().try_for_each(|haul| sheet.merge(&haul.sheet)).map_err(BenchError::Addition)?;
    let elapsed = hauls.iter().map(|haul| haul.measured).max().unwrap_or_default();
    let (series, failed) = shared.take_series().finish(elapsed);
    let circumstances = summary::Circumstances {
        strategy: scene.strategy,
        store: scene.store,
        first_user: plan.uses_accounts().then_some(scene.accounts.first),
        began: SystemTime::now() - shared.counts_from.elapsed(),
        elapsed,
        interrupted: hauls.iter().any(|haul| haul.cut_short),
        series,
        cost: before.zip(after).and_then(|(before, after)| Cost::between(&before, &after)),
        noted: Noted {
            failure: hauls.into_iter().find_map(|haul| haul.failure),
            halted: shared.is_halted(),
            series: failed,
        },
        verdict,
    };
    summary::bench(plan, &sheet, circumstances).map_err(BenchError::Addition)
}

/// Settles what is unknown and holds what was acknowledged against the journals.
async fn judge(
    plan: &Plan,
    scene: &Scene,
    shared: &Shared,
    progress: &watch::Sender<Progress>,
    stop: &Stop,
) -> BenchVerdict {
    let audit = Audit {
        clients: &scene.clients,
        wording: &shared.wording,
        accounts: &scene.accounts,
        tally: &shared.tally,
        progress,
        patience: if stop.requested() { BRIEF } else { plan.outage.max(BRIEF) },
        stop: stop.clone(),
        cut: OnceLock::new(),
    };
    let unsettled = audit.settle(shared.take_unsettled()).await;
    audit.judge(&unsettled).await.close(plan.amount)
}

/// Nothing to judge; but calls of which none succeeded are no measurement.
fn answered(hauls: &[Haul]) -> Result<Option<BenchVerdict>, BenchError> {
    let any = hauls.iter().flat_map(|haul| &haul.sheet.methods).any(|figures| figures.acknowledged > 0);
    match hauls.iter().find_map(|haul| haul.failure.clone()).filter(|_| !any) {
        Some(failure) => Err(BenchError::Unanswered(failure)),
        None => Ok(None),
    }
}

/// Asks the first server for what there is, and makes the accounts ready.
async fn prepare(plan: &Plan, progress: &watch::Sender<Progress>) -> Result<Scene, BenchError> {
    let first = plan.clients.first().ok_or(PlanError::NoServer)?;
    // Setting up is idempotent, and a server that is just starting is worth a second.
    let patient = first.clone().with_retry(Retry::default());
    let strategies = patient.strategies().await.map_err(|error| BenchError::setup(first.address(), error))?;
    let strategy = if plan.deducts() {
        let strategy = attack::choose(&strategies, &plan.strategy)?;
        Some((strategy.name.clone(), strategy.guarantee))
    } else {
        None
    };
    let accounts =
        if plan.uses_accounts() { Accounts::prepare(&patient, plan, progress).await? } else { Accounts::none() };
    let clients = plan.clients.iter().map(|client| client.clone().with_retry(Retry::NEVER)).collect();
    Ok(Scene { clients, store: strategies.store, strategy, accounts })
}

/// Fixes ids, times and what is kept of the run.
fn share(
    plan: &Plan,
    scene: &Scene,
    log: Option<BufWriter<File>>,
    progress: &watch::Sender<Progress>,
) -> Result<Shared, BenchError> {
    let wording = Wording {
        ids: RequestIds::new(rand::random()),
        first_user: scene.accounts.first,
        amount: plan.amount,
        // Checked by the plan: the amount is positive, so it has an opposite.
        delta: plan.amount.checked_neg().unwrap_or_default(),
        strategy: scene.strategy.as_ref().map(|(name, _)| name.clone()).unwrap_or_default(),
    };
    let title = || format!("loadgen bench, {} on {}", wording.strategy, scene.store);
    let started = SystemTime::now() + plan.warmup;
    let log = log.map(|file| HistogramLog::begin(file, started, &title())).transpose().map_err(SeriesError::Log)?;
    let counts_from = Instant::now() + plan.warmup;
    let (length, requests) = match plan.length {
        Length::Time(length) => (length, u64::MAX),
        Length::Requests(requests) => (LONGEST, requests),
    };
    let counting = match (plan.pacing, plan.length) {
        (Pacing::Closed { .. }, Length::Time(_)) => Counting::WhatEnds,
        (Pacing::Open { .. }, _) | (_, Length::Requests(_)) => Counting::WhatIsDue,
    };
    let span = Span { counts_from, until: counts_from + length, requests, counting };
    let tally = Tally::new(if plan.deducts() { plan.accounts } else { 0 });
    let series = Series::new(plan.lanes().into(), log);
    Ok(Shared::new(wording, span, plan.outage, tally, series, progress.clone()))
}

/// Lets the lanes run and gathers what they bring.
async fn measure(plan: &Plan, shared: &Arc<Shared>, stop: &Stop) -> Result<Vec<Haul>, BenchError> {
    let lanes = plan.lanes();
    let accounts = plan.distribution().map_err(PlanError::from)?;
    let mut seeds = SmallRng::seed_from_u64(plan.seed);
    let first = shared.counts_from - plan.warmup;
    let mut running = JoinSet::new();
    // Servers take turns, so that a few lanes still reach all of them.
    for (number, client) in (0..lanes).zip(plan.clients.iter().cycle()) {
        let pacer = match plan.pacing {
            Pacing::Closed { .. } => Pacer::ClosedLoop,
            Pacing::Open { rate_per_s, .. } => Pacer::OpenLoop(Timetable {
                first: Timetable { first, rate_per_s }.at(number.into()),
                rate_per_s: rate_per_s / f64::from(lanes),
            }),
        };
        let share = {
            let most = plan.most_in_flight();
            most / u32::from(lanes) + u32::from(u32::from(number) < most % u32::from(lanes))
        };
        let choice = Choice::new(&plan.mix, accounts, SmallRng::from_rng(&mut seeds));
        let lane = Lane::new(number, Arc::clone(shared), pacer, share as usize, choice, stop.clone())?;
        let (wording, client) = (shared.wording.clone(), client.clone());
        match plan.transport {
            Transport::Unary => running.spawn(lane.run(move || dial(client.clone(), wording.clone()))),
            Transport::Stream => {
                running.spawn(lane.run(move || Streamed::open(client.clone(), wording.clone(), share as usize)))
            }
        };
    }
    let mut hauls = Vec::new();
    while let Some(haul) = running.join_next().await {
        hauls.push(haul?);
    }
    Ok(hauls)
}

/// Connects to a client's server.
async fn dial(client: Client, wording: Wording) -> Result<Unary<TcpStream>, Error> {
    let authority = client.authority();
    let late = |_| Error::lost(format_args!("no connection within {CONNECT_TIMEOUT:?}"));
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(authority)).await.map_err(late)?;
    let stream = connected.map_err(Error::lost)?;
    stream.set_nodelay(true).map_err(Error::lost)?;
    Unary::begin(stream, authority, wording, client.deadline(), client.tracer().cloned()).await
}
