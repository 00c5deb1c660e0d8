//! The judgement of a bench: each touched account's journal held against what was told there. Pure, like the verdict of
//! an attack, and of the same opinion wherever both can see; it sees less, because it keeps no operation. What that costs
//! is said in [`Findings`], and it errs on the side of not calling a run clean.

use std::fmt;

use zbl_client::Money;

use super::tally::Told;
use crate::report::Taken;
use crate::report::bench::{BenchVerdict, LostOn};
use crate::verdict::{Doubt, Overflow, State, Verdict};

mod reading;

pub(super) use reading::Reading;

/// Lost updates that are told one by one; all are counted.
const WITNESSES: usize = 100;

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
    /// Accounts that could not be judged, and why the first of them could not.
    unjudged: u64,
    why_unjudged: Option<String>,
    /// Accounts that there was no time for.
    left: u64,
    moving: Option<Doubt>,
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
    pub(super) fn judge(&mut self, mut reading: Reading<'_>, claims: &Claims) -> Result<(), Overflow> {
        let Claims { user_id, told, last, delta, .. } = claims;
        let newest = reading.newest();
        let mut trail = std::mem::take(&mut reading.trail);
        trail.follow(reading.journal(), reading.ids)?;
        let minor = |money: Money| i128::from(money.minor());
        let first = minor(reading.first.balance);
        let missing = told.acknowledged.saturating_sub(reading.journaled.acknowledged);
        let settled = last.version == newest;
        let explained = first + trail.survived + i128::from(missing) * minor(*delta);
        let unattributed = if settled { minor(last.balance) - explained } else { 0 };
        self.compare(&reading, told, missing);
        self.add(Self {
            accounts: 1,
            acknowledged: told.acknowledged + reading.found,
            lost_updates: trail.lost_updates,
            witnesses: trail.witnesses.into_iter().map(|pair| LostOn { user_id: *user_id, pair }).collect(),
            paired: trail.paired,
            unattributed,
            difference: minor(last.balance) - first - trail.journaled,
            unexplained: u64::from(unattributed != 0),
            unknown: claims.unsettled.saturating_sub(reading.found + reading.voided),
            miscalculated: trail.miscalculated,
            foreign: reading.foreign,
            gaps: trail.gaps,
            unrooted: u64::from(trail.broken),
            moving: (!settled).then_some(Doubt::Moving { account: last.version, journal: newest }),
            ..Self::default()
        });
        Ok(())
    }

    /// Notes an account that could not be judged, where this many deductions were acknowledged.
    pub(super) fn pass_over(&mut self, user_id: i64, acknowledged: u64, why: &impl fmt::Display) {
        self.add(Self {
            acknowledged,
            unjudged: 1,
            why_unjudged: Some(format!("account {user_id}: {why}")),
            ..Self::default()
        });
    }

    /// Notes accounts that judging was ended before, where this many deductions were acknowledged.
    pub(super) fn leave(&mut self, accounts: u64, acknowledged: u64) {
        self.add(Self { acknowledged, left: accounts, ..Self::default() });
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

    /// Adds what was found on other accounts.
    pub(super) fn add(&mut self, other: Self) {
        let room = WITNESSES.saturating_sub(self.witnesses.len());
        self.witnesses.extend(other.witnesses.into_iter().take(room));
        self.paired += other.paired;
        self.unattributed += other.unattributed;
        self.difference += other.difference;
        self.moving = self.moving.or(other.moving);
        self.why_unjudged = self.why_unjudged.take().or(other.why_unjudged);
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
            (&mut self.unjudged, other.unjudged),
            (&mut self.left, other.left),
        ] {
            *sum += more;
        }
    }

    /// The verdict over all accounts, where each deduction took `amount`. Sums that money cannot hold are cut to what it
    /// can, and such a run is not clean.
    pub(super) fn close(self, amount: Money) -> BenchVerdict {
        let harm = self.harm();
        let mut doubts = self.doubts();
        let taken = i128::from(amount.minor()) * i128::from(self.acknowledged);
        let sums = [taken, self.paired + self.unattributed, self.unattributed, self.difference];
        if sums.iter().any(|sum| i64::try_from(*sum).is_err()) {
            doubts.push("sums are greater than money can hold; bench with smaller amounts".to_owned());
        }
        let [taken, lost, unattributed, difference] = sums.map(money);
        BenchVerdict {
            verdict: match (self.lost_updates > 0 || !harm.is_empty(), doubts.is_empty()) {
                (true, _) => Verdict::Lost,
                (false, false) => Verdict::Inconclusive,
                (false, true) => Verdict::Clean,
            },
            accounts_checked: self.accounts,
            acknowledged: Taken { count: self.acknowledged, amount: taken },
            lost_updates_count: self.lost_updates,
            lost,
            unattributed,
            difference,
            doubts: [harm, doubts].concat(),
            lost_updates: self.witnesses,
        }
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

    /// Why it cannot be called clean although nothing is known to be lost.
    fn doubts(&self) -> Vec<String> {
        let known = [
            (self.acknowledged == 0, Doubt::NothingAcknowledged),
            (self.unknown > 0, Doubt::Unknown(self.unknown)),
            (self.foreign > 0, Doubt::Foreign(self.foreign)),
            (self.surplus > 0, Doubt::FailedButJournaled(self.surplus)),
            (self.gaps > 0, Doubt::Gaps(self.gaps)),
            (self.unrooted > 0, Doubt::Unrooted),
        ];
        let known = known.into_iter().filter_map(|(present, doubt)| present.then_some(doubt)).chain(self.moving);
        let mut doubts: Vec<String> = known.map(|doubt| doubt.to_string()).collect();
        if self.surplus > 0 {
            // Only the surplus over those that were acknowledged is seen; one of these may be missing for each one more.
            doubts.push(
                "there may be more of them, and as many acknowledged ones missing: this cannot be excluded".to_owned(),
            );
        }
        if let Some(why) = &self.why_unjudged {
            doubts.push(format!("accounts that could not be judged: {}, the first of them {why}", self.unjudged));
        }
        if self.left > 0 {
            let all = self.accounts + self.unjudged + self.left;
            doubts.push(format!("stopped before all was judged: {} of {all} accounts are", self.accounts));
        }
        doubts
    }
}

/// As much of a sum as money holds.
fn money(sum: i128) -> Money {
    let most = if sum < 0 { i64::MIN } else { i64::MAX };
    Money::from_minor(i64::try_from(sum).unwrap_or(most))
}

#[cfg(test)]
mod tests;
