//! `QueueService`: how long the queue of DeductAsync is, and what was laid aside. What is done to dead letters, `dead_letters.rs` does.

use tokio::sync::watch;
use tonic::{Request, Response, Status};
use zbl_proto::v1::{self, queue_service_server::QueueService};

use super::{convert, deadline::within, status::status};
use crate::{
    dead_letters::{DeadLetters, Tally, Verdict, reason_of},
    depth::Depth,
    error::{Backend, Error, Invalid, InvalidReason},
    queue::{DeadLetter, Depths, MOST_HELD},
};

/// How much of a message's body is told.
const BODY_TOLD: usize = 1024;

/// The service.
pub struct QueueRpc {
    counter: Counter,
}

/// What its calls work with.
#[derive(Clone)]
pub struct Counter {
    /// The dead letters, where there is a queue.
    pub letters: Option<DeadLetters>,
    /// How long the queue is.
    pub depth: Option<watch::Receiver<Depth>>,
    /// Its name.
    pub name: String,
    /// The most that may wait.
    pub limit: u32,
}

impl QueueRpc {
    /// The service.
    pub const fn new(counter: Counter) -> Self {
        Self { counter }
    }

    fn letters(&self) -> Result<&DeadLetters, Error> {
        self.counter.letters.as_ref().ok_or(Error::QueueUnavailable)
    }

    fn depth(&self) -> Result<(Depth, Depths), Error> {
        let depth = *self.counter.depth.as_ref().ok_or(Error::QueueUnavailable)?.borrow();
        let down = || "it does not answer; the server's log says why".to_owned();
        match depth.depths {
            Some(depths) if depth.connected => Ok((depth, depths)),
            _ => Err(Error::BackendDown { backend: Backend::Broker, reason: down() }),
        }
    }

    async fn decide(&self, ids: &[String], verdict: Verdict) -> Result<Tally, Error> {
        if ids.len() > MOST_HELD {
            let description = format!("{} ids are more than {MOST_HELD}; give none for the oldest of them", ids.len());
            return Err(Invalid { field: "message_ids", reason: InvalidReason::Page, description }.into());
        }
        self.letters()?.decide(ids, verdict).await
    }
}

#[tonic::async_trait]
impl QueueService for QueueRpc {
    async fn get_queue(&self, _: Request<v1::GetQueueRequest>) -> Result<Response<v1::GetQueueResponse>, Status> {
        let (depth, Depths { ready, retrying, dead }) = self.depth().map_err(|error| status(&error))?;
        Ok(Response::new(v1::GetQueueResponse {
            name: self.counter.name.clone(),
            ready: signed(ready),
            retrying: signed(retrying),
            dead: signed(dead),
            limit: self.counter.limit.into(),
            oldest: depth.oldest.try_into().ok(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let work = async {
            let size = convert::page_size(request.get_ref().page_size)?;
            self.letters()?.list(usize::try_from(size).unwrap_or(MOST_HELD)).await
        };
        let (letters, total) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::ListDeadLettersResponse {
            dead_letters: letters.iter().map(dead_letter).collect(),
            total: signed(total),
        }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        let work = async { self.letters()?.find(&request.get_ref().message_id).await };
        let letter = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let body = letter.raw.body();
        let body = body.get(..BODY_TOLD).unwrap_or(body).to_vec();
        let dead_letter = Some(v1::DeadLetter { body, ..dead_letter(&letter) });
        Ok(Response::new(v1::GetDeadLetterResponse { dead_letter }))
    }

    async fn requeue_dead_letters(
        &self,
        request: Request<v1::RequeueDeadLettersRequest>,
    ) -> Result<Response<v1::RequeueDeadLettersResponse>, Status> {
        let work = self.decide(&request.get_ref().message_ids, Verdict::Requeue);
        let Tally { done, decided, left, .. } =
            within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let (requeued, decided, left) = (signed(done), signed(decided), signed(left));
        Ok(Response::new(v1::RequeueDeadLettersResponse { requeued, left, decided }))
    }

    async fn purge_dead_letters(
        &self,
        request: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        let work = self.decide(&request.get_ref().message_ids, Verdict::Purge);
        let Tally { done, decided, left, .. } =
            within(request.extensions(), work).await.map_err(|error| status(&error))?;
        // What was decided by other means is removed as well.
        Ok(Response::new(v1::PurgeDeadLettersResponse { purged: signed(done + decided), left: signed(left) }))
    }
}

/// A dead letter without its body.
fn dead_letter(letter: &DeadLetter) -> v1::DeadLetter {
    let (reason, message) = reason_of(letter);
    let told = v1::DeadLetter {
        message_id: letter.id.clone(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Default::default()
    };
    let Ok(deduction) = letter.raw.decode() else { return told };
    v1::DeadLetter {
        user_id: deduction.user_id,
        request_id: deduction.request_id.to_string(),
        amount: deduction.amount.to_string(),
        strategy: deduction.strategy,
        attempts: deduction.attempts.try_into().unwrap_or(i32::MAX),
        accept_time: Some(convert::timestamp(deduction.accepted_at)),
        history: deduction.history,
        ..told
    }
}

fn signed(count: u64) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
