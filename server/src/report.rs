//! What the journal comes to in reports: turnover of accounts, of their days, and of all together. Pure: it is given entries and
//! folds them in, each at most once and in the order of its account's versions, whatever order they come in.
//!
//! What was deducted counts as spent, also where the deduction was lost later: the journal says what was acknowledged.

use std::{collections::BTreeMap, fmt};

use chrono::NaiveDate;

use crate::account::{Entry, EntryKind, Money};

#[cfg(test)]
mod tests;

/// A sum of money in minor units. It can leave 64 bits, so it has 38 decimal digits, as many as the database's DECIMAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum(i128);

impl Sum {
    /// The largest, in size: 38 nines.
    pub const MOST: i128 = 10_i128.pow(38) - 1;

    /// A sum of minor units; `None` beyond [`Self::MOST`].
    #[must_use]
    pub fn from_minor(minor: i128) -> Option<Self> {
        (-Self::MOST..=Self::MOST).contains(&minor).then_some(Self(minor))
    }

    /// Minor units.
    #[must_use]
    pub const fn minor(self) -> i128 {
        self.0
    }

    /// A decimal with exactly two places, as this type writes itself.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, cents) = text.rsplit_once('.').filter(|(_, cents)| cents.len() == 2)?;
        Self::from_minor(format!("{whole}{cents}").parse().ok()?)
    }

    fn and(self, delta: Money) -> Result<Self, Overflow> {
        self.0.checked_add(delta.minor().into()).and_then(Self::from_minor).ok_or(Overflow)
    }

    fn less(self, delta: Money) -> Result<Self, Overflow> {
        self.0.checked_sub(delta.minor().into()).and_then(Self::from_minor).ok_or(Overflow)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

/// A sum has left 38 digits: ten quintillion entries of the largest amount would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum of the reports has more than 38 digits")]
pub struct Overflow;

/// Money that went out and came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// What deductions took.
    pub spent: Sum,
    /// What deposits brought.
    pub deposited: Sum,
    /// How many deductions.
    pub deductions: i64,
    /// How many deposits.
    pub deposits: i64,
}

impl Turnover {
    fn and(self, entry: &Entry) -> Result<Self, Overflow> {
        Ok(match entry.kind {
            EntryKind::Deduct => Self { spent: self.spent.less(entry.delta)?, deductions: self.deductions + 1, ..self },
            EntryKind::Deposit => {
                Self { deposited: self.deposited.and(entry.delta)?, deposits: self.deposits + 1, ..self }
            }
            EntryKind::Open | EntryKind::Reset | EntryKind::Void | EntryKind::Repair => self,
        })
    }
}

/// An account, as far as its journal was folded in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountTurnover {
    /// The version of the last entry that is in it.
    pub version: i64,
    /// Of its whole life.
    pub turnover: Turnover,
}

/// All accounts together. `opened + adjusted + turnover.deposited - turnover.spent` is the sum of all deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accounts opened.
    pub accounts: i64,
    /// Entries, of whatever kind.
    pub entries: i64,
    /// What accounts were opened with.
    pub opened: Sum,
    /// What RESET and REPAIR changed, signed.
    pub adjusted: Sum,
    /// How many RESETs and REPAIRs.
    pub resets: i64,
    /// What went out and came in.
    pub turnover: Turnover,
}

impl Totals {
    fn and(self, entry: &Entry) -> Result<Self, Overflow> {
        let counted = Self { entries: self.entries + 1, turnover: self.turnover.and(entry)?, ..self };
        Ok(match entry.kind {
            EntryKind::Open => Self { accounts: self.accounts + 1, opened: self.opened.and(entry.delta)?, ..counted },
            EntryKind::Reset | EntryKind::Repair => {
                Self { resets: self.resets + 1, adjusted: self.adjusted.and(entry.delta)?, ..counted }
            }
            EntryKind::Deduct | EntryKind::Deposit | EntryKind::Void => counted,
        })
    }
}

/// The read models, or the part of them that some entries touch. An account or day that is not in it is one with nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Models {
    /// By account.
    pub accounts: BTreeMap<i64, AccountTurnover>,
    /// By account and day (UTC): those on which something was spent or deposited.
    pub days: BTreeMap<(i64, NaiveDate), Turnover>,
    /// All together.
    pub totals: Totals,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It is in now.
    In,
    /// It was in before.
    Before,
    /// Others of its account have to come first.
    TooEarly,
}

impl Models {
    /// What would become of an entry.
    #[must_use]
    pub fn place_of(&self, entry: &Entry) -> Folded {
        let version = self.accounts.get(&entry.user_id).map_or(0, |account| account.version);
        match entry.version - version {
            1 => Folded::In,
            ..=0 => Folded::Before,
            2.. => Folded::TooEarly,
        }
    }

    /// Folds an entry in, if it is the next of its account.
    ///
    /// # Errors
    /// [`Overflow`]; nothing was changed.
    pub fn fold(&mut self, entry: &Entry) -> Result<Folded, Overflow> {
        let place = self.place_of(entry);
        if place != Folded::In {
            return Ok(place);
        }
        let account = self.accounts.get(&entry.user_id).copied().unwrap_or_default();
        let account = AccountTurnover { version: entry.version, turnover: account.turnover.and(entry)? };
        let totals = self.totals.and(entry)?;
        if let Some(day) = day_of(entry) {
            let turnover = self.days.get(&day).copied().unwrap_or_default().and(entry)?;
            self.days.insert(day, turnover);
        }
        self.accounts.insert(entry.user_id, account);
        self.totals = totals;
        Ok(place)
    }
}

/// The account's day that an entry counts for, if for any.
#[must_use]
pub fn day_of(entry: &Entry) -> Option<(i64, NaiveDate)> {
    matches!(entry.kind, EntryKind::Deduct | EntryKind::Deposit).then(|| (entry.user_id, entry.created_at.date()))
}
