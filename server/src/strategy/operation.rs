//! The operation context: the only way a strategy touches the store. Every step is a phase, and [`Operation::phase`] is
//! the single place where a span is recorded and where the lab can hold an operation.

use std::{
    future::Future,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use tokio::time::timeout_at;
use uuid::Uuid;
use zbl_trace::Span as Traced;

use super::{Claim, Failure, Locks};
use crate::{
    account::{Change, Money, NewEntry, Receipt, Refusal, State},
    breaker::Breaker,
    gate::{Gates, Point},
    store::{BlindWrite, Isolation, Store, Transaction},
    timeline::{Contender, Event, Noted, Phase, Race, Span, Timeline},
    trace::{Database, PhaseOver},
};

/// What operations work with; the same for all of them.
pub struct Workbench {
    /// The database.
    pub store: Arc<dyn Store>,
    /// What traces say of it.
    pub database: Database,
    /// Where spans and races are recorded.
    pub timeline: Arc<Timeline>,
    /// The locks in Redis, where there are any.
    pub locks: Locks,
    /// What stands before the database and before Redis.
    pub breakers: Vec<Arc<Breaker>>,
    /// The lab's gates; none where the lab is closed.
    pub gates: Option<Arc<Gates>>,
    /// The lab's delay in the compute phase, which widens the race; zero in production.
    pub compute_delay: Duration,
}

impl Workbench {
    /// Runs the work of some requests to its end, or drops it where it is when the lab crashes one of them: `None`.
    pub(crate) async fn mortal<T>(
        &self,
        request_ids: impl IntoIterator<Item = Uuid>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        match &self.gates {
            Some(gates) => gates.mortal(request_ids, work).await,
            None => Some(work.await),
        }
    }
}

/// One attempt at one change.
#[derive(Clone)]
pub struct Operation {
    /// What is to be done.
    pub change: Change,
    bench: Arc<Workbench>,
    strategy: &'static str,
    attempt: u32,
    lane: u32,
    claim: Arc<Claim>,
    /// Its call's, if a call makes it.
    traced: Option<Traced>,
}

/// A change written but not yet committed.
#[derive(Debug)]
pub struct Written {
    state: State,
    version_before: i64,
    race: Option<Race>,
}

impl Written {
    /// A write upon the version it had read.
    const fn upon(version_before: i64, balance: Money) -> Self {
        Self { state: State { balance, version: version_before + 1 }, version_before, race: None }
    }
}

/// What a phase's result tells the timeline: no strategy can forget to report what it saw.
pub trait Observed {
    /// The values the phase saw and wrote.
    fn noted(&self) -> Noted {
        Noted::default()
    }
}

impl Observed for State {
    fn noted(&self) -> Noted {
        Noted { seen: Some(*self), ..Noted::default() }
    }
}

impl Observed for Money {}
impl Observed for () {}
impl<T> Observed for tokio::sync::OwnedMutexGuard<T> {}

impl Observed for Written {
    fn noted(&self) -> Noted {
        Noted { written: Some(self.state), ..Noted::default() }
    }
}

/// A change that is there to stay; what it destroyed is destroyed only now.
struct Committed(Written);

impl Observed for Committed {
    fn noted(&self) -> Noted {
        let destroyed = self.0.race.as_ref().map_or(Money::ZERO, |race| race.destroyed);
        Noted { destroyed, ..self.0.noted() }
    }
}

impl Operation {
    /// An attempt by the strategy of that name, drawn in `lane`, for whoever holds the other end of `claim`; in a trace a
    /// part of `traced`.
    pub fn new(
        bench: Arc<Workbench>,
        change: Change,
        strategy: &'static str,
        attempt: u32,
        lane: u32,
        claim: Arc<Claim>,
        traced: Option<Traced>,
    ) -> Self {
        Self { change, bench, strategy, attempt, lane, claim, traced }
    }

    /// Runs a phase: waits at its gate, times it, records its span. The first one that is not a wait begins the change; a
    /// wait ends with its caller's deadline.
    ///
    /// # Errors
    /// Those of `step`; [`Failure::Withdrawn`] when the caller has given the change up.
    pub async fn phase<T, E>(&self, phase: Phase, step: impl Future<Output = Result<T, E>> + Send) -> Result<T, Failure>
    where
        T: Observed,
        E: Into<Failure>,
    {
        self.pass_gate(Point::Before(phase)).await;
        if phase != Phase::LockWait {
            self.begin()?;
        }
        let start = self.bench.timeline.now();
        let result = match self.claim.deadline().filter(|_| phase == Phase::LockWait) {
            Some(deadline) => match timeout_at(deadline.into(), step).await {
                Ok(result) => result.map_err(Into::into),
                Err(_) => Err(Failure::Withdrawn),
            },
            None => step.await.map_err(Into::into),
        };
        let noted = result.as_ref().map(Observed::noted).unwrap_or_default();
        self.record(phase, start, noted, result.as_ref().err().map(Failure::label));
        result
    }

    /// From here on the change goes on when its caller goes away.
    ///
    /// # Errors
    /// [`Failure::Withdrawn`].
    pub(super) fn begin(&self) -> Result<(), Failure> {
        if self.claim.begin() { Ok(()) } else { Err(Failure::Withdrawn) }
    }

    /// Whether its caller has given up what had not begun.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.claim.is_withdrawn()
    }

    /// From here on it runs to its end, whatever its caller does.
    ///
    /// # Errors
    /// [`Failure::Withdrawn`].
    pub(super) fn commits(&self) -> Result<(), Failure> {
        if self.claim.commit() { Ok(()) } else { Err(Failure::Withdrawn) }
    }

    /// The attempt failed without an effect; until the next one commits its caller may give it up.
    pub(crate) fn reopen(&self) {
        self.claim.reopen();
    }

    /// Until when its caller waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.claim.deadline()
    }

    /// Waits where the lab holds the operation.
    pub(crate) async fn pass_gate(&self, point: Point) {
        if let Some(gates) = &self.bench.gates {
            gates.pass(self.change.request_id, point, self.attempt).await;
        }
    }

    /// Records a phase that began at `start` and ends now.
    pub(super) fn record(&self, phase: Phase, start: Duration, noted: Noted, failure: Option<&'static str>) {
        self.span(phase, start..self.bench.timeline.now(), noted, failure);
    }

    /// Records a phase that was over before now.
    pub(super) fn record_until(&self, phase: Phase, start: Duration, end: Duration, noted: Noted) {
        self.span(phase, start..end, noted, None);
    }

    /// Records that it had waited in the queue for so long when it was taken up, just now.
    pub(crate) fn record_queued(&self, waited: Duration) {
        let start_ns = nanos(self.bench.timeline.now()).saturating_sub(nanos(waited));
        self.record_span(Phase::Queued, start_ns, waited, Noted::default(), None);
    }

    fn span(&self, phase: Phase, time: Range<Duration>, noted: Noted, failure: Option<&'static str>) {
        if phase == Phase::LockWait {
            let waited = time.end.saturating_sub(time.start).as_secs_f64();
            histogram!("lock_wait_duration_seconds", "strategy" => self.strategy).record(waited);
        }
        if let Some(traced) = &self.traced {
            let timeline = &self.bench.timeline;
            let time = timeline.instant(time.start)..timeline.instant(time.end);
            PhaseOver { phase, attempt: self.attempt, time, noted, failure }.record(traced, &self.bench.database);
        }
        let duration = time.end.saturating_sub(time.start);
        self.record_span(phase, nanos(time.start), duration, noted, failure);
    }

    fn record_span(
        &self,
        phase: Phase,
        start_ns: i64,
        duration: Duration,
        noted: Noted,
        failure: Option<&'static str>,
    ) {
        self.bench.timeline.record(Event::Span(Span {
            trace_id: self.traced.as_ref().map(|traced| traced.context().trace_id()),
            user_id: self.change.user_id,
            request_id: self.change.request_id,
            lane: self.lane,
            strategy: self.strategy,
            phase,
            attempt: self.attempt,
            start_ns,
            duration,
            noted,
            failure,
        }));
    }

    /// What the operation works with.
    pub(super) fn bench(&self) -> &Arc<Workbench> {
        &self.bench
    }

    /// The receipt of a change that left `state` behind, having read the version before it or an older one.
    pub(super) fn receipt(&self, state: State, version_before: i64) -> Receipt {
        Receipt {
            user_id: self.change.user_id,
            request_id: self.change.request_id,
            balance: state.balance,
            version: state.version,
            version_before,
            strategy: self.strategy.to_owned(),
            attempts: self.attempt,
        }
    }

    /// The read phase outside a transaction: no lock, and stale as soon as it returns.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the store's.
    pub async fn read(&self) -> Result<State, Failure> {
        self.phase(Phase::Read, async { self.existing(self.bench.store.read(self.change.user_id).await?) }).await
    }

    /// What was read, or the refusal when there is no such account.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`].
    pub fn existing<T>(&self, found: Option<T>) -> Result<T, Failure> {
        found.ok_or_else(|| Refusal::AccountNotFound { user_id: self.change.user_id }.into())
    }

    /// The compute phase: the balance after the change, decided on what was read.
    ///
    /// # Errors
    /// [`Refusal::InsufficientBalance`], [`Refusal::BalanceOverflow`].
    pub async fn compute(&self, seen: State) -> Result<Money, Failure> {
        let decide = async {
            if !self.bench.compute_delay.is_zero() {
                tokio::time::sleep(self.bench.compute_delay).await;
            }
            self.change.decide(seen.balance)
        };
        self.phase(Phase::Compute, decide).await
    }

    /// Why an addition within bounds matched nothing, given the balance found afterwards.
    pub fn unmatched(&self, balance: Money) -> Failure {
        match self.change.decide(balance) {
            Err(refusal) => refusal.into(),
            Ok(_) => Failure::Overtaken("the balance changed between the refused update and the look at it"),
        }
    }

    /// A transaction, begun by its first statement.
    pub fn transaction(&self, isolation: Isolation) -> Box<dyn Transaction> {
        self.bench.store.transaction(isolation, self.deadline())
    }

    /// Journals a write that cannot have overwritten anything: the database held it to the version read.
    ///
    /// # Errors
    /// The store's.
    pub async fn journal(
        &self,
        transaction: &mut dyn Transaction,
        version_before: i64,
        balance: Money,
    ) -> Result<Written, Failure> {
        let written = Written::upon(version_before, balance);
        transaction.append(&self.entry(&written)).await?;
        Ok(written)
    }

    /// Ends a transaction that has written and not journaled yet: journals and commits in one step, or rolls back. What
    /// was written cannot have overwritten anything.
    ///
    /// # Errors
    /// `outcome`'s, or the commit's.
    pub async fn finish_with_journal(
        &self,
        transaction: Box<dyn Transaction>,
        outcome: Result<State, Failure>,
    ) -> Result<Receipt, Failure> {
        let State { balance, version } = match outcome.and_then(|state| self.commits().map(|()| state)) {
            Ok(state) => state,
            Err(failure) => {
                transaction.rollback().await;
                return Err(failure);
            }
        };
        let written = Written::upon(version - 1, balance);
        let entry = self.entry(&written);
        let commit = async { transaction.append_and_commit(&entry).await.map(|()| Committed(written)) };
        let Committed(Written { state, version_before, .. }) = self.phase(Phase::Commit, commit).await?;
        Ok(self.receipt(state, version_before))
    }

    /// Journals a write that was made whatever the balance had become since `seen`.
    ///
    /// # Errors
    /// The store's.
    pub async fn journal_blind(
        &self,
        transaction: &mut dyn Transaction,
        seen: State,
        balance: Money,
        write: BlindWrite,
    ) -> Result<Written, Failure> {
        let state = State { balance, version: write.version };
        let written = Written { state, version_before: seen.version, race: self.race(seen, state, &write) };
        transaction.append(&self.entry(&written)).await?;
        Ok(written)
    }

    fn entry(&self, written: &Written) -> NewEntry {
        NewEntry {
            user_id: self.change.user_id,
            version: written.state.version,
            request_id: self.change.request_id,
            kind: self.change.kind(),
            delta: self.change.delta(),
            balance_after: written.state.balance,
            version_before: written.version_before,
            strategy: self.strategy,
        }
    }

    /// The race that a blind write is, if it overtook anything. Its victims are the entries on the way from the newest
    /// one back to what was read: what else was overtaken had been cut off before.
    fn race(&self, seen: State, written: State, write: &BlindWrite) -> Option<Race> {
        let newest = write.overtaken.first()?;
        let mut victims = Vec::new();
        let mut next = newest.version;
        for entry in &write.overtaken {
            if entry.version == next {
                victims.push(Contender {
                    request_id: entry.request_id,
                    version: entry.version,
                    delta: entry.delta,
                    balance_after: entry.balance_after,
                });
                next = entry.version_before;
            }
        }
        Some(Race {
            user_id: self.change.user_id,
            overwriter: Contender {
                request_id: self.change.request_id,
                version: written.version,
                delta: self.change.delta(),
                balance_after: written.balance,
            },
            seen,
            victims,
            // Where the way back leads beyond what was looked at; each step of it is at least one version.
            victims_omitted: u32::try_from((next - seen.version).max(0)).unwrap_or(u32::MAX),
            // Both balances are within an i64 and not negative, so their difference is too.
            destroyed: Money::from_minor(seen.balance.minor() - newest.balance_after.minor()),
        })
    }

    /// Ends the transaction: commits what was written, rolls back what failed.
    ///
    /// # Errors
    /// `outcome`'s, or the commit's.
    pub async fn finish(
        &self,
        transaction: Box<dyn Transaction>,
        outcome: Result<Written, Failure>,
    ) -> Result<Receipt, Failure> {
        let written = match outcome.and_then(|written| self.commits().map(|()| written)) {
            Ok(written) => written,
            Err(failure) => {
                transaction.rollback().await;
                return Err(failure);
            }
        };
        let commit = async { transaction.commit().await.map(|()| Committed(written)) };
        let Committed(Written { state, version_before, race }) = self.phase(Phase::Commit, commit).await?;
        if let Some(race) = race {
            counter!("races_total", "strategy" => self.strategy).increment(1);
            self.bench.timeline.record(Event::Race(race));
        }
        Ok(self.receipt(state, version_before))
    }
}

/// As the timeline counts: centuries fit.
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
