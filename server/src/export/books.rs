//! Entries as double-entry bookkeeping, in plain text that ledger-cli and hledger read: one balanced transaction for each
//! entry, with an assertion of the balance that it left behind.
//!
//! A history that is a line is a row of changes. Where it branches the balance jumps: an entry that overwrote others left
//! behind what it had read and its own change, not what was there and its change. The difference is what it destroyed. It
//! is posted apart, so that the books balance and say so. Everything follows from the entry and the one before it.

use std::fmt::Write;

use chrono::{NaiveDate, SecondsFormat};

use super::Error;
use crate::{
    account::{Entry, EntryKind, Money},
    store::Criteria,
};

/// What stands before the first transaction.
pub(super) const HEAD: &str = "\
; The journal of an account service. Each transaction is an entry; its code is the entry's version.
; Assets:Account:N is the balance of account N. Loss:Overwritten is what later entries destroyed of earlier ones: its
; balance is the sum of all lost updates, negative where lost deductions left accounts with more than they should have.
";

/// What the balance jumps by where an entry overwrote others.
const OVERWRITTEN: &str = "Loss:Overwritten";

/// What it jumps by where it did not: somebody changed a balance, and no entry says so.
const UNJOURNALED: &str = "Equity:Unjournaled";

/// What comes from entries that are not in the file.
const CARRIED: &str = "Equity:Carried";

/// An account's book under way.
#[derive(Clone, Copy)]
struct Book {
    user_id: i64,
    /// What the journal's last entry left behind.
    journal: Money,
    /// What the transactions written so far come to.
    written: Money,
    /// The last transaction's date. Clocks can be put back, and hledger checks assertions in the order of dates.
    date: NaiveDate,
}

impl Book {
    const fn of(user_id: i64) -> Self {
        Self { user_id, journal: Money::ZERO, written: Money::ZERO, date: NaiveDate::MIN }
    }
}

/// The books of all accounts, one after the other.
pub(super) struct Books(Book);

impl Books {
    pub(super) const fn new() -> Self {
        Self(Book::of(0))
    }

    /// The transactions of those entries that are wanted. The others are looked at for what they leave behind.
    pub(super) fn transactions(&mut self, page: &[Entry], wanted: &Criteria) -> Result<Vec<u8>, Error> {
        let mut text = String::new();
        for entry in page {
            if entry.user_id != self.0.user_id {
                self.0 = Book::of(entry.user_id);
            }
            if wanted.admit(entry) {
                let amounts = Error::Amounts { user_id: entry.user_id, version: entry.version };
                self.0.transaction(entry, &mut text).ok_or(amounts)?;
            }
            self.0.journal = entry.balance_after;
        }
        Ok(text.into_bytes())
    }
}

impl Book {
    /// Writes an entry; `None` where its amounts cannot be counted with.
    fn transaction(&mut self, entry: &Entry, text: &mut String) -> Option<()> {
        self.date = self.date.max(entry.created_at.date());
        let account = format!("Assets:Account:{}", self.user_id);
        let carried = self.journal.checked_sub(self.written)?;
        if carried != Money::ZERO {
            head(text, self.date, entry.version - 1, "carried forward");
            posting(text, &account, carried, Some(self.journal));
            posting(text, CARRIED, carried.checked_neg()?, None);
            text.push('\n');
        }
        head(text, self.date, entry.version, &titled(entry));
        let time = entry.created_at.and_utc().to_rfc3339_opts(SecondsFormat::Micros, true);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    ; request_id: {}\n    ; time: {time}", entry.request_id);
        let jump = entry.balance_after.checked_sub(self.journal)?.checked_sub(entry.delta)?;
        let left = Some(entry.balance_after);
        if jump == Money::ZERO {
            posting(text, &account, entry.delta, left);
        } else {
            posting(text, &account, entry.delta, None);
            posting(text, &account, jump, left);
        }
        if let Some(other) = other_side(entry.kind) {
            posting(text, other, entry.delta.checked_neg()?, None);
        }
        if jump != Money::ZERO {
            let overwrote = entry.version_before < entry.version - 1;
            posting(text, if overwrote { OVERWRITTEN } else { UNJOURNALED }, jump.checked_neg()?, None);
        }
        text.push('\n');
        self.written = entry.balance_after;
        Some(())
    }
}

/// Where the money of an entry comes from or goes to; a VOID moves none.
const fn other_side(kind: EntryKind) -> Option<&'static str> {
    match kind {
        EntryKind::Open => Some("Equity:Opening"),
        EntryKind::Deduct => Some("Expenses:Deductions"),
        EntryKind::Deposit => Some("Income:Deposits"),
        EntryKind::Reset => Some("Equity:Reset"),
        EntryKind::Repair => Some("Equity:Repair"),
        EntryKind::Void => None,
    }
}

/// What an entry is, in a line.
fn titled(entry: &Entry) -> String {
    let mut title = entry.kind.name().to_owned();
    if !entry.strategy.is_empty() {
        // It is the code's own name, unless somebody has written to the database.
        let strategy = entry.strategy.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "?");
        let _ = write!(title, " by {strategy}");
    }
    let (first, last) = (entry.version_before + 1, entry.version - 1);
    if first == last {
        let _ = write!(title, ", overwrote {first}");
    } else if first < last {
        let _ = write!(title, ", overwrote {first} to {last}");
    }
    title
}

fn head(text: &mut String, date: NaiveDate, version: i64, title: &str) {
    let _ = writeln!(text, "{} * ({version}) {title}", date.format("%Y-%m-%d"));
}

fn posting(text: &mut String, account: &str, amount: Money, left: Option<Money>) {
    let amount = amount.to_string();
    let _ = match left {
        Some(left) => writeln!(text, "    {account:<28}  {amount:>20} = {left}"),
        None => writeln!(text, "    {account:<28}  {amount:>20}"),
    };
}
