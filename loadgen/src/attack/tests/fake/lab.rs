//! The account's laboratory: reset, holds, and what the server has counted.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use zbl_client::Money;
use zbl_proto::v1::lab_service_server::LabService;
use zbl_proto::v1::*;

use super::{Fake, Held};

#[tonic::async_trait]
impl LabService for Fake {
    async fn reset_account(
        &self,
        request: Request<ResetAccountRequest>,
    ) -> Result<Response<ResetAccountResponse>, Status> {
        let request = request.into_inner();
        let (mut books, set) = (self.books(), Money::parse(&request.balance).unwrap().minor());
        let (version, delta) = (books.version(), set - books.balance);
        books.write(&request.request_id, EntryKind::Reset, delta, version, set);
        let answer =
            ResetAccountResponse { user_id: 1, balance: request.balance, version: version + 1, ..Default::default() };
        Ok(Response::new(answer))
    }

    type RunAttackStream = tokio_stream::Empty<Result<RunAttackResponse, Status>>;

    async fn run_attack(&self, _: Request<RunAttackRequest>) -> Result<Response<Self::RunAttackStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    type RunScheduleStream = tokio_stream::Empty<Result<RunScheduleResponse, Status>>;

    async fn run_schedule(&self, _: Request<RunScheduleRequest>) -> Result<Response<Self::RunScheduleStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    type FindScheduleStream = tokio_stream::Empty<Result<FindScheduleResponse, Status>>;

    async fn find_schedule(
        &self,
        _: Request<FindScheduleRequest>,
    ) -> Result<Response<Self::FindScheduleStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    async fn advance_schedule(
        &self,
        _: Request<AdvanceScheduleRequest>,
    ) -> Result<Response<AdvanceScheduleResponse>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    type HoldOperationStream = Pin<Box<dyn Stream<Item = Result<HoldOperationResponse, Status>> + Send>>;

    /// Holds a deduction before anything of it is done, whatever the phase.
    async fn hold_operation(
        &self,
        request: Request<HoldOperationRequest>,
    ) -> Result<Response<Self::HoldOperationStream>, Status> {
        let ((arrives, arrived), (gone, is_gone)) = (oneshot::channel(), oneshot::channel());
        self.books().holds.insert(request.into_inner().request_id, Held { arrives, gone: is_gone });
        let told = |event| Ok(HoldOperationResponse { event: Some(event) });
        let armed = stream::once(async move { told(hold_operation_response::Event::Armed(HoldArmed {})) });
        let arrived = stream::once(async move {
            // One that is never called stands nowhere.
            if arrived.await.is_err() {
                std::future::pending::<()>().await;
            }
            told(hold_operation_response::Event::Arrived(HoldArrived { attempt: 1, ..HoldArrived::default() }))
        });
        // Dropped with the stream.
        let held = stream::once(async move {
            let _gone: oneshot::Sender<()> = gone;
            std::future::pending().await
        });
        Ok(Response::new(Box::pin(armed.chain(arrived).chain(held))))
    }

    async fn clear_timeline(
        &self,
        _: Request<ClearTimelineRequest>,
    ) -> Result<Response<ClearTimelineResponse>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    /// Four round trips and a commit for each entry, a hundred before the first.
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let entries = self.books().version();
        let acknowledged = 100 + entries;
        let locks_held = Duration::from_micros(250 * acknowledged as u64).try_into().ok();
        let (round_trips, commits) = (4 * acknowledged, acknowledged);
        let work =
            WorkStatus { round_trips, commits, attempts: commits, acknowledged, locks_held, ..Default::default() };
        let status = Some(ServerStatus { work: Some(work), ..ServerStatus::default() });
        Ok(Response::new(GetStatusResponse { status }))
    }

    type WatchStatusStream = tokio_stream::Empty<Result<WatchStatusResponse, Status>>;

    async fn watch_status(&self, _: Request<WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }
}
