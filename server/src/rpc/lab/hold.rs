//! HoldOperation: one operation, held before one phase for as long as somebody listens. What a pause of its process in
//! that place would do, another server can then be seen to do to it.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zbl_proto::v1::{self, hold_operation_response::Event};

use super::{
    super::{convert, status::status},
    Lab,
};
use crate::{
    error::{Error, Invalid, InvalidReason},
    gate::{Place, Point, Script},
};

/// How long an operation is held at most: it may have locked what others want.
const HELD_MOST: Duration = Duration::from_secs(5 * 60);

/// Operations held at a time: more than any lesson has actors, few enough to leave connections to everybody else.
pub(super) const HOLDS_MOST: usize = 8;

/// Both events fit, so the hold never waits for its reader.
const EVENTS_WAITING: usize = 2;

/// Puts a hold in place and returns what becomes of it.
pub(super) fn start(
    lab: &Arc<Lab>,
    request: &v1::HoldOperationRequest,
) -> Result<impl Stream<Item = Result<v1::HoldOperationResponse, Status>> + Send + use<>, Error> {
    let request_id = convert::given_request_id(&request.request_id)?;
    let phase = convert::given_phase(request.phase())?;
    let closed = || Invalid {
        field: "phase",
        reason: InvalidReason::Schedule,
        description: "this server holds no operations; start it with the lab open".to_owned(),
    };
    let gates = lab.premises.ledger.bench().gates.as_ref().ok_or_else(closed)?;
    let many = |_| Error::Overloaded(format!("{HOLDS_MOST} operations are held already"));
    let room = Arc::clone(&lab.holds).try_acquire_owned().map_err(many)?;
    let script = gates.hold(request_id, phase);
    let (told, events) = mpsc::channel(EVENTS_WAITING);
    tokio::spawn(hold(script, room, told, lab.premises.stopping.clone()));
    Ok(ReceiverStream::new(events))
}

type Told = mpsc::Sender<Result<v1::HoldOperationResponse, Status>>;

/// Holds until nobody listens any more, the time is over, or the server is to stop.
async fn hold(script: Script, _room: OwnedSemaphorePermit, told: Told, mut stopping: watch::Receiver<bool>) {
    let listened = async {
        tell(&told, Event::Armed(v1::HoldArmed {})).await;
        script.arrived().await;
        if let Place::Standing { point: Point::Before(phase), attempt } = script.place() {
            let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
            tell(&told, Event::Arrived(v1::HoldArrived { phase: convert::phase(phase).into(), attempt })).await;
        }
        told.closed().await;
    };
    let ends_by_stopping = tokio::select! {
        _ = timeout(HELD_MOST, listened) => false,
        // Before the operation arrives, too.
        () = told.closed() => false,
        _ = stopping.wait_for(|stopping| *stopping) => true,
    };
    script.release();
    if ends_by_stopping {
        let _ = told.try_send(Err(status(&Error::Stopping)));
    }
}

/// Nobody listening is noticed elsewhere.
async fn tell(told: &Told, event: Event) {
    let _ = told.send(Ok(v1::HoldOperationResponse { event: Some(event) })).await;
}
