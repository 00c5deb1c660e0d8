//! The relay: it keeps the promises of rows that nobody is sending, because the call that wrote them was cut off, or because
//! another program wrote them. And it sweeps: rows whose deductions are journaled, which a worker had no time to remove.
//!
//! Every server that has a queue runs one. They do not fight: a row is claimed by a guarded write before it is sent, for a while,
//! and a claim whose holder has died runs out. A message may be sent twice, which is what request ids are for. It refuses to hurry:
//! after a failure it waits, longer each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::NaiveDateTime;
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::Outbox;
use crate::{
    queue::{Destination, LinkState, Message, Published, Queue},
    quiet::Quiet,
    store::{
        Result,
        outbox::{Key, Outgoing},
    },
};

/// Rows that are claimed at a time. Where the broker is slow, no more are begun once half their claim is over.
const ROWS_A_PAGE: i64 = 256;

/// How many of them are under way to the broker at a time: beside calls, which come first.
const UNDER_WAY: usize = 16;

/// Rows that the sweep looks through in a tick.
const ROWS_A_SWEEP: i64 = 256;

/// How often the table is looked at when there was nothing. For another program's rows it is how long they wait.
const EVERY: Duration = Duration::from_millis(250);

/// How long to wait after failures, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How old a row is when it is swept: its worker has had time to remove it.
const SWEEP_AGE: Duration = Duration::from_secs(10);

/// How long the sweep rests when it has seen all there was.
const SWEEP_REST: Duration = Duration::from_secs(10);

/// How long to be patient with what. Tests are less so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How old a row is when it is swept.
    pub age: Duration,
    /// How long the sweep rests.
    pub rest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { age: SWEEP_AGE, rest: SWEEP_REST }
    }
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No.
    CaughtUp,
    /// Yes.
    Behind,
    /// Yes, but the broker takes nothing now.
    Refused,
}

/// Sends what was recorded and not sent.
pub struct Relay {
    outbox: Arc<Outbox>,
    queue: Queue,
    patience: Patience,
    /// The last row that the sweep has seen.
    after: Option<(NaiveDateTime, Key)>,
    /// When the sweep had seen all there was, if it rests since.
    swept: Option<Instant>,
}

impl Relay {
    /// The relay of an outbox, if that has a queue.
    #[must_use]
    pub fn of(outbox: &Arc<Outbox>, patience: Patience) -> Option<Self> {
        let queue = outbox.queue.clone()?;
        Some(Self { outbox: Arc::clone(outbox), queue, patience, after: None, swept: None })
    }

    /// Relays for as long as it is polled. Dropped, it leaves nothing behind but claims, which run out.
    pub async fn run(mut self, quiet: Quiet) {
        metrics::counter!("outbox_relayed_total").increment(0);
        let mut wait = EVERY;
        loop {
            let turn = quiet.tick().await;
            let began = Instant::now();
            let ticked = self.tick().await;
            drop(turn);
            wait = match ticked {
                // As much rest as work: calls come first.
                Ok(Pace::Behind) => began.elapsed().min(EVERY),
                Ok(Pace::CaughtUp) => EVERY,
                Ok(Pace::Refused) => (wait * 2).clamp(EVERY, LONGEST_WAIT),
                Err(error) => {
                    if wait <= EVERY {
                        tracing::warn!("the outbox cannot be read: {error}; it is tried again");
                    }
                    (wait * 2).clamp(EVERY, LONGEST_WAIT)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One tick's work: a page of what is to be sent, or else a page of the sweep.
    ///
    /// # Errors
    /// The database's; what was not noted is sent once more, later.
    pub async fn tick(&mut self) -> Result<Pace> {
        if let LinkState::Down { .. } = self.queue.state() {
            return Ok(Pace::Refused);
        }
        let claim = self.outbox.settings.claim;
        let rows = self.outbox.table.claim(Uuid::new_v4(), claim, ROWS_A_PAGE).await?;
        if rows.is_empty() {
            return self.sweep().await;
        }
        let claimed = rows.len();
        let sent = self.send(rows).await;
        if !sent.is_empty() {
            metrics::counter!("outbox_relayed_total").increment(sent.len() as u64);
            self.outbox.table.mark_sent(sent.clone()).await?;
        }
        Ok(if sent.len() == claimed { Pace::Behind } else { Pace::Refused })
    }

    /// Publishes rows, and says which of them the broker has confirmed. After one that it does not take no more are begun.
    async fn send(&self, rows: Vec<Outgoing>) -> Vec<Key> {
        let refused = AtomicBool::new(false);
        let (began, patience) = (Instant::now(), self.outbox.settings.claim / 2);
        let publishing = stream::iter(rows).map(|row| async {
            let (key, message) = (row.key, message(row));
            if refused.load(Ordering::Relaxed) || began.elapsed() > patience {
                return None;
            }
            let published = self.queue.publish(&message, Destination::Main).await;
            refused.fetch_or(published != Published::Confirmed, Ordering::Relaxed);
            (published == Published::Confirmed).then_some(key)
        });
        publishing.buffer_unordered(UNDER_WAY).filter_map(std::future::ready).collect().await
    }

    /// The next page of the sweep, unless it rests.
    async fn sweep(&mut self) -> Result<Pace> {
        if self.swept.is_some_and(|swept| swept.elapsed() < self.patience.rest) {
            return Ok(Pace::CaughtUp);
        }
        let page = self.outbox.table.sweep(self.after, self.patience.age, ROWS_A_SWEEP).await?;
        if !page.settled.is_empty() {
            self.outbox.table.remove(page.settled).await?;
        }
        self.after = page.last;
        self.swept = page.last.is_none().then(Instant::now);
        Ok(if page.last.is_some() { Pace::Behind } else { Pace::CaughtUp })
    }
}

/// The message of a row.
pub(super) fn message(row: Outgoing) -> Message {
    let Outgoing { key: Key { user_id, request_id }, amount, strategy, traceparent, created_at, .. } = row;
    Message {
        user_id,
        request_id,
        amount,
        strategy,
        accepted_at: created_at,
        attempts: 0,
        history: Vec::new(),
        // The call that recorded it may have sent it, and what came of that may stand in its row.
        again: true,
        traceparent: (!traceparent.is_empty()).then_some(traceparent),
        reason: None,
    }
}
