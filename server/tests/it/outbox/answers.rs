//! What callers are told: what is refused leaves nothing behind, and what is not known is not told as a refusal.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use test_support::RabbitMq;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;
use zbl_proto::v1::{
    Acceptance, DeductAsyncRequest, DeductionState, GetDeductionRequest, GetDeductionResponse, WatchDeductionRequest,
};
use zbl_server::{
    account::{Change, Refusal},
    error::{Backend, Error, UnknownCause},
    ledger::Fate,
    outbox::Accepted,
};

use super::{Scene, Set, another_programs, execute, key, ordered};
use crate::app::{Database, Served, deduction, money, until};

/// Nobody listens there.
const NOBODY: &str = "amqp://127.0.0.1:1";

/// Far below every limit there is.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_nothing_is_accepted_and_nothing_recorded() {
    for database in Database::each() {
        let scene = Scene::on(&database, NOBODY, Set::default()).await;
        let change = ordered(&scene).await;
        scene.queue().connected().await.unwrap_err();
        let began = Instant::now();
        let refused = scene.outbox.accept(change, None).await;
        assert!(matches!(refused, Err(Error::BackendDown { backend: Backend::Broker, .. })), "{refused:?}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!((scene.rows(&database), scene.fate(change).await), (0, Fate::NotFound));

        let none = Scene::with(&database, None, Set::default()).await;
        assert!(matches!(none.outbox.accept(change, None).await, Err(Error::QueueUnavailable)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_nothing_is_left_of_what_it_refused() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set { limit: 3, ..Set::default() }).await;
        let user_id = scene.bench.account("1000.00").await;
        let mut accepted = 0;
        // The broker lets a few more in than its limit.
        let refused = loop {
            let change = deduction(user_id);
            match scene.outbox.accept(change, None).await {
                Ok(_) => accepted += 1,
                Err(error) => break (change, error),
            }
            assert!(accepted < 50, "it is never full");
        };
        let (change, error) = refused;
        assert!(matches!(error, Error::QueueFull { limit: 3, .. }), "{error:?}");
        assert_eq!((scene.rows(&database), scene.fate(change).await), (accepted, Fate::NotFound));
        // For a moment nobody is asked.
        let next = deduction(user_id);
        assert!(matches!(scene.outbox.accept(next, None).await, Err(Error::QueueFull { .. })));

        scene.work(accepted).await;
        until("there is room again", async || scene.outbox.accept(change, None).await.is_ok()).await;
        scene.work(1).await;
        assert_eq!(scene.bench.journal(user_id).await.len(), 1 + accepted + 1);
    }
}

/// The broker stands still between the message and its confirm: nobody knows, and that is what is told.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_confirm_the_outcome_is_unknown_and_the_relay_sees_to_it() {
    let rabbit = tokio::task::spawn_blocking(|| RabbitMq::start().unwrap()).await.unwrap();
    for database in Database::each() {
        let scene = Scene::on(&database, &rabbit.url(), Set::default()).await;
        scene.queue().connected().await.unwrap();
        // So that there is a channel.
        scene.outbox.accept(ordered(&scene).await, None).await.unwrap();
        scene.work(1).await;
        until("its row is gone", async || scene.rows(&database) == 0).await;
        let change = ordered(&scene).await;
        rabbit.pause().unwrap();
        let answer = scene.outbox.accept(change, None).await;
        rabbit.resume().unwrap();
        assert!(matches!(answer, Err(Error::OutcomeUnknown { cause: UnknownCause::LinkLost, .. })), "{answer:?}");
        assert_eq!(scene.rows(&database), 1, "what may be in the queue is not taken back");
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)), "and need not wait for its claim to run out");
        let mut relay = scene.relay();
        until("the relay has sent it", async || {
            relay.tick().await.unwrap();
            scene.in_state(&database, "SENT") == 1
        })
        .await;
        // What was in the broker's socket when it stood still came through as well.
        scene.ready(2).await;
        scene.work(2).await;
        assert_eq!(scene.bench.balance(change.user_id).await, money("990.00"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_payloads_under_one_id_the_one_that_was_accepted_is_made() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let beside = scene.beside(&database, Set::default()).await;
        for round in 0..10 {
            let change = ordered(&scene).await;
            let other = Change { amount: money("7.00"), ..change };
            // In one process, and in two.
            let second = if round % 2 == 0 { &scene } else { &beside };
            let (one, two) = tokio::join!(scene.outbox.accept(change, None), second.outbox.accept(other, None));
            let (won, lost) = match (one, two) {
                (Ok(Accepted::Now), lost) => (change, lost),
                (lost, Ok(Accepted::Now)) => (other, lost),
                neither => panic!("{neither:?}"),
            };
            assert!(matches!(lost, Err(Error::Refused(Refusal::RequestIdReused { .. }))), "{lost:?}");
            scene.work(1).await;
            let journal = scene.bench.journal(change.user_id).await;
            assert_eq!(journal.iter().skip(1).map(|entry| entry.delta).collect::<Vec<_>>(), [won.delta()]);
        }
        let change = ordered(&scene).await;
        let calls = (0..8).map(|at| if at % 2 == 0 { &scene } else { &beside }.outbox.accept(change, None));
        let answers: Vec<Accepted> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|accepted| **accepted == Accepted::Now).count(), 1, "{answers:?}");
        assert!(!answers.contains(&Accepted::Decided));
        scene.ready(1).await;
        scene.work(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_one_deduction_whichever_way_it_comes() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        scene.ledger().apply(change, None).await.unwrap();
        assert_eq!(scene.outbox.accept(change, None).await.unwrap(), Accepted::Decided);
        let other = Change { amount: money("7.00"), ..change };
        let refused = scene.outbox.accept(other, None).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::RequestIdReused { .. }))), "{refused:?}");
        assert_eq!((scene.rows(&database), scene.bench.balance(change.user_id).await), (0, money("990.00")));

        let change = ordered(&scene).await;
        assert_eq!(scene.outbox.accept(change, None).await.unwrap(), Accepted::Now);
        assert!(!scene.ledger().apply(change, None).await.unwrap().is_replay());
        scene.work(1).await;
        assert_eq!(scene.bench.balance(change.user_id).await, money("990.00"));
        assert!(scene.outbox.fail(key(change), change.amount, "PURGED", "").await.is_ok());
        assert!(matches!(scene.fate(change).await, Fate::Journaled(_)));
    }
}

/// Without a queue a server accepts nothing, and tells of what others accepted.
#[tokio::test(flavor = "multi_thread")]
async fn over_the_wire_without_a_queue() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let change = deduction(served.bench.account("1000.00").await);
        let (user_id, request_id) = (change.user_id, change.request_id.to_string());
        let order = DeductAsyncRequest {
            user_id,
            amount: "10.00".to_owned(),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let refused = served.account().deduct_async(order).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "QUEUE_UNAVAILABLE");
        execute(&database, &another_programs(&database, change));
        let asked = GetDeductionRequest { user_id, request_id, resolve: true };
        let told = served.account().get_deduction(asked).await.unwrap().into_inner();
        assert_eq!((told.state(), told.r#final), (DeductionState::Pending, false));
        assert!(told.accept_time.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_wire_a_deduction_is_accepted_and_watched_to_its_end() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let broker = RabbitMq::shared().unwrap().url();
        let words = ["--amqp-url", &*broker, "--queue-name", &*scene.name, "--queue-limit", "1000"];
        let served = Served::start(&database.url, &words).await;
        let user_id = served.bench.account("15.00").await;
        let order = |request_id: Uuid| DeductAsyncRequest {
            user_id,
            amount: "10.00".to_owned(),
            request_id: request_id.to_string(),
            ..Default::default()
        };
        let (made, failed) = (Uuid::new_v4(), Uuid::new_v4());
        // It connects in the background.
        until("it is accepted", async || served.account().deduct_async(order(made)).await.is_ok()).await;
        let again = served.account().deduct_async(order(made)).await.unwrap();
        assert_eq!(again.metadata().get("zbl-replayed").unwrap(), "true");
        assert_eq!(again.into_inner().acceptance(), Acceptance::Accepted);
        let watched = |request_id: Uuid| {
            let request = WatchDeductionRequest { user_id, request_id: request_id.to_string() };
            let mut account = served.account();
            async move {
                let stream = account.watch_deduction(request).await.unwrap().into_inner();
                stream.map(|next| next.map(|next| next.deduction.unwrap()))
            }
        };
        let mut watching = watched(made).await;
        let first = watching.next().await.unwrap().unwrap();
        assert_eq!((first.state(), first.r#final), (DeductionState::Pending, false));
        scene.work(1).await;
        let rest: Vec<GetDeductionResponse> = watching.map(Result::unwrap).collect().await;
        let states: Vec<DeductionState> = rest.iter().map(GetDeductionResponse::state).collect();
        assert_eq!(states, [DeductionState::Succeeded], "each state once, and then the end");
        assert_eq!(rest[0].receipt.as_ref().unwrap().balance, "5.00");
        let decided = served.account().deduct_async(order(made)).await.unwrap().into_inner();
        assert_eq!(decided.acceptance(), Acceptance::Decided);

        served.account().deduct_async(order(failed)).await.unwrap();
        let mut watching = watched(failed).await;
        assert_eq!(watching.next().await.unwrap().unwrap().state(), DeductionState::Pending);
        let of = zbl_server::store::outbox::Key { user_id, request_id: failed };
        scene.outbox.fail(of, money("10.00"), "INSUFFICIENT_BALANCE", "balance 5.00 is less than 10.00").await.unwrap();
        let end = watching.next().await.unwrap().unwrap();
        assert_eq!((end.state(), end.r#final, &*end.reason), (DeductionState::Failed, true, "INSUFFICIENT_BALANCE"));
        assert!(watching.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_ends_when_the_server_stops() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &[]).await;
    let change = deduction(served.bench.account("1000.00").await);
    let request = WatchDeductionRequest { user_id: change.user_id, request_id: change.request_id.to_string() };
    let mut watching = served.account().watch_deduction(request).await.unwrap().into_inner();
    let first = watching.next().await.unwrap().unwrap().deduction.unwrap();
    assert_eq!(first.state(), DeductionState::NotFound);
    served.ask_to_stop();
    let end = watching.next().await.unwrap().unwrap_err();
    assert_eq!(end.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
    served.stopped().await;
}
