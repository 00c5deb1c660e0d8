//! Settlement: what became of a request, asked so that the answer is final.

use std::time::Instant;

use uuid::Uuid;

use super::{
    Ledger,
    tries::{Tries, Trying},
};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, Refusal, State},
    error::Error,
    store::{self, RowLock, Transaction},
    trace,
};

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
        let looked = match resolve {
            Resolve::Look => self.look(user_id, request_id).await?,
            Resolve::Finally => {
                self.detached(move |ledger| async move {
                    let tries = Tries::until(Trying::Anew, Instant::now() + ledger.limits.operation_timeout);
                    ledger.settle(user_id, request_id, IfAbsent::Void, tries).await
                })
                .await?
            }
        };
        Ok(match looked {
            Looked::Found(entry) if entry.kind != EntryKind::Void => Fate::Journaled(*entry),
            Looked::Found(_) | Looked::Voided => Fate::Voided,
            Looked::Absent => Fate::NotFound,
        })
    }

    async fn look(&self, user_id: i64, request_id: Uuid) -> Result<Looked, Error> {
        if let Some(entry) = self.reading(|| self.bench.store.find(user_id, request_id)).await? {
            return Ok(Looked::Found(Box::new(entry)));
        }
        self.state(user_id).await?;
        Ok(Looked::Absent)
    }

    /// The entry under a request id, asked under the account's row lock. `None`: no attempt that ended before this call
    /// has had an effect; where there is no account, nothing can be journaled for it.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn entry_under_lock(
        &self,
        user_id: i64,
        request_id: Uuid,
        tries: Tries,
    ) -> Result<Option<Entry>, Error> {
        match self.settle(user_id, request_id, IfAbsent::Report, tries).await {
            Ok(Looked::Found(entry)) => Ok(Some(*entry)),
            Ok(Looked::Absent | Looked::Voided) | Err(Error::Refused(Refusal::AccountNotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn settle(&self, user_id: i64, request_id: Uuid, if_absent: IfAbsent, tries: Tries) -> Result<Looked, Error> {
        let began = Instant::now();
        let looked = self.look_under_lock(user_id, request_id, if_absent, tries).await;
        let found = match &looked {
            Ok(looked) => Ok(looked.name()),
            Err(Error::Refused(_)) => Ok("no account"),
            Err(_) => Err("UNSETTLED"),
        };
        trace::settlement(&self.bench.database, request_id, began, found);
        looked
    }

    async fn look_under_lock(
        &self,
        user_id: i64,
        request_id: Uuid,
        if_absent: IfAbsent,
        mut tries: Tries,
    ) -> Result<Looked, Error> {
        loop {
            let mut transaction = tries.transaction(&*self.bench.store);
            let failure = match look_or_void(&mut *transaction, user_id, request_id, if_absent).await {
                Ok(Some(Looked::Voided)) => match transaction.commit().await {
                    Ok(()) => return Ok(Looked::Voided),
                    // The next look finds the VOID, or journals it again.
                    Err(failure) => failure,
                },
                looked => {
                    transaction.rollback().await;
                    match looked {
                        Ok(looked) => return Ok(looked.ok_or(Refusal::AccountNotFound { user_id })?),
                        Err(failure) => failure,
                    }
                }
            };
            tries.after(failure).await?;
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

/// What a look under the row lock came to.
enum Looked {
    Found(Box<Entry>),
    Absent,
    Voided,
}

impl Looked {
    /// A word for it, for traces.
    const fn name(&self) -> &'static str {
        match self {
            Self::Found(_) => "journaled",
            Self::Absent => "absent",
            Self::Voided => "voided",
        }
    }
}

/// `None`: no such account.
async fn look_or_void(
    transaction: &mut dyn Transaction,
    user_id: i64,
    request_id: Uuid,
    if_absent: IfAbsent,
) -> store::Result<Option<Looked>> {
    // The lock comes first: with it, no attempt that could still commit is in flight.
    let Some(State { balance, version }) = transaction.read(user_id, RowLock::Exclusive).await? else {
        return Ok(None);
    };
    if let Some(entry) = transaction.find(user_id, request_id).await? {
        return Ok(Some(Looked::Found(Box::new(entry))));
    }
    if if_absent == IfAbsent::Report {
        return Ok(Some(Looked::Absent));
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
    Ok(Some(Looked::Voided))
}
