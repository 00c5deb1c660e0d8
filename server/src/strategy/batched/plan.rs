//! What a batch comes to, decided change by change on the running balance of each account. Pure.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::{
    account::{Change, Entry, NewEntry, Refusal, State},
    store::AccountWrite,
};

/// A request id within its account.
pub(super) type Request = (i64, Uuid);

/// What becomes of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is applied.
    Applied {
        /// What it was decided on.
        seen: State,
        /// What it leaves behind.
        written: State,
    },
    /// It repeats the change at this place of the same batch.
    Repeats(usize),
    /// It was journaled before.
    Known(Entry),
    /// The rules refuse it.
    Refused(Refusal),
    /// Its account was not among those locked.
    NotLocked,
}

/// What a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One for each change, in their order.
    pub(super) decisions: Vec<Decision>,
    /// What is to be journaled.
    pub(super) entries: Vec<NewEntry>,
    /// What the accounts come to.
    pub(super) accounts: Vec<AccountWrite>,
}

/// Decides the changes in their order. `known` holds entries that were journaled before.
pub(super) fn decide(
    changes: &[Change],
    locked: &BTreeMap<i64, State>,
    known: &HashMap<Request, Entry>,
    strategy: &'static str,
) -> Plan {
    let mut plan = Plan::default();
    let mut running = locked.clone();
    let mut first: HashMap<Request, usize> = HashMap::with_capacity(changes.len());
    for (at, change) in changes.iter().enumerate() {
        let request = (change.user_id, change.request_id);
        let decision = if !locked.contains_key(&change.user_id) {
            // Nothing is known of it, not even whether another of the same id comes before it.
            Decision::NotLocked
        } else if let Some(entry) = known.get(&request) {
            Decision::Known(entry.clone())
        } else if let Some(&before) = first.get(&request) {
            repeat(changes, before, change)
        } else {
            first.insert(request, at);
            apply(change, running.get_mut(&change.user_id))
        };
        if let Decision::Applied { seen, written } = decision {
            plan.entries.push(NewEntry {
                user_id: change.user_id,
                version: written.version,
                request_id: change.request_id,
                kind: change.kind(),
                delta: change.delta(),
                balance_after: written.balance,
                version_before: seen.version,
                strategy,
            });
        }
        plan.decisions.push(decision);
    }
    let moved = locked.iter().zip(running.values()).filter(|((_, before), after)| before.version != after.version);
    plan.accounts = moved
        .map(|((&user_id, before), after)| AccountWrite {
            user_id,
            balance: after.balance,
            entries: after.version - before.version,
        })
        .collect();
    plan
}

/// The second of two changes under one id.
fn repeat(changes: &[Change], before: usize, change: &Change) -> Decision {
    if changes[before] == *change {
        return Decision::Repeats(before);
    }
    let found = crate::account::Journaled { kind: changes[before].kind(), delta: changes[before].delta() };
    Decision::Refused(Refusal::RequestIdReused { request_id: change.request_id, found })
}

fn apply(change: &Change, state: Option<&mut State>) -> Decision {
    let Some(state) = state else { return Decision::NotLocked };
    match change.decide(state.balance) {
        Ok(balance) => {
            let seen = *state;
            *state = State { balance, version: seen.version + 1 };
            Decision::Applied { seen, written: *state }
        }
        Err(refusal) => Decision::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Direction, Money};

    fn take(user_id: i64, id: u128, minor: i64) -> Change {
        let request_id = Uuid::from_u128(id);
        Change { user_id, request_id, direction: Direction::Deduct, amount: Money::from_minor(minor) }
    }

    fn state(minor: i64, version: i64) -> State {
        State { balance: Money::from_minor(minor), version }
    }

    #[test]
    fn each_change_is_decided_on_what_the_one_before_it_left() {
        let changes = [take(1, 1, 60), take(2, 2, 5), take(1, 3, 60), take(1, 4, 40)];
        let locked = BTreeMap::from([(1, state(100, 7)), (2, state(5, 1))]);
        let plan = decide(&changes, &locked, &HashMap::new(), "batched");
        assert_eq!(plan.decisions[0], Decision::Applied { seen: state(100, 7), written: state(40, 8) });
        assert_eq!(plan.decisions[1], Decision::Applied { seen: state(5, 1), written: state(0, 2) });
        assert!(matches!(plan.decisions[2], Decision::Refused(Refusal::InsufficientBalance { .. })));
        assert_eq!(plan.decisions[3], Decision::Applied { seen: state(40, 8), written: state(0, 9) });
        let write = |user_id, entries| AccountWrite { user_id, balance: Money::ZERO, entries };
        assert_eq!(plan.accounts, [write(1, 2), write(2, 1)]);
        let lines = plan.entries.iter().all(|entry| entry.version == entry.version_before + 1);
        assert!(lines && plan.entries.len() == 3);
    }

    #[test]
    fn a_repeat_in_the_batch_is_applied_once_and_another_payload_is_refused() {
        let changes = [take(1, 1, 10), take(1, 1, 10), take(1, 1, 11)];
        let plan = decide(&changes, &BTreeMap::from([(1, state(100, 1))]), &HashMap::new(), "batched");
        assert_eq!(plan.decisions[1], Decision::Repeats(0));
        assert!(matches!(plan.decisions[2], Decision::Refused(Refusal::RequestIdReused { .. })));
        assert_eq!(plan.entries.len(), 1);
    }

    #[test]
    fn what_is_not_locked_is_left_alone() {
        let twice = [take(9, 1, 10), take(9, 1, 10)];
        let plan = decide(&twice, &BTreeMap::new(), &HashMap::new(), "batched");
        assert_eq!(plan.decisions, [Decision::NotLocked, Decision::NotLocked]);
        assert!(plan.entries.is_empty() && plan.accounts.is_empty());
    }
}
