//! The judgement by digest against the verdict that keeps every operation, on random histories, honest and tampered with.

use std::collections::HashSet;

use proptest::prelude::*;
use uuid::Uuid;
use zbl_client::Entry;

use super::reading::HELD;
use super::*;
use crate::bench::operation::RequestIds;
use crate::bench::tally::Keys;
use crate::history::{Acknowledgement, Operation, Outcome};
use crate::verdict::model::{Model, Step, steps};
use crate::verdict::{Evidence, Journal, Judgement, judge};

const IDS: RequestIds = RequestIds::new(7);
const USER: i64 = 42;
const DEDUCTED: i64 = -5;

/// What the model knows, under ids of this run.
struct History {
    root: State,
    /// What the judgement is told of the root.
    began: Option<State>,
    operations: Vec<Operation>,
    entries: Vec<Entry>,
    last: State,
    /// Rows that are held when older ones are summed up.
    held: usize,
}

impl History {
    fn of(steps: &[Step]) -> Self {
        let model = Model::run(steps);
        let last = model.evidence().last;
        let ours = |id: Uuid| IDS.id(u64::try_from(id.as_u128()).unwrap());
        let operation = |known: Operation| Operation { request_id: ours(known.request_id), ..known };
        let entry = |known: Entry| Entry { request_id: ours(known.request_id), ..known };
        Self {
            root: model.root,
            began: Some(model.root),
            operations: model.operations.into_iter().map(operation).collect(),
            entries: model.entries.into_iter().map(entry).collect(),
            last,
            held: HELD,
        }
    }

    fn judged(&self) -> Judgement {
        let journal = Journal { root: self.root, entries: &self.entries };
        judge(&Evidence { operations: &self.operations, journal, last: self.last }).unwrap()
    }

    fn judged_by_digest(&self) -> (Findings, BenchVerdict) {
        let keys = Keys::default();
        let mut told = Told::default();
        let mut unsettled = HashSet::new();
        for operation in &self.operations {
            match &operation.outcome {
                Outcome::Acknowledged(receipt) => {
                    told.acknowledged += 1;
                    told.digest.add(keys.digest(operation.request_id, operation.delta, receipt));
                }
                Outcome::Unknown => {
                    unsettled.insert(operation.request_id);
                }
                // No bench has deductions accepted.
                Outcome::Failed { .. } | Outcome::Accepted | Outcome::Forgotten => {}
            }
        }
        let mut reading = Reading::new(IDS, &keys, &unsettled, self.began);
        (reading.held, reading.full) = (self.held, 2 * self.held);
        self.entries.iter().try_for_each(|entry| reading.take(entry)).unwrap();
        let delta = Money::from_minor(DEDUCTED);
        let claims = Claims { user_id: USER, told, unsettled: unsettled.len() as u64, delta, last: self.last };
        let mut findings = Findings::default();
        findings.judge(reading, &claims).unwrap();
        (findings.clone(), findings.close(Money::from_minor(-DEDUCTED)))
    }

    /// The first acknowledged operation.
    fn acknowledged(&mut self) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| matches!(operation.outcome, Outcome::Acknowledged(_)))
    }
}

/// Histories of a bench: every change is the same deduction.
fn deductions() -> impl Strategy<Value = Vec<Step>> {
    steps().prop_map(|steps| {
        let same = |step| match step {
            Step::Write { stale, heard, .. } => Step::Write { delta: DEDUCTED, stale, heard },
            Step::Refusal | Step::Void | Step::Unmade(_) => step,
        };
        steps.into_iter().map(same).collect()
    })
}

proptest! {
    #[test]
    fn both_judge_honest_histories_alike(steps in steps()) {
        let history = History::of(&steps);
        let (known, (_, digested)) = (history.judged(), history.judged_by_digest());
        prop_assert_eq!(digested.verdict, known.verdict);
        prop_assert_eq!(digested.acknowledged.count, known.acknowledged.count);
        prop_assert_eq!(digested.lost_updates_count, known.lost_updates.len() as u64);
        let figures = (digested.lost, digested.unattributed, digested.difference);
        prop_assert_eq!(figures, (known.lost, known.unattributed, known.difference));
        prop_assert_eq!(digested.doubts, known.doubts.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (mine, theirs) in digested.lost_updates.iter().zip(&known.lost_updates) {
            prop_assert_eq!(mine.pair.victim.request_id, theirs.victim.request_id);
            prop_assert_eq!(mine.pair.overwriter.request_id, theirs.overwriter.request_id);
        }
    }

    /// However few rows are held, the verdict and what is lost are the same; only who lost to whom is less well known.
    #[test]
    fn what_is_summed_up_while_reading_judges_alike(steps in deductions(), held in 1_usize..6) {
        let mut history = History::of(&steps);
        let whole = history.judged_by_digest().1;
        history.held = held;
        let summed = history.judged_by_digest().1;
        prop_assert_eq!(summed.verdict, whole.verdict, "{:?} {:?}", summed.doubts, whole.doubts);
        let figures = |verdict: &BenchVerdict| (verdict.lost, verdict.difference, verdict.acknowledged);
        prop_assert_eq!(figures(&summed), figures(&whole));
    }

    /// Refusals that are journaled make up for an acknowledgement that is not.
    #[test]
    fn what_is_missing_behind_refusals_is_never_excluded(steps in deductions()) {
        let mut history = History::of(&steps);
        for _ in 0..2 {
            let Some(operation) = history.acknowledged() else { return Ok(()) };
            operation.outcome = Outcome::Failed { reason: "CONTENDED" };
        }
        let receipt = Acknowledgement { balance: Money::ZERO, version: 1_000, version_before: 999 };
        let outcome = Outcome::Acknowledged(receipt);
        history.operations.push(Operation { request_id: IDS.id(1 << 40), delta: Money::from_minor(DEDUCTED), outcome });
        let digested = history.judged_by_digest().1;
        prop_assert_eq!(history.judged().verdict, Verdict::Lost);
        prop_assert_ne!(digested.verdict, Verdict::Clean);
        prop_assert!(digested.doubts.iter().any(|doubt| doubt.contains("cannot be excluded")), "{:?}", digested.doubts);
    }

    /// The newest entry is dropped, and with it its money.
    #[test]
    fn both_miss_what_was_acknowledged_and_is_not_journaled(steps in deductions()) {
        let mut history = History::of(&steps);
        let Some(dropped) = history.entries.pop() else { return Ok(()) };
        history.last.version -= 1;
        history.last.balance = history.entries.last().map_or(history.root.balance, |entry| entry.balance_after);
        let (known, (_, digested)) = (history.judged(), history.judged_by_digest());
        prop_assert_eq!(digested.verdict, known.verdict, "{:?}", dropped);
        prop_assert_eq!((digested.lost, digested.unattributed), (known.lost, known.unattributed));
    }

    #[test]
    fn both_see_a_receipt_that_differs(steps in deductions(), field in 0..3) {
        let mut history = History::of(&steps);
        let Some(operation) = history.acknowledged() else { return Ok(()) };
        if let Outcome::Acknowledged(receipt) = &mut operation.outcome {
            match field {
                0 => receipt.balance = Money::from_minor(receipt.balance.minor() + 1),
                1 => receipt.version += 1,
                _ => receipt.version_before -= 1,
            }
        }
        prop_assert_eq!(history.judged().verdict, Verdict::Lost);
        prop_assert_eq!(history.judged_by_digest().1.verdict, Verdict::Lost);
    }

    #[test]
    fn neither_calls_clean_what_was_refused_and_is_journaled(steps in deductions()) {
        let mut history = History::of(&steps);
        let Some(operation) = history.acknowledged() else { return Ok(()) };
        operation.outcome = Outcome::Failed { reason: "CONTENDED" };
        let (findings, digested) = history.judged_by_digest();
        prop_assert_ne!(history.judged().verdict, Verdict::Clean);
        prop_assert_ne!(digested.verdict, Verdict::Clean);
        prop_assert_eq!(findings.surplus, 1);
    }
}

fn fresh(delta: i64) -> Step {
    Step::Write { delta, stale: 0, heard: crate::verdict::model::Heard::Receipt }
}

#[test]
fn what_others_wrote_is_told_apart_and_never_clean() {
    let mut history = History::of(&[fresh(DEDUCTED), fresh(DEDUCTED)]);
    history.operations.pop();
    history.entries[1].request_id = Uuid::from_u128(1);
    let (findings, digested) = history.judged_by_digest();
    assert_eq!((findings.foreign, digested.verdict), (1, Verdict::Inconclusive));
}

/// An account that was there before tells in its journal what it was when the run began.
#[test]
fn what_others_wrote_before_is_where_the_run_began() {
    let mut history = History::of(&[fresh(DEDUCTED), fresh(DEDUCTED), fresh(DEDUCTED)]);
    history.operations.remove(0);
    history.entries[0].request_id = Uuid::from_u128(1);
    assert_eq!(history.judged_by_digest().1.verdict, Verdict::Inconclusive);
    history.began = None;
    let (findings, digested) = history.judged_by_digest();
    assert_eq!((findings.foreign, findings.acknowledged, digested.verdict), (0, 2, Verdict::Clean));
}

#[test]
fn an_id_journaled_twice_is_harm() {
    let mut history = History::of(&[fresh(DEDUCTED), fresh(DEDUCTED)]);
    history.operations.pop();
    history.entries[1].request_id = history.entries[0].request_id;
    let (findings, digested) = history.judged_by_digest();
    assert_eq!((findings.doubled, digested.verdict), (1, Verdict::Lost));
    assert!(digested.doubts.contains(&"request ids journaled twice: 1".to_owned()), "{:?}", digested.doubts);
}

#[test]
fn losses_and_gains_of_accounts_do_not_cancel() {
    let mut sum = Findings::default();
    for change in [1, -1] {
        let mut history = History::of(&[fresh(DEDUCTED)]);
        history.last.balance = Money::from_minor(history.last.balance.minor() + change);
        sum.add(history.judged_by_digest().0);
    }
    let verdict = sum.close(Money::from_minor(-DEDUCTED));
    assert_eq!((verdict.verdict, verdict.lost, verdict.accounts_checked), (Verdict::Lost, Money::ZERO, 2));
    assert_eq!(verdict.doubts, ["accounts with money gone that no lost update explains: 2"]);
}

#[test]
fn a_long_journal_is_held_in_part() {
    let history = History::of(&(0..1_000).map(|_| fresh(DEDUCTED)).collect::<Vec<_>>());
    let (keys, unsettled) = (Keys::default(), HashSet::new());
    let mut reading = Reading::new(IDS, &keys, &unsettled, history.began);
    (reading.held, reading.full) = (10, 20);
    for entry in &history.entries {
        reading.take(entry).unwrap();
        assert!(reading.held() < 20);
    }
    assert_eq!(reading.newest(), history.last.version);
}

#[test]
fn accounts_that_were_not_judged_leave_doubts_and_excuse_no_loss() {
    let (mut findings, clean) = History::of(&[fresh(DEDUCTED)]).judged_by_digest();
    assert_eq!(clean.verdict, Verdict::Clean);
    findings.pass_over(43, 5, &"its server is gone");
    findings.leave(2, 7);
    let verdict = findings.clone().close(Money::from_minor(1));
    assert_eq!((verdict.verdict, verdict.accounts_checked, verdict.acknowledged.count), (Verdict::Inconclusive, 1, 13));
    let doubts = [
        "accounts that could not be judged: 1, the first of them account 43: its server is gone",
        "stopped before all was judged: 1 of 4 accounts are",
    ];
    assert_eq!(verdict.doubts, doubts);
    findings.lost_updates = 1;
    assert_eq!(findings.close(Money::from_minor(1)).verdict, Verdict::Lost);
}

#[test]
fn sums_that_money_cannot_hold_are_no_panic_and_not_clean() {
    let (findings, _) = History::of(&[fresh(DEDUCTED), fresh(DEDUCTED)]).judged_by_digest();
    let verdict = findings.close(Money::from_minor(i64::MAX));
    assert_eq!((verdict.verdict, verdict.acknowledged.amount), (Verdict::Inconclusive, Money::from_minor(i64::MAX)));
}

#[test]
fn witnesses_are_few_and_losses_are_all_counted() {
    let stale = |stale| Step::Write { delta: DEDUCTED, stale, heard: crate::verdict::model::Heard::Receipt };
    let history = History::of(&(0..300).map(stale).collect::<Vec<_>>());
    let (findings, digested) = history.judged_by_digest();
    let mut twice = findings.clone();
    twice.add(findings);
    assert_eq!((digested.lost_updates_count, digested.lost_updates.len()), (299, WITNESSES));
    assert_eq!((twice.lost_updates, twice.witnesses.len()), (598, WITNESSES));
}
