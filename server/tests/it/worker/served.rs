//! A server that works as well: over the wire, with what it tells of its queue.

use futures::StreamExt;
use uuid::Uuid;
use zbl_proto::v1::{self, queue_service_client::QueueServiceClient};

use super::rabbit;
use crate::{
    app::{Database, Served, until},
    wire::serving::get,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_works_makes_what_it_accepts_and_tells_of_it() {
    let database = Database::sqlite();
    let (broker, name) = (rabbit().await, format!("zbl.test.{}", Uuid::new_v4().simple()));
    let words = ["--amqp-url", &broker, "--queue-name", &name, "--worker", "true"];
    let mut served = Served::start(&database.url, &words).await;
    let user_id = served.bench.account("15.00").await;
    let deduct = |strategy: &str| v1::DeductAsyncRequest {
        user_id,
        amount: "10.00".to_owned(),
        request_id: Uuid::new_v4().to_string(),
        strategy: strategy.to_owned(),
    };
    let mut queue = QueueServiceClient::new(served.channel());
    until("RabbitMQ is connected", async || queue.get_queue(v1::GetQueueRequest {}).await.is_ok()).await;
    let mut account = served.account();
    let mut states = Vec::new();
    for _ in 0..2 {
        let accepted = account.deduct_async(deduct("")).await.unwrap().into_inner();
        let watched = v1::WatchDeductionRequest { user_id, request_id: accepted.request_id };
        let told = account.watch_deduction(watched).await.unwrap().into_inner();
        let told: Vec<_> = told.map(|told| told.unwrap().deduction.unwrap()).collect().await;
        states.push(told.last().unwrap().state());
    }
    assert_eq!(states, [v1::DeductionState::Succeeded, v1::DeductionState::Failed]);

    let told = queue.get_queue(v1::GetQueueRequest {}).await.unwrap().into_inner();
    assert_eq!((told.name.as_str(), told.ready, told.dead, told.limit), (name.as_str(), 0, 0, 100_000));
    let listed = queue.list_dead_letters(v1::ListDeadLettersRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.dead_letters.len(), listed.total), (0, 0));
    let nobody = v1::GetDeadLetterRequest { message_id: "nobody".to_owned() };
    let refused = queue.get_dead_letter(nobody).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
    let too_many = vec![String::new(); 1001];
    let refused = queue.purge_dead_letters(v1::PurgeDeadLettersRequest { message_ids: too_many }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");

    let status = served.lab().get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    let status = status.status.unwrap().queue.unwrap();
    assert!(status.connected && status.working, "{status:?}");
    let (_, text) = get(served.http, "/metrics").await;
    for name in [
        "queue_connected 1",
        "queue_deductions{state=\"dead\"}",
        "worker_deliveries_total",
        "worker_in_hand_deductions",
    ] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    served.ask_to_stop();
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_queue_says_so() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let mut queue = QueueServiceClient::new(served.channel());
    let refused = queue.get_queue(v1::GetQueueRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    let refused = queue.requeue_dead_letters(v1::RequeueDeadLettersRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    let status = served.lab().get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    assert!(status.status.unwrap().queue.is_none());
}
