//! Many deductions over one stream: which answer belongs to which, what does not end it, and what is left when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use uuid::Uuid;
use zbl_client::{Change, Effect, Error, Money, Reason};
use zbl_proto::v1::deduct_stream_response::Outcome;
use zbl_proto::v1::{DeductError, DeductStreamResponse};

use crate::scripted::{Script, receipt};

fn changes(count: usize) -> Vec<Change> {
    (0..count).map(|_| Change::new(1, Money::from_minor(1_000))).collect()
}

fn ids(changes: &[Change]) -> Vec<Uuid> {
    changes.iter().map(|change| change.request_id).collect()
}

fn answer(request_id: Uuid, outcome: Option<Outcome>) -> Result<DeductStreamResponse, Status> {
    Ok(DeductStreamResponse { request_id: request_id.to_string(), outcome, replayed: true })
}

fn success(change: &Change) -> Result<DeductStreamResponse, Status> {
    answer(change.request_id, Some(Outcome::Receipt(receipt(change.request_id, "false").into_inner())))
}

fn failure(change: &Change, code: Code, reason: &str) -> Result<DeductStreamResponse, Status> {
    let error = DeductError { code: code.into(), reason: reason.to_owned(), message: "as scripted".to_owned() };
    answer(change.request_id, Some(Outcome::Error(error)))
}

async fn next_error(answers: &mut zbl_client::DeductStream) -> Error {
    answers.next().await.unwrap().unwrap_err()
}

#[tokio::test]
async fn answers_are_matched_by_their_ids_and_a_failed_item_ends_nothing() {
    let changes = changes(3);
    let [first, second, third] = &changes[..] else { unreachable!() };
    let script = Script::default().streams([
        failure(third, Code::FailedPrecondition, "INSUFFICIENT_BALANCE"),
        success(first),
        failure(second, Code::Internal, "INVENTED_LATER"),
    ]);
    let mut answers = script.serve().await.deduct_stream(tokio_stream::iter(changes.clone())).await.unwrap();

    let refused = answers.next().await.unwrap().unwrap();
    let error = refused.result.unwrap_err();
    assert_eq!((refused.request_id, error.reason()), (third.request_id, Some(Reason::InsufficientBalance)));
    assert_eq!(
        (error.code(), error.effect(), error.message()),
        (Code::FailedPrecondition, Effect::None, "as scripted")
    );

    let taken = answers.next().await.unwrap().unwrap();
    let receipt = taken.result.unwrap();
    assert_eq!((taken.request_id, receipt.request_id), (first.request_id, first.request_id));
    assert!(receipt.replayed && receipt.balance == Money::from_minor(99_000));
    assert_eq!(answers.unanswered().iter().map(|change| change.request_id).collect::<Vec<_>>(), [second.request_id]);

    let unclear = answers.next().await.unwrap().unwrap();
    assert_eq!((unclear.request_id, unclear.result.unwrap_err().effect()), (second.request_id, Effect::Unknown));
    assert!(answers.next().await.is_none() && answers.unanswered().is_empty());

    let asked = script.asked();
    assert!(asked.streamed.iter().map(|ask| ask.request_id.clone()).eq(ids(&changes).iter().map(Uuid::to_string)));
    assert!(asked.streamed.iter().all(|ask| ask.amount == "10.00" && ask.user_id == 1));
}

#[tokio::test]
async fn what_a_broken_stream_leaves_unanswered_is_known() {
    let changes = changes(3);
    let script = Script::default().streams([
        success(&changes[1]),
        Err(Status::unavailable("connection reset")),
        success(&changes[0]),
    ]);
    let mut answers = script.serve().await.deduct_stream(tokio_stream::iter(changes.clone())).await.unwrap();
    answers.next().await.unwrap().unwrap();
    let broken = next_error(&mut answers).await;
    assert!(broken.is_transient() && broken.effect() == Effect::Unknown, "{broken}");
    assert!(answers.next().await.is_none());
    let mut unanswered = ids(&answers.unanswered());
    unanswered.sort_unstable();
    let mut expected = vec![changes[0].request_id, changes[2].request_id];
    expected.sort_unstable();
    assert_eq!(unanswered, expected);
}

#[tokio::test]
async fn answers_to_nothing_are_refused() {
    let changes = changes(4);
    let stranger = Change::new(1, Money::from_minor(1));
    for (broken, why) in [(success(&changes[0]), "answered too often"), (success(&stranger), "was not asked for")] {
        let empty = answer(changes[1].request_id, None);
        let script = Script::default().streams([success(&changes[0]), empty, broken, success(&changes[2])]);
        let mut answers = script.serve().await.deduct_stream(tokio_stream::iter(changes.clone())).await.unwrap();
        answers.next().await.unwrap().unwrap().result.unwrap();
        let empty = answers.next().await.unwrap().unwrap();
        assert!(empty.result.unwrap_err().message().contains("no outcome"));
        let error = next_error(&mut answers).await;
        assert!(error.message().contains(why) && error.effect() == Effect::Unknown, "{error}");
        assert!(answers.next().await.is_none(), "nothing follows");
        assert_eq!(answers.unanswered().len(), 2);
    }
}

/// As a caller does that has waited long enough for the first answer.
#[tokio::test]
async fn what_is_sent_again_has_an_answer_for_each_time() {
    let change = changes(1).remove(0);
    let late = failure(&change, Code::Aborted, "CONTENDED");
    let script = Script::default().streams([late, success(&change), success(&change)]);
    let thrice = tokio_stream::iter(vec![change.clone(); 3]);
    let mut answers = script.serve().await.deduct_stream(thrice).await.unwrap();
    answers.next().await.unwrap().unwrap().result.unwrap_err();
    assert_eq!(ids(&answers.unanswered()), [change.request_id], "the second may take effect yet");
    answers.next().await.unwrap().unwrap().result.unwrap();
    answers.next().await.unwrap().unwrap().result.unwrap();
    assert!(answers.next().await.is_none() && answers.unanswered().is_empty());
}

/// A server that reads nothing holds the caller back: HTTP/2 lets a megabyte or so through, and there are
/// sixty to send.
#[tokio::test]
async fn no_more_is_sent_than_the_server_takes() {
    const ENDLESS: usize = 1_000_000;
    let asked_for = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked_for);
    let changes = tokio_stream::iter(0..ENDLESS).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Change::new(1, Money::from_minor(1))
    });
    let mut answers = Script::default().serve().await.deduct_stream(changes).await.unwrap();
    timeout(Duration::from_millis(300), answers.next()).await.unwrap_err();
    let asked_for = asked_for.load(Ordering::Relaxed);
    assert!((1..100_000).contains(&asked_for), "{asked_for}");
    assert!(answers.unanswered().len() <= asked_for);
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_an_outage() {
    let client = zbl_client::Client::connect_lazy("127.0.0.1:1").unwrap();
    let refused = client.deduct_stream(tokio_stream::iter(changes(1))).await.unwrap_err();
    assert!(refused.error.is_transient(), "{refused}");
}

/// The answer's head never comes, and the deductions are on their way.
#[tokio::test]
async fn what_was_sent_before_a_stream_opened_is_known() {
    let changes = changes(2);
    let client = Script::default().never_opening().serve().await.with_deadline(Duration::from_millis(500));
    let refused = client.deduct_stream(tokio_stream::iter(changes.clone())).await.unwrap_err();
    assert_eq!(refused.error.effect(), Effect::Unknown, "{refused}");
    let (mut unanswered, mut sent) = (ids(&refused.unanswered), ids(&changes));
    unanswered.sort_unstable();
    sent.sort_unstable();
    assert_eq!(unanswered, sent);
}
