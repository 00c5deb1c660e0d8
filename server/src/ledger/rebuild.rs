//! The balance of an account, held against its journal, and set right by a journaled REPAIR.
//!
//! The journal is walked backwards without a lock, as far as that takes; what has been written meanwhile is walked as well,
//! until it is little. Only then is the account's row locked, the rest walked, and the REPAIR written. A walk that turns
//! out to have followed entries that were overwritten since begins anew.

use std::{sync::Arc, time::Instant};

use uuid::Uuid;

use super::{
    Ledger,
    tries::{Tries, Trying},
};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, Refusal, State},
    error::Error,
    history::{
        Broken,
        losses::{Expected, Lost, Walk},
    },
    store::{self, RowLock, Transaction},
};

/// Entries read at a time, some 200 kB; also the most that are read while the account is locked.
const PAGE: i64 = 1000;

/// Lost updates that are kept to be told: the answer stays within some 30 kB.
const TOLD_MOST: usize = 100;

/// How many accounts are rebuilt at a time: each reads one page after the other, so that two keep a database busy.
pub(super) const AT_A_TIME: usize = 2;

/// How often a walk goes after what was written while it went on. Each takes a fraction of the one before; an account that
/// is written faster than its journal is read, or overwritten all the time, is left alone.
const PURSUITS_MOST: u32 = 8;

/// Whether a balance that is off is set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mending {
    /// No.
    Look,
    /// By a REPAIR under this request id.
    Repair(Uuid),
}

/// A balance, held against its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The account.
    pub user_id: i64,
    /// What was stored, at which version.
    pub stored: State,
    /// What the journal comes to.
    pub expected: Expected,
    /// How much more is stored, minor units.
    pub difference: Money,
    /// The newest of the lost updates.
    pub lost: Vec<Lost>,
    /// How many more there are.
    pub lost_omitted: u64,
    /// The version of the REPAIR, if there is one.
    pub repaired: Option<i64>,
    /// Whether the same request had journaled it before.
    pub replayed: bool,
}

/// A journal that was walked to where it begins anew.
#[derive(Clone, Debug)]
struct Walked {
    walk: Walk,
    lost: Vec<Lost>,
    omitted: u64,
}

/// What a look under the lock came to.
enum Locked {
    /// A REPAIR is written, and to be committed.
    Repaired(Box<Rebuilt>),
    /// There is nothing to repair.
    Sound(Box<Rebuilt>),
    /// The request is journaled already.
    Found(Box<Entry>),
    /// There is too much to be walked under the lock.
    Pursue,
    /// There is a reason not to repair it.
    Refused(Error),
}

impl Walked {
    fn from(newest: i64) -> Self {
        Self { walk: Walk::from(newest), lost: Vec::new(), omitted: 0 }
    }

    fn back(&mut self, page: &[Entry]) -> Result<(), Broken> {
        for entry in page {
            if self.walk.is_complete() {
                break;
            }
            match self.walk.back(entry)? {
                Some(lost) if self.lost.len() < TOLD_MOST => self.lost.push(lost),
                Some(_) => self.omitted += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// `None` where the two do not fit.
    fn onto(self, earlier: &Self) -> Result<Option<Self>, Broken> {
        let is_complete = self.walk.is_complete();
        let Some(walk) = self.walk.onto(&earlier.walk)? else { return Ok(None) };
        let (mut lost, mut omitted) = (self.lost, self.omitted);
        if !is_complete {
            let room = (TOLD_MOST - lost.len()).min(earlier.lost.len());
            lost.extend_from_slice(&earlier.lost[..room]);
            omitted += earlier.omitted + (earlier.lost.len() - room) as u64;
        }
        Ok(Some(Self { walk, lost, omitted }))
    }

    fn held_against(&self, user_id: i64, stored: State) -> Result<Rebuilt, Broken> {
        let expected = self.walk.expected()?;
        Ok(Rebuilt {
            user_id,
            stored,
            expected,
            difference: stored.balance.checked_sub(expected.balance).ok_or(Broken::Overflow)?,
            lost: self.lost.clone(),
            lost_omitted: self.omitted,
            repaired: None,
            replayed: false,
        })
    }
}

impl Ledger {
    /// Holds the stored balance against what the journal comes to, and repairs it if it is told to and they differ, or where
    /// updates were lost that make up for each other.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], [`Refusal::RepairBelowZero`], [`Refusal::RequestIdReused`], [`Error::JournalBroken`],
    /// [`Error::Overloaded`] where others are rebuilt already, or the database's.
    pub async fn rebuild(self: &Arc<Self>, user_id: i64, mending: Mending) -> Result<Rebuilt, Error> {
        let Mending::Repair(request_id) = mending else {
            let _room = self.room_to_rebuild()?;
            let stored = self.state(user_id).await?;
            return held_against(&self.walk(user_id, stored.version).await?, user_id, stored);
        };
        self.detached(move |ledger| async move {
            let _room = ledger.room_to_rebuild()?;
            ledger.repair(user_id, request_id).await
        })
        .await
    }

    /// At most `limit` entries before a version, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn entries_before(&self, user_id: i64, version: i64, limit: i64) -> Result<Vec<Entry>, Error> {
        self.reading(|| self.bench.store.entries_before(user_id, version, limit)).await
    }

    fn room_to_rebuild(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let busy = |_| Error::Overloaded(format!("{AT_A_TIME} accounts are being rebuilt already"));
        self.rebuilding.try_acquire().map_err(busy)
    }

    async fn repair(&self, user_id: i64, request_id: Uuid) -> Result<Rebuilt, Error> {
        // Spares a repeat the second walk; what is final is asked under the lock.
        if let Some(entry) = self.reading(|| self.bench.store.find(user_id, request_id)).await? {
            return self.repaired_before(&entry).await;
        }
        let mut walked = self.walk(user_id, self.state(user_id).await?.version).await?;
        let mut pursuits = 0;
        // What follows is short, however long the walk was.
        let mut tries = Tries::until(Trying::Anew, Instant::now() + self.limits.operation_timeout);
        loop {
            let mut transaction = tries.transaction(&*self.bench.store);
            let failure = match look_and_repair(&mut *transaction, user_id, request_id, &walked).await {
                Ok(Locked::Repaired(rebuilt)) => match transaction.commit().await {
                    Ok(()) => return Ok(*rebuilt),
                    // Where it did happen, the next try finds it under the row lock.
                    Err(failure) => failure,
                },
                Ok(locked) => {
                    transaction.rollback().await;
                    match locked {
                        Locked::Repaired(rebuilt) | Locked::Sound(rebuilt) => return Ok(*rebuilt),
                        Locked::Found(entry) => return self.repaired_before(&entry).await,
                        Locked::Refused(error) => return Err(error),
                        Locked::Pursue if pursuits < PURSUITS_MOST => {}
                        Locked::Pursue => {
                            let reason = "the account is written faster than its journal is read".to_owned();
                            return Err(Error::Contended { attempts: pursuits, reason });
                        }
                    }
                    pursuits += 1;
                    walked = self.pursue(user_id, &walked).await?;
                    tries = Tries::until(Trying::Anew, Instant::now() + self.limits.operation_timeout);
                    continue;
                }
                Err(failure) => {
                    transaction.rollback().await;
                    failure
                }
            };
            tries.after(failure).await?;
        }
    }

    /// The journal up to a version, without a lock: it never changes.
    async fn walk(&self, user_id: i64, newest: i64) -> Result<Walked, Error> {
        let mut walked = Walked::from(newest);
        while !walked.walk.is_complete() {
            self.page_back(user_id, &mut walked, PAGE).await?;
        }
        Ok(walked)
    }

    /// What was written since a walk, and that walk behind it.
    async fn pursue(&self, user_id: i64, earlier: &Walked) -> Result<Walked, Error> {
        let newest = self.state(user_id).await?.version;
        let mut walked = Walked::from(newest);
        while !walked.walk.is_complete() && walked.walk.next() > earlier.walk.newest() {
            let new = walked.walk.next() - earlier.walk.newest();
            self.page_back(user_id, &mut walked, PAGE.min(new)).await?;
        }
        match walked.onto(earlier).map_err(|broken| Error::JournalBroken { user_id, broken })? {
            Some(walked) => Ok(walked),
            None => self.walk(user_id, newest).await,
        }
    }

    async fn page_back(&self, user_id: i64, walked: &mut Walked, limit: i64) -> Result<(), Error> {
        let next = walked.walk.next();
        let page = self.entries_before(user_id, next + 1, limit).await?;
        let gone = if page.is_empty() { Err(Broken::Gap { missing: next }) } else { Ok(()) };
        gone.and_then(|()| walked.back(&page)).map_err(|broken| Error::JournalBroken { user_id, broken })
    }

    /// The answer to a repeat: it follows from the REPAIR, and from the journal before it.
    async fn repaired_before(&self, entry: &Entry) -> Result<Rebuilt, Error> {
        if entry.kind != EntryKind::Repair {
            return Err(Refusal::RequestIdReused { request_id: entry.request_id, found: entry.journaled() }.into());
        }
        let (user_id, version) = (entry.user_id, entry.version - 1);
        let broken = |broken| Error::JournalBroken { user_id, broken };
        let balance = entry.balance_after.checked_sub(entry.delta).ok_or_else(|| broken(Broken::Overflow))?;
        let rebuilt = held_against(&self.walk(user_id, version).await?, user_id, State { balance, version })?;
        Ok(Rebuilt { repaired: Some(entry.version), replayed: true, ..rebuilt })
    }
}

fn held_against(walked: &Walked, user_id: i64, stored: State) -> Result<Rebuilt, Error> {
    walked.held_against(user_id, stored).map_err(|broken| Error::JournalBroken { user_id, broken })
}

/// Walks what is new under the row lock (X), and writes a REPAIR where there is something to repair.
async fn look_and_repair(
    transaction: &mut dyn Transaction,
    user_id: i64,
    request_id: Uuid,
    earlier: &Walked,
) -> store::Result<Locked> {
    let Some(stored) = transaction.read(user_id, RowLock::Exclusive).await? else {
        return Ok(Locked::Refused(Refusal::AccountNotFound { user_id }.into()));
    };
    if let Some(entry) = transaction.find(user_id, request_id).await? {
        return Ok(Locked::Found(Box::new(entry)));
    }
    let new = stored.version - earlier.walk.newest();
    if !(0..=PAGE).contains(&new) {
        return Ok(Locked::Pursue);
    }
    let page = match new {
        0 => Vec::new(),
        _ => transaction.entries_before(user_id, stored.version + 1, new).await?,
    };
    let mut walked = Walked::from(stored.version);
    let rebuilt = match walked.back(&page).and_then(|()| walked.onto(earlier)) {
        Ok(None) => return Ok(Locked::Pursue),
        Ok(Some(walked)) => walked.held_against(user_id, stored),
        Err(broken) => Err(broken),
    };
    let rebuilt = match rebuilt {
        Ok(rebuilt) => rebuilt,
        Err(broken) => return Ok(Locked::Refused(Error::JournalBroken { user_id, broken })),
    };
    let Rebuilt { expected: Expected { balance, .. }, difference, .. } = rebuilt;
    if difference == Money::ZERO && rebuilt.lost.is_empty() {
        return Ok(Locked::Sound(Box::new(rebuilt)));
    }
    if balance < Money::ZERO {
        return Ok(Locked::Refused(Refusal::RepairBelowZero { user_id, expected: balance }.into()));
    }
    let version = write(transaction, user_id, request_id, stored, balance).await?;
    Ok(Locked::Repaired(Box::new(Rebuilt { repaired: Some(version), ..rebuilt })))
}

/// Sets the balance, and journals that as a REPAIR, whose version is returned.
async fn write(
    transaction: &mut dyn Transaction,
    user_id: i64,
    request_id: Uuid,
    stored: State,
    balance: Money,
) -> store::Result<i64> {
    transaction.write(user_id, balance).await?;
    let version = stored.version + 1;
    transaction
        .append(&NewEntry {
            user_id,
            version,
            request_id,
            kind: EntryKind::Repair,
            // Both lie between zero and i64::MAX, so the difference fits.
            delta: Money::from_minor(balance.minor() - stored.balance.minor()),
            balance_after: balance,
            version_before: stored.version,
            strategy: "",
        })
        .await?;
    Ok(version)
}
