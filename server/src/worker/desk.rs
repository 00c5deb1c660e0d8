//! One delivery, from its arrival to its answer. Whatever is promised elsewhere comes first, the acknowledgement last: the entry or the
//! row in the database, then the message in another queue, then the answer to this one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use chrono::{SecondsFormat, Utc};
use metrics::{counter, histogram};
use tokio::{select, sync::watch, time::sleep};
use uuid::Uuid;
use zbl_trace::Tracer;

use super::{DELIVERIES_MOST, Settings, decision::Decision, hold::Hold};
use crate::{
    account::{Change, Direction, EntryKind},
    call::Call,
    error::{Error, Invalid, InvalidReason},
    ledger::{Failed, Fate, Ledger, Resolve},
    outbox::Outbox,
    projector::lag,
    queue::{Delivery, Destination, Message, Pause, Published, Queue, Raw},
    rpc::reason,
    store::outbox::{Key, Outgoing, Standing},
    strategy, trace,
    waiting::Waiting,
};

/// Why a message is a dead letter that is none of ours, or came too often; beside the reasons of the error table.
pub(crate) const UNDECODABLE: &str = "UNDECODABLE";
pub(crate) const REDELIVERED: &str = "REDELIVERED";

/// What the tasks of a worker share.
pub(super) struct Desk {
    ledger: Arc<Ledger>,
    outbox: Arc<Outbox>,
    queue: Queue,
    tracer: Tracer,
    settings: Settings,
    hold: Hold,
    in_hand: AtomicUsize,
}

/// What a delivery came to.
enum End {
    /// The journal has its id.
    Journaled,
    /// It never had an effect and never will, and its row says why.
    Failed,
    /// It is to be tried again.
    Later(Fault),
    /// Somebody has to decide.
    Aside(Fault),
    /// The worker ends before the database has answered.
    Left,
}

/// Why a deduction could not be made.
#[derive(Clone, Debug)]
struct Fault {
    reason: String,
    detail: String,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Self { reason: reason(error).as_str().to_owned(), detail: error.to_string() }
    }
}

/// What is published in place of a delivery.
enum Parcel<'a> {
    Deduction(&'a Message, Destination),
    Unreadable(&'a Raw, &'a str),
}

impl Parcel<'_> {
    /// The id of its message; that of one which cannot be read is none of ours.
    const fn id(&self) -> Option<Uuid> {
        match self {
            Self::Deduction(message, _) => Some(message.request_id),
            Self::Unreadable(..) => None,
        }
    }
}

/// The worker ends.
struct Stopping;

impl Desk {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        outbox: Arc<Outbox>,
        queue: Queue,
        tracer: Tracer,
        settings: Settings,
    ) -> Self {
        let hold = Hold::new(Arc::clone(&ledger.bench().store));
        Self { ledger, outbox, queue, tracer, settings, hold, in_hand: AtomicUsize::new(0) }
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Relaxed)
    }

    pub(super) fn held(&self) -> usize {
        self.hold.held()
    }

    /// Looks after what is held, for as long as it is polled.
    pub(super) async fn look(&self) {
        self.hold.look().await;
    }

    /// Deals with a delivery, to its answer.
    pub(super) async fn take(&self, delivery: Delivery, stopping: watch::Receiver<bool>) {
        let _in_hand = Waiting::begin(&self.in_hand);
        counter!("worker_deliveries_total").increment(1);
        counter!("worker_redeliveries_total").increment(u64::from(delivery.redelivered));
        match delivery.decoded.clone() {
            Ok(message) => {
                let name = format!("process {}", self.queue.name());
                let call = Call::of_message(&self.tracer, name, message.traceparent.as_deref(), message.request_id);
                let span = call.span().clone();
                span.set(|| trace::of_message(self.queue.name(), "process", message.request_id));
                call.scope(self.deduct(message, delivery, stopping)).await;
                span.end(None);
            }
            Err(undecodable) => {
                tracing::warn!("a message of the queue is no deduction: {undecodable}");
                let why = format!("{UNDECODABLE}: {undecodable}");
                let buried = self.publish(&Parcel::Unreadable(&delivery.raw, &why), &stopping).await;
                answer(delivery, buried, || dead_letters(UNDECODABLE)).await;
            }
        }
    }

    async fn deduct(&self, message: Message, delivery: Delivery, stopping: watch::Receiver<bool>) {
        if message.attempts == 0 && !delivery.redelivered {
            histogram!("queue_wait_seconds").record(lag(Some(message.accepted_at)).as_secs_f64());
        }
        match self.end_of(&message, &delivery, &stopping).await {
            End::Journaled => {
                counter!("worker_decided_total", "outcome" => "journaled").increment(1);
                delivery.ack().await;
                // Nobody waits for that, and whatever is left the relay comes upon.
                self.outbox.settled(key(&message));
            }
            End::Failed => {
                counter!("worker_decided_total", "outcome" => "failed").increment(1);
                delivery.ack().await;
            }
            End::Later(fault) => {
                tracing::info!(
                    attempts = message.attempts + 1,
                    "to be tried again: {}: {}",
                    fault.reason,
                    fault.detail
                );
                let to = Destination::retry(message.attempts);
                let message = self.tried(message, &fault);
                let published = self.publish(&Parcel::Deduction(&message, to), &stopping).await;
                answer(delivery, published, || counter!("worker_retries_total").increment(1)).await;
            }
            End::Aside(fault) => self.lay_aside(message, delivery, fault, &stopping).await,
            End::Left => delivery.requeue().await,
        }
    }

    /// Has the deduction made, and holds it for as long as the database is away.
    async fn end_of(&self, message: &Message, delivery: &Delivery, stopping: &watch::Receiver<bool>) -> End {
        let is_last = message.attempts.saturating_add(1) >= self.settings.attempts;
        loop {
            let error = match self.attempt(message, delivery).await {
                Ok(end) => return end,
                Err(error) => error,
            };
            match Decision::on(&error) {
                Decision::Hold => {
                    tracing::debug!("held: {error}");
                    if let Err(Stopping) = unless(stopping, self.hold.until_it_answers()).await {
                        return End::Left;
                    }
                }
                Decision::LayAside => return End::Aside(Fault::from(&error)),
                Decision::Later | Decision::Fail if is_last => return End::Aside(Fault::from(&error)),
                Decision::Later | Decision::Fail => return End::Later(Fault::from(&error)),
            }
        }
    }

    /// One attempt. An error has changed nothing for good.
    async fn attempt(&self, message: &Message, delivery: &Delivery) -> Result<End, Error> {
        let key = key(message);
        // It may have come to its end before, with only the acknowledgement missing.
        let is_repeat = delivery.redelivered || message.again || message.attempts > 0;
        let row = if is_repeat { self.outbox.row_of(key).await? } else { None };
        match row {
            Some(row) if row.standing == Standing::Failed => return Ok(End::Failed),
            Some(Outgoing { standing: Standing::DeadLettered, reason, detail, .. }) => {
                return Ok(End::Aside(Fault { reason, detail }));
            }
            Some(_) | None => {}
        }
        if delivery.delivery_count >= DELIVERIES_MOST {
            return self.end_of_one_that_came_too_often(key, delivery.delivery_count).await;
        }
        let strategy = match message.strategy.as_str() {
            "" => None,
            name => Some(strategy::find(name).map_err(|unknown| Invalid {
                field: "strategy",
                reason: InvalidReason::UnknownStrategy,
                description: unknown.to_string(),
            })?),
        };
        let Message { user_id, request_id, amount, .. } = *message;
        let change = Change { user_id, request_id, direction: Direction::Deduct, amount };
        match self.ledger.apply_queued(lag(Some(message.accepted_at)), change, strategy).await {
            Ok(_) => Ok(End::Journaled),
            Err(error) if Decision::on(&error) == Decision::Fail => {
                let Fault { reason, detail } = Fault::from(&error);
                Ok(match self.outbox.fail(key, amount, &reason, &detail).await? {
                    Failed::Journaled(entry) if entry.kind != EntryKind::Void => End::Journaled,
                    Failed::Journaled(_) | Failed::Now => End::Failed,
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn end_of_one_that_came_too_often(&self, key: Key, times: u32) -> Result<End, Error> {
        match self.ledger.fate(key.user_id, key.request_id, Resolve::Look).await {
            Ok(Fate::Journaled(_) | Fate::Voided) => return Ok(End::Journaled),
            Ok(Fate::Failed(_)) => return Ok(End::Failed),
            Ok(Fate::Pending(_) | Fate::DeadLettered(_) | Fate::NotFound) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let detail = format!("it was taken {times} times and never answered for: its workers may have died of it");
        Ok(End::Aside(Fault { reason: REDELIVERED.to_owned(), detail }))
    }

    /// The row first: whoever asks must never be told PENDING of what nobody tries any more.
    async fn lay_aside(&self, message: Message, delivery: Delivery, fault: Fault, stopping: &watch::Receiver<bool>) {
        let Fault { reason, detail } = &fault;
        loop {
            match self.outbox.dead_letter(key(&message), message.amount, reason, detail).await {
                Ok(()) => break,
                Err(error) if Decision::on(&error) == Decision::Hold => {
                    if let Err(Stopping) = unless(stopping, self.hold.until_it_answers()).await {
                        return delivery.requeue().await;
                    }
                }
                Err(error) => {
                    tracing::error!("a deduction could not be laid aside and is kept for later: {error}");
                    let to = Destination::retry(u32::MAX);
                    let published = self.publish(&Parcel::Deduction(&message, to), stopping).await;
                    return answer(delivery, published, || ()).await;
                }
            }
        }
        tracing::warn!("laid aside: {reason}: {detail}");
        let name = reason.clone();
        let message = Message { reason: Some(format!("{reason}: {detail}")), ..self.tried(message, &fault) };
        let published = self.publish(&Parcel::Deduction(&message, Destination::Dead), stopping).await;
        answer(delivery, published, || dead_letters(name)).await;
    }

    /// The message with one more attempt behind it.
    fn tried(&self, mut message: Message, Fault { reason, detail }: &Fault) -> Message {
        message.attempts = message.attempts.saturating_add(1);
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        message.history.push(format!("{now} {} #{}: {reason}: {detail}", self.settings.instance, message.attempts));
        message
    }

    /// Publishes until the broker has confirmed it, which it does sooner or later; meanwhile the delivery stays in hand.
    async fn publish(&self, parcel: &Parcel<'_>, stopping: &watch::Receiver<bool>) -> Result<(), Stopping> {
        let mut pause = Pause::new();
        loop {
            let began = Instant::now();
            let published = match parcel {
                Parcel::Deduction(message, to) => self.queue.publish(message, *to).await,
                Parcel::Unreadable(raw, why) => self.queue.bury(raw, why).await,
            };
            let reason = match published {
                Published::Confirmed => {
                    trace::sent(self.queue.name(), parcel.id(), began);
                    return Ok(());
                }
                Published::Full => "the queue is full".to_owned(),
                Published::NotSent(reason) | Published::Unknown(reason) => reason,
            };
            tracing::warn!("a deduction in hand cannot be passed on yet: {reason}");
            unless(stopping, sleep(pause.next())).await?;
        }
    }
}

const fn key(message: &Message) -> Key {
    Key { user_id: message.user_id, request_id: message.request_id }
}

fn dead_letters(reason: impl Into<std::borrow::Cow<'static, str>>) {
    counter!("worker_dead_letters_total", "reason" => metrics::SharedString::from(reason.into())).increment(1);
}

/// Acknowledges what was passed on, and gives back what was not.
async fn answer(delivery: Delivery, passed_on: Result<(), Stopping>, count: impl FnOnce()) {
    match passed_on {
        Ok(()) => {
            count();
            delivery.ack().await;
        }
        Err(Stopping) => delivery.requeue().await,
    }
}

/// Waits, unless the worker is to stop first.
async fn unless(stopping: &watch::Receiver<bool>, wait: impl Future<Output = ()>) -> Result<(), Stopping> {
    let mut stopping = stopping.clone();
    select! {
        () = wait => Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => Err(Stopping),
    }
}
