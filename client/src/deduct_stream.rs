//! Many deductions over one stream. It owns the matching: each answer belongs to the deduction whose request id it names,
//! and what has no answer yet is known at any time, because that is what a caller must settle when the stream breaks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Streaming};
use uuid::Uuid;
use zbl_proto::v1::deduct_stream_response::Outcome;
use zbl_proto::{Reason, v1};

use crate::{Change, Error, Receipt, account};

/// The answers of one stream of deductions, as [`crate::Client::deduct_stream`] opens it.
#[derive(Debug)]
pub struct DeductStream {
    /// `None` once it has ended, in order or not.
    answers: Option<Streaming<v1::DeductStreamResponse>>,
    unanswered: Unanswered,
}

/// What became of one deduction of the stream.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The deduction's request id.
    pub request_id: Uuid,
    /// Its receipt, or why there is none; judge what happened by [`Error::effect`].
    pub result: Result<Receipt, Error>,
}

/// A stream of deductions that could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the stream of deductions cannot be opened: {error}")]
pub struct NotOpened {
    /// Why.
    #[source]
    pub error: Error,
    /// The deductions that were given to the connection by then. Judge what happened to them by the error's
    /// [`Error::effect`]; where it is unknown, send them again under the same ids, or settle them with
    /// [`crate::Client::resolve`].
    pub unanswered: Vec<Change>,
}

/// A deduction that was sent, and how often: it may be sent again under its id before it is answered, and each sending has
/// an answer.
#[derive(Clone, Debug)]
struct Sent {
    change: Change,
    answers_due: u64,
}

/// The deductions that were sent and not answered, shared between the two directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unanswered(Arc<Mutex<HashMap<Uuid, Sent>>>);

impl Unanswered {
    fn sent(&self) -> MutexGuard<'_, HashMap<Uuid, Sent>> {
        // A map stays whole if a thread panics between two changes to it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of these deductions, each noted as it leaves.
    pub(crate) fn note<S>(&self, changes: S) -> Request<impl Stream<Item = v1::DeductStreamRequest> + Send + use<S>>
    where
        S: Stream<Item = Change> + Send + 'static,
    {
        let unanswered = self.clone();
        Request::new(changes.map(move |change| {
            let deduct = account::deduct_request(&change);
            unanswered.sent().entry(change.request_id).or_insert(Sent { change, answers_due: 0 }).answers_due += 1;
            v1::DeductStreamRequest { deduct: Some(deduct) }
        }))
    }
}

impl Unanswered {
    /// The deductions themselves.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.sent().values().map(|sent| sent.change.clone()).collect()
    }

    /// Notes an answer; false when none was due.
    fn answered(&self, request_id: Uuid) -> bool {
        let mut all = self.sent();
        let Entry::Occupied(mut sent) = all.entry(request_id) else { return false };
        sent.get_mut().answers_due -= 1;
        if sent.get().answers_due == 0 {
            sent.remove();
        }
        true
    }
}

impl DeductStream {
    pub(crate) const fn new(answers: Streaming<v1::DeductStreamResponse>, unanswered: Unanswered) -> Self {
        Self { answers: Some(answers), unanswered }
    }

    /// The next answer, in whatever order deductions end; `None` when the stream has ended. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The stream is broken, and nothing follows: what [`DeductStream::unanswered`] has is unknown.
    pub async fn next(&mut self) -> Option<Result<Answered, Error>> {
        StreamExt::next(self).await
    }

    /// The deductions that were sent and have no answer so far, or were sent again and have no answer to that. Once the stream has ended, in order or not, their outcome
    /// is unknown: send them again under the same ids, or settle them with [`crate::Client::resolve`].
    pub fn unanswered(&self) -> Vec<Change> {
        self.unanswered.changes()
    }

    fn answered(&self, message: v1::DeductStreamResponse) -> Result<Answered, Error> {
        let request_id = account::request_id(&message.request_id)?;
        if !self.unanswered.answered(request_id) {
            return Err(Error::broken_answer(format_args!("{request_id} was not asked for, or is answered too often")));
        }
        let result = match message.outcome {
            Some(Outcome::Receipt(receipt)) => account::receipt(receipt, message.replayed),
            Some(Outcome::Error(error)) => {
                let reason = Reason::from_wire(&error.reason);
                Err(Error::of_item(Code::from_i32(error.code), error.message, reason))
            }
            None => Err(Error::broken_answer(format_args!("{request_id} has no outcome"))),
        };
        Ok(Answered { request_id, result })
    }
}

impl Stream for DeductStream {
    type Item = Result<Answered, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
        let answer = ready!(Pin::new(answers).poll_next(context)).map(|answer| match answer {
            Ok(message) => self.answered(message),
            Err(status) => Err(Error::from_status(&status)),
        });
        if !matches!(answer, Some(Ok(_))) {
            // What a server sends that breaks the contract is not to be trusted further; dropping it ends the call.
            self.answers = None;
        }
        Poll::Ready(answer)
    }
}
