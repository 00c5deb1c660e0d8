//! How long the queue is: looked at once a second, and told from there to whoever asks, so that neither a scrape nor a watcher asks the
//! broker anything. It refuses to decide on what it sees.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    outbox::Outbox,
    projector::lag,
    queue::{Depths, LinkState, Queue},
};

/// How often it is looked at: seven questions to the broker and one to the database.
const EVERY: Duration = Duration::from_secs(1);

/// The queue as it was last seen. What could not be had is as it was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Whether messages can be published.
    pub connected: bool,
    /// How many messages wait; nothing before the first answer.
    pub depths: Option<Depths>,
    /// How old the oldest deduction is that was accepted and not decided; zero where there is none.
    pub oldest: Duration,
}

/// What looks.
pub struct Gauge {
    outbox: Arc<Outbox>,
    queue: Queue,
    seen: watch::Sender<Depth>,
}

impl Gauge {
    /// That of an outbox, if it has a queue.
    #[must_use]
    pub fn of(outbox: &Arc<Outbox>) -> Option<Self> {
        let queue = outbox.queue()?.clone();
        Some(Self { outbox: Arc::clone(outbox), queue, seen: watch::Sender::default() })
    }

    /// What it has seen.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Depth> {
        self.seen.subscribe()
    }

    /// Looks for as long as it is polled.
    pub async fn run(self) {
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let depth = self.look().await;
            depth.tell();
            self.seen.send_replace(depth);
        }
    }

    async fn look(&self) -> Depth {
        let before = *self.seen.borrow();
        let connected = self.queue.state() == LinkState::Up;
        let depths = if connected { self.queue.depths().await.ok().or(before.depths) } else { before.depths };
        let oldest = self.outbox.oldest().await.map_or(before.oldest, lag);
        Depth { connected, depths, oldest }
    }
}

impl Depth {
    fn tell(&self) {
        gauge!("queue_connected").set(f64::from(u8::from(self.connected)));
        gauge!("queue_oldest_seconds").set(self.oldest.as_secs_f64());
        if let Some(Depths { ready, retrying, dead }) = self.depths {
            for (state, deductions) in [("ready", ready), ("retrying", retrying), ("dead", dead)] {
                gauge!("queue_deductions", "state" => state).set(deductions as f64);
            }
        }
    }
}
