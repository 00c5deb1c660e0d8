//! The engine against a server that loses money, answers or its life as a script wants; the verdict must not be fooled.

use std::time::Duration;

use tokio::sync::watch;
use zbl_client::{Client, Money, Reason};

use super::{Attack, AttackError, Manner, Patience, run, servers, stop};
use crate::pacer::Pacer;
use crate::report::{Cost, Report};
use crate::verdict::{Doubt, Verdict};
use crate::workload::Workload;

pub(crate) mod fake;

use fake::{Fake, Fault};

async fn attacked(fake: &Fake, workload: Workload, patience: Patience) -> Result<Report, AttackError> {
    attacked_by(fake, workload, patience, Manner::Deduct).await
}

async fn attacked_by(
    fake: &Fake,
    workload: Workload,
    patience: Patience,
    manner: Manner,
) -> Result<Report, AttackError> {
    let attack = Attack { clients: vec![fake.serve().await], workload, pacer: Pacer::ClosedLoop, patience, manner };
    let (stopper, stop) = stop();
    if let Some(after) = &mut fake.books().stop_after {
        after.1 = stopper;
    }
    run(&attack, &watch::Sender::default(), &stop).await
}

fn workload(workers: u32, deductions: u32) -> Workload {
    Workload {
        workers,
        deductions,
        amount: Money::from_minor(1_000),
        opening: Money::from_minor(10_000),
        strategy: String::new(),
        user_id: None,
        seed: 1,
    }
}

const PATIENT: Patience = Patience { outage: Duration::from_secs(20), contended: 2, cancelled_percent: 0 };

#[tokio::test]
async fn sells_exactly_what_the_balance_pays_for() {
    let report = attacked(&Fake::new([]), workload(4, 5), PATIENT).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 10));
    assert_eq!(report.failed, [("INSUFFICIENT_BALANCE", 10)].into());
    assert_eq!((report.strategy.as_str(), report.store.as_str(), report.last), ("fake", "memory", Money::ZERO));
    assert!(report.throughput_per_s > 0.0 && !report.interrupted);
}

#[tokio::test]
async fn tells_what_a_deduction_cost_the_server() {
    let client = Fake::new([]).serve().await;
    // Two connections lead to the same server, whose work counts once.
    let attack = Attack {
        clients: vec![client.clone(), client],
        workload: workload(2, 2),
        pacer: Pacer::ClosedLoop,
        patience: PATIENT,
        manner: Manner::Deduct,
    };
    let report = run(&attack, &watch::Sender::default(), &stop().1).await.unwrap();
    let cost = Cost { round_trips: 4.0, commits: 1.0, lock_held_us: 250.0, attempts: 1.0 };
    assert_eq!((report.acknowledged.count, report.cost), (4, Some(cost)));
}

#[tokio::test]
async fn names_each_lost_update() {
    // The first deduction has nothing to overwrite; the second reads what the first had read.
    let fake = Fake::new([Fault::Overwritten, Fault::Overwritten]);
    let report = attacked(&fake, workload(1, 3), PATIENT).await.unwrap();
    assert_eq!((report.verdict, report.lost_updates.len()), (Verdict::Lost, 1));
    assert_eq!((report.lost, report.unattributed), (Money::from_minor(1_000), Money::ZERO));
}

#[tokio::test]
async fn sits_out_an_outage_under_the_same_id() {
    let fake = Fake::new([Fault::BackendDown, Fault::AnswerLost, Fault::RequestLost, Fault::RequestLost]);
    let report = attacked(&fake, workload(1, 3), PATIENT).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 3));
    assert_eq!((report.outage_retries, report.unknown, report.doubled), (4, 0, 0));
    assert_eq!(fake.books().balance, 7_000);
}

#[tokio::test]
async fn repeats_contended_calls_a_bounded_number_of_times() {
    let fake = Fake::new([Fault::TurnedAway(Reason::Contended); 4]);
    let report = attacked(&fake, workload(1, 2), PATIENT).await.unwrap();
    assert_eq!(report.contended(), 1, "three calls for the first operation, then it is counted");
    assert_eq!((report.contended_retries, report.acknowledged.count), (3, 1));
    assert_eq!(report.verdict, Verdict::Clean);
}

/// Whoever hangs up learns in the end what became of the call, and every cent is accounted for.
#[tokio::test]
async fn settles_what_callers_cancelled() {
    let patience = Patience { cancelled_percent: 100, ..PATIENT };
    let rich = Workload { opening: Money::from_minor(1_000_000), ..workload(5, 40) };
    let report = attacked(&Fake::new([]), rich, patience).await.unwrap();
    let voided = report.failed.get("VOIDED").copied().unwrap_or(0);
    assert!(report.cancelled > 0, "every call is cancelled at a moment of which half are before its end");
    assert_eq!((report.acknowledged.count + voided, report.unknown), (200, 0));
    assert_eq!(report.verdict, Verdict::Clean);
}

#[tokio::test]
async fn repeats_calls_turned_away_for_load_within_the_same_bound() {
    let (overloaded, limited) = (Fault::TurnedAway(Reason::Overloaded), Fault::TurnedAway(Reason::RateLimited));
    let report =
        attacked(&Fake::new([overloaded, limited, overloaded, limited]), workload(1, 2), PATIENT).await.unwrap();
    assert_eq!(report.failed, [("OVERLOADED", 1)].into(), "three calls for the first operation, then it is counted");
    assert_eq!((report.contended_retries, report.acknowledged.count), (3, 1));
}

/// First settlements meet it, then the reading of journal and balance.
#[tokio::test]
async fn settles_and_reads_although_turned_away() {
    let fake = Fake::new([Fault::AnswerLost, Fault::TurnedAway(Reason::Contended)]);
    fake.books().turned_away = [Reason::Overloaded, Reason::Contended, Reason::RateLimited].into();
    let report = attacked(&fake, workload(1, 1), Patience { contended: 0, ..PATIENT }).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 1));
    assert!(fake.books().turned_away.is_empty());

    let fake = Fake::new([]);
    fake.books().turned_away = [Reason::Overloaded, Reason::RateLimited].into();
    assert_eq!(attacked(&fake, workload(1, 1), PATIENT).await.unwrap().verdict, Verdict::Clean);
}

#[test]
fn servers_are_counted_however_they_are_written() {
    assert_eq!(servers(["a:1", "http://a:1", "HTTP://A:1/", "a:1/"].into_iter()), 1);
    assert_eq!(servers(["a:1", "a:2", "http://b:1"].into_iter()), 3);
}

/// Once a server stays away, workers end; what they left unknown is settled with the server that is there.
#[tokio::test]
async fn settles_what_an_outage_left_unknown() {
    let fake = Fake::new([Fault::Dead]);
    let patience = Patience { outage: Duration::ZERO, contended: 0, ..PATIENT };
    let report = attacked(&fake, workload(3, 5), patience).await.unwrap();
    assert_eq!(report.failed, [("VOIDED", 3)].into());
    assert_eq!(report.verdict, Verdict::Inconclusive, "nothing was acknowledged");
    assert!(report.interrupted);
}

/// The first try may yet commit when the second is refused, so only a settlement tells.
#[tokio::test]
async fn settles_a_refusal_that_follows_a_lost_answer() {
    let fake = Fake::new([Fault::AnswerLost, Fault::TurnedAway(Reason::Contended)]);
    let patience = Patience { contended: 0, ..PATIENT };
    let report = attacked(&fake, workload(1, 1), patience).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 1));
    assert!(report.failed.is_empty());
}

#[tokio::test]
async fn a_stop_ends_the_run_with_a_judged_part() {
    let fake = Fake::new([]);
    fake.books().stop_after = Some((3, stop().0));
    let report = attacked(&fake, workload(1, 9), PATIENT).await.unwrap();
    assert!(report.interrupted);
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 3));
}

const LATER: Manner = Manner::DeductAsync { drain: Duration::from_secs(20) };

#[tokio::test]
async fn what_was_accepted_is_followed_to_its_end() {
    let faults = [Fault::LaidAside, Fault::AnswerLost, Fault::TurnedAway(Reason::QueueFull)];
    let report = attacked_by(&Fake::new(faults), workload(4, 5), PATIENT, LATER).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 10));
    assert_eq!(report.failed, [("DEAD_LETTERED", 1), ("INSUFFICIENT_BALANCE", 9)].into());
    let queued = report.queued.unwrap();
    assert_eq!((queued.accepted, queued.undecided, queued.forgotten.len()), (20, 0, 0));
    assert_eq!((report.contended_retries, report.outage_retries, report.last), (1, 1, Money::ZERO));
    assert!(report.throughput_per_s > 0.0 && !report.interrupted);
}

#[tokio::test]
async fn a_full_queue_is_counted() {
    let fake = Fake::new([Fault::TurnedAway(Reason::QueueFull); 3]);
    let report = attacked_by(&fake, workload(1, 5), Patience { contended: 0, ..PATIENT }, LATER).await.unwrap();
    assert_eq!((report.verdict, report.acknowledged.count), (Verdict::Clean, 2));
    assert_eq!(report.failed, [("QUEUE_FULL", 3)].into());
}

#[tokio::test]
async fn accepted_and_forgotten_is_lost() {
    let report = attacked_by(&Fake::new([Fault::Forgotten]), workload(1, 3), PATIENT, LATER).await.unwrap();
    assert_eq!((report.verdict, report.queued.unwrap().forgotten.len()), (Verdict::Lost, 1));
    assert_eq!((report.lost, report.acknowledged.count), (Money::ZERO, 2));
}

#[tokio::test]
async fn what_is_not_decided_in_time_is_a_doubt() {
    let drain = Manner::DeductAsync { drain: Duration::from_millis(200) };
    let report = attacked_by(&Fake::new([Fault::Stuck]), workload(1, 3), PATIENT, drain).await.unwrap();
    assert_eq!((report.verdict, report.queued.unwrap().undecided), (Verdict::Inconclusive, 1));
    assert_eq!(report.doubts, [Doubt::Undecided(1)]);
}

/// A used account is reset, and what it went through before is not this run's.
#[tokio::test]
async fn an_account_used_before_starts_anew() {
    let fake = Fake::new([Fault::Overwritten, Fault::Overwritten]);
    let again = Workload { user_id: Some(1), ..workload(1, 3) };
    let first = attacked(&fake, workload(1, 3), PATIENT).await.unwrap();
    let second = attacked(&fake, again, PATIENT).await.unwrap();
    assert_eq!((first.verdict, second.verdict), (Verdict::Lost, Verdict::Clean));
    assert_eq!((second.acknowledged.count, second.difference), (3, Money::ZERO));
}

#[tokio::test]
async fn what_cannot_be_run_is_said() {
    let named = |strategy: &str| Workload { strategy: strategy.to_owned(), ..workload(1, 1) };
    let fake = Fake::new([]);
    let unknown = attacked(&fake, named("hopeful"), PATIENT).await.unwrap_err();
    assert!(matches!(&unknown, AttackError::UnknownStrategy { known, .. } if known == "elsewhere, fake"), "{unknown}");
    let unavailable = attacked(&fake, named("elsewhere"), PATIENT).await.unwrap_err();
    assert!(matches!(unavailable, AttackError::StrategyUnavailable { .. }), "{unavailable}");
    assert!(fake.books().entries.is_empty(), "nothing was opened");

    let nobody = Client::connect_lazy("127.0.0.1:1").unwrap();
    let attack = Attack {
        clients: vec![nobody],
        workload: workload(1, 1),
        pacer: Pacer::ClosedLoop,
        patience: PATIENT,
        manner: Manner::Deduct,
    };
    let unreachable = run(&attack, &watch::Sender::default(), &stop().1).await.unwrap_err();
    assert!(matches!(unreachable, AttackError::Unreachable { .. }), "{unreachable}");
}
