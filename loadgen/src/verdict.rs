//! The verdict: what clients were told, held against what the journal says. Pure: no clock, no network, no opinion of
//! the strategy. LOST when money that was acknowledged is gone, INCONCLUSIVE when that cannot be known, else CLEAN; it
//! refuses to call clean what it could not check.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zbl_client::{Entry, EntryKind, Money};

use crate::history::{Operation, Outcome, VOIDED};

mod journal;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use journal::Path;
pub(crate) use journal::Survival;
pub use journal::{Journal, Node, State};

/// The three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every acknowledged change is in the balance.
    Clean,
    /// An acknowledged change is not, whatever the net sum.
    Lost,
    /// Nothing is known to be lost, but not everything could be checked.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "CLEAN",
            Self::Lost => "LOST",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// Everything that is known about a run.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What the clients were told; each request id once.
    pub operations: &'a [Operation],
    /// What the journal says.
    pub journal: Journal<'a>,
    /// What the account says, read after the journal.
    pub last: State,
}

/// One lost update: who lost it to whom, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostUpdate {
    /// The acknowledged write that is gone.
    pub victim: Write,
    /// The write on the surviving path that had not seen it and wrote over it.
    pub overwriter: Write,
    /// What is gone: the victim's change with its sign turned, positive for a lost deduction.
    pub amount: Money,
}

/// One write of the journal, as a witness tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The request that made it.
    pub request_id: Uuid,
    /// What it had read.
    pub read: State,
    /// What it left behind.
    pub wrote: State,
}

/// Why a run cannot be called clean although nothing is known to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing was acknowledged, so nothing was tested.
    NothingAcknowledged,
    /// Operations whose outcome could not be learnt.
    Unknown(u64),
    /// Entries that no operation of this run asked for.
    Foreign(u64),
    /// Entries of operations that had been told they had no effect.
    FailedButJournaled(u64),
    /// Operations that were accepted and not decided when the time was over.
    Undecided(u64),
    /// Versions without an entry.
    Gaps(u64),
    /// The surviving path does not lead to where the run began.
    Unrooted,
    /// The account and the journal were not read at the same version, so something is still writing.
    Moving {
        /// The version of the account.
        account: i64,
        /// The version of the newest entry.
        journal: i64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingAcknowledged => write!(f, "nothing was acknowledged, so nothing was tested"),
            Self::Unknown(count) => write!(f, "operations with an unknown outcome: {count}"),
            Self::Foreign(count) => {
                write!(f, "journal entries of others, the account is not the run's own: {count}")
            }
            Self::FailedButJournaled(count) => {
                write!(f, "operations told that they had no effect, yet journaled: {count}")
            }
            Self::Undecided(count) => write!(f, "operations accepted and not decided in time: {count}"),
            Self::Gaps(count) => write!(f, "versions without a journal entry: {count}"),
            Self::Unrooted => write!(f, "the newest entry does not lead back to where the run began"),
            Self::Moving { account, journal } => {
                write!(f, "the account is at version {account}, its journal at {journal}: something else is writing")
            }
        }
    }
}

/// A count of operations and the money they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The money taken, net of money added.
    pub amount: Money,
}

/// The verdict and every figure behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The operations that took effect as far as clients and journal know.
    pub acknowledged: Tally,
    /// The operations without effect, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// The operations whose outcome is unknown.
    pub unknown: u64,
    /// The operations that were accepted and not decided in time.
    pub undecided: u64,
    /// Requests that were accepted, and of which neither service nor journal knows anything.
    pub forgotten: Vec<Uuid>,
    /// The acknowledged money that is gone: the sum of `lost_updates` and `unattributed`.
    pub lost: Money,
    /// The part of `lost` that the journal's tree does not explain.
    pub unattributed: Money,
    /// The balance minus what the journal's changes add up to.
    pub difference: Money,
    /// Journal entries that repeat a request id.
    pub doubled: u64,
    /// Acknowledged requests that the journal does not hold.
    pub missing: Vec<Uuid>,
    /// Acknowledged requests whose receipt is not what the journal holds.
    pub differing: Vec<Uuid>,
    /// Versions whose balance is not what was read plus the change.
    pub miscalculated: Vec<i64>,
    /// Who lost what to whom, in order of the lost versions.
    pub lost_updates: Vec<LostUpdate>,
    /// Why the run cannot be called clean, besides losses.
    pub doubts: Vec<Doubt>,
}

/// A sum left the range of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sums of this run exceed 92233720368547758.07; use smaller amounts or fewer operations")]
pub struct Overflow;

/// Judges a run. Time and memory grow linearly with operations and entries.
///
/// # Errors
/// [`Overflow`] when a sum of the run does not fit money.
pub fn judge(evidence: &Evidence<'_>) -> Result<Judgement, Overflow> {
    let mut case = Case::open(evidence);
    for (operation, claim) in evidence.operations.iter().zip(std::mem::take(&mut case.claims)) {
        case.hear(operation, claim)?;
    }
    case.close(evidence)
}

/// What the journal holds under an operation's request id.
#[derive(Clone, Copy)]
enum Claim {
    Nothing,
    Voided,
    Entry(usize),
}

/// A run while it is being judged. Sums are wider than money, so that only results can overflow.
struct Case<'a> {
    journal: Journal<'a>,
    path: Path,
    /// For each operation, what the journal holds of it.
    claims: Vec<Claim>,
    /// What the balance ought to be if the tree explains everything.
    explained: i128,
    /// The signed changes of all acknowledged operations.
    acknowledged_delta: i128,
    acknowledged: u64,
    failed: BTreeMap<&'static str, u64>,
    unknown: u64,
    undecided: u64,
    forgotten: Vec<Uuid>,
    foreign: u64,
    doubled: u64,
    failed_but_journaled: u64,
    missing: Vec<Uuid>,
    differing: Vec<Uuid>,
    lost_updates: Vec<LostUpdate>,
}

impl<'a> Case<'a> {
    /// Finds every entry's operation.
    fn open(evidence: &Evidence<'a>) -> Self {
        let journal = evidence.journal;
        let mut case = Self {
            journal,
            path: journal.path(),
            claims: vec![Claim::Nothing; evidence.operations.len()],
            explained: i128::from(journal.root.balance.minor()),
            acknowledged_delta: 0,
            acknowledged: 0,
            failed: BTreeMap::new(),
            unknown: 0,
            undecided: 0,
            forgotten: Vec::new(),
            foreign: 0,
            doubled: 0,
            failed_but_journaled: 0,
            missing: Vec::new(),
            differing: Vec::new(),
            lost_updates: Vec::new(),
        };
        let owners: HashMap<Uuid, usize> =
            evidence.operations.iter().enumerate().map(|(index, operation)| (operation.request_id, index)).collect();
        for (index, entry) in journal.entries.iter().enumerate() {
            if case.path.survival[index] != Survival::Survives {
                case.explained -= i128::from(entry.delta.minor());
            }
            case.claim(index, entry, owners.get(&entry.request_id).copied());
        }
        case
    }

    fn claim(&mut self, index: usize, entry: &Entry, owner: Option<usize>) {
        let Some(owner) = owner else {
            self.foreign += 1;
            self.explained += i128::from(entry.delta.minor());
            return;
        };
        match (entry.kind, self.claims[owner]) {
            (EntryKind::Void, Claim::Nothing) => self.claims[owner] = Claim::Voided,
            (_, Claim::Nothing) => self.claims[owner] = Claim::Entry(index),
            (_, Claim::Voided | Claim::Entry(_)) => {
                self.doubled += 1;
                self.explained += i128::from(entry.delta.minor());
            }
        }
    }

    /// Takes one operation's outcome into account.
    fn hear(&mut self, operation: &Operation, claim: Claim) -> Result<(), Overflow> {
        match (&operation.outcome, claim) {
            (Outcome::Acknowledged(receipt), Claim::Entry(index)) => {
                let entry = &self.journal.entries[index];
                let journaled = (entry.version, entry.version_before, entry.balance_after, entry.delta);
                if journaled != (receipt.version, receipt.version_before, receipt.balance, operation.delta) {
                    self.differing.push(operation.request_id);
                }
                self.acknowledge(operation.delta);
                self.mourn(index)?;
            }
            (Outcome::Acknowledged(_), Claim::Nothing | Claim::Voided) => {
                self.missing.push(operation.request_id);
                self.acknowledge(operation.delta);
            }
            // The journal is the settlement: what it holds was committed, and what it voids never will be.
            (Outcome::Unknown, Claim::Entry(index)) => {
                self.acknowledge(self.journal.entries[index].delta);
                self.mourn(index)?;
            }
            (Outcome::Accepted | Outcome::Forgotten, Claim::Entry(index)) => {
                if self.journal.entries[index].delta != operation.delta {
                    self.differing.push(operation.request_id);
                }
                self.acknowledge(operation.delta);
                self.mourn(index)?;
            }
            (Outcome::Unknown, Claim::Voided) => *self.failed.entry(VOIDED).or_default() += 1,
            (Outcome::Unknown, Claim::Nothing) => self.unknown += 1,
            // Of one that is barred the service was not asked why.
            (Outcome::Accepted, Claim::Nothing | Claim::Voided) => self.undecided += 1,
            (Outcome::Forgotten, Claim::Nothing | Claim::Voided) => self.forgotten.push(operation.request_id),
            (Outcome::Failed { reason }, claim) => {
                *self.failed.entry(reason).or_default() += 1;
                if let Claim::Entry(index) = claim {
                    self.failed_but_journaled += 1;
                    self.explained += i128::from(self.journal.entries[index].delta.minor());
                }
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, delta: Money) {
        self.acknowledged += 1;
        self.acknowledged_delta += i128::from(delta.minor());
        self.explained += i128::from(delta.minor());
    }

    /// Records the pair when the entry of an acknowledged operation is off the path.
    fn mourn(&mut self, index: usize) -> Result<(), Overflow> {
        if let Survival::LostTo(overwriter) = self.path.survival[index] {
            let (victim, overwriter) = (&self.journal.entries[index], &self.journal.entries[overwriter]);
            let amount = victim.delta.checked_neg().ok_or(Overflow)?;
            self.lost_updates.push(LostUpdate { victim: write(victim)?, overwriter: write(overwriter)?, amount });
        }
        Ok(())
    }

    fn close(mut self, evidence: &Evidence<'_>) -> Result<Judgement, Overflow> {
        let last = i128::from(evidence.last.balance.minor());
        let settled = evidence.last.version == self.journal.newest();
        let journaled: i128 = self.journal.entries.iter().map(|entry| i128::from(entry.delta.minor())).sum();
        let unattributed = if settled { last - self.explained } else { 0 };
        self.lost_updates.sort_unstable_by_key(|lost| lost.victim.wrote.version);
        let paired: i128 = self.lost_updates.iter().map(|lost| i128::from(lost.amount.minor())).sum();
        let miscalculated: Vec<i64> = self.journal.miscalculated().map(|entry| entry.version).collect();
        let doubts = self.doubts(evidence.last.version);
        let harmed = !self.lost_updates.is_empty()
            || !self.missing.is_empty()
            || !self.forgotten.is_empty()
            || !self.differing.is_empty()
            || !miscalculated.is_empty()
            || self.doubled > 0
            || unattributed != 0;
        Ok(Judgement {
            verdict: match (harmed, doubts.is_empty()) {
                (true, _) => Verdict::Lost,
                (false, false) => Verdict::Inconclusive,
                (false, true) => Verdict::Clean,
            },
            acknowledged: Tally { count: self.acknowledged, amount: money(-self.acknowledged_delta)? },
            failed: self.failed,
            unknown: self.unknown,
            undecided: self.undecided,
            forgotten: self.forgotten,
            lost: money(paired + unattributed)?,
            unattributed: money(unattributed)?,
            difference: money(last - i128::from(self.journal.root.balance.minor()) - journaled)?,
            doubled: self.doubled,
            missing: self.missing,
            differing: self.differing,
            miscalculated,
            lost_updates: self.lost_updates,
            doubts,
        })
    }

    fn doubts(&self, account: i64) -> Vec<Doubt> {
        let journal = self.journal.newest();
        let possible = [
            (self.acknowledged == 0, Doubt::NothingAcknowledged),
            (self.unknown > 0, Doubt::Unknown(self.unknown)),
            (self.undecided > 0, Doubt::Undecided(self.undecided)),
            (self.foreign > 0, Doubt::Foreign(self.foreign)),
            (self.failed_but_journaled > 0, Doubt::FailedButJournaled(self.failed_but_journaled)),
            (self.journal.gaps() > 0, Doubt::Gaps(self.journal.gaps())),
            (!self.path.reaches_root, Doubt::Unrooted),
            (account != journal, Doubt::Moving { account, journal }),
        ];
        possible.into_iter().filter_map(|(present, doubt)| present.then_some(doubt)).collect()
    }
}

fn write(entry: &Entry) -> Result<Write, Overflow> {
    let before = entry.balance_after.checked_sub(entry.delta).ok_or(Overflow)?;
    Ok(Write {
        request_id: entry.request_id,
        read: State { balance: before, version: entry.version_before },
        wrote: State { balance: entry.balance_after, version: entry.version },
    })
}

fn money(total: i128) -> Result<Money, Overflow> {
    i64::try_from(total).map(Money::from_minor).map_err(|_| Overflow)
}
