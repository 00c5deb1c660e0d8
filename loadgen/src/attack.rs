//! The attack: many workers deduct from one account as fast as they can, until their deductions are done, the server
//! stays away or the run is stopped; then unknown outcomes are settled, the journal is read and the run is judged. It
//! prints nothing: progress goes to a watch channel, the result is a [`Report`].

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time;
use zbl_client::{Account, Client, Entry, Error, Retry};

use crate::history::{Operation, Outcome};
use crate::pacer::Pacer;
use crate::recorder::Recorder;
use crate::report::{Accepting, Cost, Report, Run};
use crate::verdict::{self, Evidence, Journal, Overflow, State};
use crate::workload::{Workload, WorkloadError};

mod drain;
mod scene;
mod settle;
mod stop;
#[cfg(test)]
pub(crate) mod tests;
mod work;
mod worker;

use drain::Follower;
use scene::Scene;
pub use scene::available_strategies;
pub(crate) use scene::choose;
pub(crate) use settle::{READINGS, patiently, read, settle};
pub use stop::{Stop, Stopper, stop};
pub(crate) use work::work;
use worker::{Ended, Finished, Retries, Worker};

/// The first pause before a call is repeated: a few times a transaction's length.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause: a server that is back is noticed within a second.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long settling and reading may take when the server is known to be away or someone waits for the run to stop.
pub(crate) const BRIEF: Duration = Duration::from_secs(5);

/// Outcomes on their way from the workers to the record; full, it slows the workers down rather than growing.
const OUTCOMES_IN_FLIGHT: usize = 1_024;

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Attack {
    /// The connections, which workers share evenly; at least one.
    pub clients: Vec<Client>,
    /// What is asked.
    pub workload: Workload,
    /// When.
    pub pacer: Pacer,
    /// How long failures are borne.
    pub patience: Patience,
    /// By which call.
    pub manner: Manner,
}

/// By which call deductions are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Each is made while its caller waits.
    #[default]
    Deduct,
    /// Each is accepted, to be made later.
    DeductAsync {
        /// How long it may take after the last was accepted until all are decided.
        drain: Duration,
    },
}

/// How long failures that may pass are borne, always under the same request id.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a worker waits for a server that is away before it gives up.
    pub outage: Duration,
    /// How often an operation that was turned away, by contention or for load, is repeated.
    pub contended: u32,
    /// How many of a hundred calls are cancelled while they are under way, at a moment drawn at random. Nobody tries them
    /// again; what became of them is settled at the end.
    pub cancelled_percent: u8,
}

/// Half a minute lets a server be restarted; ten repetitions on top of the server's own keep a hundred contenders from
/// starving one another.
impl Default for Patience {
    fn default() -> Self {
        Self { outage: Duration::from_secs(30), contended: 10, cancelled_percent: 0 }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// The account; 0 until it is open.
    pub user_id: i64,
    /// The operations to be made.
    pub total: u64,
    /// The operations that have come to an end.
    pub done: u64,
    /// Those of them that were acknowledged or accepted.
    pub acknowledged: u64,
    /// The entries that the journal has of accepted ones.
    pub decided: u64,
    /// The workers that wait for their server to come back.
    pub waiting: u64,
}

/// The stages of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The account is opened.
    #[default]
    Preparing,
    /// The workers are at it.
    Attacking,
    /// Unknown outcomes are settled.
    Settling,
    /// What was accepted is made.
    Draining,
    /// Journal and balance are read and judged.
    Judging,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// The workload cannot be run.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// No server was named.
    #[error("there is no server to attack; name one with --addr HOST:PORT")]
    NoServer,
    /// The server was never reached.
    #[error("no server answers at {address}: {source}; start one with `zbl-server`, or name another with --addr")]
    Unreachable {
        /// The address.
        address: String,
        /// The last failure.
        source: Error,
    },
    /// The server would not set the scene.
    #[error("the server at {address} refuses to prepare the account: {source}")]
    Refused {
        /// The address.
        address: String,
        /// Why.
        source: Error,
    },
    /// The server has no such strategy.
    #[error("there is no strategy {name:?}; this server has {known}")]
    UnknownStrategy {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The strategy cannot be used on this server.
    #[error("strategy {name} is not available on this server: {reason}")]
    StrategyUnavailable {
        /// The strategy.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The server went away and did not come back, so that nothing can be judged.
    #[error("account {user_id} cannot be read back, so the run cannot be judged: {source}")]
    Unreadable {
        /// The account.
        user_id: i64,
        /// The last failure.
        source: Error,
    },
    /// The sums do not fit.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The latency histogram could not be made.
    #[error(transparent)]
    Recorder(#[from] hdrhistogram::CreationError),
    /// A worker was lost.
    #[error("a worker was lost: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl AttackError {
    pub(crate) fn setup(address: &str, source: Error) -> Self {
        let address = address.to_owned();
        if source.is_transient() { Self::Unreachable { address, source } } else { Self::Refused { address, source } }
    }
}

/// What the workers brought back.
struct Harvest {
    operations: Vec<Operation>,
    recorder: Recorder,
    attempts: u64,
    cancelled: u64,
    retries: Retries,
    /// How many were accepted, to be made later.
    accepted: u64,
    elapsed: Duration,
    /// How long it took from then until all that was accepted was decided.
    draining: Duration,
    gave_up: bool,
    cost: Option<Cost>,
}

/// Makes a run and judges it. After a stop it still settles and judges what was begun, for a bounded time.
///
/// # Errors
/// [`AttackError`] when there is nothing to judge.
pub async fn run(attack: &Attack, progress: &watch::Sender<Progress>, stop: &Stop) -> Result<Report, AttackError> {
    attack.workload.check()?;
    // The workers' loop repeats calls by its own rules, and so does settling.
    let clients: Vec<Client> = attack.clients.iter().map(|client| client.clone().with_retry(Retry::NEVER)).collect();
    let first = clients.first().ok_or(AttackError::NoServer)?;
    progress.send_replace(Progress { total: attack.workload.operations(), ..Progress::default() });
    let scene = scene::prepare(first, &attack.workload).await?;

    progress.send_modify(|progress| (progress.stage, progress.user_id) = (Stage::Attacking, scene.root.user_id));
    let before = work(&clients).await;
    let mut follower = Follower::new(first, scene.root, progress);
    let mut harvest = match attack.manner {
        Manner::Deduct => assault(attack, &clients, &scene, progress, stop).await?,
        Manner::DeductAsync { .. } => tokio::select! {
            harvest = assault(attack, &clients, &scene, progress, stop) => harvest?,
            never = follower.follow() => match never {},
        },
    };
    // Before settling, which is work of another kind.
    let after = work(&clients).await;

    progress.send_modify(|progress| progress.stage = Stage::Settling);
    let ended = time::Instant::now();
    let patience = if stop.requested() || harvest.gave_up { BRIEF } else { attack.patience.outage.max(BRIEF) };
    settle(&clients, scene.root.user_id, &mut harvest.operations, ended + patience).await;
    match attack.manner {
        Manner::Deduct => harvest.cost = before.zip(after).and_then(|(before, after)| Cost::between(&before, &after)),
        Manner::DeductAsync { drain } => {
            progress.send_modify(|progress| progress.stage = Stage::Draining);
            let (user_id, operations) = (scene.root.user_id, &mut harvest.operations);
            let last = follower.drain(&clients, user_id, operations, drain, &mut stop.clone()).await;
            harvest.draining = last.map_or(Duration::ZERO, |last| last - ended);
        }
    }

    progress.send_modify(|progress| progress.stage = Stage::Judging);
    let user_id = scene.root.user_id;
    let (journal, account) = read(&clients, scene.root, time::Instant::now() + patience)
        .await
        .map_err(|source| AttackError::Unreadable { user_id, source })?;
    report(attack, scene, &harvest, &journal, account)
}

/// Lets the workers loose and gathers what they bring.
async fn assault(
    attack: &Attack,
    clients: &[Client],
    scene: &Scene,
    progress: &watch::Sender<Progress>,
    stop: &Stop,
) -> Result<Harvest, AttackError> {
    let (finished, mut outcomes) = mpsc::channel(OUTCOMES_IN_FLIGHT);
    let mut harvest = Harvest::new()?;
    let mut workers = JoinSet::new();
    let started = Instant::now();
    for (number, client) in (0..attack.workload.workers).zip(clients.iter().cycle()) {
        let worker = Worker {
            client: client.clone(),
            user_id: scene.root.user_id,
            amount: attack.workload.amount,
            strategy: scene.strategy.clone(),
            manner: attack.manner,
            pacer: attack.pacer,
            patience: attack.patience,
            finished: finished.clone(),
            progress: progress.clone(),
            stop: stop.clone(),
        };
        workers.spawn(worker.run(attack.workload.request_ids(number, scene.root.version)));
    }
    drop(finished);
    while let Some(outcome) = outcomes.recv().await {
        let acknowledged = matches!(outcome.operation.outcome, Outcome::Acknowledged(_) | Outcome::Accepted);
        harvest.gather(outcome);
        progress.send_modify(|progress| {
            progress.done += 1;
            progress.acknowledged += u64::from(acknowledged);
        });
    }
    harvest.elapsed = started.elapsed();
    while let Some(ended) = workers.join_next().await {
        harvest.gave_up |= ended? == Ended::GaveUp;
    }
    Ok(harvest)
}

impl Harvest {
    fn new() -> Result<Self, AttackError> {
        Ok(Self {
            operations: Vec::new(),
            recorder: Recorder::new()?,
            attempts: 0,
            cancelled: 0,
            retries: Retries::default(),
            accepted: 0,
            elapsed: Duration::ZERO,
            draining: Duration::ZERO,
            gave_up: false,
            cost: None,
        })
    }

    fn gather(&mut self, finished: Finished) {
        if finished.operation.outcome != Outcome::Unknown {
            self.recorder.record(finished.latency);
        }
        self.attempts += u64::from(finished.attempts);
        self.cancelled += u64::from(finished.cancelled);
        self.accepted += u64::from(finished.operation.outcome == Outcome::Accepted);
        self.retries.contended = self.retries.contended.saturating_add(finished.retries.contended);
        self.retries.outage = self.retries.outage.saturating_add(finished.retries.outage);
        self.operations.push(finished.operation);
    }
}

/// How many servers the addresses name, however each of them is written.
pub(crate) fn servers<'a>(addresses: impl Iterator<Item = &'a str>) -> usize {
    let plain = |address: &str| {
        let address = address.to_ascii_lowercase();
        let bare = address.strip_prefix("http://").unwrap_or(&address);
        bare.strip_suffix('/').unwrap_or(bare).to_owned()
    };
    addresses.map(plain).collect::<HashSet<_>>().len()
}

fn report(
    attack: &Attack,
    scene: Scene,
    harvest: &Harvest,
    journal: &[Entry],
    account: Account,
) -> Result<Report, AttackError> {
    let state = |account: Account| State { balance: account.balance, version: account.version };
    let evidence = Evidence {
        operations: &harvest.operations,
        journal: Journal { root: state(scene.root), entries: journal },
        last: state(account),
    };
    let judgement = verdict::judge(&evidence)?;
    let accepting = Accepting { accepted: harvest.accepted, lasted: harvest.elapsed, draining: harvest.draining };
    let run = Run {
        strategy: scene.strategy,
        guarantee: scene.guarantee,
        cure: scene.cure,
        store: scene.store,
        servers: servers(attack.clients.iter().map(Client::address)),
        user_id: scene.root.user_id,
        interrupted: (harvest.operations.len() as u64) < attack.workload.operations(),
        latency: harvest.recorder.latency(),
        attempts: harvest.attempts,
        cancelled: harvest.cancelled,
        contended_retries: harvest.retries.contended,
        outage_retries: harvest.retries.outage,
        elapsed: harvest.elapsed + harvest.draining,
        accepting: matches!(attack.manner, Manner::DeductAsync { .. }).then_some(accepting),
        cost: harvest.cost,
    };
    Ok(Report::new(&attack.workload, run, judgement, account.balance))
}
