//! Settlement: what became of a request, asked so that the answer is final.

use uuid::Uuid;

use super::{Ledger, backend, backoff};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, Refusal, State},
    error::Error,
    store::{self, Isolation, RowLock, Transaction},
};

/// The most tries at a settlement that meets other writers or lost links; each waits for a row lock, so that they span
/// several lock wait timeouts.
const TRIES: u32 = 8;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is journaled.
    Journaled(Entry),
    /// It never had an effect and never will.
    Voided,
    /// Nothing is journaled under its id so far.
    NotFound,
}

/// What a settlement does when it finds nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfAbsent {
    /// Nothing: the attempt in question is known to have ended.
    Report,
    /// Journals a VOID: an attempt that may still come meets the unique key and rolls back.
    Void,
}

impl Ledger {
    /// What became of a request. With `resolve` the answer is final, and what is not journaled yet never will be.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's; nothing was changed.
    pub async fn fate(
        self: &std::sync::Arc<Self>,
        user_id: i64,
        request_id: Uuid,
        resolve: Resolve,
    ) -> Result<Fate, Error> {
        let entry = match resolve {
            Resolve::Look => self.look(user_id, request_id).await?,
            Resolve::Finally => {
                self.detached(move |ledger| async move { ledger.settle(user_id, request_id, IfAbsent::Void).await })
                    .await?
            }
        };
        Ok(match entry {
            Some(entry) if entry.kind == EntryKind::Void => Fate::Voided,
            Some(entry) => Fate::Journaled(entry),
            None => Fate::NotFound,
        })
    }

    async fn look(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>, Error> {
        let entry = self.reading(|| self.bench.store.find(user_id, request_id)).await?;
        if entry.is_none() {
            self.state(user_id).await?;
        }
        Ok(entry)
    }

    /// The entry under a request id, asked under the account's row lock. `None`: no attempt that ended before this call
    /// has had an effect.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's.
    pub(super) async fn entry_under_lock(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>, Error> {
        self.settle(user_id, request_id, IfAbsent::Report).await
    }

    async fn settle(&self, user_id: i64, request_id: Uuid, if_absent: IfAbsent) -> Result<Option<Entry>, Error> {
        let mut tries = 1;
        loop {
            use store::Error as Store;
            let mut transaction = self.bench.store.transaction(Isolation::ReadCommitted);
            let failure = match look_or_void(&mut *transaction, user_id, request_id, if_absent).await {
                Ok(Looked::AccountNotFound) => {
                    transaction.rollback().await;
                    return Err(Refusal::AccountNotFound { user_id }.into());
                }
                Ok(Looked::Found(entry)) => {
                    transaction.rollback().await;
                    return Ok(Some(*entry));
                }
                Ok(Looked::Absent) => {
                    transaction.rollback().await;
                    return Ok(None);
                }
                // Committed, the next look finds the VOID; lost, it is journaled again.
                Ok(Looked::Voided) => match transaction.commit().await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
                Err(failure) => {
                    transaction.rollback().await;
                    failure
                }
            };
            let again =
                matches!(failure, Store::Contended(_) | Store::Lost(_) | Store::CommitLost(_) | Store::Duplicate(_));
            if !again || tries == TRIES {
                return Err(backend(failure));
            }
            tokio::time::sleep(backoff(tries)).await;
            tries += 1;
        }
    }
}

/// How much certainty is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// What the journal holds now.
    Look,
    /// What it will hold for ever.
    Finally,
}

enum Looked {
    AccountNotFound,
    Found(Box<Entry>),
    Absent,
    Voided,
}

async fn look_or_void(
    transaction: &mut dyn Transaction,
    user_id: i64,
    request_id: Uuid,
    if_absent: IfAbsent,
) -> store::Result<Looked> {
    // The lock comes first: with it, no attempt that could still commit is in flight.
    let Some(State { balance, version }) = transaction.read(user_id, RowLock::Exclusive).await? else {
        return Ok(Looked::AccountNotFound);
    };
    if let Some(entry) = transaction.find(user_id, request_id).await? {
        return Ok(Looked::Found(Box::new(entry)));
    }
    if if_absent == IfAbsent::Report {
        return Ok(Looked::Absent);
    }
    transaction.write(user_id, balance).await?;
    transaction
        .append(&NewEntry {
            user_id,
            version: version + 1,
            request_id,
            kind: EntryKind::Void,
            delta: Money::ZERO,
            balance_after: balance,
            version_before: version,
            strategy: "",
        })
        .await?;
    Ok(Looked::Voided)
}
