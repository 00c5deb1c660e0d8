//! The concurrency-control strategies: what one is ([`Strategy`]), which there are ([`REGISTRY`]), and the operation
//! context through which each of them works ([`Operation`]).
//!
//! Adding one is a file under `strategy/` and a row here; flags, ListStrategies, the comparisons and the test matrix
//! follow from the row. A strategy never retries, settles or answers: it makes one attempt, and the ledger does the rest
//! for all of them alike.

mod atomic;
mod atomic_three_trips;
mod batched;
mod claim;
mod event_sourced;
mod lease;
mod mutex;
mod none;
mod operation;
mod optimistic;
mod pessimistic;
mod redis_lock;
mod redis_lock_fenced;
mod redlock;
mod serializable;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    claim::Claim,
    lease::{GuardedLock, Locks, REDLOCK, SINGLE},
    operation::{Operation, Workbench},
};
use crate::{
    account::{Receipt, Refusal},
    history::Broken,
    store,
};

/// What a strategy promises about acknowledged changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Concurrent changes overwrite each other: money is lost.
    LosesUpdates,
    /// Nothing is lost while one server process alone writes.
    OneProcess,
    /// Nothing is lost while no holder outlives its lease.
    WhileLeaseHolds,
    /// It never overwrites another change, with any number of servers.
    Always,
}

/// What becomes of the second of two writers that meet on one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It overwrites the first.
    Overwrites,
    /// It waits until the first has committed, and then reads.
    Waits,
    /// It has read already, is turned away, and starts again. (A store that runs one transaction at a time makes it
    /// wait instead, where its read is part of the transaction.)
    Retries,
}

/// Why an attempt did not commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The rules refuse the change.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The rules refuse the change, and it is no repeat: the journal was asked under the row lock.
    #[error("{0}")]
    RefusedForGood(Refusal),
    /// Another writer came first.
    #[error("{0}")]
    Overtaken(&'static str),
    /// A newer fencing token was claimed for the account.
    #[error("{0}")]
    Fenced(&'static str),
    /// The lease ended while it was needed.
    #[error("{0}")]
    LeaseLost(String),
    /// Somebody else held the lock for as long as we wait.
    #[error("{0}")]
    LockHeld(String),
    /// The lock server cannot be reached, or too few of several.
    #[error("{0}")]
    LockServerDown(String),
    /// Nor is it asked now.
    #[error("the circuit breaker is open; Redis is asked again in {retry_after:?}")]
    LockServerNotAsked {
        /// When it may be.
        retry_after: Duration,
    },
    /// Its caller gave it up before it was begun.
    #[error("withdrawn by its caller")]
    Withdrawn,
    /// The journal lacks an entry or contradicts itself: there is nothing to decide on.
    #[error("{0}")]
    JournalBroken(Broken),
    /// The store says why.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Failure {
    /// A word for it, for the timeline.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::RefusedForGood(_) => "REFUSED",
            Self::Overtaken(_) => "OVERTAKEN",
            Self::Withdrawn => "WITHDRAWN",
            Self::JournalBroken(_) => "JOURNAL_BROKEN",
            Self::Fenced(_) => "FENCED",
            Self::LeaseLost(_) => "LEASE_LOST",
            Self::LockHeld(_) | Self::Store(store::Error::Contended(_)) => "CONTENDED",
            Self::Store(store::Error::Duplicate(_)) => "DUPLICATE",
            Self::Store(store::Error::Lost(_) | store::Error::CommitLost(_)) => "LINK_LOST",
            Self::LockServerDown(_) | Self::Store(store::Error::Down(_)) => "BACKEND_DOWN",
            Self::Store(store::Error::Exhausted(_)) => "OVERLOADED",
            Self::LockServerNotAsked { .. } | Self::Store(store::Error::NotAsked { .. }) => "CIRCUIT_OPEN",
            Self::Store(store::Error::Unexpected(_)) => "UNEXPECTED",
        }
    }
}

/// What a strategy holds from before an attempt until its outcome is settled.
pub type Guard<'a> = Box<dyn Held + 'a>;

/// Something that keeps others out. Dropped without being released, as by a crash, it lets them in when it can.
#[async_trait]
pub trait Held: Send + Sync {
    /// Whether it still does: a lease can be lost while it is held. Asked before a write and before the commit.
    ///
    /// # Errors
    /// [`Failure::LeaseLost`].
    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The fencing token that came with it.
    fn token(&self) -> Option<i64> {
        None
    }

    /// Lets the next one in.
    async fn release(self: Box<Self>) {}
}

/// Nothing is held.
struct Unguarded;

impl Held for Unguarded {}

/// What a strategy has committed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// Batches that came to an answer.
    pub batches: u64,
    /// The changes in them.
    pub changes: u64,
    /// The most changes in one of them.
    pub largest: u64,
    /// How long changes were queued before a batch took them, added up.
    pub queued: Duration,
    /// Changes queued now.
    pub waiting: u64,
}

/// A way of keeping concurrent changes apart, or of failing to.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Makes one attempt, through the phases of `operation`, under what [`Self::guard`] returned.
    ///
    /// # Errors
    /// [`Failure`]; unless it is [`store::Error::CommitLost`], nothing was changed.
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure>;

    /// Takes what keeps other operations out. It is held from before the attempt until its outcome
    /// is settled: an attempt whose COMMIT lost its link may still commit, and whoever read meanwhile would read stale.
    ///
    /// # Errors
    /// [`Failure`]; nothing was changed.
    async fn guard<'a>(&'a self, _: &Operation) -> Result<Guard<'a>, Failure> {
        Ok(Box::new(Unguarded))
    }

    /// How many operations wait for a lock that this strategy keeps in this process.
    fn waiting(&self) -> usize {
        0
    }

    /// What it has committed together since it was made, where it does that.
    fn batches(&self) -> Option<Batches> {
        None
    }
}

/// Makes a strategy, or says what it needs and does not have.
pub type Build = fn(&Arc<Workbench>) -> Result<Box<dyn Strategy>, String>;

/// A row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in requests, flags and metrics; the file's name.
    pub name: &'static str,
    /// What it promises.
    pub guarantee: Guarantee,
    /// What it does to the second of two writers.
    pub conflict: Conflict,
    /// How it works, in a sentence.
    pub summary: &'static str,
    /// Makes it, or says what it needs and does not have.
    pub build: Build,
}

/// Every strategy, from the one that loses money to the strictest; then those that lock outside the database.
pub const REGISTRY: &[Row] = &[
    none::ROW,
    mutex::ROW,
    optimistic::ROW,
    pessimistic::ROW,
    atomic::ROW,
    atomic_three_trips::ROW,
    serializable::ROW,
    batched::ROW,
    event_sourced::ROW,
    redis_lock::ROW,
    redlock::ROW,
    redis_lock_fenced::ROW,
];

/// A name that is not in the registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy `{name}`; choose one of {}", REGISTRY.iter().map(|row| row.name).collect::<Vec<_>>().join(", "))]
pub struct Unknown {
    /// The name.
    pub name: String,
}

/// The row of that name.
///
/// # Errors
/// [`Unknown`], which lists the names there are.
pub fn find(name: &str) -> Result<&'static Row, Unknown> {
    REGISTRY.iter().find(|row| row.name == name).ok_or_else(|| Unknown { name: name.to_owned() })
}
