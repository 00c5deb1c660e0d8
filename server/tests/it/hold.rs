//! HoldOperation, over the wire.

use tonic::{Code, Streaming};
use uuid::Uuid;
use zbl_proto::v1::{
    DeductRequest, HoldOperationRequest, HoldOperationResponse, Phase, hold_operation_response::Event,
};

use crate::app::{Database, Served, money};

async fn hold(served: &Served, request_id: &str, phase: Phase) -> tonic::Result<Streaming<HoldOperationResponse>> {
    let request = HoldOperationRequest { request_id: request_id.to_owned(), phase: phase.into() };
    Ok(served.lab().hold_operation(request).await?.into_inner())
}

async fn next(events: &mut Streaming<HoldOperationResponse>) -> Event {
    events.message().await.unwrap().unwrap().event.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_stands_where_it_is_held_until_the_stream_is_dropped() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    let deduct = |request_id: String| DeductRequest {
        user_id,
        amount: "10.00".to_owned(),
        request_id,
        strategy: "none".to_owned(),
    };
    let held = Uuid::new_v4().to_string();
    let mut events = hold(&served, &held, Phase::Write).await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Armed(_)));
    let mut account = served.account();
    let first = tokio::spawn({
        let request = deduct(held);
        async move { account.deduct(request).await.unwrap().into_inner() }
    });
    let Event::Arrived(arrived) = next(&mut events).await else { panic!("it did not arrive") };
    assert_eq!((arrived.phase(), arrived.attempt), (Phase::Write, 1));
    let second = served.account().deduct(deduct(String::new())).await.unwrap().into_inner();
    assert!(!first.is_finished());
    drop(events);
    let first = first.await.unwrap();
    // It stood after its read: what it writes now overwrites.
    assert_eq!((second.version, first.version, first.version_before), (2, 3, 1));
    assert_eq!(served.bench.balance(user_id).await, money("90.00"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_held_is_refused_and_so_is_one_too_many() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let id = || Uuid::new_v4().to_string();
    assert_eq!(hold(&served, "x", Phase::Write).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(hold(&served, &id(), Phase::Unspecified).await.unwrap_err().code(), Code::InvalidArgument);
    let mut holds = Vec::new();
    let refused = loop {
        match hold(&served, &id(), Phase::Read).await {
            Ok(hold) => holds.push(hold),
            Err(refused) => break refused,
        }
        assert!(holds.len() <= 100, "there is no limit");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(holds);
    // Room again as soon as the server has seen the streams end.
    crate::app::until("an operation can be held again", async || hold(&served, &id(), Phase::Read).await.is_ok()).await;
}
