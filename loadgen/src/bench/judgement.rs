//! The judgement of a bench: each touched account's journal held against what was told there. Pure, like the verdict of
//! an attack, and of the same opinion wherever both can see; it sees less, because it keeps no operation. What that costs
//! is said in [`Findings`], and it errs on the side of not calling a run clean.

use std::collections::HashSet;

use uuid::Uuid;
use zbl_client::{Entry, EntryKind, Money};

use super::operation::RequestIds;
use super::tally::{Digest, Keys, Told};
use crate::history::Acknowledgement;
use crate::report::bench::{BenchVerdict, LostOn};
use crate::report::{Pair, Side, Taken};
use crate::verdict::{Doubt, Journal, Node, Overflow, State, Survival, Verdict};

/// Lost updates that are told one by one; all are counted.
const WITNESSES: usize = 100;

/// A journal entry, as much of it as the tree and its witnesses need: 48 bytes.
#[derive(Clone, Copy, Debug)]
struct Row {
    version: i64,
    version_before: i64,
    delta: Money,
    balance_after: Money,
    request_id: Uuid,
}

impl Node for Row {
    fn version(&self) -> i64 {
        self.version
    }

    fn version_before(&self) -> i64 {
        self.version_before
    }

    fn delta(&self) -> Money {
        self.delta
    }

    fn balance_after(&self) -> Money {
        self.balance_after
    }
}

/// An account's journal while it is read.
pub(super) struct Reading<'a> {
    ids: RequestIds,
    keys: &'a Keys,
    unsettled: &'a HashSet<Uuid>,
    /// What a fresh account began with.
    began: Option<State>,
    root: State,
    rows: Vec<Row>,
    /// Entries of the run, without those of unsettled operations.
    journaled: Told,
    /// Entries of operations whose outcome was never learnt.
    found: u64,
    /// Such operations that are voided.
    voided: u64,
    foreign: u64,
}

/// What was found on the accounts so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    accounts: u64,
    acknowledged: u64,
    lost_updates: u64,
    witnesses: Vec<LostOn>,
    paired: i128,
    unattributed: i128,
    difference: i128,
    /// Accounts with money gone that no lost update explains.
    unexplained: u64,
    /// Acknowledged deductions beyond those that are journaled.
    missing: u64,
    /// Accounts where as many are journaled as were acknowledged, but not the same: some receipt differs from its entry,
    /// or has none.
    differing: u64,
    /// Journaled deductions beyond those that were acknowledged. Which of them is told apart only where one is journaled
    /// twice; else they are taken for refused ones, and a receipt that differs besides is not seen.
    surplus: u64,
    doubled: u64,
    miscalculated: u64,
    unknown: u64,
    foreign: u64,
    gaps: u64,
    unrooted: u64,
    moving: Option<Doubt>,
}

impl<'a> Reading<'a> {
    /// A journal to be read from its beginning; what counts is behind what the account began with. Of an account that was
    /// there before, this is whatever its newest entry before the run's first one left behind.
    pub(super) fn new(ids: RequestIds, keys: &'a Keys, unsettled: &'a HashSet<Uuid>, began: Option<State>) -> Self {
        let root = began.unwrap_or(State { balance: Money::ZERO, version: 0 });
        let journaled = Told { acknowledged: 0, digest: Digest::NONE };
        Self { ids, keys, unsettled, began, root, rows: Vec::new(), journaled, found: 0, voided: 0, foreign: 0 }
    }

    /// Takes the next entry; those up to the root are passed over, and those that were read before.
    pub(super) fn take(&mut self, entry: &Entry) {
        if entry.version <= self.newest() {
            return;
        }
        let &Entry { version, request_id, delta, balance_after, version_before, .. } = entry;
        if self.began.is_none() && self.rows.is_empty() && !self.ids.holds(request_id) {
            self.root = State { balance: balance_after, version };
            return;
        }
        self.rows.push(Row { version, version_before, delta, balance_after, request_id });
        match (self.ids.holds(request_id), entry.kind) {
            (false, _) => self.foreign += 1,
            // A void settles that there is nothing.
            (true, EntryKind::Void) => self.voided += u64::from(self.unsettled.contains(&request_id)),
            (true, _) if self.unsettled.contains(&request_id) => self.found += 1,
            (true, _) => {
                let receipt = Acknowledgement { balance: balance_after, version, version_before };
                self.journaled.acknowledged += 1;
                self.journaled.digest.add(self.keys.digest(request_id, delta, &receipt));
            }
        }
    }

    /// The version of the newest entry.
    pub(super) fn newest(&self) -> i64 {
        self.journal().newest()
    }

    fn journal(&self) -> Journal<'_, Row> {
        Journal { root: self.root, entries: &self.rows }
    }

    /// Whether the row is a deduction of this run: a void changes nothing.
    fn is_own(&self, row: &Row) -> bool {
        self.ids.holds(row.request_id) && row.delta != Money::ZERO
    }

    /// Whether any of the run's ids is journaled twice, and how often.
    fn doubled(&self) -> u64 {
        let mut ids: Vec<Uuid> = self.rows.iter().filter(|row| self.is_own(row)).map(|row| row.request_id).collect();
        ids.sort_unstable();
        ids.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
    }
}

/// What is held against an account's journal.
pub(super) struct Claims {
    pub(super) user_id: i64,
    pub(super) told: Told,
    /// Operations on it whose outcome was never learnt.
    pub(super) unsettled: u64,
    /// What each deduction changes.
    pub(super) delta: Money,
    /// The account, read after its journal.
    pub(super) last: State,
}

impl Findings {
    /// Judges one account.
    ///
    /// # Errors
    /// [`Overflow`] when a balance before a write does not fit money.
    pub(super) fn judge(&mut self, reading: &Reading<'_>, claims: &Claims) -> Result<(), Overflow> {
        let Claims { told, last, delta, .. } = claims;
        let journal = reading.journal();
        let path = journal.path();
        let minor = |money: Money| i128::from(money.minor());
        let mut survived = minor(journal.root.balance);
        let mut journaled = survived;
        for (row, survival) in reading.rows.iter().zip(&path.survival) {
            journaled += minor(row.delta);
            match survival {
                Survival::Survives => survived += minor(row.delta),
                Survival::LostTo(overwriter) if reading.is_own(row) => {
                    self.mourn(claims.user_id, row, &reading.rows[*overwriter])?;
                }
                Survival::LostTo(_) => {}
            }
        }
        let missing = told.acknowledged.saturating_sub(reading.journaled.acknowledged);
        let settled = last.version == journal.newest();
        let explained = survived + i128::from(missing) * minor(*delta);
        let unattributed = if settled { minor(last.balance) - explained } else { 0 };
        self.unexplained += u64::from(unattributed != 0);
        self.unattributed += unattributed;
        self.difference += minor(last.balance) - journaled;
        self.compare(reading, told, missing);
        self.accounts += 1;
        self.acknowledged += told.acknowledged + reading.found;
        self.unknown += claims.unsettled.saturating_sub(reading.found + reading.voided);
        self.miscalculated += journal.miscalculated().count() as u64;
        self.foreign += reading.foreign;
        self.gaps += journal.gaps();
        self.unrooted += u64::from(!path.reaches_root);
        if !settled {
            self.moving = Some(Doubt::Moving { account: last.version, journal: journal.newest() });
        }
        Ok(())
    }

    /// Holds what was told against what is journaled.
    fn compare(&mut self, reading: &Reading<'_>, told: &Told, missing: u64) {
        let surplus = reading.journaled.acknowledged.saturating_sub(told.acknowledged);
        self.missing += missing;
        self.surplus += surplus;
        if surplus > 0 {
            self.doubled += reading.doubled();
        }
        if surplus == 0 && missing == 0 && reading.journaled != *told {
            self.differing += 1;
        }
    }

    fn mourn(&mut self, user_id: i64, victim: &Row, overwriter: &Row) -> Result<(), Overflow> {
        let amount = victim.delta.checked_neg().ok_or(Overflow)?;
        self.lost_updates += 1;
        self.paired += i128::from(amount.minor());
        if self.witnesses.len() < WITNESSES {
            let pair = Pair { victim: side(victim)?, overwriter: side(overwriter)?, amount };
            self.witnesses.push(LostOn { user_id, pair });
        }
        Ok(())
    }

    /// Adds what was found on other accounts.
    pub(super) fn add(&mut self, other: Self) {
        let room = WITNESSES.saturating_sub(self.witnesses.len());
        self.witnesses.extend(other.witnesses.into_iter().take(room));
        self.paired += other.paired;
        self.unattributed += other.unattributed;
        self.difference += other.difference;
        self.moving = self.moving.or(other.moving);
        for (sum, more) in [
            (&mut self.accounts, other.accounts),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.lost_updates, other.lost_updates),
            (&mut self.unexplained, other.unexplained),
            (&mut self.missing, other.missing),
            (&mut self.differing, other.differing),
            (&mut self.surplus, other.surplus),
            (&mut self.doubled, other.doubled),
            (&mut self.miscalculated, other.miscalculated),
            (&mut self.unknown, other.unknown),
            (&mut self.foreign, other.foreign),
            (&mut self.gaps, other.gaps),
            (&mut self.unrooted, other.unrooted),
        ] {
            *sum += more;
        }
    }

    /// The verdict over all accounts, where each deduction took `amount`.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit money.
    pub(super) fn close(self, amount: Money) -> Result<BenchVerdict, Overflow> {
        let harm = self.harm();
        let doubts = self.doubts();
        let taken = i128::from(amount.minor()) * i128::from(self.acknowledged);
        Ok(BenchVerdict {
            verdict: match (self.lost_updates > 0 || !harm.is_empty(), doubts.is_empty()) {
                (true, _) => Verdict::Lost,
                (false, false) => Verdict::Inconclusive,
                (false, true) => Verdict::Clean,
            },
            accounts_checked: self.accounts,
            acknowledged: Taken { count: self.acknowledged, amount: money(taken)? },
            lost_updates_count: self.lost_updates,
            lost: money(self.paired + self.unattributed)?,
            unattributed: money(self.unattributed)?,
            difference: money(self.difference)?,
            doubts: harm.into_iter().chain(doubts.iter().map(ToString::to_string)).collect(),
            lost_updates: self.witnesses,
        })
    }

    /// What does not hold, besides lost updates.
    fn harm(&self) -> Vec<String> {
        let possible = [
            (self.missing, "acknowledged and not in the journal"),
            (self.differing, "accounts whose receipts are not what the journal holds"),
            (self.doubled, "request ids journaled twice"),
            (self.miscalculated, "entries with a wrong balance"),
            (self.unexplained, "accounts with money gone that no lost update explains"),
        ];
        possible.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")).collect()
    }

    fn doubts(&self) -> Vec<Doubt> {
        let possible = [
            (self.acknowledged == 0, Doubt::NothingAcknowledged),
            (self.unknown > 0, Doubt::Unknown(self.unknown)),
            (self.foreign > 0, Doubt::Foreign(self.foreign)),
            (self.surplus > 0, Doubt::FailedButJournaled(self.surplus)),
            (self.gaps > 0, Doubt::Gaps(self.gaps)),
            (self.unrooted > 0, Doubt::Unrooted),
        ];
        possible.into_iter().filter_map(|(present, doubt)| present.then_some(doubt)).chain(self.moving).collect()
    }
}

fn side(row: &Row) -> Result<Side, Overflow> {
    Ok(Side {
        request_id: row.request_id,
        version_before: row.version_before,
        balance_before: row.balance_after.checked_sub(row.delta).ok_or(Overflow)?,
        version: row.version,
        balance_after: row.balance_after,
    })
}

fn money(total: i128) -> Result<Money, Overflow> {
    i64::try_from(total).map(Money::from_minor).map_err(|_| Overflow)
}

#[cfg(test)]
mod tests;
