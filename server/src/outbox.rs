//! Deductions that are handed to the queue. The record comes first: a call writes its row (`store/outbox.rs`), claimed for itself,
//! publishes the message, notes that the broker has it, and only then says ACCEPTED. While its claim lasts nothing is promised, and
//! it may take its row back; from then on the row is a promise, which the relay (`outbox/relay.rs`) keeps whoever wrote it.
//!
//! So wherever a call is cut off, there is a row or there is nothing. A message without a row can come about only behind the end of
//! the deduction, and then the journal has its id. It refuses to decide what becomes of a deduction: that is the worker's, and the
//! journal's.

mod accept;
mod batch;
mod relay;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::NaiveDateTime;
use uuid::Uuid;

use self::batch::Batches;
pub use self::{
    accept::Accepted,
    relay::{Pace, Patience, Relay},
};
use crate::{
    account::Money,
    error::Error,
    ledger::{Failed, Ledger, backend},
    queue::Queue,
    store::outbox::{End, Ending, Key, NewOutgoing, OutboxTable, Outgoing, Recorded},
};

/// How long a call has its row to itself: longer than `--queue-wait` may be, so that whoever was told that nothing was accepted can
/// rely on it.
pub const CLAIM: Duration = Duration::from_secs(10);

/// What the outbox goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long whoever sends a row has it to itself. Tests are less patient.
    pub claim: Duration,
    /// How many deductions may wait in the queue.
    pub limit: u32,
}

/// The outbox of a service.
pub struct Outbox {
    ledger: Arc<Ledger>,
    table: Arc<dyn OutboxTable>,
    /// None where no broker is configured.
    queue: Option<Queue>,
    settings: Settings,
    /// The deductions that calls of this process are at.
    turns: Mutex<HashSet<Key>>,
    /// Until when the queue counts as full.
    full_until: Mutex<Option<Instant>>,
    recording: Batches<NewOutgoing, Recorded>,
    marking: Batches<Key, ()>,
    removing: Batches<Key, ()>,
}

impl Outbox {
    /// The outbox over a ledger's own database. To be called within the runtime.
    pub fn new(ledger: Arc<Ledger>, table: Arc<dyn OutboxTable>, queue: Option<Queue>, settings: Settings) -> Self {
        let claim = settings.claim;
        let recording = {
            let table = Arc::clone(&table);
            Batches::new(move |rows| {
                let table = Arc::clone(&table);
                async move { table.record(rows, claim).await }
            })
        };
        let marking = batches_of(&table, |table, keys| async move { table.mark_sent(keys).await });
        let removing = batches_of(&table, |table, keys| async move { table.remove(keys).await });
        let (turns, full_until) = (Mutex::default(), Mutex::default());
        Self { ledger, table, queue, settings, turns, full_until, recording, marking, removing }
    }

    /// The queue, where there is one.
    pub const fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// What the table says of a deduction.
    ///
    /// # Errors
    /// The database's.
    pub async fn row_of(&self, key: Key) -> Result<Option<Outgoing>, Error> {
        self.ledger.bench().store.outgoing(key).await.map_err(backend)
    }

    /// Notes that the broker has confirmed a deduction's message.
    ///
    /// # Errors
    /// The database's; it may have been noted. Where it was not, the relay sends it once more.
    pub async fn sent(&self, key: Key) -> Result<(), Error> {
        self.marking.done(key).await.map_err(backend)
    }

    /// Drops the row of a deduction whose id is in the journal: some time, or when the relay comes upon it.
    pub fn settled(&self, key: Key) {
        self.removing.hand_in(key);
    }

    /// Ends a deduction that the rules refuse: it is barred from ever taking effect, and FAILED for good.
    ///
    /// # Errors
    /// [`Error::Contended`] or the database's; it may have been done, and can be done again.
    pub async fn fail(&self, key: Key, amount: Money, reason: &str, detail: &str) -> Result<Failed, Error> {
        let failed = self.ledger.fail(ending(key, amount, End::Failed, reason, detail)).await?;
        if let Failed::Journaled(_) = failed {
            self.settled(key);
        }
        Ok(failed)
    }

    /// Puts a deduction aside that could not be made for too long. It stays FAILED if it was.
    ///
    /// # Errors
    /// The database's; it may have been done, and can be done again.
    pub async fn dead_letter(&self, key: Key, amount: Money, reason: &str, detail: &str) -> Result<(), Error> {
        self.table.end(ending(key, amount, End::DeadLettered, reason, detail)).await.map_err(backend)
    }

    /// Takes a deduction up again that was put aside: whoever does has the row to itself for a while, and is to publish the
    /// message and then to say [`Self::sent`]. `None`: it is not put aside any more.
    ///
    /// # Errors
    /// The database's; it may have been done, and then the relay sends it.
    pub async fn requeue(&self, key: Key) -> Result<Option<Outgoing>, Error> {
        self.table.requeue(key, Uuid::new_v4(), self.settings.claim).await.map_err(backend)?;
        let row = self.row_of(key).await?;
        Ok(row.filter(|row| row.standing.is_recorded()))
    }

    /// When the oldest deduction was recorded that is neither decided nor put aside, UTC.
    ///
    /// # Errors
    /// The database's.
    pub async fn oldest(&self) -> Result<Option<NaiveDateTime>, Error> {
        self.table.oldest().await.map_err(backend)
    }
}

/// Work on the rows of keys that comes to nothing else.
fn batches_of<F>(
    table: &Arc<dyn OutboxTable>,
    work: impl Fn(Arc<dyn OutboxTable>, Vec<Key>) -> F + Send + Sync + Copy + 'static,
) -> Batches<Key, ()>
where
    F: Future<Output = crate::store::Result<()>> + Send,
{
    let table = Arc::clone(table);
    Batches::new(move |keys: Vec<Key>| {
        let (table, done) = (Arc::clone(&table), vec![(); keys.len()]);
        async move { work(table, keys).await.map(|()| done) }
    })
}

fn ending(key: Key, amount: Money, end: End, reason: &str, detail: &str) -> Ending {
    Ending { key, amount, end, reason: reason.to_owned(), detail: detail.to_owned() }
}
