//! The naive model the verdict is checked against: an account where every value carries the set of writes that are in
//! it. No tree, no path: a write takes the set of what it read and adds itself, and what is not in the last set is lost.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;
use zbl_client::{Entry, EntryKind, Money};

use super::{Evidence, Journal, State};
use crate::history::{Acknowledgement, Operation, Outcome};

/// One thing that happens to the account.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A change by `delta`, decided on the value `stale` writes back (0: the current one), and what its client hears.
    Write { delta: i64, stale: usize, heard: Heard },
    /// A refused change.
    Refusal,
    /// An unknown outcome settled as void.
    Void,
    /// A change that was accepted, to be made later, and is not: what its client hears in the end.
    Unmade(Unmade),
}

/// What becomes of an accepted change that is not made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unmade {
    /// It is barred by a VOID, and refused.
    Barred,
    /// It waits still.
    Waits,
    /// The service knows nothing of it.
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heard {
    Receipt,
    Nothing,
    /// That it was accepted, and no more.
    Acceptance,
    /// That it was accepted, and later that nobody knows it.
    Oblivion,
}

/// A history of calls.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let heard = prop_oneof![9 => Just(Heard::Receipt), 1 => Just(Heard::Nothing)];
    // Mostly fresh writes, some a little stale and a few very stale, so that money is lost, revived and lost again.
    let stale = prop_oneof![5 => Just(0_usize), 4 => 1_usize..4, 1 => 4_usize..30];
    prop::collection::vec(step(stale, heard), 0..60)
}

/// A history in which most changes were accepted, to be made later; in many of them no money is lost.
pub(crate) fn queued_steps() -> impl Strategy<Value = Vec<Step>> {
    let heard = prop_oneof![1 => Just(Heard::Receipt), 9 => Just(Heard::Acceptance), 1 => Just(Heard::Oblivion)];
    let unmade = prop_oneof![9 => Just(Unmade::Barred), 1 => Just(Unmade::Waits), 1 => Just(Unmade::Forgotten)];
    let stale = prop_oneof![40 => Just(0_usize), 1 => 1_usize..4];
    prop::collection::vec(prop_oneof![12 => step(stale, heard), 1 => unmade.prop_map(Step::Unmade)], 0..60)
}

fn step(stale: impl Strategy<Value = usize>, heard: impl Strategy<Value = Heard>) -> impl Strategy<Value = Step> {
    let delta = prop_oneof![3 => -20_i64..0, 1 => 1_i64..20];
    prop_oneof![
        12 => (delta, stale, heard).prop_map(|(delta, stale, heard)| Step::Write { delta, stale, heard }),
        1 => Just(Step::Refusal),
        1 => Just(Step::Void),
    ]
}

/// A value the account has had: its balance, and the entries (by index) whose changes are in it.
#[derive(Clone)]
struct Value {
    balance: i64,
    within: BTreeSet<usize>,
}

/// The account after a sequence of steps, with everything clients and journal know about it.
pub(crate) struct Model {
    pub(crate) root: State,
    pub(crate) operations: Vec<Operation>,
    pub(crate) entries: Vec<Entry>,
    values: Vec<Value>,
}

/// Versions before the run, so that no index is a version by accident.
const ROOT_VERSION: i64 = 7;

impl Model {
    pub(crate) fn run(steps: &[Step]) -> Self {
        let root = State { balance: Money::from_minor(1_000), version: ROOT_VERSION };
        let opening = Value { balance: 1_000, within: BTreeSet::new() };
        let mut model = Self { root, operations: Vec::new(), entries: Vec::new(), values: vec![opening] };
        for (number, step) in steps.iter().enumerate() {
            model.step(Uuid::from_u128(number as u128 + 1), *step);
        }
        model
    }

    fn step(&mut self, request_id: Uuid, step: Step) {
        let (delta, outcome) = match step {
            Step::Write { delta, stale, heard } => {
                let read = (self.values.len() - 1).saturating_sub(stale);
                let receipt = self.write(request_id, EntryKind::Deduct, delta, read);
                let outcome = match heard {
                    Heard::Receipt => Outcome::Acknowledged(receipt),
                    Heard::Nothing => Outcome::Unknown,
                    Heard::Acceptance => Outcome::Accepted,
                    Heard::Oblivion => Outcome::Forgotten,
                };
                (delta, outcome)
            }
            Step::Refusal => (-5, Outcome::Failed { reason: "INSUFFICIENT_BALANCE" }),
            Step::Void => {
                self.write(request_id, EntryKind::Void, 0, self.values.len() - 1);
                (-5, Outcome::Unknown)
            }
            Step::Unmade(unmade) => {
                let outcome = match unmade {
                    Unmade::Barred => {
                        self.write(request_id, EntryKind::Void, 0, self.values.len() - 1);
                        Outcome::Failed { reason: "INSUFFICIENT_BALANCE" }
                    }
                    Unmade::Waits => Outcome::Accepted,
                    Unmade::Forgotten => Outcome::Forgotten,
                };
                (-5, outcome)
            }
        };
        self.operations.push(Operation { request_id, delta: Money::from_minor(delta), outcome });
    }

    fn write(&mut self, request_id: Uuid, kind: EntryKind, delta: i64, read: usize) -> Acknowledgement {
        let mut value = self.values[read].clone();
        value.balance += delta;
        value.within.insert(self.entries.len());
        let receipt = Acknowledgement {
            balance: Money::from_minor(value.balance),
            version: ROOT_VERSION + self.values.len() as i64,
            version_before: ROOT_VERSION + read as i64,
        };
        self.entries.push(Entry {
            version: receipt.version,
            request_id,
            kind,
            delta: Money::from_minor(delta),
            balance_after: receipt.balance,
            version_before: receipt.version_before,
            strategy: String::new(),
            created_at: None,
            overwritten_by: None,
        });
        self.values.push(value);
        receipt
    }

    pub(crate) fn evidence(&self) -> Evidence<'_> {
        let balance = Money::from_minor(self.final_value().balance);
        Evidence {
            operations: &self.operations,
            journal: Journal { root: self.root, entries: &self.entries },
            last: State { balance, version: ROOT_VERSION + self.values.len() as i64 - 1 },
        }
    }

    fn final_value(&self) -> &Value {
        &self.values[self.values.len() - 1]
    }

    /// The writes (not the voids) that are not in the final value, each with the first surviving write after it.
    pub(crate) fn lost(&self) -> Vec<(Uuid, Uuid, i64)> {
        let surviving = &self.final_value().within;
        let lost = (0..self.entries.len())
            .filter(|index| !surviving.contains(index) && self.entries[*index].kind != EntryKind::Void);
        lost.map(|victim| {
            let overwriter = *surviving.range(victim..).next().expect("the last write survives");
            let pair = (&self.entries[victim], &self.entries[overwriter]);
            (pair.0.request_id, pair.1.request_id, -pair.0.delta.minor())
        })
        .collect()
    }

    /// What the write of entry `index` destroyed: the changes it cut off, less the changes it brought back.
    pub(crate) fn destroyed(&self, index: usize) -> i64 {
        let (before, after) = (&self.values[index].within, &self.values[index + 1].within);
        let sum = |entries: Vec<usize>| entries.into_iter().map(|entry| self.entries[entry].delta.minor()).sum::<i64>();
        let cut = sum(before.difference(after).copied().collect());
        let revived = sum(after.difference(before).copied().filter(|entry| *entry != index).collect());
        revived - cut
    }
}
