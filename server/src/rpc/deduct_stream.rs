//! `DeductStream`: many deductions in, an answer for each out. Each item goes the way a Deduct of its own would; what it
//! spares is the cost of a call.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{Stream, StreamExt, future, stream};
use tokio::sync::watch;
use tonic::{Code, Status, Streaming};
use zbl_proto::v1::{self, deduct_stream_response::Outcome};

use super::{
    convert,
    status::{code_and_reason, log, named, status, told},
    tally::{self, Changes},
};
use crate::{
    account::{Direction, Receipt},
    call::Call,
    error::Error,
    layer::Deadline,
    ledger::Ledger,
    limit::Limits,
};

/// The answers of one stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<v1::DeductStreamResponse, Status>> + Send>>;

/// Items of one stream that are worked on at a time: a full batch of the batched strategy. Beyond it nothing is read, and
/// HTTP/2's flow control holds the caller.
const AT_A_TIME: usize = 1024;

/// Where the items of one stream are served.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) ledger: Arc<Ledger>,
    pub(super) limits: Arc<Limits>,
    pub(super) changes: Arc<Changes>,
    /// The stream's; each item is answered within it as a Deduct of its own would be.
    pub(super) deadline: Option<Deadline>,
    /// The stream's call; each item is a part of it.
    pub(super) call: Option<Call>,
}

impl Desk {
    /// Answers items as they end. A server that is to stop, or that meets what it cannot read, reads no further, answers what
    /// it has, and then says so: what has no answer then was not begun.
    pub(super) fn answer(
        self,
        items: Streaming<v1::DeductStreamRequest>,
        mut stopping: watch::Receiver<bool>,
    ) -> Answers {
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        let stopped = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            cut.store(true, Ordering::Relaxed);
        };
        let unreadable = Arc::<OnceLock<Status>>::default();
        let found = Arc::clone(&unreadable);
        let end = async move {
            let stopping = || is_cut.load(Ordering::Relaxed).then(|| status(&Error::Stopping));
            found.get().cloned().map(named).or_else(stopping).map(Err)
        };
        let readable = items.take_until(stopped).scan(unreadable, |unreadable, item| {
            let item = item.map_err(|status| unreadable.set(status)).ok();
            future::ready(item)
        });
        let answers = readable.map(move |item| {
            let desk = self.clone();
            async move { Ok(desk.item(item.deduct.unwrap_or_default()).await) }
        });
        let end = stream::once(end).filter_map(future::ready);
        Box::pin(answers.buffer_unordered(AT_A_TIME).chain(end))
    }

    /// Answers an item as a part of its call.
    async fn item(&self, deduct: v1::DeductRequest) -> v1::DeductStreamResponse {
        let Some(call) = self.call.as_ref().map(|call| call.item("item")) else { return self.one(deduct).await };
        let span = call.span().clone();
        let answer = call.scope(self.one(deduct)).await;
        span.end_call(match &answer.outcome {
            Some(Outcome::Error(error)) => error.code,
            _ => Code::Ok.into(),
        });
        answer
    }

    async fn one(&self, deduct: v1::DeductRequest) -> v1::DeductStreamResponse {
        let strategy = convert::counted_as(&deduct.strategy, &self.ledger);
        let applied = tally::deduction(&self.changes, strategy, self.apply(&deduct)).await;
        let replayed = applied.as_ref().is_ok_and(Receipt::is_replay);
        let outcome = match applied {
            Ok(receipt) => Outcome::Receipt(convert::deduct_response(receipt)),
            Err(error) => {
                log(&error);
                let (code, reason) = code_and_reason(&error);
                let reason = reason.as_str().to_owned();
                Outcome::Error(v1::DeductError { code: code.into(), reason, message: told(&error) })
            }
        };
        v1::DeductStreamResponse { request_id: deduct.request_id, outcome: Some(outcome), replayed }
    }

    async fn apply(&self, deduct: &v1::DeductRequest) -> Result<Receipt, Error> {
        // An item takes and costs what a call does, and the stream has passed the layers only once.
        let _room = self.limits.enter()?;
        self.limits.call()?;
        let answer_by = self.deadline.map(Deadline::of_item);
        // One that the server made could not be told to the caller's item.
        convert::given_request_id(&deduct.request_id)?;
        let change = convert::change(deduct.user_id, Direction::Deduct, &deduct.amount, &deduct.request_id)?;
        let strategy = convert::strategy(&deduct.strategy)?;
        self.limits.change_of(change.user_id).await?;
        self.ledger.apply_by(answer_by, change, strategy).await
    }
}
