//! The projector: it follows the journal and keeps the read models (`report.rs`) of each generation, in the background.
//!
//! Nothing is missed and nothing is counted twice, and that rests on versions alone. An account's entries are projected in the order
//! of their versions, each in one transaction with the version that the account has reached (`projector/step.rs`). `seq` only says
//! where to look (`projector/tail.rs`): it is no order of commits and has holes. What it does not lead to, because a transaction
//! stayed open for longer than its hole was remembered, a slow sweep finds, which holds the versions of all accounts against those of
//! the models.
//!
//! Any number of projectors may run. Each step locks its generation; that they do not take turns for nothing is what `owner` is for,
//! and nothing else rests on it. It does not go through the circuit breaker: it is one task with a patience of its own, and what it
//! meets is no news of how callers fare. It refuses to decide anything: what it keeps can be thrown away and made again.

mod step;
mod tail;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{NaiveDateTime, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use self::{
    step::{Found, Outcome},
    tail::{HOLE_AGE, Tail},
};
use crate::{
    quiet::Quiet,
    store::{
        Result,
        reports::{GenerationState, Projection, Projections, Swept},
    },
};

/// Entries read by `seq` at a time: some 100 kB, and tens of milliseconds to project. SQLite takes a condition of up to a thousand
/// parts, and a step names each account and day that it touches.
const ENTRIES_A_PAGE: i64 = 500;

/// Accounts that the sweep looks through in a tick: one range of two primary keys.
const ACCOUNTS_A_PAGE: i64 = 250;

/// How long the sweep rests after it has seen every account. It is there for transactions that were open for longer than
/// [`HOLE_AGE`].
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long another projector's generation must not have moved before this one goes on with it: a few of its ticks.
const LEASE: Duration = Duration::from_secs(1);

/// Rows of a retired generation that are removed in a tick.
const ROWS_A_TICK: i64 = 1000;

/// How long to wait after failures, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long to be patient with what. Tests are less so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a hole in `seq` is looked into again.
    pub hole: Duration,
    /// How long another projector may not have moved.
    pub lease: Duration,
    /// How long the sweep rests.
    pub sweep: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { hole: HOLE_AGE, lease: LEASE, sweep: SWEEP_EVERY }
    }
}

/// Keeps the read models of a store.
pub struct Projector {
    store: Arc<dyn Projections>,
    id: Uuid,
    patience: Patience,
    following: BTreeMap<i64, Following>,
    progress: watch::Sender<Progress>,
}

/// How far the read models are, as a projector last saw them. Nothing before its first tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The generation that is read.
    pub active: Option<Projection>,
    /// The one that will be.
    pub building: Option<Projection>,
    /// The highest `seq` of the journal.
    pub newest_seq: i64,
    /// When the oldest entry was written that is not projected yet.
    pub waiting_since: Option<NaiveDateTime>,
    /// Whether this projector has held every account against the active generation, or leaves that to another.
    pub swept: bool,
}

impl Progress {
    /// Entries that were not looked at yet, at most: `seq` has holes.
    #[must_use]
    pub fn lag_entries(&self) -> i64 {
        self.active.map_or(0, |active| (self.newest_seq - active.read_seq).max(0))
    }

    /// How old the oldest of them is.
    #[must_use]
    pub fn lag(&self) -> Duration {
        lag(self.waiting_since)
    }
}

/// How long ago that was, by this machine's clock; nothing where it lies ahead.
#[must_use]
pub fn lag(waiting_since: Option<NaiveDateTime>) -> Duration {
    waiting_since.and_then(|since| (Utc::now().naive_utc() - since).to_std().ok()).unwrap_or_default()
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// No: what there was is projected.
    CaughtUp,
    /// Yes.
    Behind,
}

/// What is remembered of a generation that is followed.
struct Following {
    tail: Tail,
    sweep: Sweep,
    /// What its steps were when they were last seen to change, and when that was.
    moved: (i64, Instant),
}

/// Where the sweep is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sweep {
    /// The last account it has seen.
    after: i64,
    /// When it had seen all of them, if it rests since.
    ended: Option<Instant>,
    /// Whether it has ever seen all of them.
    was_round: bool,
}

impl Following {
    fn new(projection: &Projection, now: Instant) -> Self {
        Self { tail: Tail::after(projection.seq), sweep: Sweep::default(), moved: (projection.steps, now) }
    }
}

impl Projector {
    /// A projector that has seen nothing yet.
    pub fn new(store: Arc<dyn Projections>, patience: Patience) -> Self {
        let (following, progress) = (BTreeMap::new(), watch::Sender::default());
        Self { store, id: Uuid::new_v4(), patience, following, progress }
    }

    /// How far it is, as it sees it.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Projects for as long as it is polled.
    pub async fn run(mut self, every: Duration, quiet: Quiet) {
        metrics::counter!("projector_entries_total").increment(0);
        let mut wait = every;
        loop {
            let turn = quiet.tick().await;
            let began = Instant::now();
            let ticked = self.tick().await;
            drop(turn);
            // None is counted as well, so that the first is seen as one more.
            metrics::counter!("projector_failures_total").increment(ticked.is_err().into());
            wait = match ticked {
                // As much rest as work: those who write come first.
                Ok(Pace::Behind) => began.elapsed().min(every),
                Ok(Pace::CaughtUp) => every,
                Err(error) => {
                    if wait <= every {
                        tracing::warn!("the reports cannot be kept up with the journal: {error}; it is tried again");
                    }
                    (wait * 2).clamp(every, LONGEST_WAIT.max(every))
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One tick's work: of each generation a page of the journal, and a page of the sweep where that was all.
    ///
    /// # Errors
    /// The database's; what was not committed is done again by the next tick.
    pub async fn tick(&mut self) -> Result<Pace> {
        let projections = self.store.projections().await?;
        let followed = |generation: &i64| projections.iter().any(|projection| projection.generation == *generation);
        self.following.retain(|generation, _| followed(generation));
        let in_state = |state| projections.iter().copied().find(|projection| projection.state == state);
        let mut pace = Pace::CaughtUp;
        let mut progress = Progress::default();
        if let Some(active) = in_state(GenerationState::Active) {
            let (active, paced) = self.follow(active).await?;
            (progress.active, pace) = (Some(active), pace.max(paced));
        }
        if let Some(building) = in_state(GenerationState::Building) {
            let (building, paced) = self.follow(building).await?;
            progress.building = Some(building);
            // It is finished as soon as can be, one way or the other.
            pace = pace.max(if self.is_ours(&building, Instant::now()) { Pace::Behind } else { paced });
            if let Some(active) = progress.active.filter(|_| paced == Pace::CaughtUp) {
                self.supersede(&active, &building).await?;
            }
        }
        if let Some(retired) = in_state(GenerationState::Retired) {
            pace = pace.max(self.remove(retired.generation).await?);
        }
        progress.swept = progress
            .active
            .is_some_and(|active| !self.is_ours(&active, Instant::now()) || self.is_swept(active.generation));
        let beyond = progress.active.map_or(0, |active| active.read_seq);
        (progress.newest_seq, progress.waiting_since) = self.store.journal_end(beyond).await?;
        self.tell(progress);
        Ok(pace)
    }

    /// Whether to go on with a generation: it is this projector's, or nobody's, or does not move.
    fn is_ours(&self, projection: &Projection, now: Instant) -> bool {
        let rested = |following: &Following| now.saturating_duration_since(following.moved.1) >= self.patience.lease;
        projection.owner == self.id
            || projection.owner.is_nil()
            || self.following.get(&projection.generation).is_some_and(rested)
    }

    /// Whether every account was held against a generation since it was last gone on with from its `seq`.
    fn is_swept(&self, generation: i64) -> bool {
        self.following.get(&generation).is_some_and(|following| following.sweep.was_round)
    }

    /// Goes on with a generation, if it is ours to, and says how it is then.
    async fn follow(&mut self, projection: Projection) -> Result<(Projection, Pace)> {
        let now = Instant::now();
        let generation = projection.generation;
        let following = self.following.entry(generation).or_insert_with(|| Following::new(&projection, now));
        if following.moved.0 != projection.steps {
            following.moved = (projection.steps, now);
        }
        let (before, sweep, moved) = (following.tail.clone(), following.sweep, following.moved);
        if !self.is_ours(&projection, now) {
            self.following.insert(generation, Following { moved, ..Following::new(&projection, now) });
            return Ok((projection, Pace::CaughtUp));
        }
        let page = self.store.tail(before.read(), &before.ranges(), ENTRIES_A_PAGE).await?;
        let pace = if page.len() as i64 == ENTRIES_A_PAGE { Pace::Behind } else { Pace::CaughtUp };
        let swept = self.sweep(generation, sweep, pace, now).await?;
        let behind = swept.as_ref().map_or_else(Vec::new, |swept| swept.behind.clone());
        let after = before.having_seen(page.iter().map(|found| found.seq), self.patience.hole, now);
        let found = Found { entries: page.into_iter().map(|found| found.entry).collect(), behind };
        let is_news = !found.is_empty() || after.complete() > projection.seq || after.read() > projection.read_seq;
        let outcome = if is_news {
            step::step(&*self.store, self.id, generation, &found, [&before, &after]).await?
        } else {
            Outcome::nothing_to_do(projection)
        };
        // Locked by another: it is seen to have moved in the next tick.
        let Outcome::Done { projection, page_is_in, swept_is_in } = outcome else { return Ok((projection, pace)) };
        if let Some(following) = self.following.get_mut(&generation) {
            following.moved = (projection.steps, now);
            if page_is_in {
                following.tail = after;
            }
            if let Some(swept) = swept.filter(|_| swept_is_in) {
                following.sweep = match swept.last {
                    Some(last) => Sweep { after: last, ended: None, ..following.sweep },
                    None => Sweep { after: 0, ended: Some(now), was_round: true },
                };
            }
        }
        Ok((projection, if page_is_in && swept_is_in { pace } else { Pace::Behind }))
    }

    /// The next page of the sweep, unless it rests or there is a page of the journal to be done first: most accounts would be
    /// behind for no other reason.
    async fn sweep(&self, generation: i64, sweep: Sweep, pace: Pace, now: Instant) -> Result<Option<Swept>> {
        let rests = |ended: Instant| now.saturating_duration_since(ended) < self.patience.sweep;
        if pace == Pace::Behind || sweep.ended.is_some_and(rests) {
            return Ok(None);
        }
        self.store.sweep(generation, sweep.after, ACCOUNTS_A_PAGE).await.map(Some)
    }

    /// Lets a generation that has caught up take the place of the active one: every account was looked at since, and whoever
    /// reads is not taken back.
    async fn supersede(&mut self, active: &Projection, building: &Projection) -> Result<()> {
        if self.is_swept(building.generation)
            && step::supersede(&*self.store, active.generation, building.generation).await?
        {
            tracing::info!(
                generation = building.generation,
                "the reports were rebuilt, and this generation is read now"
            );
        }
        Ok(())
    }

    /// Removes some of a generation that nobody reads any more.
    async fn remove(&self, generation: i64) -> Result<Pace> {
        let mut step = self.store.step();
        // So that no step of another projector, which has not heard of its end yet, comes in between.
        if step.lock(generation).await?.is_none() {
            step.rollback().await;
            return Ok(Pace::CaughtUp);
        }
        let removed = step.remove(generation, ROWS_A_TICK).await?;
        step.commit().await?;
        Ok(if removed > 0 { Pace::Behind } else { Pace::CaughtUp })
    }

    fn tell(&self, progress: Progress) {
        metrics::gauge!("projector_lag_entries").set(progress.lag_entries() as f64);
        metrics::gauge!("projector_lag_seconds").set(progress.lag().as_secs_f64());
        self.progress.send_replace(progress);
    }
}
