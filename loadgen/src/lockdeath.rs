//! The lock-death lab: what each lock loses when it dies under its holder. It plays the same scene again and again on two
//! running servers of one database: one holds the lock and is stopped in the worst place, the lock is broken, a rival comes,
//! and both go on. It owns the scene and its order, which gates decide and not luck, and it starts and kills nothing by
//! itself: what breaks and mends is in a file, or done by a person. The judgement is [`crate::verdict`]'s.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use zbl_client::{Client, Guarantee, Phase, Retry};

use crate::attack::{AttackError, Stop, choose, servers};

mod call;
mod deaths;
mod line;
mod play;
mod report;
mod stage;
mod story;
#[cfg(test)]
mod tests;

pub use deaths::{By, Death, DeathsError, EXAMPLE, Lines, STRATEGIES};
pub use line::LineError;
pub use report::{Cell, Outcome, Place, Played, Report, Rival, SCHEMA_VERSION, table, text};
use stage::Stage;

/// Where the holder is stopped. Before its WRITE a holder that looks at its lease afterwards can still notice; before its
/// COMMIT it has looked for the last time.
pub const PLACES: [Phase; 2] = [Phase::Write, Phase::Commit];

/// How long a call may take: a server lets go of what it holds after five minutes, and no call here outlasts that.
const CALL_MOST: Duration = Duration::from_secs(5 * 60);

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server of the one that holds the lock.
    pub holder: Client,
    /// The server of the one that wants it.
    pub rival: Client,
    /// The lease both servers were started with.
    pub lease: Duration,
    /// How the lock dies.
    pub deaths: Vec<Death>,
}

/// How far the plan is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The scenes that were played.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// What is being played.
    pub now: String,
}

/// Why nothing could be played.
#[derive(Debug, thiserror::Error)]
pub enum LockDeathError {
    /// The servers cannot be asked, or do not have what is to be played.
    #[error(transparent)]
    Setup(#[from] AttackError),
    /// Holder and rival must not share a process: it is the holder's that dies.
    #[error("{0} is named twice; give the addresses of two servers on one database, the holder's first")]
    OneServer(String),
}

/// A death to be played with a strategy.
struct Scene<'a> {
    death: &'a Death,
    strategy: &'a str,
    guarantee: Guarantee,
}

/// Plays everything, one scene after another; asked to stop, it ends after the scene being played. `person` is shown what
/// to do where a death is brought about by hand, and returns when it is done.
///
/// # Errors
/// [`LockDeathError`] when nothing could be played. What goes wrong later is in the report.
pub async fn run<P>(
    plan: &Plan,
    mut person: P,
    progress: &watch::Sender<Progress>,
    stop: &Stop,
) -> Result<Report, LockDeathError>
where
    P: AsyncFnMut(&str) -> Result<(), String>,
{
    if servers([&plan.holder, &plan.rival].map(Client::address).into_iter()) < 2 {
        return Err(LockDeathError::OneServer(plan.holder.address().to_owned()));
    }
    let patient = |client: &Client| client.clone().with_retry(Retry::NEVER).with_deadline(CALL_MOST);
    let stage = Stage { holder: patient(&plan.holder), rival: patient(&plan.rival), lease: plan.lease };
    let (scenes, store) = scenes(plan).await?;
    let mut report = Report::new(plan, store);
    progress.send_replace(Progress { total: scenes.len() * PLACES.len(), ..Progress::default() });
    for scene in &scenes {
        let mut cell = Cell::new(scene.death, scene.strategy, scene.guarantee);
        for phase in PLACES {
            if stop.requested() {
                report.halted = Some("it was asked to stop".to_owned());
                break;
            }
            let (death, strategy) = (&scene.death.name, scene.strategy);
            progress
                .send_modify(|progress| progress.now = format!("{death}, {strategy}, before {}", phase_name(phase)));
            if let Err(reason) = stage.ready(strategy).await {
                report.halted = Some(format!("{strategy} does not work: {reason}"));
                break;
            }
            cell.places.push(play::play(&stage, scene, phase, &mut person).await);
            progress.send_modify(|progress| progress.done += 1);
        }
        if !cell.places.is_empty() {
            report.cells.push(cell);
        }
        if report.halted.is_some() {
            return Ok(report);
        }
    }
    if let Some(last) = scenes.last()
        && let Err(reason) = stage.ready(last.strategy).await
    {
        report.halted = Some(format!("after the last scene {} does not work: {reason}", last.strategy));
    }
    Ok(report)
}

/// Every death with every strategy it is played with, and the store of the servers. Both servers must have them all.
async fn scenes(plan: &Plan) -> Result<(Vec<Scene<'_>>, String), LockDeathError> {
    let ask = async |client: &Client| {
        let found = client.strategies().await;
        found.map_err(|error| AttackError::setup(client.address(), error))
    };
    let (holder, rival) = (ask(&plan.holder).await?, ask(&plan.rival).await?);
    let mut scenes = Vec::new();
    for death in &plan.deaths {
        for strategy in &death.strategies {
            let guarantee = choose(&holder, strategy)?.guarantee;
            choose(&rival, strategy)?;
            scenes.push(Scene { death, strategy, guarantee });
        }
    }
    Ok((scenes, holder.store))
}

/// A phase as the contract names it, without its prefix.
fn phase_name(phase: Phase) -> &'static str {
    let name = phase.as_str_name();
    name.strip_prefix("PHASE_").unwrap_or(name)
}

/// A duration as people say it, to a tenth of a second.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}
