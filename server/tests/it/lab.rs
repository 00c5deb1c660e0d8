//! The lab's calls over the wire: attacks, status, clearing.

use tokio_stream::StreamExt;
use tonic::Code;
use uuid::Uuid;
use zbl_proto::v1::{
    BreakerPosition, ClearTimelineRequest, DeductRequest, DeductStreamRequest, DepositRequest, GapReason,
    GetBalanceRequest, GetStatusRequest, RunAttackRequest, ServerStatus, StreamTimelineRequest, Verdict,
    WatchStatusRequest, run_attack_response::Step, stream_timeline_response::Event,
};
use zbl_server::{
    account::Change,
    strategy::{self, Guarantee, REGISTRY},
};

use crate::{
    app::{Database, Served, WITHOUT_REDIS, deduction, money, until},
    wire,
};

/// A small attack that can pay for half of what it asks.
fn attack(strategy: &str) -> RunAttackRequest {
    RunAttackRequest {
        workers: 20,
        deductions: 5,
        opening_balance: "500.00".to_owned(),
        strategy: strategy.to_owned(),
        ..RunAttackRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_tells_its_progress_and_then_what_each_strategy_promises() {
    let database = Database::sqlite();
    // The race is widened, so that the unsafe one loses in so small an attack as well.
    let served = Served::start(&database.url, &["--compute-delay", "1ms"]).await;
    for row in REGISTRY {
        let steps = served.lab().run_attack(attack(row.name)).await.unwrap().into_inner();
        let steps: Vec<Step> = steps.map(|step| step.unwrap().step.unwrap()).collect().await;
        let (last, before) = steps.split_last().unwrap();
        assert!(before.iter().all(|step| matches!(step, Step::Progress(progress) if progress.total == 100)));
        let Step::Result(result) = last else { panic!("{last:?}") };
        let is_its = |step: &Step| matches!(step, Step::Progress(of) if [0, result.user_id].contains(&of.user_id));
        assert!(before.iter().all(is_its), "{before:?}");
        let expected = if row.guarantee == Guarantee::LosesUpdates { Verdict::Lost } else { Verdict::Clean };
        assert_eq!(result.verdict(), expected, "{}: {result:?}", row.name);
        assert_eq!(result.lost_updates.is_empty(), expected == Verdict::Clean, "{}", row.name);
        if expected == Verdict::Clean {
            assert_eq!((result.acknowledged, result.final_balance.as_str()), (50, "0.00"), "{}", row.name);
        }
        let balance = GetBalanceRequest { user_id: result.user_id, consistent: false, as_of: None };
        let balance = served.account().get_balance(balance).await.unwrap().into_inner().balance;
        assert_eq!(balance, result.final_balance, "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_attack_at_a_time_and_leaving_ends_it() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--compute-delay", "20ms"]).await;
    let long = RunAttackRequest { workers: 1, deductions: 10_000, ..attack("pessimistic") };
    let mut running = served.lab().run_attack(long.clone()).await.unwrap().into_inner();
    let user_id = loop {
        match running.next().await.unwrap().unwrap().step.unwrap() {
            Step::Progress(progress) if progress.user_id == 0 => {}
            Step::Progress(progress) => break progress.user_id,
            step @ Step::Result(_) => panic!("{step:?}"),
        }
    };
    assert!(!served.bench.journal(user_id).await.is_empty(), "the account can be looked at meanwhile");
    let second = served.lab().run_attack(attack("atomic")).await.unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted, "{second:?}");
    drop(running);
    until("the attack ends and makes room", async || served.lab().run_attack(attack("atomic")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_out_of_bounds_are_refused() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let sane = attack("atomic");
    for wrong in [
        RunAttackRequest { workers: -1, ..sane.clone() },
        RunAttackRequest { workers: 1001, ..sane.clone() },
        RunAttackRequest { workers: 1000, deductions: 101, ..sane.clone() },
        RunAttackRequest { deductions: i32::MAX, ..sane.clone() },
        RunAttackRequest { amount: "0".to_owned(), ..sane.clone() },
        RunAttackRequest { amount: "-1".to_owned(), ..sane.clone() },
        RunAttackRequest { opening_balance: "NaN".to_owned(), ..sane.clone() },
        RunAttackRequest { amount: "9999999999999999".to_owned(), ..sane.clone() },
        RunAttackRequest { strategy: "hope".to_owned(), ..sane.clone() },
    ] {
        let refused = served.lab().run_attack(wrong.clone()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_a_snapshot_and_can_be_watched() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--instance", "here", "--strategy", "pessimistic"]).await;
    let user_id = served.bench.account("100.00").await;
    let [pessimistic, batched] = ["pessimistic", "batched"].map(|name| strategy::find(name).ok());
    served.bench.ledger.apply(deduction(user_id), pessimistic).await.unwrap();
    served.bench.ledger.apply(deduction(user_id), batched).await.unwrap();
    let too_much = Change { amount: money("500.00"), ..deduction(user_id) };
    served.bench.ledger.apply(too_much, pessimistic).await.unwrap_err();

    let status = served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.instance.as_str(), status.store.as_str(), status.in_flight), ("here", "sqlite", 0));
    assert_eq!(status.strategies.len(), REGISTRY.len());
    let work = status.work.unwrap();
    assert!(work.round_trips > 0 && work.locks_held.unwrap().nanos > 0, "{work:?}");
    // The opening and two deductions; the refused one, and the look whether it was a repeat.
    let (acknowledged, attempts) = (work.acknowledged, work.attempts);
    assert_eq!((work.commits, work.rollbacks, acknowledged, attempts), (3, 2, 2, 3));
    let batches = status.batches.unwrap();
    assert_eq!((batches.batches, batches.changes, batches.largest, batches.waiting), (1, 1, 1, 0));
    assert!(batches.queued.unwrap().nanos > 0);
    let timeline = status.timeline.unwrap();
    assert_eq!(
        (timeline.newest_sequence, timeline.retained),
        (10, 10),
        "two of four phases, one refused in the second"
    );

    let interval = |nanos| WatchStatusRequest { interval: Some(prost_types::Duration { seconds: 0, nanos }) };
    let mut watch = served.lab().watch_status(interval(100_000_000)).await.unwrap().into_inner();
    let uptime = |status: zbl_proto::v1::WatchStatusResponse| status.status.unwrap().uptime.unwrap();
    let (first, second) = (watch.next().await.unwrap().unwrap(), watch.next().await.unwrap().unwrap());
    let (first, second) = (uptime(first), uptime(second));
    assert!((second.seconds, second.nanos) > (first.seconds, first.nanos));
    let refused = served.lab().watch_status(interval(1)).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// The limits, the breakers and the money, as far as the server knows of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_counts_changes_as_their_callers_see_them() {
    const TRACES: &str = "http://localhost:16686/trace/{trace_id}";
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[WITHOUT_REDIS, "--trace-url", TRACES]).await;
    let user_id = served.bench.account("100.00").await;
    let status = async || served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status().await.trace_url, TRACES);
    let counted = async || {
        let changes = status().await.changes.unwrap();
        let latency: i64 = changes.latency.iter().map(|bucket| bucket.count).sum();
        (changes.succeeded, changes.refused, changes.failed, latency)
    };
    assert_eq!(counted().await, (0, 0, 0, 0));
    let order = |amount: &str, strategy: &str| DeductRequest {
        user_id,
        amount: amount.to_owned(),
        strategy: strategy.to_owned(),
        request_id: Uuid::new_v4().to_string(),
    };
    served.account().deduct(order("10.00", "")).await.unwrap();
    let deposit = DepositRequest { user_id, amount: "10.00".to_owned(), ..Default::default() };
    served.account().deposit(deposit).await.unwrap();
    assert_eq!(counted().await, (2, 0, 0, 2));
    served.account().deduct(order("500.00", "")).await.unwrap_err();
    served.account().deduct(order("1.001", "")).await.unwrap_err();
    served
        .account()
        .deposit(DepositRequest { user_id: 404, amount: "1".to_owned(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(counted().await, (2, 3, 0, 5));
    served.account().deduct(order("10.00", "redis_lock")).await.unwrap_err();
    assert_eq!(counted().await, (2, 3, 1, 6));
    let items = [order("10.00", ""), order("500.00", "")].map(|deduct| DeductStreamRequest { deduct: Some(deduct) });
    let answers = served.account().deduct_stream(futures::stream::iter(items)).await.unwrap().into_inner();
    assert_eq!(answers.collect::<Vec<_>>().await.len(), 2);
    assert_eq!(counted().await, (3, 4, 1, 8));
    let latency = status().await.changes.unwrap().latency;
    let (last, bounded) = latency.split_last().unwrap();
    let edges: Vec<_> = bounded.iter().map(|bucket| bucket.up_to.map(|up_to| (up_to.seconds, up_to.nanos))).collect();
    assert!(edges.is_sorted() && edges[0] == Some((0, 100_000)) && last.up_to.is_none(), "{latency:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_what_is_refused_and_what_is_gone() {
    let database = Database::mysql();
    let words =
        ["--max-concurrent=7", "--rate-limit=1", "--rate-burst=3", "--user-rate-limit=1", "--reconcile-every=10ms"];
    let served = Served::start(&database.url, &words).await;
    let status = async || served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    let user_id = served.bench.account("100.00").await;
    let [own, all] = [wire::deduct(user_id, "1"), wire::deduct(user_id, "1")];
    served.account().deduct(own).await.unwrap();
    served.account().deduct(all).await.unwrap_err();
    until("the server's own rate is used up", async || {
        let message = GetBalanceRequest { user_id, consistent: true, as_of: None };
        served.account().get_balance(message).await.is_err()
    })
    .await;

    let limits = status().await.limits.unwrap();
    assert_eq!((limits.calls, limits.calls_max, limits.refused_for_room), (0, 7, 0));
    assert_eq!((limits.rate, limits.burst, limits.tokens, limits.account_rate), (1, 3, 0, 1));
    assert_eq!((limits.refused_by_rate, limits.refused_by_account_rate), (1, 1));

    let breakers = status().await.breakers;
    let names: Vec<&str> = breakers.iter().map(|breaker| breaker.server.as_str()).collect();
    assert_eq!(names, ["database", "redis_lock", "redlock"]);
    assert!(breakers.iter().all(|breaker| breaker.position() == BreakerPosition::Closed), "{breakers:?}");
    assert!(breakers[0].succeeded > 0 && breakers[0].retry_after.is_none(), "{breakers:?}");

    let sound = |status: &ServerStatus| {
        status.reconciliation.as_ref().is_some_and(|found| found.rounds > 0 && found.loss == "0.00")
    };
    until("a round without a loss", async || sound(&status().await)).await;
    test_support::query(
        &database.url,
        &format!("UPDATE accounts SET balance = balance - 7.50 WHERE user_id = {user_id}"),
    )
    .unwrap();
    until("the loss is told", async || {
        let found = status().await.reconciliation.unwrap();
        (found.loss.as_str(), found.accounts) == ("7.50", 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_timeline_says_so_to_its_watchers() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    served.bench.ledger.apply(deduction(user_id), None).await.unwrap();
    let retained = StreamTimelineRequest { include_retained: true, ..StreamTimelineRequest::default() };
    let first = served.account().stream_timeline(retained).await.unwrap().into_inner().next().await.unwrap().unwrap();

    let cleared = served.lab().clear_timeline(ClearTimelineRequest {}).await.unwrap().into_inner().cleared;
    assert_eq!(cleared, 4);
    let resume = StreamTimelineRequest {
        epoch: first.epoch,
        after_sequence: first.sequence,
        ..StreamTimelineRequest::default()
    };
    let mut resumed = served.account().stream_timeline(resume).await.unwrap().into_inner();
    let gap = resumed.next().await.unwrap().unwrap().event;
    let Some(Event::Gap(gap)) = gap else { panic!("{gap:?}") };
    assert_eq!((gap.reason(), gap.after_sequence, gap.next_sequence), (GapReason::Cleared, 1, 5));
}
