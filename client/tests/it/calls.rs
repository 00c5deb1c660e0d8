//! Which failures are repeated, under which id, and what the last one says about the money.

use std::time::Duration;

use tonic::{Code, Status};
use uuid::Uuid;
use zbl_client::{Change, Client, Effect, LONGEST_DEADLINE, Money, Reason, Retry};
use zbl_proto::v1::{Entry, ListEntriesResponse};

use crate::scripted::{Script, failure, receipt};

const QUICK: Retry = Retry { tries: 3, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };

fn change() -> Change {
    Change::new(1, Money::from_minor(1_000))
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_id() {
    let change = change();
    let lost = [Err(Status::unavailable("connection reset")), Err(failure(Code::Unknown, Reason::OutcomeUnknown))];
    let script = Script::default().deducts(lost).deducts([Ok(receipt(change.request_id, "true"))]);
    let found = script.serve().await.with_retry(QUICK).deduct(&change).await.unwrap();

    assert!(found.replayed);
    assert_eq!((found.balance, found.version), (Money::from_minor(99_000), 2));
    let asked = script.asked();
    assert_eq!(asked.deducts.len(), 3);
    assert!(asked.deducts.iter().all(|ask| ask.request_id == change.request_id.to_string() && ask.amount == "10.00"));
}

#[tokio::test]
async fn refusals_and_contention_are_answers() {
    for (code, reason) in [
        (Code::FailedPrecondition, Reason::InsufficientBalance),
        (Code::Aborted, Reason::Contended),
        (Code::ResourceExhausted, Reason::Overloaded),
    ] {
        let script = Script::default().deducts([Err(failure(code, reason))]);
        let error = script.serve().await.with_retry(QUICK).deduct(&change()).await.unwrap_err();
        assert_eq!((error.reason(), error.effect()), (Some(reason), Effect::None));
        assert_eq!(script.asked().deducts.len(), 1, "{reason}");
    }
}

/// The try whose answer was lost may still commit after the refusal of the next one.
#[tokio::test]
async fn a_refusal_after_a_lost_answer_settles_nothing() {
    let script = Script::default().deducts([
        Err(Status::unavailable("connection reset")),
        Err(failure(Code::FailedPrecondition, Reason::InsufficientBalance)),
    ]);
    let error = script.serve().await.with_retry(QUICK).deduct(&change()).await.unwrap_err();
    assert_eq!((error.reason(), error.effect()), (Some(Reason::InsufficientBalance), Effect::Unknown));
}

#[tokio::test]
async fn retries_end() {
    let away = || Err(failure(Code::Unavailable, Reason::BackendDown));
    let script = Script::default().deducts([away(), away(), away(), away()]);
    let error = script.serve().await.with_retry(QUICK).deduct(&change()).await.unwrap_err();
    assert_eq!((error.reason(), error.effect()), (Some(Reason::BackendDown), Effect::None));
    assert_eq!(script.asked().deducts.len(), 3);
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client =
        Client::connect_lazy(&address).unwrap().with_deadline(Duration::from_millis(50)).with_retry(Retry::NEVER);
    let error = client.deduct(&change()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.effect(), Effect::Unknown);
}

#[tokio::test]
async fn an_endless_deadline_is_a_day() {
    let change = change();
    let script = Script::default().deducts([Ok(receipt(change.request_id, "false"))]);
    let client = script.serve().await.with_deadline(Duration::MAX);
    assert_eq!(client.deadline(), LONGEST_DEADLINE);
    client.deduct(&change).await.unwrap();
}

#[tokio::test]
async fn a_garbled_amount_is_refused() {
    let client = Script::default().serve().await.with_retry(QUICK);
    let error = client.balance(1).await.unwrap_err();
    assert!(error.message().contains("9.999"), "{error}");
}

#[tokio::test]
async fn the_journal_is_read_page_by_page_from_a_version_on() {
    let page = |versions: std::ops::RangeInclusive<i64>, next: &str| ListEntriesResponse {
        entries: versions.map(entry).collect(),
        next_page_token: next.to_owned(),
    };
    let script = Script::default().page("", page(1..=3, "more")).page("more", page(4..=5, ""));
    let journal = script.serve().await.journal_from(1, 3).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.version).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(journal[0].delta, Money::from_minor(-5));
}

fn entry(version: i64) -> Entry {
    Entry {
        version,
        request_id: Uuid::from_u128(version.unsigned_abs().into()).to_string(),
        delta: "-0.05".to_owned(),
        balance_after: "1.00".to_owned(),
        ..Entry::default()
    }
}
