//! Accounts themselves: opening, reading and resetting them.

use std::{future::Future, sync::Arc, time::Instant};

use uuid::Uuid;

use super::{
    Ledger, backend,
    tries::{Tries, Trying},
};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, Refusal, State},
    cache::{Admission, Freshness, Served},
    error::Error,
    store::{self, RowLock, Transaction},
};

/// Ids the server picks lie in this range: twelve digits, so that they are easy to tell from hand-made ones, and exact
/// in a JavaScript number.
const PICKED_IDS: std::ops::Range<u64> = 100_000_000_000..1_000_000_000_000;

/// How many ids are tried for one request before giving up; each is taken with a chance of accounts ÷ 9·10¹¹.
const PICKS: u64 = 8;

/// An account after it was opened or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The account.
    pub user_id: i64,
    /// Its balance and version then.
    pub state: State,
    /// Whether the same request had done it before.
    pub replayed: bool,
}

/// What an entry made by the service itself does.
#[derive(Clone, Copy)]
enum Setting {
    Open,
    Reset,
}

impl Ledger {
    /// The stored balance and version.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's.
    pub async fn state(&self, user_id: i64) -> Result<State, Error> {
        let state = self.reading(|| self.bench.store.read(user_id)).await?;
        Ok(state.ok_or(Refusal::AccountNotFound { user_id })?)
    }

    /// Balance and version as the cache has them, and where they came from. `None`: no such account.
    ///
    /// # Errors
    /// The database's.
    pub async fn balance(&self, user_id: i64, freshness: Freshness) -> Result<(Option<State>, Served), Error> {
        self.cache.balance(user_id, freshness, || self.reading(|| self.bench.store.read(user_id))).await
    }

    /// At most `limit` entries after a version.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's.
    pub async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>, Error> {
        let entries = self.reading(|| self.bench.store.entries(user_id, after_version, limit)).await?;
        if entries.is_empty() {
            self.state(user_id).await?;
        }
        Ok(entries)
    }

    /// At most `limit` accounts whose ids come after one, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn accounts(&self, after: i64, limit: i64) -> Result<Vec<(i64, State)>, Error> {
        self.reading(|| self.bench.store.accounts(after, limit)).await
    }

    /// A read, repeated once when its link turns out to be dead: the pool hands out only newer links after that.
    pub(super) async fn reading<T, F>(&self, read: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = store::Result<T>>,
    {
        match read().await {
            Err(store::Error::Lost(_)) => read().await,
            result => result,
        }
        .map_err(backend)
    }

    /// Opens an account (`user_id` 0: one derived from the request id, the same on every repeat).
    ///
    /// # Errors
    /// [`Refusal::AccountExists`], [`Refusal::RequestIdReused`], or the database's.
    pub async fn open(self: &Arc<Self>, user_id: i64, balance: Money, request_id: Uuid) -> Result<Opened, Error> {
        self.detached(move |ledger| async move {
            if user_id != 0 {
                return ledger.set(Setting::Open, user_id, balance, request_id).await;
            }
            for pick in 0..PICKS {
                match ledger.set(Setting::Open, picked_id(request_id, pick), balance, request_id).await {
                    Err(Error::Refused(Refusal::AccountExists { .. })) => {}
                    result => return result,
                }
            }
            Err(Error::Contended { attempts: PICKS as u32, reason: "every id picked was taken".to_owned() })
        })
        .await
    }

    /// Sets a balance by a journaled RESET, opening the account when there is none.
    ///
    /// # Errors
    /// [`Refusal::RequestIdReused`], or the database's.
    pub async fn reset(self: &Arc<Self>, user_id: i64, balance: Money, request_id: Uuid) -> Result<Opened, Error> {
        self.detached(move |ledger| async move { ledger.set(Setting::Reset, user_id, balance, request_id).await }).await
    }

    async fn set(&self, setting: Setting, user_id: i64, balance: Money, request_id: Uuid) -> Result<Opened, Error> {
        let mut tries = Tries::until(Trying::Anew, Instant::now() + self.limits.operation_timeout);
        // Of all tries together: one whose commit was lost may be the one that a later one finds.
        let mut admission = Admission::Known;
        let result = loop {
            let mut transaction = tries.transaction(&*self.bench.store);
            let failure = match self.write(&mut *transaction, setting, user_id, balance, request_id).await {
                Ok((set, admitted)) => {
                    admission = admission.and(admitted);
                    let state = match set {
                        Set::Written(state) => state,
                        set => {
                            transaction.rollback().await;
                            break set.answer(setting, user_id, balance);
                        }
                    };
                    match transaction.commit().await {
                        Ok(()) => break Ok(Opened { user_id, state, replayed: false }),
                        // Where it did happen, the next try finds it under the row lock.
                        Err(failure) => failure,
                    }
                }
                Err(failure) => {
                    transaction.rollback().await;
                    failure
                }
            };
            tries.after(failure).await?;
        };
        self.cache.settle(admission).await;
        result
    }

    /// Writes, and sees to it that no filter hides what is opened.
    async fn write(
        &self,
        transaction: &mut dyn Transaction,
        setting: Setting,
        user_id: i64,
        balance: Money,
        request_id: Uuid,
    ) -> store::Result<(Set, Admission)> {
        let found = transaction.read(user_id, RowLock::Exclusive).await?;
        let is_new = found.is_none();
        let set = write(transaction, setting, found, user_id, balance, request_id).await?;
        let admission = match setting {
            _ if is_new => self.cache.admit(transaction, user_id).await?,
            _ if matches!(set, Set::Written(_)) => Admission::Known,
            // It was opened a moment ago, perhaps, and its opener still waits.
            _ => self.cache.doubt(transaction).await?,
        };
        Ok((set, admission))
    }
}

enum Set {
    Written(State),
    Found(Box<Entry>),
    Exists,
}

impl Set {
    /// The answer where nothing was written now.
    fn answer(self, setting: Setting, user_id: i64, balance: Money) -> Result<Opened, Error> {
        match self {
            Self::Written(state) => Ok(Opened { user_id, state, replayed: false }),
            Self::Found(entry) => repeated(setting, balance, &entry),
            Self::Exists => Err(Refusal::AccountExists { user_id }.into()),
        }
    }
}

async fn write(
    transaction: &mut dyn Transaction,
    setting: Setting,
    found: Option<State>,
    user_id: i64,
    balance: Money,
    request_id: Uuid,
) -> store::Result<Set> {
    let before = match (setting, found) {
        (_, None) => {
            transaction.insert_account(user_id, balance).await?;
            State { balance: Money::ZERO, version: 0 }
        }
        (setting, Some(before)) => {
            if let Some(entry) = transaction.find(user_id, request_id).await? {
                return Ok(Set::Found(Box::new(entry)));
            }
            if matches!(setting, Setting::Open) {
                return Ok(Set::Exists);
            }
            transaction.write(user_id, balance).await?;
            before
        }
    };
    let state = State { balance, version: before.version + 1 };
    transaction
        .append(&NewEntry {
            user_id,
            version: state.version,
            request_id,
            kind: if before.version == 0 { EntryKind::Open } else { EntryKind::Reset },
            // Both lie between zero and i64::MAX, so the difference fits.
            delta: Money::from_minor(balance.minor() - before.balance.minor()),
            balance_after: balance,
            version_before: before.version,
            strategy: "",
        })
        .await?;
    Ok(Set::Written(state))
}

/// The answer to a repeated OPEN or RESET. What must match is the balance it set; a RESET's delta depends on the balance
/// it found, and one of an account that was not there was journaled as its OPEN.
fn repeated(setting: Setting, balance: Money, entry: &Entry) -> Result<Opened, Error> {
    let same_kind = match setting {
        Setting::Open => entry.kind == EntryKind::Open,
        Setting::Reset => matches!(entry.kind, EntryKind::Reset | EntryKind::Open),
    };
    if same_kind && entry.balance_after == balance {
        let state = State { balance, version: entry.version };
        return Ok(Opened { user_id: entry.user_id, state, replayed: true });
    }
    Err(Refusal::RequestIdReused { request_id: entry.request_id, found: entry.journaled() }.into())
}

/// The id for the account that a request opens: a function of the request, so that a repeat opens no second one.
fn picked_id(request_id: Uuid, pick: u64) -> i64 {
    // FNV-1a over the id and the pick: spread is all that is asked of it.
    let bytes = request_id.as_bytes().iter().copied().chain(pick.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let span = PICKED_IDS.end - PICKED_IDS.start;
    (PICKED_IDS.start + hash % span).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_ids_repeat_and_differ() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(picked_id(one, 0), picked_id(one, 0));
        assert_ne!(picked_id(one, 0), picked_id(one, 1));
        assert_ne!(picked_id(one, 0), picked_id(two, 0));
        assert!(PICKED_IDS.contains(&picked_id(one, 0).cast_unsigned()));
    }
}
