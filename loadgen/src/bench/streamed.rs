//! Deductions over one `DeductStream`, as any caller of the client library sends them. It owns which operation an answer
//! ends and refuses to wait for one for ever.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;
use zbl_client::{Answered, Change, Client, DeductStream, Error, Receipt};

use super::exchange::{Backlog, Ended, Event, Exchange};
use super::operation::{Answer, Operation, Wording};
use crate::history::Acknowledgement;

/// The operations on one stream.
pub(super) struct Streamed {
    wording: Wording,
    changes: mpsc::Sender<Change>,
    answers: DeductStream,
    sent: HashMap<Uuid, Sent>,
    /// Operations that were given up.
    expired: VecDeque<Operation>,
    deadline: Duration,
    /// Answers so far.
    answered: u64,
    /// An operation has expired and nothing was answered since it was sent: the other side has vanished.
    vanished: bool,
}

struct Sent {
    operation: Operation,
    at: Instant,
    /// Answers on the stream before it was sent.
    answered_before: u64,
}

impl Streamed {
    /// Opens a stream on a connection of its own, for at most `most` operations at a time.
    ///
    /// # Errors
    /// Any [`Error`] of the connection.
    pub(super) async fn open(client: Client, wording: Wording, most: usize) -> Result<Self, Error> {
        let own = Client::connect_lazy(client.address()).map_err(Error::lost)?.with_deadline(client.deadline());
        let own = match client.tracer() {
            Some(tracer) => own.with_tracer(tracer.clone()),
            None => own,
        };
        let (changes, mut received) = mpsc::channel(most.max(1));
        let answers = own.deduct_stream(stream::poll_fn(move |context| received.poll_recv(context))).await;
        // What it had given away by then is nothing: operations are sent once it is open.
        let answers = answers.map_err(|not_opened| not_opened.error)?;
        Ok(Self {
            wording,
            changes,
            answers,
            sent: HashMap::new(),
            expired: VecDeque::new(),
            deadline: client.deadline(),
            answered: 0,
            vanished: false,
        })
    }

    /// The operation that an answer ends; `None` for one that was given up before.
    fn end(&mut self, answered: Answered) -> Option<Ended> {
        self.answered += 1;
        let Sent { operation, .. } = self.sent.remove(&answered.request_id)?;
        let outcome = answered.result.map(|receipt: Receipt| Answer::Deducted {
            receipt: Acknowledgement::of(&receipt),
            attempts: receipt.attempts,
        });
        Some(Ended { operation, outcome })
    }
}

impl Exchange for Streamed {
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.changes.is_closed() {
            return Poll::Ready(Err(Error::lost("the stream has ended")));
        }
        // There is always room for as many as may be in flight, unless the stream still holds some that have expired and
        // are sent again: then until an answer or the next tick.
        if self.changes.capacity() == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, operation: Operation, now: Instant) -> Result<(), Error> {
        let request_id = self.wording.ids.id(operation.number);
        let change = Change {
            user_id: self.wording.user_id(operation.account),
            amount: self.wording.amount,
            request_id,
            strategy: self.wording.strategy.clone(),
        };
        self.changes.try_send(change).map_err(Error::lost)?;
        self.sent.insert(request_id, Sent { operation, at: now, answered_before: self.answered });
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>, _: Backlog) -> Poll<Result<Event, Error>> {
        if let Some(operation) = self.expired.pop_front() {
            let outcome = Err(Error::no_answer_within(self.deadline));
            return Poll::Ready(Ok(Event::Ended(Ended { operation, outcome })));
        }
        if self.vanished {
            return Poll::Ready(Err(Error::lost(format_args!("no answer within {:?}", self.deadline))));
        }
        while let Poll::Ready(answered) = Pin::new(&mut self.answers).poll_next(context) {
            let answered = answered.unwrap_or_else(|| Err(Error::lost("the server ended the stream")));
            match answered.map(|answered| self.end(answered)) {
                Ok(Some(ended)) => return Poll::Ready(Ok(Event::Ended(ended))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    fn expire(&mut self, now: Instant) {
        let overdue = |sent: &mut Sent| now.saturating_duration_since(sent.at) >= self.deadline;
        for (_, sent) in self.sent.extract_if(|_, sent| overdue(sent)) {
            self.vanished |= sent.answered_before == self.answered;
            self.expired.push_back(sent.operation);
        }
    }

    fn abandon(self) -> Vec<Operation> {
        self.expired.into_iter().chain(self.sent.into_values().map(|sent| sent.operation)).collect()
    }
}
