//! Deductions that are made later: which calls are repeated, and that a decision is waited for across lost streams.

use std::time::Duration;

use tonic::{Code, Status};
use uuid::Uuid;
use zbl_client::{Acceptance, Change, Effect, Fate, FateStreamItem, Money, NotMade, Reason, Retry};
use zbl_proto::v1::{self, DeductionState, GetDeductionResponse, WatchDeductionResponse};

use crate::scripted::{Script, failure};

const QUICK: Retry = Retry { tries: 3, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };

/// Longer than any of these takes.
const LONG: Duration = Duration::from_secs(20);

fn change() -> Change {
    Change { strategy: "atomic".to_owned(), ..Change::new(1, Money::from_minor(1_000)) }
}

fn told(state: DeductionState) -> Result<WatchDeductionResponse, Status> {
    let reason = if state == DeductionState::Failed { "INSUFFICIENT_BALANCE" } else { "" };
    let deduction = GetDeductionResponse { state: state.into(), reason: reason.to_owned(), ..Default::default() };
    Ok(WatchDeductionResponse { deduction: Some(deduction) })
}

#[tokio::test]
async fn an_acceptance_that_got_lost_is_asked_for_again_under_the_same_id() {
    let change = change();
    let script = Script::default().acceptings([
        Err(Status::unavailable("connection reset")),
        Err(failure(Code::DeadlineExceeded, Reason::OutcomeUnknown)),
        Ok(v1::Acceptance::Decided),
    ]);
    let found = script.serve().await.with_retry(QUICK).deduct_async(&change).await.unwrap();

    assert_eq!(found, Acceptance::Decided);
    let asked = script.asked();
    assert_eq!(asked.accepted.len(), 3);
    let expected = v1::DeductAsyncRequest {
        user_id: 1,
        amount: "10.00".to_owned(),
        request_id: change.request_id.to_string(),
        strategy: "atomic".to_owned(),
    };
    assert!(asked.accepted.iter().all(|ask| *ask == expected));
}

#[tokio::test]
async fn a_full_queue_is_an_answer_and_an_empty_one_is_none() {
    let script = Script::default()
        .acceptings([Err(failure(Code::ResourceExhausted, Reason::QueueFull)), Ok(v1::Acceptance::Unspecified)]);
    let client = script.serve().await.with_retry(QUICK);
    let full = client.deduct_async(&change()).await.unwrap_err();
    assert_eq!((full.reason(), full.effect()), (Some(Reason::QueueFull), Effect::None));
    assert_eq!(script.asked().accepted.len(), 1);
    let broken = client.deduct_async(&change()).await.unwrap_err();
    assert_eq!((broken.code(), broken.effect()), (Code::DataLoss, Effect::Unknown));
}

#[tokio::test]
async fn a_decision_is_waited_for_across_lost_streams() {
    let script = Script::default().watchings([
        vec![told(DeductionState::NotFound), told(DeductionState::Pending), Err(Status::unavailable("killed"))],
        // An end without a decision is a loss, too.
        vec![told(DeductionState::Pending)],
        vec![told(DeductionState::Pending), told(DeductionState::Failed), told(DeductionState::Pending)],
    ]);
    let (client, request_id) = (script.serve().await, Uuid::from_u128(7));
    let fate = client.await_decision(3, request_id, LONG).await.unwrap();
    let refused = NotMade { reason: "INSUFFICIENT_BALANCE".to_owned(), message: String::new() };
    assert_eq!(fate, Fate::Failed(refused));
    let asked = &script.asked().watched;
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|ask| ask.user_id == 3 && ask.request_id == request_id.to_string()));
}

#[tokio::test]
async fn a_stream_of_fates_ends_behind_the_decision() {
    let script = Script::default().watchings([
        vec![told(DeductionState::Pending), Err(failure(Code::Unavailable, Reason::ShuttingDown))],
        vec![told(DeductionState::DeadLettered)],
    ]);
    let mut fates = script.serve().await.watch_deduction(1, Uuid::from_u128(7));
    let mut seen = Vec::new();
    while let Some(item) = fates.next().await.unwrap() {
        seen.push(match item {
            FateStreamItem::Connected => "up",
            FateStreamItem::Disconnected { .. } => "down",
            FateStreamItem::Fate(fate) if fate.is_decided() => "decided",
            FateStreamItem::Fate(_) => "open",
        });
    }
    assert_eq!(seen, ["up", "open", "down", "up", "decided"]);
    assert!(fates.next().await.unwrap().is_none());
}

#[tokio::test]
async fn waiting_has_an_end() {
    let script = Script::default().watchings([vec![told(DeductionState::Pending)]]).lingering();
    let (client, within) = (script.serve().await, Duration::from_millis(50));
    let late = client.await_decision(1, Uuid::from_u128(7), within).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("not decided within 50ms"), "{late}");
    // What no reconnection cures ends it at once.
    let unknown = Script::default().serve().await.await_decision(1, Uuid::from_u128(7), LONG).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}
