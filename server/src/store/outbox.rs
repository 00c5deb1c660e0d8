//! What is asked of a database for deductions that are handed to the queue: the table `deduction_outbox`. Each statement is one
//! guarded step; which follows which is the outbox's affair (`outbox.rs`). Times are the database's own.

pub(super) mod text;

use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use uuid::Uuid;

use super::{Matched, Result};
use crate::account::{Entry, Money};

/// What identifies a deduction. In this order rows are locked wherever several are, so that no two wait in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The account.
    pub user_id: i64,
    /// The id that makes it repeatable.
    pub request_id: Uuid,
}

impl Key {
    /// That of an entry.
    pub(super) const fn of(entry: &Entry) -> Self {
        Self { user_id: entry.user_id, request_id: entry.request_id }
    }
}

/// Where a deduction stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// RECORDED, and its sender's claim lasts: it may yet be withdrawn.
    Claimed,
    /// RECORDED, and nobody can withdraw it any more: the relay will send it.
    Recorded,
    /// The broker has confirmed it.
    Sent,
    /// It ended without an effect, for good.
    Failed,
    /// It was put aside, until somebody decides.
    DeadLettered,
}

impl Standing {
    /// Every one, for reading names back.
    pub const ALL: [Self; 5] = [Self::Claimed, Self::Recorded, Self::Sent, Self::Failed, Self::DeadLettered];

    /// Whether it is RECORDED, whoever sends it.
    #[must_use]
    pub const fn is_recorded(self) -> bool {
        matches!(self, Self::Claimed | Self::Recorded)
    }

    /// Its name in the table; that of `Claimed` is what statements call a row with a claim.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claimed => "CLAIMED",
            Self::Recorded => "RECORDED",
            Self::Sent => "SENT",
            Self::Failed => "FAILED",
            Self::DeadLettered => "DEAD_LETTERED",
        }
    }
}

/// A row, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which deduction.
    pub key: Key,
    /// How much, minor units.
    pub amount: Money,
    /// The strategy that was asked for; empty for the worker's.
    pub strategy: String,
    /// Where it stands.
    pub standing: Standing,
    /// Why it failed or was put aside; else empty.
    pub reason: String,
    /// The same in words.
    pub detail: String,
    /// The trace context of the call that recorded it; empty for none.
    pub traceparent: String,
    /// When it was recorded, UTC.
    pub created_at: NaiveDateTime,
}

/// A row to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOutgoing {
    /// Which deduction.
    pub key: Key,
    /// How much, minor units, greater than zero.
    pub amount: Money,
    /// The strategy asked for, a name of the registry; empty for the worker's.
    pub strategy: &'static str,
    /// The trace context of the call; empty for none.
    pub traceparent: String,
    /// Who is about to send it.
    pub sender: Uuid,
}

/// What a deduction was when it was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Not known: it is in the table now, claimed by its sender.
    New,
    /// In the table already.
    There(Outgoing),
    /// In the journal already.
    Journaled(Entry),
}

/// How a deduction ended that had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For good.
    Failed,
    /// Until somebody decides.
    DeadLettered,
}

/// What the table is to say of a deduction that had no effect, whether it has a row of it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which deduction.
    pub key: Key,
    /// How much, minor units, greater than zero.
    pub amount: Money,
    /// How it ended.
    pub end: End,
    /// Why: a name in capitals, at most 64 characters.
    pub reason: String,
    /// The same in words; beyond [`DETAIL_MOST`] characters it is cut off.
    pub detail: String,
}

/// The longest detail that is kept, characters: what the column holds.
pub const DETAIL_MOST: usize = 500;

/// A page of rows that were sent a while ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Those whose ids are in the journal.
    pub settled: Vec<Key>,
    /// Where the page ends; `None` where there was nothing.
    pub last: Option<(NaiveDateTime, Key)>,
}

/// The table. Several rows at a time are those of one page or batch, at most some hundreds.
#[async_trait]
pub trait OutboxTable: Send + Sync + 'static {
    /// Records deductions, each claimed by its sender for `claim`, in one transaction, and says of each what it was. None
    /// may be there twice. What is voided at the same moment is found to be, or whoever voids it finds the row.
    ///
    /// # Errors
    /// Any [`super::Error`]; after `CommitLost` it may have been done.
    async fn record(&self, rows: Vec<NewOutgoing>, claim: Duration) -> Result<Vec<Recorded>>;

    /// Says of deductions that the broker has confirmed them, where they are recorded still.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn mark_sent(&self, keys: Vec<Key>) -> Result<()>;

    /// Takes back what `sender` has recorded, where its claim lasts for longer than `margin` still.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn withdraw(&self, key: Key, sender: Uuid, margin: Duration) -> Result<Matched>;

    /// Ends the claim of `sender`: from here on it is a promise, and the relay's.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done, and will be when the claim runs out.
    async fn give_up(&self, key: Key, sender: Uuid) -> Result<()>;

    /// Claims for `sender` at most `limit` of those that are recorded and nobody's, oldest first.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; some may have been claimed.
    async fn claim(&self, sender: Uuid, claim: Duration, limit: i64) -> Result<Vec<Outgoing>>;

    /// Says how a deduction ended. What FAILED stays as it is.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn end(&self, ending: Ending) -> Result<()>;

    /// Records anew, claimed by `sender`, what was put aside.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn requeue(&self, key: Key, sender: Uuid, claim: Duration) -> Result<Matched>;

    /// Removes deductions that are in the journal. What FAILED stays.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn remove(&self, keys: Vec<Key>) -> Result<()>;

    /// Looks through the `limit` rows behind one that were sent, and recorded longer ago than `age`.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate` and `CommitLost`.
    async fn sweep(&self, after: Option<(NaiveDateTime, Key)>, age: Duration, limit: i64) -> Result<Swept>;

    /// When the oldest of those recorded or sent was recorded, UTC. `None`: all are settled, or were put aside.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate` and `CommitLost`.
    async fn oldest(&self) -> Result<Option<NaiveDateTime>>;
}
