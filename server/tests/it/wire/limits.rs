//! What is refused because it is too much, what is never refused, and what every call is told.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use zbl_proto::{
    Reason,
    v1::{
        DeductStreamRequest, GetBalanceRequest, GetDeductionRequest, GetStatusRequest, StreamEntriesRequest,
        StreamTimelineRequest, WatchStatusRequest, deduct_stream_response::Outcome,
    },
};

use super::{Said, deduct, deposit, outages::Held, said};
use crate::app::{Database, PATIENCE, Served, until};

/// A rate that no test sees refilled twice.
const SLOWLY: [&str; 4] = ["--rate-limit", "1", "--rate-burst", "3"];

async fn on_sqlite(words: &[&str]) -> (Served, Database) {
    let database = Database::sqlite();
    (Served::start(&database.url, words).await, database)
}

fn rate_limited(limit: &str) -> Said {
    let plain = Said::plain(Code::ResourceExhausted, Reason::RateLimited, &[("limit", limit)]);
    Said { retry: true, quota: true, ..plain }
}

/// Calls until one is refused, with the refusal; at most as many as would take a minute to be allowed.
async fn until_refused<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> (usize, Status) {
    for passed in 0..60 {
        if let Err(status) = call().await {
            return (passed, status);
        }
    }
    panic!("nothing was refused");
}

fn header(status: &Status, name: &str) -> u64 {
    status.metadata().get(name).unwrap_or_else(|| panic!("no {name}: {status:?}")).to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_rate_are_told_when_to_come_back() {
    let (served, _database) = on_sqlite(&SLOWLY).await;
    let user_id = served.bench.account("1000.00").await;
    let mut account = served.account();
    let (passed, status) =
        until_refused(async || account.get_balance(GetBalanceRequest { user_id, consistent: true, as_of: None }).await)
            .await;
    assert!(passed >= 3, "{passed} passed");
    assert_eq!(Said::by(&status), rate_limited("server"));
    assert_eq!((header(&status, "ratelimit-limit"), header(&status, "ratelimit-remaining")), (1, 0));
    assert_eq!((header(&status, "ratelimit-reset"), header(&status, "retry-after")), (1, 1));

    let refused = async || account.deduct(deduct(user_id, "1")).await;
    assert_eq!(Said::by(&until_refused(refused).await.1), rate_limited("server"));
    assert_eq!(served.bench.balance(user_id).await, crate::app::money("1000.00"), "a second of grace is a second off");
}

/// What tells how the server is, and what the operator works with, must answer under overload most of all.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_the_lab_are_not_limited() {
    let (served, _database) = on_sqlite(&[&SLOWLY[..], &["--max-concurrent", "1"]].concat()).await;
    let user_id = served.bench.account("1000.00").await;
    let held = Held::before_commit(&served, user_id).await;
    for _ in 0..10 {
        HealthClient::new(served.channel()).check(HealthCheckRequest::default()).await.unwrap();
        served.lab().get_status(GetStatusRequest {}).await.unwrap();
    }
    held.gate.release();
    held.call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_does_not_use_up_the_rate_of_another() {
    let (served, _database) = on_sqlite(&["--user-rate-limit", "2"]).await;
    let (greedy, other) = (served.bench.account("1000.00").await, served.bench.account("1000.00").await);
    let mut account = served.account();
    let (_, status) = until_refused(async || account.deduct(deduct(greedy, "1")).await).await;
    assert_eq!(Said::by(&status), rate_limited("account"));
    assert_eq!(header(&status, "ratelimit-limit"), 2);
    let (_, status) = until_refused(async || account.deposit(deposit(greedy, "1")).await).await;
    assert_eq!(Said::by(&status), rate_limited("account"));
    served.account().deduct(deduct(other, "1")).await.unwrap();
    // Nor is anybody kept from asking what there is, and what became of a change.
    for _ in 0..10 {
        served
            .account()
            .get_balance(GetBalanceRequest { user_id: greedy, consistent: true, as_of: None })
            .await
            .unwrap();
        let request_id = super::fresh();
        served
            .account()
            .get_deduction(GetDeductionRequest { user_id: greedy, request_id, resolve: true })
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_items_of_a_stream_count_one_by_one() {
    let (served, _database) = on_sqlite(&["--rate-limit", "1", "--rate-burst", "8"]).await;
    let user_id = served.bench.account("1000.00").await;
    let items: Vec<_> = (0..40).map(|_| DeductStreamRequest { deduct: Some(deduct(user_id, "1")) }).collect();
    let answers = served.account().deduct_stream(stream::iter(items)).await.unwrap().into_inner();
    let outcomes: Vec<_> = answers.map(|answer| answer.unwrap().outcome.unwrap()).collect().await;
    let refused = outcomes.iter().filter(|outcome| match outcome {
        Outcome::Receipt(_) => false,
        Outcome::Error(error) => {
            assert_eq!(error.reason, Reason::RateLimited.as_str());
            true
        }
    });
    // The stream itself took one of the eight, and a second or two may have passed.
    assert!((25..=33).contains(&refused.count()), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_shed_at_once() {
    let (served, _database) = on_sqlite(&["--max-concurrent", "1"]).await;
    let user_id = served.bench.account("1000.00").await;
    let held = Held::before_commit(&served, user_id).await;
    let plain = Said::plain(Code::ResourceExhausted, Reason::Overloaded, &[]);
    let expected = Said { retry: true, quota: true, ..plain };
    assert_eq!(
        said(served.account().get_balance(GetBalanceRequest { user_id, consistent: true, as_of: None })).await,
        expected
    );
    held.gate.release();
    held.call.await.unwrap().unwrap();
    served.account().get_balance(GetBalanceRequest { user_id, consistent: true, as_of: None }).await.unwrap();
}

/// Whoever is in has not taken room for all that may come behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_items_of_a_stream_take_room_one_by_one() {
    let (served, _database) = on_sqlite(&["--max-concurrent", "1"]).await;
    let user_id = served.bench.account("1000.00").await;
    let (items, sent) = mpsc::channel(1);
    let mut account = served.account();
    let mut answers = account.deduct_stream(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let mut next = async || {
        items.send(DeductStreamRequest { deduct: Some(deduct(user_id, "1")) }).await.unwrap();
        answers.next().await.unwrap().unwrap().outcome.unwrap()
    };
    assert!(matches!(next().await, Outcome::Receipt(_)));
    let held = Held::before_commit(&served, user_id).await;
    let refused = next().await;
    assert!(matches!(&refused, Outcome::Error(error) if error.reason == Reason::Overloaded.as_str()), "{refused:?}");
    held.gate.release();
    held.call.await.unwrap().unwrap();
    assert!(matches!(next().await, Outcome::Receipt(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_may_watch() {
    let (served, _database) = on_sqlite(&[]).await;
    let mut account = served.account();
    let mut watching = Vec::new();
    let (passed, status) = until_refused(async || {
        for _ in 0..8 {
            watching.push(account.stream_timeline(StreamTimelineRequest::default()).await?);
        }
        watching.push(served.account().stream_timeline(StreamTimelineRequest::default()).await?);
        Ok(())
    })
    .await;
    assert_eq!((passed, watching.len()), (7, 64));
    let plain = Said::plain(Code::ResourceExhausted, Reason::Overloaded, &[]);
    let expected = Said { retry: true, quota: true, ..plain };
    assert_eq!(Said::by(&status), expected);
    assert_eq!(said(served.lab().watch_status(WatchStatusRequest::default())).await, expected);
    let user_id = served.bench.account("1000.00").await;
    let follow = StreamEntriesRequest { user_id, after_version: 0 };
    assert_eq!(said(served.account().stream_entries(follow)).await, expected);
    // A deduction is no watcher, and whoever stops watching makes room.
    served.account().deduct(deduct(user_id, "1")).await.unwrap();
    watching.clear();
    until("there is room again", async || account.stream_timeline(StreamTimelineRequest::default()).await.is_ok())
        .await;
}

/// Streams of health ask for no token; there are so many and no more, and health itself is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_strangers_may_watch_the_health() {
    let (served, _database) = on_sqlite(&[]).await;
    let mut watching = Vec::new();
    let refused = loop {
        match HealthClient::new(served.channel()).watch(HealthCheckRequest::default()).await {
            Ok(stream) => watching.push(stream),
            Err(status) => break status,
        }
        assert!(watching.len() <= 256, "no end of them");
    };
    assert_eq!((watching.len(), refused.code()), (256, Code::ResourceExhausted));
    HealthClient::new(served.channel()).check(HealthCheckRequest::default()).await.unwrap();
    watching.clear();
    until("there is room again", async || {
        HealthClient::new(served.channel()).watch(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
}

/// A caller that sets no deadline, or one far off, does not wait for ever; nor does its change go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_goes_on_for_longer_than_the_server_allows() {
    let (served, _database) = on_sqlite(&["--max-deadline", "400ms", "--strategy", "mutex"]).await;
    let user_id = served.bench.account("1000.00").await;
    let held = Held::before_commit(&served, user_id).await;
    let expired = Said::plain(Code::DeadlineExceeded, Reason::Expired, &[]);
    assert_eq!(said(served.account().deduct(deduct(user_id, "1"))).await, expired);
    let mut patient = Request::new(deduct(user_id, "1"));
    patient.set_timeout(Duration::from_secs(3600));
    let answer = timeout(PATIENCE, said(served.account().deduct(patient))).await.expect("the call goes on");
    assert_eq!(answer, expired);
    let unknown = Said::plain(Code::DeadlineExceeded, Reason::OutcomeUnknown, &[]);
    assert_eq!(said(async { held.call.await.unwrap() }).await, unknown);
    held.gate.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_repeats_the_id_of_its_call() {
    let (served, _database) = on_sqlite(&[]).await;
    let user_id = served.bench.account("1000.00").await;
    let call = |user_id, id: &'static str| {
        let mut call = Request::new(GetBalanceRequest { user_id, consistent: true, as_of: None });
        call.metadata_mut().insert("x-request-id", id.parse().unwrap());
        call
    };
    let answer = served.account().get_balance(call(user_id, "order-7")).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "order-7");
    let refusal = served.account().get_balance(call(-1, "order-8")).await.unwrap_err();
    assert_eq!(refusal.metadata().get("x-request-id").unwrap(), "order-8");
    let own = served.account().get_balance(GetBalanceRequest { user_id, consistent: true, as_of: None }).await.unwrap();
    assert_eq!(own.metadata().get("x-request-id").unwrap().len(), 32);
}

/// The JSON facade is another spelling of the same calls.
#[tokio::test(flavor = "multi_thread")]
async fn the_facade_has_the_same_limits() {
    let (served, _database) = on_sqlite(&SLOWLY).await;
    let user_id = served.bench.account("1000.00").await;
    let address = served.http;
    let ask = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /balance/{user_id} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let refused = move || (0..60).map(|_| ask()).find(|answer| answer.starts_with("HTTP/1.1 429 "));
    let refused = tokio::task::spawn_blocking(refused).await.unwrap().expect("nothing was refused");
    for part in ["RATE_LIMITED", "retry-after: 1\r\n", "ratelimit-limit: 1\r\n", "ratelimit-remaining: 0\r\n"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(!refused.contains("grpc-"), "{refused}");
}
