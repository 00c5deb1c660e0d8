//! Where schedules are played: the instances over one database, and what is needed to see that operations are at rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Error, Part, Scene};
use crate::{
    app,
    config::Config,
    error,
    gate::Gates,
    ledger::Ledger,
    store::LockWaits,
    strategy::{REGISTRY, Row},
    timeline::Timeline,
};

/// How long one operation may be held by others, seconds: longer than [`super::play::REST_LIMIT`], so that what ends a
/// wait is a step and never the clock.
const HELD: Duration = Duration::from_secs(600);

/// The most attempts of one operation; [`super::schedule::STEPS_MOST`] ends a schedule long before.
const ATTEMPTS: u32 = 1000;

/// Links to the database for each instance: one for each operation and for those that look on.
const LINKS_LEAST: u32 = 8;

/// Instances of the service over one database, with a timeline and gates in common.
#[derive(Clone)]
pub struct Stage {
    ledgers: Vec<Arc<Ledger>>,
    gates: Arc<Gates>,
    /// The changes that had been begun when the stage was made.
    before: u64,
    /// Those that plays have begun since.
    own: Arc<AtomicU64>,
}

impl Stage {
    /// Opens `instances` of the service over the configured database, with bounds that no held operation runs into.
    ///
    /// # Errors
    /// [`Error::App`] when the database cannot be opened.
    pub async fn open(config: &Config, instances: usize) -> Result<Self, Error> {
        let config = Config {
            // Calls name theirs.
            strategy: REGISTRY[0].name.to_owned(),
            lock_wait: HELD,
            lease_wait: HELD,
            operation_timeout: HELD,
            max_attempts: ATTEMPTS,
            pool_size: config.pool_size.max(LINKS_LEAST),
            compute_delay: Duration::ZERO,
            // What builds its filter in the background would be counted among those who wait.
            cache: false,
            ..config.clone()
        };
        let (timeline, gates) = (Arc::new(Timeline::new(config.timeline_capacity)), Arc::new(Gates::default()));
        let mut ledgers = Vec::new();
        for _ in 0..instances {
            ledgers.push(app::ledger(&config, Arc::clone(&timeline), Some(Arc::clone(&gates))).await?);
        }
        Ok(Self::of(ledgers, gates))
    }

    /// A stage on a service that runs already; `None` when it has no gates.
    pub fn on(ledger: &Arc<Ledger>) -> Option<Self> {
        let gates = Arc::clone(ledger.bench().gates.as_ref()?);
        Some(Self::of(vec![Arc::clone(ledger)], gates))
    }

    fn of(ledgers: Vec<Arc<Ledger>>, gates: Arc<Gates>) -> Self {
        let before = begun(&ledgers);
        Self { ledgers, gates, before, own: Arc::default() }
    }

    /// How many changes others have begun here since the stage was made; told when no play is under way, and where none
    /// was crashed: to ask for a fate is a change as well.
    pub fn others(&self) -> u64 {
        begun(&self.ledgers).saturating_sub(self.before + self.own.load(Ordering::Relaxed))
    }

    /// Counts changes that a play begins.
    pub(super) fn count(&self, changes: u64) {
        self.own.fetch_add(changes, Ordering::Relaxed);
    }

    /// Why a scene cannot be played here: what one of its strategies lacks.
    pub(super) fn lacks(&self, scene: &Scene) -> Option<error::Error> {
        let lacking = |part: &Part| {
            let of_part = |(row, reason): (&'static Row, Option<&str>)| {
                let reason = reason.filter(|_| row.name == part.strategy.name)?;
                Some(error::Error::StrategyUnavailable { name: row.name, reason: reason.to_owned() })
            };
            self.ledgers[0].strategies().find_map(of_part)
        };
        scene.parts.iter().find_map(lacking)
    }

    /// What accounts are stored in.
    pub fn store_name(&self) -> &'static str {
        self.ledgers[0].bench().store.name()
    }

    /// The instance that an operation, from 0, is called on.
    pub(super) fn ledger_of(&self, operation: usize) -> &Arc<Ledger> {
        &self.ledgers[operation % self.ledgers.len()]
    }

    pub(super) fn instances(&self) -> usize {
        self.ledgers.len()
    }

    pub(super) fn gates(&self) -> &Arc<Gates> {
        &self.gates
    }

    pub(super) fn timeline(&self) -> &Timeline {
        &self.ledgers[0].bench().timeline
    }

    /// How many operations wait for a lock right now: those of every instance, and those of the database they share.
    pub(super) async fn waits(&self) -> Result<u64, Error> {
        let LockWaits { mut here, in_database } = self.ledgers[0].lock_waits().await?;
        for ledger in &self.ledgers[1..] {
            here += ledger.lock_waits().await?.here;
        }
        Ok(here + in_database)
    }

    /// How many links the database has that are no longer, or not, those of these instances.
    pub(super) async fn stray_links(&self) -> Result<i64, Error> {
        let Some(links) = self.ledgers[0].links().await? else { return Ok(0) };
        let own: usize = self.ledgers.iter().map(|ledger| ledger.bench().store.pool().open).sum();
        Ok(i64::try_from(links).unwrap_or(i64::MAX) - i64::try_from(own).unwrap_or(i64::MAX))
    }
}

/// The changes that were ever begun on these instances.
fn begun(ledgers: &[Arc<Ledger>]) -> u64 {
    ledgers.iter().map(|ledger| ledger.begun()).sum()
}
