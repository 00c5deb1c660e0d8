//! Settlement: what became of a request, asked so that the answer is final; and the end of one that cannot be applied.
//!
//! The journal decides. The table of the outbox says what was promised of a deduction that the journal does not have: nothing that
//! was promised is voided by whoever asks. A VOID is journaled first and the table looked at after it, while whoever records a
//! deduction writes its row first and looks at the journal after it, both with locks: one of the two sees the other.

use std::{sync::Arc, time::Instant};

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::{
    Ledger,
    tries::{Tries, Trying},
};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, State},
    error::Error,
    store::{
        self, RowLock, Transaction,
        outbox::{Ending, Key, Outgoing, Standing},
    },
    trace,
};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is journaled.
    Journaled(Entry),
    /// It never had an effect and never will.
    Voided,
    /// It was accepted then (UTC), and will be applied or fail.
    Pending(NaiveDateTime),
    /// It was accepted, and the rules refused it: it never had an effect and never will.
    Failed(Why),
    /// It was accepted, could not be applied, and waits for somebody to decide.
    DeadLettered(Why),
    /// Nothing is journaled under its id so far.
    NotFound,
}

/// Why a deduction that was accepted had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// A name in capitals.
    pub reason: String,
    /// The same in words.
    pub detail: String,
    /// When it was accepted, UTC.
    pub accepted_at: NaiveDateTime,
    /// Whether a VOID bars it from ever taking effect. There is none where there is no account.
    pub is_barred: bool,
}

/// What [`Ledger::fail`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It failed, for good.
    Now,
    /// The journal had its id already, and nothing was changed.
    Journaled(Entry),
}

/// What a settlement does when it finds nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfAbsent<'a> {
    /// Nothing: the attempt in question is known to have ended.
    Report,
    /// Journals a VOID, unless the deduction was promised: an attempt that may still come meets the unique key and rolls back.
    Void,
    /// Journals a VOID, and says in the table of the outbox why.
    Fail(&'a Ending),
}

impl Ledger {
    /// What became of a request. With `resolve` the answer is final unless it was promised, and what is neither journaled
    /// nor promised yet never will be.
    ///
    /// # Errors
    /// [`crate::account::Refusal::AccountNotFound`], [`Error::Contended`] while a call is about to promise it, or the
    /// database's; nothing was changed.
    pub async fn fate(self: &Arc<Self>, user_id: i64, request_id: Uuid, resolve: Resolve) -> Result<Fate, Error> {
        let key = Key { user_id, request_id };
        if resolve == Resolve::Finally {
            let settled = self.detached(move |ledger| async move {
                let tries = Tries::until(Trying::Anew, Instant::now() + ledger.limits.operation_timeout);
                ledger.settle(user_id, request_id, IfAbsent::Void, tries).await
            });
            match settled.await? {
                Looked::Voided => return Ok(Fate::Voided),
                Looked::Found(entry) if entry.kind != EntryKind::Void => return Ok(Fate::Journaled(*entry)),
                Looked::Promised(row) => return Ok(fate_of(None, Some(row))),
                // What was settled is there to be read.
                Looked::Found(_) | Looked::NoAccount | Looked::Absent | Looked::Failed => {}
            }
        }
        match self.look(key).await? {
            // What is journaled leaves the table: it may have gone from there after the journal was asked. So it is asked again.
            Fate::NotFound => match self.look(key).await? {
                Fate::NotFound => self.state(user_id).await.map(|_| Fate::NotFound),
                fate => Ok(fate),
            },
            fate => Ok(fate),
        }
    }

    async fn look(&self, key: Key) -> Result<Fate, Error> {
        let store = &self.bench.store;
        match self.reading(|| store.find(key.user_id, key.request_id)).await? {
            Some(entry) if entry.kind != EntryKind::Void => Ok(Fate::Journaled(entry)),
            entry => Ok(fate_of(entry.as_ref(), self.reading(|| store.outgoing(key)).await?)),
        }
    }

    /// Ends a deduction that was accepted and cannot be applied. It cannot be any more from here on: a VOID is journaled under
    /// its id together with the reason, where there is an account.
    ///
    /// # Errors
    /// [`Error::Contended`] or the database's; it may have been done, and can be done again.
    pub async fn fail(self: &Arc<Self>, ending: Ending) -> Result<Failed, Error> {
        self.detached(move |ledger| async move {
            let tries = Tries::until(Trying::Anew, Instant::now() + ledger.limits.operation_timeout);
            let Key { user_id, request_id } = ending.key;
            match ledger.settle(user_id, request_id, IfAbsent::Fail(&ending), tries).await? {
                Looked::Found(entry) => Ok(Failed::Journaled(*entry)),
                _ => Ok(Failed::Now),
            }
        })
        .await
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
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn settle(
        &self,
        user_id: i64,
        request_id: Uuid,
        if_absent: IfAbsent<'_>,
        tries: Tries,
    ) -> Result<Looked, Error> {
        let began = Instant::now();
        let looked = self.look_under_lock(user_id, request_id, if_absent, tries).await;
        let found = match &looked {
            Ok(looked) => Ok(looked.name()),
            Err(_) => Err("UNSETTLED"),
        };
        trace::settlement(&self.bench.database, request_id, began, found);
        looked
    }

    async fn look_under_lock(
        &self,
        user_id: i64,
        request_id: Uuid,
        if_absent: IfAbsent<'_>,
        mut tries: Tries,
    ) -> Result<Looked, Error> {
        loop {
            let mut transaction = tries.transaction(&*self.bench.store);
            let failure = match look_or_void(&mut *transaction, user_id, request_id, if_absent).await {
                Ok(looked @ (Looked::Voided | Looked::Failed)) => match transaction.commit().await {
                    Ok(()) => return Ok(looked),
                    // The next look finds the VOID, or journals it again.
                    Err(failure) => failure,
                },
                looked => {
                    transaction.rollback().await;
                    match looked {
                        Ok(looked) => return Ok(looked),
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
    NoAccount,
    Voided,
    Failed,
    Promised(Outgoing),
}

impl Looked {
    /// A word for it, for traces.
    const fn name(&self) -> &'static str {
        match self {
            Self::Found(_) => "journaled",
            Self::Absent => "absent",
            Self::NoAccount => "no account",
            Self::Voided => "voided",
            Self::Failed => "failed",
            Self::Promised(_) => "promised",
        }
    }
}

/// What became of a deduction of which the journal has nothing, or a VOID, and the table perhaps a row.
fn fate_of(void: Option<&Entry>, row: Option<Outgoing>) -> Fate {
    let is_barred = void.is_some();
    let nothing = if is_barred { Fate::Voided } else { Fate::NotFound };
    let Some(Outgoing { standing, reason, detail, created_at: accepted_at, .. }) = row else { return nothing };
    match standing {
        Standing::Failed => Fate::Failed(Why { reason, detail, accepted_at, is_barred }),
        _ if is_barred => Fate::Voided,
        Standing::DeadLettered => Fate::DeadLettered(Why { reason, detail, accepted_at, is_barred }),
        Standing::Recorded | Standing::Sent => Fate::Pending(accepted_at),
        // Nothing is promised while its sender may withdraw it.
        Standing::Claimed => Fate::NotFound,
    }
}

async fn look_or_void(
    transaction: &mut dyn Transaction,
    user_id: i64,
    request_id: Uuid,
    if_absent: IfAbsent<'_>,
) -> store::Result<Looked> {
    // The lock comes first: with it, no attempt that could still commit is in flight.
    let Some(State { balance, version }) = transaction.read(user_id, RowLock::Exclusive).await? else {
        let IfAbsent::Fail(ending) = if_absent else { return Ok(Looked::NoAccount) };
        transaction.end_outgoing(ending).await?;
        return Ok(Looked::Failed);
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
    if let IfAbsent::Fail(ending) = if_absent {
        transaction.end_outgoing(ending).await?;
        return Ok(Looked::Failed);
    }
    match transaction.outgoing(Key { user_id, request_id }).await? {
        None => Ok(Looked::Voided),
        Some(Outgoing { standing: Standing::Claimed, .. }) => {
            Err(store::Error::Contended("a call is handing this deduction to the queue".to_owned()))
        }
        Some(promised) => Ok(Looked::Promised(promised)),
    }
}
