//! What is lost of an account's history, found by walking it backwards. Pure: it is given the entries, the newest first.
//!
//! The newest entry survives, and so does its parent, and the parent's parent. What lies between an entry that survives
//! and its parent is lost, and that entry wrote over it. So the walk remembers one entry, however long the journal is.

use uuid::Uuid;

use super::Broken;
use crate::account::{Entry, EntryKind, MAX_BALANCE, Money};

/// An update that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its entry.
    pub entry: Entry,
    /// The entry that wrote over it.
    pub overwriter: Survivor,
    /// What the balance has too much without it, minor units: positive for a deduction. Of a RESET or a REPAIR, which
    /// changes more than its own, it is how far the balance that was written over it was from what it had set.
    pub amount: Money,
    /// Whether a RESET or a REPAIR came later: then nothing of it is missing any more.
    pub settled: bool,
}

/// An entry that survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its version.
    pub version: i64,
    /// The request that made it.
    pub request_id: Uuid,
    /// What kind of change it was.
    pub kind: EntryKind,
    /// Its signed change, minor units.
    pub delta: Money,
    /// The balance it left behind, minor units.
    pub balance_after: Money,
    /// The version that its operation had read.
    pub version_before: i64,
    /// The strategy that wrote it; empty for what the service writes itself.
    pub strategy: String,
}

impl From<&Entry> for Survivor {
    fn from(entry: &Entry) -> Self {
        Self {
            version: entry.version,
            request_id: entry.request_id,
            kind: entry.kind,
            delta: entry.delta,
            balance_after: entry.balance_after,
            version_before: entry.version_before,
            strategy: entry.strategy.clone(),
        }
    }
}

impl Survivor {
    /// What its operation had read. It fits: balances lie between zero and the largest.
    fn had_read(&self) -> i128 {
        i128::from(self.balance_after.minor()) - i128::from(self.delta.minor())
    }

    /// Its parent left behind what it had read. What begins anew counts from what the account held, not from there.
    fn check(&self, parent: Money) -> Result<(), Broken> {
        if self.kind.begins_anew() || self.had_read() == i128::from(parent.minor()) {
            return Ok(());
        }
        let right = parent.checked_add(self.delta).unwrap_or(MAX_BALANCE);
        Err(Broken::Contradiction { version: self.version, left: self.balance_after, right })
    }
}

/// A walk under way.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Where it began.
    newest: i64,
    /// The version that comes next; 0 at the end.
    next: i64,
    /// The entry that survives and was passed last.
    survivor: Option<Survivor>,
    /// The balance that the newest entry left behind.
    left: Money,
    /// The changes since the balance was set, or so far.
    changes: i128,
    /// The newest OPEN, RESET or REPAIR, once it is found: its version, and what it set.
    anew: Option<(i64, Money)>,
    /// What the lost updates that are not settled come to.
    lost: i128,
}

/// What a journal comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What the balance should be; below zero where more was taken than there was.
    pub balance: Money,
    /// The version of the newest OPEN, RESET or REPAIR, with which the sum begins.
    pub since: i64,
    /// How much more than that the lost updates make of the balance.
    pub lost: Money,
}

impl Walk {
    /// Begins with the entry at `newest`.
    pub const fn from(newest: i64) -> Self {
        Self { newest, next: newest, survivor: None, left: Money::ZERO, changes: 0, anew: None, lost: 0 }
    }

    /// Goes on with the next entry, and says whether that is lost.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn back(&mut self, entry: &Entry) -> Result<Option<Lost>, Broken> {
        let version = entry.version;
        if version != self.next {
            return Err(Broken::Gap { missing: self.next });
        }
        // Only the first entry has nothing before it, and there must be one that sets the balance.
        let is_first = version == 1;
        if !(i64::from(!is_first)..version).contains(&entry.version_before) || is_first && !entry.kind.begins_anew() {
            return Err(Broken::Unrooted { version, parent: entry.version_before });
        }
        let settled = self.anew.is_some();
        self.next -= 1;
        self.sum_up(entry);
        match &self.survivor {
            Some(survivor) if version > survivor.version_before => {
                let lost = lost(entry, survivor, settled)?;
                if !settled {
                    self.lost += i128::from(lost.amount.minor());
                }
                // A VOID moves nothing.
                return Ok(Some(lost).filter(|lost| lost.entry.kind != EntryKind::Void));
            }
            Some(survivor) => survivor.check(entry.balance_after)?,
            None => self.left = entry.balance_after,
        }
        self.survivor = Some(entry.into());
        Ok(None)
    }

    fn sum_up(&mut self, entry: &Entry) {
        match self.anew {
            Some(_) => {}
            None if entry.kind.begins_anew() => self.anew = Some((entry.version, entry.balance_after)),
            None => self.changes += i128::from(entry.delta.minor()),
        }
    }

    /// The version that it began with.
    pub const fn newest(&self) -> i64 {
        self.newest
    }

    /// The version that comes next; 0 at the end.
    pub const fn next(&self) -> i64 {
        self.next
    }

    /// Whether it has come to what the journal begins anew with: what lies before that is settled.
    pub const fn is_complete(&self) -> bool {
        self.anew.is_some()
    }

    /// This walk, which ended where `earlier` had begun, and that one behind it. `None` where the two do not fit: an entry
    /// of this one was written over what `earlier` took to survive.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn onto(self, earlier: &Self) -> Result<Option<Self>, Broken> {
        if self.is_complete() {
            return Ok(Some(self));
        }
        if self.next != earlier.newest {
            return Err(Broken::Gap { missing: self.next });
        }
        match &self.survivor {
            None => Ok(Some(earlier.clone())),
            Some(survivor) if survivor.version_before != earlier.newest => Ok(None),
            Some(survivor) => {
                survivor.check(earlier.left)?;
                Ok(Some(Self {
                    newest: self.newest,
                    left: self.left,
                    changes: self.changes + earlier.changes,
                    lost: self.lost + earlier.lost,
                    ..earlier.clone()
                }))
            }
        }
    }

    /// What it has come to, when it is complete.
    ///
    /// # Errors
    /// [`Broken::Overflow`], and [`Broken::Gap`] before it is complete.
    pub fn expected(&self) -> Result<Expected, Broken> {
        let (since, set) = self.anew.ok_or(Broken::Gap { missing: self.next })?;
        let balance = money(i128::from(set.minor()) + self.changes)?;
        Ok(Expected { balance, since, lost: money(self.lost)? })
    }
}

fn lost(entry: &Entry, overwriter: &Survivor, settled: bool) -> Result<Lost, Broken> {
    let amount = match entry.kind.begins_anew() {
        true => overwriter.had_read() - i128::from(entry.balance_after.minor()),
        false => -i128::from(entry.delta.minor()),
    };
    Ok(Lost { entry: entry.clone(), overwriter: overwriter.clone(), amount: money(amount)?, settled })
}

fn money(minor: i128) -> Result<Money, Broken> {
    i64::try_from(minor).map(Money::from_minor).map_err(|_| Broken::Overflow)
}
