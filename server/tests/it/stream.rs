//! `DeductStream`: many deductions over one call.

use std::{collections::HashMap, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic_types::StatusExt;
use uuid::Uuid;
use zbl_proto::Reason;
use zbl_proto::v1::{DeductRequest, DeductStreamRequest, DeductStreamResponse, deduct_stream_response::Outcome};
use zbl_server::timeline::Phase;

use crate::app::{Database, Served, money};

fn item(user_id: i64, amount: &str, request_id: &str) -> DeductStreamRequest {
    let (amount, request_id, strategy) = (amount.to_owned(), request_id.to_owned(), "batched".to_owned());
    DeductStreamRequest { deduct: Some(DeductRequest { user_id, amount, request_id, strategy }) }
}

fn outcome(answer: &DeductStreamResponse) -> Result<i64, &str> {
    match answer.outcome.as_ref().unwrap() {
        Outcome::Receipt(receipt) => Ok(receipt.version),
        Outcome::Error(error) => Err(&error.reason),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_answered_one_by_one_whatever_becomes_of_the_others() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("100.00").await;
        let id = || Uuid::new_v4().to_string();
        let (twice, good) = (id(), (0..5).map(|_| id()).collect::<Vec<_>>());
        let mut items: Vec<_> = good.iter().map(|id| item(user_id, "10.00", id)).collect();
        items.extend([item(user_id, "1.00", &twice), item(user_id, "1.00", &twice)]);
        let bad =
            [(item(user_id, "1000.00", &id()), "INSUFFICIENT_BALANCE"), (item(404, "1", &id()), "ACCOUNT_NOT_FOUND")];
        let worse =
            [(item(user_id, "x", &id()), "INVALID_AMOUNT"), (item(user_id, "1", "not-a-uuid"), "INVALID_REQUEST_ID")];
        let expected: HashMap<String, &str> = bad
            .iter()
            .chain(&worse)
            .map(|(item, reason)| (item.deduct.as_ref().unwrap().request_id.clone(), *reason))
            .collect();
        items.extend(bad.into_iter().chain(worse).map(|(item, _)| item));
        let count = items.len();

        let answers = served.account().deduct_stream(stream::iter(items)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
        assert_eq!(answers.len(), count);
        for answer in &answers {
            match expected.get(&answer.request_id) {
                Some(reason) => assert_eq!(outcome(answer), Err(*reason)),
                None => assert!(outcome(answer).is_ok(), "{answer:?}"),
            }
        }
        let repeats: Vec<_> = answers.iter().filter(|answer| answer.request_id == twice).collect();
        assert_eq!(outcome(repeats[0]), outcome(repeats[1]));
        assert_eq!(repeats.iter().filter(|answer| answer.replayed).count(), 1);
        assert_eq!(served.bench.balance(user_id).await, money("49.00"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_while_the_stream_is_open_and_a_stop_ends_it() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &["--shutdown-grace", "1h"]).await;
    let user_id = served.bench.account("100.00").await;
    let (send, items) = mpsc::channel(8);
    let mut answers = served.account().deduct_stream(ReceiverStream::new(items)).await.unwrap().into_inner();
    for version in 2..5 {
        let id = Uuid::new_v4().to_string();
        send.send(item(user_id, "10.00", &id)).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!((answer.request_id.as_str(), outcome(&answer)), (id.as_str(), Ok(version)));
    }
    served.ask_to_stop();
    let end = answers.next().await.expect("the open stream would hold the server").unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert_eq!(end.get_details_error_info().unwrap().reason, Reason::ShuttingDown.as_str());
    assert!(answers.next().await.is_none());
    served.stopped().await;
}

/// What cannot be read ends the stream, whose error says that it had no effect: so what was begun before is answered first.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_answered_before_the_stream_ends_for_what_cannot_be_read() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    let begun = Uuid::new_v4();
    let gate = served.bench.gates.hold(begun, Phase::Commit);
    let too_large = "x".repeat(100_000);
    let items =
        [(begun.to_string(), "1.00"), (Uuid::new_v4().to_string(), &too_large), (Uuid::new_v4().to_string(), "1.00")];
    let items: Vec<_> = items.iter().map(|(id, amount)| item(user_id, amount, id)).collect();
    let mut answers = served.account().deduct_stream(stream::iter(items)).await.unwrap().into_inner();
    gate.arrived().await;
    assert!(answers.next().now_or_never().is_none(), "the stream ended before what it had begun");
    gate.release();
    let first = answers.next().await.unwrap().unwrap();
    assert_eq!((first.request_id.as_str(), outcome(&first)), (begun.to_string().as_str(), Ok(2)));
    let end = answers.next().await.unwrap().unwrap_err();
    assert_eq!(end.get_details_error_info().unwrap().reason, Reason::MessageTooLarge.as_str(), "{end:?}");
    assert!(answers.next().await.is_none());
    assert_eq!(served.bench.balance(user_id).await, money("99.00"), "what came behind it was not begun");
}

/// The stream's deadline is each item's: what has begun is unknown then, and what is queued had no effect.
#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_the_stream_is_that_of_its_items() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    let [begun, queued] = [(); 2].map(|()| Uuid::new_v4());
    let gate = served.bench.gates.hold(begun, Phase::Write);
    let (items, to_come) = mpsc::channel(2);
    let mut request = Request::new(ReceiverStream::new(to_come));
    request.set_timeout(Duration::from_secs(2));
    let mut account = served.account();
    let answers = tokio::spawn(async move { account.deduct_stream(request).await.unwrap().into_inner() });
    items.send(item(user_id, "1.00", &begun.to_string())).await.unwrap();
    gate.arrived().await;
    items.send(item(user_id, "1.00", &queued.to_string())).await.unwrap();
    drop(items);
    let answers: Vec<_> = answers.await.unwrap().map(Result::unwrap).collect().await;
    let said: HashMap<_, _> = answers.iter().map(|answer| (answer.request_id.clone(), outcome(answer))).collect();
    assert_eq!(said[&begun.to_string()], Err("OUTCOME_UNKNOWN"));
    assert_eq!(said[&queued.to_string()], Err("EXPIRED"));
    gate.release();
    served.bench.ledger.drained().await;
    assert_eq!(served.bench.balance(user_id).await, money("99.00"));
}
