//! Whole benches against a server that loses money, answers or its life as a script wants.

use std::collections::BTreeMap;

use serde_json::Value;
use zbl_client::{Money, Reason};

use super::*;
use crate::attack::stop;
use crate::attack::tests::fake::{Fake, Fault};
use crate::report::bench::Method;
use crate::verdict::Verdict;

const CENT: Money = Money::from_minor(1);

async fn plan(fake: &Fake, requests: u64) -> Plan {
    Plan {
        clients: vec![fake.serve().await],
        connections: 1,
        mix: BTreeMap::from([(Method::Deduct, 1)]),
        transport: Transport::Unary,
        strategy: String::new(),
        accounts: 1,
        zipf: None,
        first_user: None,
        amount: CENT,
        opening: Money::from_minor(10_000),
        pacing: Pacing::Closed { concurrency: 1 },
        length: Length::Requests(requests),
        warmup: Duration::ZERO,
        outage: Duration::from_secs(20),
        seed: 1,
        thresholds: Vec::new(),
    }
}

async fn measured(fake: &Fake, plan: &Plan) -> Result<Bench, BenchError> {
    let (stopper, stop) = stop();
    if let Some(after) = &mut fake.books().stop_after {
        after.1 = stopper;
    }
    run(plan, None, &watch::Sender::default(), &stop).await
}

fn verdict(bench: &Bench) -> Verdict {
    bench.verdict.as_ref().unwrap().verdict
}

#[tokio::test]
async fn a_bench_measures_judges_and_follows_the_published_schema() {
    let fake = Fake::new([]);
    let plan = Plan {
        thresholds: vec!["failed==0".parse().unwrap(), "p50<1us".parse().unwrap()],
        connections: 2,
        pacing: Pacing::Closed { concurrency: 5 },
        ..plan(&fake, 200).await
    };
    let bench = measured(&fake, &plan).await.unwrap();
    assert_eq!((verdict(&bench), bench.requests, bench.acknowledged), (Verdict::Clean, 200, 200));
    assert_eq!((bench.strategy.as_deref(), bench.store.as_str(), bench.attempts), (Some("fake"), "memory", 200));
    assert_eq!(bench.series.iter().map(|window| window.acknowledged).sum::<u64>(), 200);
    assert_eq!(bench.thresholds.iter().map(|checked| checked.passed).collect::<Vec<_>>(), [true, false]);
    assert!(bench.throughput_per_s > 0.0 && bench.latency_us.p50 > 0 && !bench.interrupted);
    let judged = bench.verdict.clone().unwrap();
    assert_eq!((judged.accounts_checked, judged.acknowledged.amount), (1, Money::from_minor(200)));
    assert_eq!(fake.books().balance, 9_800);

    let schema: Value = serde_json::from_str(include_str!("../../bench.schema.json")).unwrap();
    let result = serde_json::to_value(&bench).unwrap();
    let errors: Vec<_> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&result).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn each_lost_update_is_counted_and_named() {
    let fake = Fake::new([Fault::Overwritten, Fault::Overwritten]);
    let bench = measured(&fake, &plan(&fake, 3).await).await.unwrap();
    let judged = bench.verdict.unwrap();
    assert_eq!((judged.verdict, judged.lost_updates_count, judged.lost), (Verdict::Lost, 1, CENT));
    assert_eq!((judged.unattributed, judged.lost_updates.len()), (Money::ZERO, 1));
}

#[tokio::test]
async fn an_outage_is_sat_out_under_the_same_ids() {
    for transport in [Transport::Unary, Transport::Stream] {
        let fake = Fake::new([Fault::BackendDown, Fault::AnswerLost, Fault::RequestLost, Fault::RequestLost]);
        let plan = Plan { transport, ..plan(&fake, 3).await };
        let bench = measured(&fake, &plan).await.unwrap();
        assert_eq!(
            (verdict(&bench), bench.acknowledged, bench.outage_retries),
            (Verdict::Clean, 3, 4),
            "{transport:?}"
        );
        assert_eq!(fake.books().balance, 9_997, "{transport:?}");
    }
}

/// An item that is sent again on its stream is answered twice there, and the others know nothing of it.
#[tokio::test]
async fn an_item_that_is_late_disturbs_no_other() {
    let fake = Fake::new([Fault::Late(Duration::from_millis(900))]);
    let plan = plan(&fake, 1).await;
    let clients = vec![plan.clients[0].clone().with_deadline(Duration::from_millis(300))];
    let (length, pacing) = (Length::Time(Duration::from_millis(1_500)), Pacing::Closed { concurrency: 4 });
    let plan =
        Plan { clients, transport: Transport::Stream, length, pacing, opening: Money::from_minor(1 << 40), ..plan };
    let bench = measured(&fake, &plan).await.unwrap();
    assert_eq!((verdict(&bench), bench.unknown, &bench.failed), (Verdict::Clean, 0, &BTreeMap::new()));
    assert_eq!(bench.outage_retries, 1, "and no other had to be sent again");
}

#[tokio::test]
async fn refused_calls_are_counted_and_not_repeated() {
    for transport in [Transport::Unary, Transport::Stream] {
        let fake = Fake::new([Fault::TurnedAway(Reason::Contended), Fault::TurnedAway(Reason::Overloaded)]);
        let plan = Plan { transport, ..plan(&fake, 3).await };
        let bench = measured(&fake, &plan).await.unwrap();
        let failed = [("CONTENDED".to_owned(), 1), ("OVERLOADED".to_owned(), 1)];
        assert_eq!((verdict(&bench), bench.acknowledged), (Verdict::Clean, 1));
        assert_eq!(bench.failed, failed.into());
        assert_eq!((bench.requests, fake.books().entries.len()), (3, 2));
    }
}

#[tokio::test]
async fn what_an_outage_left_unknown_is_settled() {
    let fake = Fake::new([Fault::Dead]);
    let plan = Plan { outage: Duration::ZERO, ..plan(&fake, 5).await };
    let bench = measured(&fake, &plan).await.unwrap();
    assert_eq!((bench.unknown, bench.acknowledged), (1, 0));
    assert!(bench.interrupted);
    let judged = bench.verdict.unwrap();
    assert_eq!((judged.verdict, judged.doubts.len()), (Verdict::Inconclusive, 1), "{:?}", judged.doubts);

    // The deduction was made, and only its answers were lost.
    let fake = Fake::new([Fault::AnswerLost, Fault::Dead]);
    let plan = Plan { outage: Duration::from_millis(1), ..plan };
    let bench = measured(&fake, &Plan { clients: vec![fake.serve().await], ..plan }).await.unwrap();
    assert_eq!((verdict(&bench), bench.unknown, bench.acknowledged), (Verdict::Clean, 1, 0));
    assert_eq!(bench.verdict.unwrap().acknowledged.count, 1);
}

#[tokio::test]
async fn nothing_but_refusals_is_said_to_be_no_measurement() {
    let fake = Fake::new([]);
    let bench = measured(&fake, &Plan { opening: Money::ZERO, ..plan(&fake, 3).await }).await.unwrap();
    assert_eq!((bench.requests, bench.acknowledged, verdict(&bench)), (3, 0, Verdict::Inconclusive));
    assert!(bench.remarks.iter().any(|remark| remark.contains("those of refusals")), "{:?}", bench.remarks);
}

#[tokio::test]
async fn figures_outlive_a_server_that_cannot_be_read_back() {
    let fake = Fake::new([Fault::BackendDown]);
    let plan = plan(&fake, 3).await;
    fake.books().turned_away = [Reason::LabDisabled].into();
    let bench = measured(&fake, &plan).await.unwrap();
    let judged = bench.verdict.unwrap();
    assert_eq!((bench.acknowledged, judged.verdict, judged.acknowledged.count), (3, Verdict::Inconclusive, 3));
    assert!(judged.doubts[0].contains("cannot be read back"), "{:?}", judged.doubts);
    assert!(bench.remarks[0].contains("the first failure was"), "{:?}", bench.remarks);
}

#[tokio::test]
async fn a_stop_ends_it_with_a_judged_part() {
    let fake = Fake::new([]);
    fake.books().stop_after = Some((3, stop().0));
    let bench = measured(&fake, &plan(&fake, 1_000_000).await).await.unwrap();
    assert!(bench.interrupted && (3..1_000).contains(&bench.acknowledged), "{}", bench.acknowledged);
    assert_eq!(verdict(&bench), Verdict::Clean);
}

#[tokio::test]
async fn balances_are_read_and_not_judged() {
    let fake = Fake::new([]);
    let plan = Plan { mix: BTreeMap::from([(Method::Balance, 1)]), ..plan(&fake, 10).await };
    let bench = measured(&fake, &plan).await.unwrap();
    assert_eq!((bench.acknowledged, bench.verdict, bench.strategy), (10, None, None));
    let plan = Plan { mix: BTreeMap::from([(Method::Health, 1)]), ..plan };
    let nobody = measured(&fake, &plan).await.unwrap_err();
    assert!(
        matches!(&nobody, BenchError::Unanswered(error) if error.to_string().contains("Unimplemented")),
        "{nobody}"
    );
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let fake = Fake::new([]);
    let plan = plan(&fake, 1).await;
    let unknown = measured(&fake, &Plan { strategy: "hopeful".to_owned(), ..plan.clone() }).await.unwrap_err();
    assert!(matches!(unknown, BenchError::Setup(AttackError::UnknownStrategy { .. })), "{unknown}");
    let nobody = vec![Client::connect_lazy("127.0.0.1:1").unwrap()];
    let unreachable = measured(&fake, &Plan { clients: nobody, ..plan }).await.unwrap_err();
    assert!(matches!(unreachable, BenchError::Setup(AttackError::Unreachable { .. })), "{unreachable}");
}
