//! What an account is and what may happen to it: the rules, without any I/O. Everything else in the server either
//! carries these values or asks these functions; a rule found anywhere else is in the wrong room.

use std::fmt;

use chrono::NaiveDateTime;
use uuid::Uuid;
pub use zbl_proto::Money;

/// The largest balance an account may have: what an `i64` of minor units holds.
pub const MAX_BALANCE: Money = Money::from_minor(i64::MAX);

/// A balance, and the journal position it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The balance, minor units.
    pub balance: Money,
    /// The version of the journal entry that left it behind.
    pub version: i64,
}

impl State {
    /// Before the first event: there is no account yet.
    pub const NONE: Self = Self { balance: Money::ZERO, version: 0 };
}

/// What kind of change a journal entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The account was opened: version 1.
    Open,
    /// Money was taken.
    Deduct,
    /// Money was added.
    Deposit,
    /// The lab set the balance.
    Reset,
    /// A request id was barred from ever taking effect; the delta is zero.
    Void,
    /// The balance was set to what the journal comes to, after updates had been lost.
    Repair,
}

impl EntryKind {
    /// Every kind, for reading names back.
    pub const ALL: [Self; 6] = [Self::Open, Self::Deduct, Self::Deposit, Self::Reset, Self::Void, Self::Repair];

    /// The name the journal stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Deduct => "DEDUCT",
            Self::Deposit => "DEPOSIT",
            Self::Reset => "RESET",
            Self::Void => "VOID",
            Self::Repair => "REPAIR",
        }
    }

    /// Whether it sets the balance whatever came before: what was lost until then is settled, and a sum over the journal
    /// begins with what it left behind.
    pub const fn begins_anew(self) -> bool {
        matches!(self, Self::Open | Self::Reset | Self::Repair)
    }

    /// The kind with that stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which way a [`Change`] moves money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of the account.
    Deduct,
    /// Into the account.
    Deposit,
}

/// A validated request to move money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The account, positive.
    pub user_id: i64,
    /// The id that makes the request repeatable.
    pub request_id: Uuid,
    /// Out or in.
    pub direction: Direction,
    /// How much, minor units, greater than zero.
    pub amount: Money,
}

impl Change {
    /// The kind of entry the change becomes.
    pub const fn kind(&self) -> EntryKind {
        match self.direction {
            Direction::Deduct => EntryKind::Deduct,
            Direction::Deposit => EntryKind::Deposit,
        }
    }

    /// The signed change of the balance.
    pub fn delta(&self) -> Money {
        match self.direction {
            // Amounts are positive, and the negation of a positive i64 always fits.
            Direction::Deduct => Money::from_minor(-self.amount.minor()),
            Direction::Deposit => self.amount,
        }
    }

    /// The balances the change can be applied to, both ends included: enough money, and room for more.
    pub fn applicable(&self) -> (Money, Money) {
        match self.direction {
            Direction::Deduct => (self.amount, MAX_BALANCE),
            Direction::Deposit => (Money::ZERO, Money::from_minor(i64::MAX - self.amount.minor())),
        }
    }

    /// The balance after the change.
    ///
    /// # Errors
    /// [`Refusal::InsufficientBalance`] or [`Refusal::BalanceOverflow`] when `balance` is not [`Self::applicable`].
    pub fn decide(&self, balance: Money) -> Result<Money, Refusal> {
        let (least, most) = self.applicable();
        let refusal = match self.direction {
            Direction::Deduct => Refusal::InsufficientBalance { balance, amount: self.amount },
            Direction::Deposit => Refusal::BalanceOverflow { balance, amount: self.amount },
        };
        if balance < least || balance > most {
            return Err(refusal);
        }
        balance.checked_add(self.delta()).ok_or(refusal)
    }
}

impl Change {
    /// The receipt of the entry journaled under this change's request id: a replay.
    ///
    /// # Errors
    /// [`Refusal::RequestIdReused`] when the entry is of another payload, or a VOID.
    pub fn receipt_of(&self, entry: Entry) -> Result<Receipt, Refusal> {
        if (entry.kind, entry.delta) == (self.kind(), self.delta()) {
            return Ok(Receipt::replayed(entry));
        }
        Err(Refusal::RequestIdReused { request_id: self.request_id, found: entry.journaled() })
    }
}

/// Why the rules refuse a change; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such account.
    #[error("account {user_id} does not exist; open it with OpenAccount")]
    AccountNotFound {
        /// The id asked for.
        user_id: i64,
    },
    /// There was no such account yet.
    #[error("account {user_id} was opened at {opened_at} UTC, after the time that is asked for")]
    NotYetOpened {
        /// The id asked for.
        user_id: i64,
        /// When it was opened, by the database's clock, UTC.
        opened_at: NaiveDateTime,
    },
    /// The account has not come to that version.
    #[error("account {user_id} has not reached version {version}; its newest is {newest}")]
    NotYetReached {
        /// The account.
        user_id: i64,
        /// The version asked for.
        version: i64,
        /// The newest there is.
        newest: i64,
    },
    /// What the journal comes to is no balance that can be set.
    #[error(
        "the journal of account {user_id} comes to {expected}: more was taken than there was, and no balance is below \
         zero; deposit at least {} first, then repair it", Money::ZERO.checked_sub(*expected).unwrap_or(MAX_BALANCE)
    )]
    RepairBelowZero {
        /// The account.
        user_id: i64,
        /// What its journal comes to, below zero, minor units.
        expected: Money,
    },
    /// The account is there already, opened by another request.
    #[error("account {user_id} exists already; choose another id, or 0 to let the server choose")]
    AccountExists {
        /// The id asked for.
        user_id: i64,
    },
    /// Not enough money.
    #[error("balance {balance} is less than {amount}")]
    InsufficientBalance {
        /// The balance the decision was made on.
        balance: Money,
        /// The amount asked for.
        amount: Money,
    },
    /// The balance would leave the range of an `i64` of minor units.
    #[error("balance {balance} and {amount} together exceed the largest balance, {MAX_BALANCE}")]
    BalanceOverflow {
        /// The balance the decision was made on.
        balance: Money,
        /// The amount asked for.
        amount: Money,
    },
    /// The request id is journaled with another payload, or voided.
    #[error("request id {request_id} is {found}; a new request needs a new id")]
    RequestIdReused {
        /// The id.
        request_id: Uuid,
        /// What the journal holds under it.
        found: Journaled,
    },
}

/// The part of an entry that a repeated request must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// The kind of entry.
    pub kind: EntryKind,
    /// Its signed change, minor units.
    pub delta: Money,
}

impl fmt::Display for Journaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EntryKind::Void => f.write_str("voided: it was resolved before it arrived and can no longer take effect"),
            kind => write!(f, "taken already, by {} {}", kind.name(), self.delta),
        }
    }
}

/// One journal entry, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub user_id: i64,
    /// The position in the account's journal, from 1, without gaps.
    pub version: i64,
    /// The id of the request that made it.
    pub request_id: Uuid,
    /// What happened.
    pub kind: EntryKind,
    /// The signed change, minor units.
    pub delta: Money,
    /// The balance left behind, minor units.
    pub balance_after: Money,
    /// The version its operation had read: its parent in the history tree.
    pub version_before: i64,
    /// The strategy that wrote it; empty for OPEN, RESET, VOID and REPAIR.
    pub strategy: String,
    /// When, by the database's clock, UTC.
    pub created_at: NaiveDateTime,
}

impl Entry {
    /// What a repeat of the request must match.
    pub const fn journaled(&self) -> Journaled {
        Journaled { kind: self.kind, delta: self.delta }
    }
}

/// A journal entry about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The account.
    pub user_id: i64,
    /// The version the database gave the write.
    pub version: i64,
    /// The id of the request.
    pub request_id: Uuid,
    /// What happened.
    pub kind: EntryKind,
    /// The signed change, minor units.
    pub delta: Money,
    /// The balance left behind, minor units.
    pub balance_after: Money,
    /// The version that was read.
    pub version_before: i64,
    /// The strategy; empty for OPEN, RESET, VOID and REPAIR.
    pub strategy: &'static str,
}

/// The answer to an applied [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The account.
    pub user_id: i64,
    /// The id it is journaled under.
    pub request_id: Uuid,
    /// The balance it left behind, minor units.
    pub balance: Money,
    /// Its position in the journal.
    pub version: i64,
    /// The version that was read to decide it.
    pub version_before: i64,
    /// The strategy that wrote it.
    pub strategy: String,
    /// How many times this call ran its transaction; 0 on a replay.
    pub attempts: u32,
}

impl Receipt {
    /// The receipt of an entry found in the journal: a replay.
    pub fn replayed(entry: Entry) -> Self {
        Self {
            user_id: entry.user_id,
            request_id: entry.request_id,
            balance: entry.balance_after,
            version: entry.version,
            version_before: entry.version_before,
            strategy: entry.strategy,
            attempts: 0,
        }
    }

    /// Whether the receipt was read from the journal, not written by this call.
    pub const fn is_replay(&self) -> bool {
        self.attempts == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(direction: Direction, minor: i64) -> Change {
        Change { user_id: 1, request_id: Uuid::nil(), direction, amount: Money::from_minor(minor) }
    }

    #[test]
    fn a_deduction_needs_its_amount() {
        let take = change(Direction::Deduct, 1000);
        assert_eq!(take.decide(Money::from_minor(1000)), Ok(Money::ZERO));
        assert!(matches!(take.decide(Money::from_minor(999)), Err(Refusal::InsufficientBalance { .. })));
    }

    #[test]
    fn a_deposit_needs_room() {
        let add = change(Direction::Deposit, 1);
        assert_eq!(add.decide(Money::from_minor(i64::MAX - 1)), Ok(MAX_BALANCE));
        assert!(matches!(add.decide(MAX_BALANCE), Err(Refusal::BalanceOverflow { .. })));
    }

    #[test]
    fn kinds_are_read_back_by_name() {
        for kind in EntryKind::ALL {
            assert_eq!(EntryKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(EntryKind::from_name("open"), None);
    }
}
