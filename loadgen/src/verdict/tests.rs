//! Cases by hand, one per rule of the verdict, and random histories against the model.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use uuid::Uuid;
use zbl_client::{Entry, EntryKind, Money};

use super::model::{Heard, Model, Step, Unmade, queued_steps, steps};
use super::*;
use crate::history::{Acknowledgement, Operation};

const fn sold(stale: usize) -> Step {
    Step::Write { delta: -10, stale, heard: Heard::Receipt }
}

fn judged(model: &Model) -> Judgement {
    judge(&model.evidence()).expect("small sums")
}

fn verdict_after(change: impl FnOnce(&mut Model)) -> Judgement {
    let mut model = Model::run(&[sold(0), sold(0), Step::Refusal]);
    change(&mut model);
    judged(&model)
}

fn minor(value: i64) -> Money {
    Money::from_minor(value)
}

#[test]
fn a_line_is_clean() {
    let clean = verdict_after(|_| {});
    assert_eq!(clean.verdict, Verdict::Clean);
    assert_eq!(clean.acknowledged, Tally { count: 2, amount: minor(20) });
    assert_eq!(clean.failed, BTreeMap::from([("INSUFFICIENT_BALANCE", 1)]));
    assert_eq!((clean.lost, clean.difference, clean.unattributed), (minor(0), minor(0), minor(0)));
}

/// A and B both read version 7 (10.00); A writes version 8, B writes version 9 over it.
#[test]
fn the_classic_race_names_victim_and_overwriter() {
    let race = judged(&Model::run(&[sold(0), sold(1)]));
    assert_eq!(race.verdict, Verdict::Lost);
    assert_eq!((race.lost, race.difference, race.unattributed), (minor(10), minor(10), minor(0)));
    let read = State { balance: minor(1_000), version: 7 };
    let write =
        |id, version| Write { request_id: Uuid::from_u128(id), read, wrote: State { balance: minor(990), version } };
    assert_eq!(race.lost_updates, [LostUpdate { victim: write(1, 8), overwriter: write(2, 9), amount: minor(10) }]);
}

/// Version 10 is based on version 8, which version 9 had cut off: it brings 8 back and loses 9.
#[test]
fn a_later_stale_write_can_revive_what_was_lost() {
    let model = Model::run(&[sold(0), sold(1), sold(1)]);
    let judgement = judged(&model);
    let victims: Vec<_> = judgement.lost_updates.iter().map(|lost| lost.victim.wrote.version).collect();
    assert_eq!(victims, [9]);
    assert_eq!(model.evidence().journal.destroyed(10), Some(minor(0)));
}

#[test]
fn losses_that_cancel_are_lost() {
    let deposit = Step::Write { delta: 10, stale: 1, heard: Heard::Receipt };
    let judgement = judged(&Model::run(&[sold(0), deposit, sold(2)]));
    assert_eq!((judgement.lost, judgement.lost_updates.len()), (minor(0), 2));
    assert_eq!(judgement.verdict, Verdict::Lost);
}

#[test]
fn an_acknowledged_entry_missing_from_the_journal_is_lost_and_unattributed() {
    let judgement = verdict_after(|model| {
        model.operations.push(Operation {
            request_id: Uuid::from_u128(99),
            delta: minor(-10),
            outcome: Outcome::Acknowledged(Acknowledgement { balance: minor(970), version: 10, version_before: 9 }),
        });
    });
    assert_eq!((judgement.verdict, judgement.missing.len()), (Verdict::Lost, 1));
    assert_eq!((judgement.lost, judgement.unattributed, judgement.difference), (minor(10), minor(10), minor(0)));
}

#[test]
fn a_voided_acknowledgement_is_missing() {
    let judgement = verdict_after(|model| {
        model.entries[1].kind = EntryKind::Void;
        model.entries[1].delta = minor(0);
        model.entries[1].balance_after = minor(990);
    });
    assert_eq!((judgement.verdict, judgement.missing.len()), (Verdict::Lost, 1));
}

#[test]
fn a_receipt_that_differs_is_lost_whatever_the_sums() {
    for garble in [
        |receipt: &mut Acknowledgement| receipt.balance = minor(1),
        |receipt: &mut Acknowledgement| receipt.version += 1,
        |receipt: &mut Acknowledgement| receipt.version_before -= 1,
    ] {
        let judgement = verdict_after(|model| {
            if let Outcome::Acknowledged(receipt) = &mut model.operations[0].outcome {
                garble(receipt);
            }
        });
        assert_eq!((judgement.verdict, judgement.differing.len()), (Verdict::Lost, 1));
        assert_eq!(judgement.lost, minor(0));
    }
}

#[test]
fn a_balance_the_journal_does_not_explain_is_unattributed() {
    let model = Model::run(&[sold(0)]);
    let mut evidence = model.evidence();
    evidence.last.balance = minor(995);
    let judgement = judge(&evidence).expect("small sums");
    assert_eq!((judgement.verdict, judgement.unattributed, judgement.difference), (Verdict::Lost, minor(5), minor(5)));
}

#[test]
fn wrong_arithmetic_is_lost_even_when_it_cancels() {
    let judgement = verdict_after(|model| model.entries[0].balance_after = minor(991));
    assert_eq!((judgement.verdict, judgement.miscalculated.as_slice()), (Verdict::Lost, [8, 9].as_slice()));
}

#[test]
fn a_doubled_deduction_is_never_clean() {
    let judgement = verdict_after(|model| model.entries[1].request_id = model.entries[0].request_id);
    assert_eq!((judgement.doubled, judgement.verdict), (1, Verdict::Lost));
}

#[test]
fn what_cannot_be_checked_is_inconclusive() {
    let stranger = |model: &mut Model| {
        model.operations.remove(1);
    };
    let failed = |model: &mut Model| model.operations[1].outcome = Outcome::Failed { reason: "CONTENDED" };
    let unknown = |model: &mut Model| {
        model.operations[2].outcome = Outcome::Unknown;
    };
    assert_eq!(verdict_after(stranger).doubts, [Doubt::Foreign(1)]);
    assert_eq!(verdict_after(failed).doubts, [Doubt::FailedButJournaled(1)]);
    assert_eq!(verdict_after(unknown).doubts, [Doubt::Unknown(1)]);
    for judgement in [verdict_after(stranger), verdict_after(failed), verdict_after(unknown)] {
        assert_eq!((judgement.verdict, judgement.lost), (Verdict::Inconclusive, minor(0)));
    }
}

#[test]
fn nothing_acknowledged_is_not_clean() {
    for steps in [vec![], vec![Step::Refusal], vec![Step::Void]] {
        let judgement = judged(&Model::run(&steps));
        assert_eq!((judgement.verdict, judgement.doubts), (Verdict::Inconclusive, vec![Doubt::NothingAcknowledged]));
    }
}

#[test]
fn an_account_still_moving_is_inconclusive() {
    let model = Model::run(&[sold(0)]);
    let mut evidence = model.evidence();
    evidence.last = State { balance: minor(900), version: 11 };
    let judgement = judge(&evidence).expect("small sums");
    assert_eq!(judgement.verdict, Verdict::Inconclusive);
    assert_eq!(judgement.doubts, [Doubt::Moving { account: 11, journal: 8 }]);
}

#[test]
fn gaps_and_broken_paths_are_never_clean() {
    let gap = verdict_after(|model| {
        model.entries.remove(0);
        model.operations.remove(0);
    });
    assert_eq!(gap.doubts, [Doubt::Gaps(1), Doubt::Unrooted]);
    let stale_beyond_the_root = verdict_after(|model| model.entries[0].version_before = 2);
    assert!(stale_beyond_the_root.doubts.contains(&Doubt::Unrooted));
    let loop_on_itself = verdict_after(|model| model.entries[1].version_before = 9);
    assert!(loop_on_itself.doubts.contains(&Doubt::Unrooted));
    for judgement in [gap, stale_beyond_the_root, loop_on_itself] {
        assert_ne!(judgement.verdict, Verdict::Clean);
    }
}

/// The journal settles what the client could not: an entry is an effect, a VOID is none.
#[test]
fn unknown_outcomes_found_in_the_journal_are_known() {
    let unheard = Step::Write { delta: -10, stale: 0, heard: Heard::Nothing };
    let judgement = judged(&Model::run(&[sold(0), unheard, Step::Void, sold(2)]));
    assert_eq!((judgement.unknown, judgement.acknowledged.count), (0, 3));
    assert_eq!(judgement.failed, BTreeMap::from([(VOIDED, 1)]));
    assert_eq!(judgement.lost_updates.len(), 1, "the unheard write is among the lost");
}

#[test]
fn what_was_accepted_is_what_the_journal_says() {
    let accepted = |stale| Step::Write { delta: -10, stale, heard: Heard::Acceptance };
    let judgement = judged(&Model::run(&[accepted(0), sold(0), Step::Unmade(Unmade::Barred), accepted(2)]));
    assert_eq!((judgement.acknowledged.count, judgement.undecided), (3, 0));
    assert_eq!(judgement.failed, BTreeMap::from([("INSUFFICIENT_BALANCE", 1)]));
    assert_eq!(judgement.lost_updates.len(), 1, "the second write is lost to the last");
    // An entry shows that it was not forgotten, whatever the service said.
    let found = judged(&Model::run(&[Step::Write { delta: -10, stale: 0, heard: Heard::Oblivion }]));
    assert_eq!((found.verdict, found.forgotten.len()), (Verdict::Clean, 0));
}

/// A promise is kept or refused with a reason; a VOID alone is neither.
#[test]
fn accepted_and_voided_without_a_word_is_lost() {
    let mut model = Model::run(&[sold(0), Step::Unmade(Unmade::Barred)]);
    model.operations[1].outcome = Outcome::Forgotten;
    assert_eq!((judged(&model).verdict, judged(&model).forgotten.len()), (Verdict::Lost, 1));
    model.operations[1].outcome = Outcome::Accepted;
    assert_eq!((judged(&model).verdict, judged(&model).undecided), (Verdict::Inconclusive, 1));
}

#[test]
fn accepted_and_forgotten_is_lost_and_undecided_is_inconclusive() {
    let forgotten = judged(&Model::run(&[sold(0), Step::Unmade(Unmade::Forgotten)]));
    assert_eq!((forgotten.verdict, forgotten.forgotten.as_slice()), (Verdict::Lost, [Uuid::from_u128(2)].as_slice()));
    let undecided = judged(&Model::run(&[sold(0), Step::Unmade(Unmade::Waits)]));
    assert_eq!((undecided.verdict, undecided.doubts), (Verdict::Inconclusive, vec![Doubt::Undecided(1)]));
}

#[test]
fn what_was_accepted_is_made_as_it_was_asked_for_and_once() {
    let accepted = Step::Write { delta: -10, stale: 0, heard: Heard::Acceptance };
    let mut other = Model::run(&[accepted]);
    other.operations[0].delta = minor(-7);
    assert_eq!((judged(&other).verdict, judged(&other).differing.len()), (Verdict::Lost, 1));
    let mut twice = Model::run(&[accepted, accepted]);
    twice.entries[1].request_id = twice.entries[0].request_id;
    assert_eq!((judged(&twice).verdict, judged(&twice).doubled), (Verdict::Lost, 1));
    let mut refused = Model::run(&[accepted, accepted]);
    refused.operations[1].outcome = Outcome::Failed { reason: "INSUFFICIENT_BALANCE" };
    assert_eq!(judged(&refused).doubts, [Doubt::FailedButJournaled(1)]);
}

#[test]
fn a_reset_in_the_run_is_a_stranger_but_costs_nothing() {
    let mut model = Model::run(&[sold(0), sold(0)]);
    model.entries.push(Entry {
        version: 10,
        request_id: Uuid::from_u128(500),
        kind: EntryKind::Reset,
        delta: minor(20),
        balance_after: minor(1_000),
        version_before: 9,
        strategy: String::new(),
        created_at: None,
        overwritten_by: None,
    });
    let last = State { balance: minor(1_000), version: 10 };
    let judgement = judge(&Evidence { last, ..model.evidence() }).expect("small sums");
    assert_eq!(
        (judgement.verdict, judgement.doubts.as_slice()),
        (Verdict::Inconclusive, [Doubt::Foreign(1)].as_slice())
    );
    assert_eq!((judgement.lost, judgement.difference), (minor(0), minor(0)));
}

/// What was lost in the run was lost, even if somebody has put it right by now.
#[test]
fn a_repair_in_the_run_is_a_stranger_and_makes_no_loss_undone() {
    let mut model = Model::run(&[sold(0), sold(1)]);
    model.entries.push(Entry {
        version: 10,
        request_id: Uuid::from_u128(500),
        kind: EntryKind::Repair,
        delta: minor(-10),
        balance_after: minor(980),
        version_before: 9,
        strategy: String::new(),
        created_at: None,
        overwritten_by: None,
    });
    let last = State { balance: minor(980), version: 10 };
    let judgement = judge(&Evidence { last, ..model.evidence() }).expect("small sums");
    assert_eq!((judgement.verdict, judgement.doubts.as_slice()), (Verdict::Lost, [Doubt::Foreign(1)].as_slice()));
    assert_eq!((judgement.lost, judgement.unattributed, judgement.lost_updates.len()), (minor(10), minor(0), 1));
}

#[test]
fn a_million_operations_are_judged_within_two_seconds() {
    let model = Model::run(&[]);
    let (mut operations, mut entries) = (Vec::new(), Vec::new());
    for number in 1..=1_000_000_i64 {
        let request_id = Uuid::from_u128(number.unsigned_abs().into());
        let (version, version_before) = (7 + number, 6 + number - i64::from(number % 3 == 0));
        let receipt = Acknowledgement { balance: minor(0), version, version_before };
        let outcome = Outcome::Acknowledged(receipt);
        operations.push(Operation { request_id, delta: minor(0), outcome });
        entries.push(Entry {
            version,
            request_id,
            kind: EntryKind::Deduct,
            delta: minor(0),
            balance_after: minor(0),
            version_before,
            strategy: String::new(),
            created_at: None,
            overwritten_by: None,
        });
    }
    let root = State { balance: minor(0), version: model.root.version };
    let last = State { balance: minor(0), version: 1_000_007 };
    let started = Instant::now();
    let judgement =
        judge(&Evidence { operations: &operations, journal: Journal { root, entries: &entries }, last }).expect("zero");
    let took = started.elapsed();
    assert_eq!(judgement.lost_updates.len(), 333_333);
    // Unoptimised and beside a compiler it takes some ten times as long; anything quadratic would take hours.
    let budget = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
    assert!(took < budget, "{took:?}");
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop_oneof![steps(), queued_steps()]) {
        let model = Model::run(&steps);
        let judgement = judged(&model);
        let expected = model.lost();
        let pairs: Vec<_> = judgement.lost_updates.iter()
            .map(|lost| (lost.victim.request_id, lost.overwriter.request_id, lost.amount.minor())).collect();
        prop_assert_eq!(&pairs, &expected);
        let sum: i64 = expected.iter().map(|(_, _, amount)| amount).sum();
        prop_assert_eq!((judgement.lost, judgement.difference), (minor(sum), minor(sum)));
        prop_assert_eq!(judgement.unattributed, minor(0));

        let unmade = |unmade| steps.iter().filter(|step| matches!(step, Step::Unmade(is) if *is == unmade)).count();
        let (waiting, forgotten) = (unmade(Unmade::Waits), unmade(Unmade::Forgotten));
        prop_assert_eq!((judgement.undecided as usize, judgement.forgotten.len()), (waiting, forgotten));

        let wrote = judgement.acknowledged.count > 0;
        let verdict = match (expected.is_empty() && forgotten == 0, wrote && waiting == 0) {
            (false, _) => Verdict::Lost,
            (true, true) => Verdict::Clean,
            (true, false) => Verdict::Inconclusive,
        };
        prop_assert_eq!(judgement.verdict, verdict);

        let journal = model.evidence().journal;
        let destroyed: Vec<_> = model.entries.iter().map(|entry| journal.destroyed(entry.version).unwrap().minor()).collect();
        let naive: Vec<_> = (0..model.entries.len()).map(|index| model.destroyed(index)).collect();
        prop_assert_eq!(&destroyed, &naive);
        prop_assert_eq!(destroyed.iter().sum::<i64>(), sum, "destroyed telescopes to the loss");
    }

    /// Whatever the evidence claims, judging ends and calls nothing clean that does not add up.
    #[test]
    fn nonsense_is_judged_without_panic(
        versions in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>(), 0_u128..6), 0..12),
        last in (any::<i64>(), any::<i64>()),
    ) {
        let entries: Vec<_> = versions.iter().map(|&(version, version_before, delta, balance, id)| Entry {
            version, version_before, delta: minor(delta), balance_after: minor(balance),
            request_id: Uuid::from_u128(id), kind: EntryKind::Deduct, strategy: String::new(), created_at: None,
                overwritten_by: None,
        }).collect();
        let operations: Vec<_> = (0..4_u128).map(|id| Operation {
            request_id: Uuid::from_u128(id), delta: minor(-10), outcome: Outcome::Unknown,
        }).collect();
        let root = State { balance: minor(1_000), version: 7 };
        let last = State { balance: minor(last.0), version: last.1 };
        if let Ok(judgement) = judge(&Evidence { operations: &operations, journal: Journal { root, entries: &entries }, last }) {
            prop_assert_ne!(judgement.verdict, Verdict::Clean);
        }
    }
}
