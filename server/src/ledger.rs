//! The ledger: what the service does, free of any protocol. It runs a change under a strategy to a definite end: it
//! repeats attempts that met another writer, recognises repeated requests, and settles its own lost commits.
//!
//! Two rules carry everything here:
//! - After any failure the transaction is rolled back, and only then is the journal asked.
//! - The journal is asked under the account's row lock (`Ledger::settle`): "not found" proves nothing while a commit
//!   may still be in flight, and every strategy takes that lock before it commits.

mod accounts;
mod as_of;
mod journal;
mod rebuild;
mod settle;
mod tries;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::Rng;
use tokio::{
    sync::{Semaphore, oneshot},
    time,
};

use self::tries::{Tries, Trying};
pub use self::{
    accounts::Opened,
    as_of::AsOf,
    journal::{Cursor, Listed, Page, Walk},
    rebuild::{Mending, Rebuilt},
    settle::{Failed, Fate, Resolve, Why},
};
use crate::{
    account::{Change, Receipt},
    cache::Cache,
    call::Call,
    error::{Backend, Error, UnknownCause},
    gate::Point,
    store::{self, LockWaits},
    strategy::{Batches, Claim, Failure, Operation, REGISTRY, Row, Strategy, Workbench},
    trace,
};

/// The waits between attempts: the first at most this, each further one at most twice as much, each drawn at random
/// from zero up ("full jitter"), so that writers that collided do not collide again in step.
const BACKOFF_FIRST: Duration = Duration::from_millis(1);

/// The longest wait between attempts: about one hot transaction on a slow disk, beyond which waiting gains nothing.
const BACKOFF_MOST: Duration = Duration::from_millis(64);

/// The bounds of the ledger's work.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most attempts at one change.
    pub max_attempts: u32,
    /// How long one call may go on making attempts; the last one is not cut off.
    pub operation_timeout: Duration,
    /// How long the fate of a lost commit is asked for.
    pub settle_timeout: Duration,
    /// The most changes at a time, running or waiting; more are refused as overload before they touch anything.
    pub max_in_flight: usize,
}

/// The service, without its protocol.
pub struct Ledger {
    bench: Arc<Workbench>,
    cache: Cache,
    limits: Limits,
    strategies: Vec<Registered>,
    default_strategy: &'static Row,
    in_flight: Arc<Semaphore>,
    rebuilding: Semaphore,
    acknowledged: AtomicU64,
    attempts: AtomicU64,
    begun: AtomicU64,
}

/// What the ledger has done since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Changes acknowledged, repeats among them.
    pub acknowledged: u64,
    /// Attempts at changes, those that failed included.
    pub attempts: u64,
}

/// The caller's end of a change: gone, it gives up what has not begun.
struct Caller(Arc<Claim>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// A row of the registry, and the strategy or what it lacks here.
struct Registered {
    row: &'static Row,
    built: Result<Box<dyn Strategy>, String>,
}

/// Why a failed attempt is made again, or what the call ends in.
enum Next {
    /// Again, or where there may be no further attempt, this.
    Again(Error),
    End(Result<Receipt, Error>),
}

impl Ledger {
    /// A ledger over a workbench, whose store the cache listens to. `default_strategy` is used where a request names none.
    pub fn new(bench: Arc<Workbench>, cache: Cache, limits: Limits, default_strategy: &'static Row) -> Self {
        Self {
            limits,
            strategies: REGISTRY.iter().map(|row| Registered { row, built: (row.build)(&bench) }).collect(),
            default_strategy,
            bench,
            cache,
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            rebuilding: Semaphore::new(rebuild::AT_A_TIME),
            acknowledged: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            begun: AtomicU64::new(0),
        }
    }

    /// Every strategy, with the reason where it is not available.
    pub fn strategies(&self) -> impl Iterator<Item = (&'static Row, Option<&str>)> {
        self.strategies.iter().map(|strategy| (strategy.row, strategy.built.as_ref().err().map(String::as_str)))
    }

    /// The strategy of requests that name none.
    pub const fn default_strategy(&self) -> &'static Row {
        self.default_strategy
    }

    /// Changes running or waiting right now.
    pub fn in_flight(&self) -> usize {
        self.limits.max_in_flight.saturating_sub(self.in_flight.available_permits())
    }

    /// What balances are read through.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What the ledger works with.
    pub fn bench(&self) -> &Workbench {
        &self.bench
    }

    /// How many operations wait for a lock, or for their turn, that a strategy keeps in this process: for the lab.
    pub fn waiting(&self) -> usize {
        self.strategies.iter().filter_map(|strategy| strategy.built.as_ref().ok()).map(|built| built.waiting()).sum()
    }

    /// What strategies that commit several changes together have done.
    pub fn batches(&self) -> Batches {
        let each = self.strategies.iter().filter_map(|strategy| strategy.built.as_ref().ok()?.batches());
        each.fold(Batches::default(), |sum, batches| Batches {
            batches: sum.batches + batches.batches,
            changes: sum.changes + batches.changes,
            largest: sum.largest.max(batches.largest),
            queued: sum.queued + batches.queued,
            waiting: sum.waiting + batches.waiting,
        })
    }

    /// What has been done so far.
    pub fn done(&self) -> Done {
        Done {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            attempts: self.attempts.load(Ordering::Relaxed),
        }
    }

    /// How many changes have begun since it was made, whatever became of them.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// How many operations wait for a lock right now, in this process, in Redis and in the database: for the lab.
    ///
    /// # Errors
    /// [`Error::BackendDown`] and its like when the database or Redis cannot be asked.
    pub async fn lock_waits(&self) -> Result<LockWaits, Error> {
        let waits = self.bench.store.lock_waits().await.map_err(backend)?;
        let in_redis = self
            .bench
            .locks
            .waiting()
            .await
            .map_err(|failure| Error::BackendDown { backend: Backend::LockServer, reason: failure.to_string() })?;
        Ok(LockWaits { here: (self.waiting() + in_redis) as u64 + waits.here, ..waits })
    }

    /// How many links to us the database has: for the lab. `None` where there are no links.
    ///
    /// # Errors
    /// [`Error::BackendDown`] and its like when the database cannot be asked.
    pub async fn links(&self) -> Result<Option<u64>, Error> {
        self.bench.store.links().await.map_err(backend)
    }

    /// [`Self::lock_waits`] as one number.
    ///
    /// # Errors
    /// Those of [`Self::lock_waits`].
    pub async fn blocked(&self) -> Result<u64, Error> {
        let LockWaits { here, in_database } = self.lock_waits().await?;
        Ok(here + in_database)
    }

    /// Applies a change under a strategy (`None`: the default), in a task of its own: a caller that goes away cannot
    /// cut a transaction in half. What then still waits for its turn is dropped.
    ///
    /// # Errors
    /// Any [`Error`]; see its variants for the effect.
    pub async fn apply(self: &Arc<Self>, change: Change, strategy: Option<&'static Row>) -> Result<Receipt, Error> {
        self.apply_by(None, change, strategy).await
    }

    /// The same for a caller who waits until `deadline`.
    ///
    /// # Errors
    /// Any [`Error`]: [`Error::Expired`] where the deadline came before the commit, [`Error::OutcomeUnknown`] where it
    /// came during that.
    pub async fn apply_by(
        self: &Arc<Self>,
        deadline: Option<time::Instant>,
        change: Change,
        strategy: Option<&'static Row>,
    ) -> Result<Receipt, Error> {
        self.apply_after(None, deadline, change, strategy).await
    }

    /// Applies a change that has waited in the queue until now.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub async fn apply_queued(
        self: &Arc<Self>,
        waited: Duration,
        change: Change,
        strategy: Option<&'static Row>,
    ) -> Result<Receipt, Error> {
        self.apply_after(Some(waited), None, change, strategy).await
    }

    async fn apply_after(
        self: &Arc<Self>,
        waited: Option<Duration>,
        deadline: Option<time::Instant>,
        change: Change,
        strategy: Option<&'static Row>,
    ) -> Result<Receipt, Error> {
        if deadline.is_some_and(|deadline| deadline <= time::Instant::now()) {
            return Err(Error::Expired);
        }
        let row = strategy.unwrap_or(self.default_strategy);
        let caller = Caller(Arc::new(Claim::until(deadline.map(time::Instant::into_std))));
        let claim = Arc::clone(&caller.0);
        let work = self.detached(move |ledger| async move {
            let work = ledger.run(change, row, claim, waited);
            ledger.bench.mortal([change.request_id], work).await.unwrap_or_else(|| {
                let reason = "the lab crashed the operation".to_owned();
                Err(Error::OutcomeUnknown { reason, cause: UnknownCause::Crashed })
            })
        });
        let Some(deadline) = deadline else { return work.await };
        time::timeout_at(deadline, work).await.unwrap_or_else(|_| {
            if caller.0.expire() {
                return Err(Error::Expired);
            }
            let reason = "the caller's deadline passed during the commit".to_owned();
            Err(Error::OutcomeUnknown { reason, cause: UnknownCause::Deadline })
        })
    }

    /// Runs `work` in its own task, if there is room for another.
    pub(crate) async fn detached<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Ok(room) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            return Err(Error::Overloaded(format!("{} changes are in flight already", self.limits.max_in_flight)));
        };
        self.begun.fetch_add(1, Ordering::Relaxed);
        let work = work(Arc::clone(self));
        let (answer, answered) = oneshot::channel();
        tokio::spawn(Call::inherited(async move {
            let result = work.await;
            drop(room);
            // Whoever waits for the answer logs what has to be logged; nobody else would.
            if let Err(Err(error @ (Error::Bug(_) | Error::OutcomeUnknown { .. }))) = answer.send(result) {
                tracing::error!("of an operation whose caller had gone: {error}");
            }
        }));
        answered.await.unwrap_or_else(|_| Err(Error::Bug("the operation's task ended early".to_owned())))
    }

    /// Waits until no change is in flight.
    pub async fn drained(&self) {
        let all = u32::try_from(self.limits.max_in_flight).unwrap_or(u32::MAX);
        // Nobody closes the semaphore, so this cannot fail.
        let _ = self.in_flight.acquire_many(all).await;
    }

    async fn run(
        &self,
        change: Change,
        row: &'static Row,
        claim: Arc<Claim>,
        mut waited: Option<Duration>,
    ) -> Result<Receipt, Error> {
        let Some(Registered { built, .. }) = self.strategies.iter().find(|strategy| strategy.row.name == row.name)
        else {
            return Err(Error::Bug(format!("strategy {} is not in the registry", row.name)));
        };
        let strategy =
            built.as_ref().map_err(|reason| Error::StrategyUnavailable { name: row.name, reason: reason.clone() })?;
        let lane = self.bench.timeline.lane(change.user_id);
        let span = trace::of_change(&change, row.name);
        let until = Instant::now() + self.limits.operation_timeout;
        for attempt in 1.. {
            let (bench, claim) = (Arc::clone(&self.bench), Arc::clone(&claim));
            let operation = Operation::new(bench, change, row.name, attempt, lane.number(), claim, span.clone());
            if let Some(waited) = waited.take() {
                operation.record_queued(waited);
            }
            self.attempts.fetch_add(1, Ordering::Relaxed);
            // What seldom happens is kept out of the future, which every call moves about.
            let after = |failure| Box::pin(self.after(&change, failure, attempt, until));
            let next = match attempt_and_settle(&**strategy, &operation, after).await {
                Next::Again(error) if attempt >= self.limits.max_attempts || Instant::now() >= until => {
                    Next::End(Box::pin(self.first_known(&change, error, until)).await)
                }
                next => next,
            };
            match next {
                Next::End(result) => {
                    if result.is_ok() {
                        operation.pass_gate(Point::Answer).await;
                    }
                    self.acknowledged.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
                    return result;
                }
                // Who has given it up meanwhile needs no further attempt.
                Next::Again(_) if operation.is_withdrawn() => return Err(Error::Expired),
                Next::Again(_) => operation.reopen(),
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
        Err(Error::Bug("attempts are not bounded".to_owned()))
    }

    /// What follows a failed attempt. The attempt's transaction is rolled back by now, or lost with its link.
    async fn after(&self, change: &Change, failure: Failure, attempts: u32, until: Instant) -> Next {
        use store::Error as Store;
        let contended = |reason| Next::Again(Error::Contended { attempts, reason });
        match failure {
            // Perhaps a repeat of a request that was applied, and that is why the money is gone.
            Failure::Refused(refusal) => Next::End(self.first_known(change, refusal.into(), until).await),
            Failure::RefusedForGood(refusal) => Next::End(Err(refusal.into())),
            Failure::Withdrawn => Next::End(Err(Error::Expired)),
            Failure::JournalBroken(broken) => Next::End(Err(Error::JournalBroken { user_id: change.user_id, broken })),
            Failure::Overtaken(reason) | Failure::Fenced(reason) => contended(reason.to_owned()),
            Failure::LeaseLost(reason) | Failure::LockHeld(reason) => contended(reason),
            // The database can still tell a repeat of what was applied.
            Failure::LockServerDown(reason) => {
                let down = Error::BackendDown { backend: Backend::LockServer, reason };
                Next::End(self.without_lock(change, down).await)
            }
            Failure::LockServerNotAsked { retry_after } => {
                let refused = Error::CircuitOpen { backend: Backend::LockServer, retry_after };
                Next::End(self.without_lock(change, refused).await)
            }
            Failure::Store(Store::Contended(reason)) => contended(reason),
            // The transaction went with its link before COMMIT was sent, so it cannot have had an effect.
            Failure::Store(Store::Lost(reason)) => Next::Again(database_down(reason)),
            // The request id is there, or another writer took the version.
            Failure::Store(Store::Duplicate(reason)) => match self.repeated(change, until).await {
                Ok(Some(receipt)) => Next::End(Ok(receipt)),
                Ok(None) => contended(reason),
                Err(error) => Next::End(Err(error)),
            },
            Failure::Store(Store::CommitLost(reason)) => self.after_lost_commit(change, attempts, reason).await,
            Failure::Store(error) => Next::End(Err(backend(error))),
        }
    }

    /// The lost commit is settled under the row lock: found, it happened; not found, it never will.
    async fn after_lost_commit(&self, change: &Change, attempts: u32, reason: String) -> Next {
        let until = Instant::now() + self.limits.settle_timeout;
        let fate = tokio::time::timeout_at(until.into(), async {
            let mut looks = 0;
            loop {
                looks += 1;
                let tries = Tries::until(Trying::ToSettle, until);
                match self.entry_under_lock(change.user_id, change.request_id, tries).await {
                    Ok(entry) => return entry,
                    // The time limit around this bounds it.
                    Err(_) => tokio::time::sleep(backoff(looks)).await,
                }
            }
        });
        match fate.await {
            Ok(Some(entry)) => {
                let receipt = change.receipt_of(entry).map(|receipt| Receipt { attempts, ..receipt });
                Next::End(receipt.map_err(Error::from))
            }
            Ok(None) => Next::Again(database_down(reason)),
            Err(_) => {
                let reason = format!("{reason}; and it could not be looked up within {:?}", self.limits.settle_timeout);
                Next::End(Err(Error::OutcomeUnknown { reason, cause: UnknownCause::LinkLost }))
            }
        }
    }

    /// The receipt of the same request applied before, or else `error`.
    async fn first_known(&self, change: &Change, error: Error, until: Instant) -> Result<Receipt, Error> {
        self.repeated(change, until).await?.ok_or(error)
    }

    /// What is known of a change for which there was no lock to be had. One look: where that fails as well, what is
    /// known is why there is no lock.
    async fn without_lock(&self, change: &Change, why: Error) -> Result<Receipt, Error> {
        match self.repeated(change, Instant::now()).await {
            Ok(found) => found.ok_or(why),
            Err(refused @ Error::Refused(_)) => Err(refused),
            Err(_) => Err(why),
        }
    }

    /// The receipt of the same request, if it was applied before.
    async fn repeated(&self, change: &Change, until: Instant) -> Result<Option<Receipt>, Error> {
        let entry = self.entry_under_lock(change.user_id, change.request_id, Tries::until(Trying::Anew, until)).await?;
        Ok(entry.map(|entry| change.receipt_of(entry)).transpose()?)
    }
}

/// One attempt and, where it fails, what follows: both under the strategy's guard.
async fn attempt_and_settle<F>(strategy: &dyn Strategy, operation: &Operation, after: impl FnOnce(Failure) -> F) -> Next
where
    F: Future<Output = Next>,
{
    let held = match strategy.guard(operation).await {
        Ok(held) => held,
        Err(failure) => return after(failure).await,
    };
    let next = match strategy.attempt(operation, &*held).await {
        Ok(receipt) => Next::End(Ok(receipt)),
        Err(failure) => after(failure).await,
    };
    if let Next::End(Err(Error::OutcomeUnknown { .. })) = next {
        // The commit may still happen. What keeps others out is not given back but left to end by itself.
        drop(held);
    } else {
        held.release().await;
    }
    next
}

/// What a store's failure outside a commit means for the caller: nothing was changed.
pub(crate) fn backend(error: store::Error) -> Error {
    match error {
        store::Error::Contended(reason) => Error::Contended { attempts: 1, reason },
        store::Error::Exhausted(reason) => Error::Overloaded(reason),
        store::Error::Lost(reason) | store::Error::Down(reason) => database_down(reason),
        store::Error::NotAsked { retry_after } => Error::CircuitOpen { backend: Backend::Database, retry_after },
        store::Error::CommitLost(reason) => Error::OutcomeUnknown { reason, cause: UnknownCause::LinkLost },
        store::Error::Duplicate(reason) | store::Error::Unexpected(reason) => Error::Bug(reason),
    }
}

const fn database_down(reason: String) -> Error {
    Error::BackendDown { backend: Backend::Database, reason }
}

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", 2015).
fn backoff(attempt: u32) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(BACKOFF_MOST);
    most.mul_f64(rand::rng().random_range(0.0..1.0))
}
