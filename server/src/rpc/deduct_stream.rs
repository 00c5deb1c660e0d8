//! `DeductStream`: many deductions in, an answer for each out. Each item goes the way a Deduct of its own would; what it
//! spares is the cost of a call.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tokio::{sync::watch, time::Instant};
use tonic::{Status, Streaming};
use zbl_proto::v1::{self, deduct_stream_response::Outcome};

use super::{
    convert,
    status::{code_and_reason, log, told},
};
use crate::{account::Direction, account::Receipt, error::Error, ledger::Ledger};

/// The answers of one stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<v1::DeductStreamResponse, Status>> + Send>>;

/// Items of one stream that are worked on at a time: a full batch of the batched strategy. Beyond it nothing is read, and
/// HTTP/2's flow control holds the caller.
const AT_A_TIME: usize = 1024;

/// Answers items as they end, each as a Deduct with the stream's deadline would be. A server that is to stop reads no further and answers what it has.
pub(super) fn answer(
    ledger: Arc<Ledger>,
    items: Streaming<v1::DeductStreamRequest>,
    deadline: Option<Instant>,
    mut stopping: watch::Receiver<bool>,
) -> Answers {
    let stopped = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let answers = items.take_until(stopped).map(move |item| {
        let ledger = Arc::clone(&ledger);
        async move { Ok(one(&ledger, deadline, item?.deduct.unwrap_or_default()).await) }
    });
    Box::pin(answers.buffer_unordered(AT_A_TIME))
}

async fn one(ledger: &Arc<Ledger>, deadline: Option<Instant>, deduct: v1::DeductRequest) -> v1::DeductStreamResponse {
    let applied = apply(ledger, deadline, &deduct).await;
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

async fn apply(ledger: &Arc<Ledger>, deadline: Option<Instant>, deduct: &v1::DeductRequest) -> Result<Receipt, Error> {
    // One that the server made could not be told to the caller's item.
    convert::given_request_id(&deduct.request_id)?;
    let change = convert::change(deduct.user_id, Direction::Deduct, &deduct.amount, &deduct.request_id)?;
    ledger.apply_by(deadline, change, convert::strategy(&deduct.strategy)?).await
}
