//! The worker: it takes deductions from the queue and has them made, each in a task of its own, by the ledger and its strategies like
//! any call. A delivery is acknowledged once what became of it is in the database, and not before: whatever is cut off is delivered
//! again, and the request id makes that a replay.
//!
//! What follows a failure is decided in `worker/decision.rs` and done in `worker/desk.rs`. It refuses to judge money, and to hold more
//! than its prefetch.

pub mod command;
mod decision;
mod desk;
mod hold;

use std::{sync::Arc, time::Duration};

use tokio::{
    pin, select,
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use zbl_trace::Tracer;

use self::desk::Desk;
pub(crate) use self::desk::REDELIVERED;
use crate::{
    ledger::Ledger,
    outbox::Outbox,
    queue::{Consumed, Consumer, Outage, Queue},
};

/// How often a message may be delivered without an answer. One that comes more often may be what its workers die of; below what the
/// queue itself allows, so that the deduction's record says so.
pub const DELIVERIES_MOST: u32 = 50;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many deductions are in hand at a time.
    pub prefetch: u16,
    /// How often each is tried before it is laid aside.
    pub attempts: u32,
    /// How long those in hand may take when the worker is to stop.
    pub grace: Duration,
    /// This process, in the history of a message.
    pub instance: String,
}

/// A worker, not yet at work.
pub struct Worker {
    settings: Settings,
    queue_name: String,
    consumer: Consumer,
    desk: Arc<Desk>,
}

/// What can be seen of a worker from outside.
#[derive(Clone)]
pub struct Hands(Arc<Desk>);

impl Hands {
    /// Deductions that it has taken and not answered for.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.0.in_hand()
    }

    /// Those of them that wait for the database.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held()
    }
}

impl Worker {
    /// A worker of a queue. To be called within the runtime.
    ///
    /// # Errors
    /// As [`Queue::consume`].
    pub fn new(
        ledger: Arc<Ledger>,
        outbox: Arc<Outbox>,
        queue: Queue,
        tracer: Tracer,
        settings: Settings,
    ) -> Result<Self, Outage> {
        let (consumer, queue_name) = (queue.consume(settings.prefetch)?, queue.name().to_owned());
        let desk = Arc::new(Desk::new(ledger, outbox, queue, tracer, settings.clone()));
        Ok(Self { settings, queue_name, consumer, desk })
    }

    /// What can be seen of it.
    #[must_use]
    pub fn hands(&self) -> Hands {
        Hands(Arc::clone(&self.desk))
    }

    /// Works until it is told to stop. What is in hand then has the time of grace to end; the rest goes back to the queue.
    pub async fn run(mut self, stopping: watch::Receiver<bool>) {
        begin_to_count();
        let desk = Arc::clone(&self.desk);
        let look = desk.look();
        pin!(look);
        let mut tasks = JoinSet::new();
        let mut stop = stopping.clone();
        loop {
            select! {
                biased;
                _ = stop.wait_for(|stopping| *stopping) => break,
                () = &mut look => {}
                Some(ended) = tasks.join_next() => note(ended),
                // A lost connection does not take away what is in hand, and a new one brings it again: the bound is kept here.
                consumed = self.consumer.next(), if tasks.len() < usize::from(self.settings.prefetch) => match consumed {
                    Consumed::Connected => tracing::info!(queue = %self.queue_name, "taking deductions of the queue"),
                    Consumed::Lost { reason } => tracing::warn!("no deductions are taken of the queue for now: {reason}"),
                    Consumed::Delivery(delivery) => {
                        let (desk, stopping) = (Arc::clone(&self.desk), stopping.clone());
                        tasks.spawn(async move { desk.take(delivery, stopping).await });
                    }
                },
            }
        }
        let until = Instant::now() + self.settings.grace;
        self.consumer.stop().await;
        let ended = async { while tasks.join_next().await.map(note).is_some() {} };
        select! {
            () = ended => {}
            () = &mut look => {}
            () = sleep_until(until) => {
                tracing::warn!("deductions of the queue were still in hand when the time to stop was over; they are delivered again");
            }
        }
    }
}

/// Tells what is counted as none from the start: of a series that appears with its first count nobody sees that it has grown.
fn begin_to_count() {
    for name in ["worker_deliveries_total", "worker_redeliveries_total", "worker_retries_total"] {
        metrics::counter!(name).increment(0);
    }
    for outcome in ["journaled", "failed"] {
        metrics::counter!("worker_decided_total", "outcome" => outcome).increment(0);
    }
    drop(metrics::histogram!("queue_wait_seconds"));
}

/// What was in hand is delivered again when the connection ends; that it came to this must not go unnoticed.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("the work on a delivery broke off: {error}");
    }
}
