//! Accepting a deduction: record, publish, note, answer. Each step is refused, or its outcome is told as what it is: not known.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use uuid::Uuid;

use super::Outbox;
use crate::{
    account::{Change, EntryKind, Journaled, Refusal},
    call::Call,
    error::{Backend, Error, UnknownCause},
    gate::Point,
    ledger::backend,
    queue::{Destination, LinkState, Message, Published, Queue},
    store::{
        Matched,
        outbox::{Key, NewOutgoing, Outgoing, Recorded, Standing},
    },
    strategy::Row,
    trace,
};

/// How long a call waits for another one that is at the same deduction: about as long as that one takes at most.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// How often it looks.
const TURN_POLL: Duration = Duration::from_millis(20);

/// How long calls are refused at once after the broker has said that the queue is full: it spares the database two writes for each
/// of them, and is short beside the time in which a full queue drains.
const FULL_FOR: Duration = Duration::from_millis(100);

/// What accepting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It will be made or fail.
    Now,
    /// The same, and an earlier call has brought it about.
    Before,
    /// An earlier call has, and it is made or has failed by now.
    Decided,
}

/// The right of one call of this process to be at a deduction.
struct Turn<'a> {
    outbox: &'a Outbox,
    key: Key,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.outbox.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Outbox {
    /// Accepts a deduction to be made later, in a task of its own: a caller that goes away cannot leave it half done.
    ///
    /// # Errors
    /// [`Error::QueueUnavailable`], [`Error::QueueFull`], [`Error::BackendDown`], [`Error::Contended`],
    /// [`Refusal::RequestIdReused`] and their like: nothing was accepted. [`Error::OutcomeUnknown`]: it may be.
    pub async fn accept(self: &Arc<Self>, change: Change, strategy: Option<&'static Row>) -> Result<Accepted, Error> {
        let queue = self.queue.clone().ok_or(Error::QueueUnavailable)?;
        if let LinkState::Down { reason } = queue.state() {
            return Err(broker_down(reason));
        }
        self.has_room()?;
        let outbox = Arc::clone(self);
        let work = self.ledger.detached(move |ledger| async move {
            let work = outbox.record_and_send(&queue, change, strategy);
            ledger.bench().mortal([change.request_id], work).await.unwrap_or_else(|| {
                let reason = "the lab crashed the operation".to_owned();
                Err(Error::OutcomeUnknown { reason, cause: UnknownCause::Crashed })
            })
        });
        work.await
    }

    async fn record_and_send(
        &self,
        queue: &Queue,
        change: Change,
        strategy: Option<&'static Row>,
    ) -> Result<Accepted, Error> {
        let Change { user_id, request_id, amount, .. } = change;
        let key = Key { user_id, request_id };
        let strategy = strategy.map_or("", |row| row.name);
        let traceparent = Call::current().map(|call| call.span().context().to_string()).unwrap_or_default();
        let until = Instant::now() + TURN_WAIT;
        loop {
            // Never twice in a batch, and one after the other.
            if let Some(_turn) = self.turn(key) {
                let row =
                    NewOutgoing { key, amount, strategy, traceparent: traceparent.clone(), sender: Uuid::new_v4() };
                match self.recording.done(row.clone()).await.map_err(backend)? {
                    Recorded::New => return self.send(queue, row).await,
                    Recorded::Journaled(entry) => return Ok(change.receipt_of(entry).map(|_| Accepted::Decided)?),
                    Recorded::There(row) => {
                        if let Some(accepted) = repeat(&change, &row)? {
                            return Ok(accepted);
                        }
                    }
                }
            }
            if Instant::now() >= until {
                let reason = "another call is handing this deduction to the queue".to_owned();
                return Err(Error::Contended { attempts: 1, reason });
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }

    fn turn(&self, key: Key) -> Option<Turn<'_>> {
        let is_free = self.turns.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        is_free.then(|| Turn { outbox: self, key })
    }

    /// Has the broker take what is recorded.
    async fn send(&self, queue: &Queue, row: NewOutgoing) -> Result<Accepted, Error> {
        let NewOutgoing { key, amount, strategy, traceparent, sender } = row;
        let message = Message {
            user_id: key.user_id,
            request_id: key.request_id,
            amount,
            strategy: strategy.to_owned(),
            accepted_at: Utc::now().naive_utc(),
            attempts: 0,
            history: Vec::new(),
            again: false,
            traceparent: (!traceparent.is_empty()).then_some(traceparent),
            reason: None,
        };
        self.pass_gate(key, Point::Publish).await;
        let began = Instant::now();
        match queue.publish(&message, Destination::Main).await {
            Published::Confirmed => trace::sent(queue.name(), Some(key.request_id), began),
            Published::Full => {
                *self.full_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + FULL_FOR);
                return Err(self.withdrawn(key, sender, self.full()).await);
            }
            Published::NotSent(reason) => return Err(self.withdrawn(key, sender, broker_down(reason)).await),
            Published::Unknown(reason) => {
                // The relay need not wait for the claim to run out, nor whoever asks. Where this fails they do.
                let _ = self.table.give_up(key, sender).await;
                return Err(unknown(&format!("RabbitMQ did not confirm it: {reason}")));
            }
        }
        self.pass_gate(key, Point::Published).await;
        // Until that is noted the answer would be ahead of what GetDeduction says.
        self.sent(key).await.map_err(|error| unknown(&format!("its record was not brought up to date: {error}")))?;
        self.pass_gate(key, Point::Answer).await;
        Ok(Accepted::Now)
    }

    /// Takes back what the broker did not take: `refusal`, if nobody else has seen it as a promise by now.
    async fn withdrawn(&self, key: Key, sender: Uuid, refusal: Error) -> Error {
        match self.table.withdraw(key, sender).await {
            Ok(Matched::Yes) => refusal,
            Ok(Matched::No) => unknown(&format!("{refusal}; and its record is the relay's by now")),
            Err(error) => unknown(&format!("{refusal}; and its record could not be taken back: {error}")),
        }
    }

    /// Whether the broker may be asked.
    fn has_room(&self) -> Result<(), Error> {
        let full_until = *self.full_until.lock().unwrap_or_else(PoisonError::into_inner);
        if full_until.is_some_and(|until| Instant::now() < until) { Err(self.full()) } else { Ok(()) }
    }

    const fn full(&self) -> Error {
        Error::QueueFull { limit: self.settings.limit, retry_after: FULL_FOR }
    }

    async fn pass_gate(&self, key: Key, point: Point) {
        if let Some(gates) = &self.ledger.bench().gates {
            gates.pass(key.request_id, point, 1).await;
        }
    }
}

/// What a deduction that is there already means for a call that asks for it. `None`: it may yet be taken back.
fn repeat(change: &Change, row: &Outgoing) -> Result<Option<Accepted>, Refusal> {
    if row.amount != change.amount {
        let found = Journaled { kind: EntryKind::Deduct, delta: Change { amount: row.amount, ..*change }.delta() };
        return Err(Refusal::RequestIdReused { request_id: change.request_id, found });
    }
    Ok(match row.standing {
        Standing::Claimed => None,
        Standing::Recorded | Standing::Sent | Standing::DeadLettered => Some(Accepted::Before),
        Standing::Failed => Some(Accepted::Decided),
    })
}

const fn broker_down(reason: String) -> Error {
    Error::BackendDown { backend: Backend::Broker, reason }
}

fn unknown(reason: &str) -> Error {
    Error::OutcomeUnknown { reason: reason.to_owned(), cause: UnknownCause::LinkLost }
}
