//! What became of a deduction: the answer of `GetDeduction`, and `WatchDeduction`, which gives it again until there is an end.
//!
//! The database is asked again and again, not told by whoever commits: another server may make the deduction.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use uuid::Uuid;
use zbl_proto::v1;

use super::{convert, status::status, timeline::Watch};
use crate::{
    account::Receipt,
    error::Error,
    ledger::{Fate, Ledger, Resolve, Why},
    limit::Room,
};

/// How often the database is asked. There are 64 streams at the most, each with two or three reads by a key.
const POLL: Duration = Duration::from_millis(200);

/// The stream of one watcher.
pub type DeductionStream = Pin<Box<dyn Stream<Item = Result<v1::WatchDeductionResponse, Status>> + Send>>;

/// What is told of a deduction.
pub(super) fn told(fate: Fate) -> v1::GetDeductionResponse {
    use v1::DeductionState::{DeadLettered, Failed, NotFound, Pending, Succeeded, Voided};
    match fate {
        Fate::Journaled(entry) => v1::GetDeductionResponse {
            state: Succeeded.into(),
            kind: convert::kind(entry.kind).into(),
            receipt: Some(convert::deduct_response(Receipt::replayed(entry))),
            r#final: true,
            ..Default::default()
        },
        Fate::Voided => v1::GetDeductionResponse {
            state: Voided.into(),
            kind: v1::EntryKind::Void.into(),
            r#final: true,
            ..Default::default()
        },
        Fate::Pending(accepted_at) => v1::GetDeductionResponse {
            state: Pending.into(),
            accept_time: Some(convert::timestamp(accepted_at)),
            ..Default::default()
        },
        Fate::Failed(why) => without_effect(Failed, why),
        Fate::DeadLettered(why) => without_effect(DeadLettered, why),
        Fate::NotFound => v1::GetDeductionResponse { state: NotFound.into(), ..Default::default() },
    }
}

fn without_effect(state: v1::DeductionState, why: Why) -> v1::GetDeductionResponse {
    let kind = if why.is_barred { v1::EntryKind::Void } else { v1::EntryKind::Unspecified };
    v1::GetDeductionResponse {
        state: state.into(),
        kind: kind.into(),
        r#final: why.is_barred,
        reason: why.reason,
        message: why.detail,
        accept_time: Some(convert::timestamp(why.accepted_at)),
        ..Default::default()
    }
}

/// One watcher.
struct Watcher {
    ledger: Arc<Ledger>,
    stopping: watch::Receiver<bool>,
    heartbeat: Duration,
    _room: Room,
    user_id: i64,
    request_id: Uuid,
    told: Option<Fate>,
}

/// The stream that a request asks for.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Overloaded`].
pub(super) fn watch(
    ledger: &Arc<Ledger>,
    watch: &Watch,
    request: &v1::WatchDeductionRequest,
) -> Result<DeductionStream, Error> {
    let user_id = convert::user_id(request.user_id)?;
    let request_id = convert::given_request_id(&request.request_id)?;
    let room = watch.limits.watch()?;
    let (ledger, stopping) = (Arc::clone(ledger), watch.stopping.clone());
    let watcher =
        Watcher { ledger, stopping, heartbeat: watch.heartbeat, _room: room, user_id, request_id, told: None };
    Ok(Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(fate) => {
                let goes_on = matches!(fate, Fate::NotFound | Fate::Pending(_));
                watcher.told = Some(fate.clone());
                let message = v1::WatchDeductionResponse { deduction: Some(told(fate)) };
                Some((Ok(message), goes_on.then_some(watcher)))
            }
            Err(error) => Some((Err(status(&error)), None)),
        }
    })))
}

impl Watcher {
    /// The next state, or the present one when that has been the same for long.
    async fn next(&mut self) -> Result<Fate, Error> {
        let heartbeat = Instant::now() + self.heartbeat;
        loop {
            if *self.stopping.borrow() {
                return Err(Error::Stopping);
            }
            let fate = self.ledger.fate(self.user_id, self.request_id, Resolve::Look).await?;
            if self.told.as_ref() != Some(&fate) || Instant::now() >= heartbeat {
                return Ok(fate);
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = sleep_until(heartbeat) => return Ok(fate),
                _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Error::Stopping),
            }
        }
    }
}
