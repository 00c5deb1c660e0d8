//! Dead letters, for those who decide on them: told, put back into the queue, or given up. `zbl-server dlq` and `QueueService` are both
//! this. Each letter is decided on in steps that can be done again: what is cut off between two of them leaves the letter where it is,
//! and the next decision finds out how far it had come.
//!
//! It refuses to invent a deduction: what cannot be read can only be looked at and removed.

pub mod command;

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    error::{Backend, Error},
    ledger::{Fate, Ledger, Resolve},
    outbox::Outbox,
    queue::{DeadLetter, Destination, HeldLetter, MOST_HELD, Message, Outage, Published, Queue, Which},
    store::outbox::Key,
};

/// The reason of a deduction that was given up.
pub const PURGED: &str = "PURGED";

/// How many letters are decided on at a time: each is a few statements and a message.
const AT_A_TIME: usize = 16;

/// The dead letters of a service.
#[derive(Clone)]
pub struct DeadLetters {
    ledger: Arc<Ledger>,
    outbox: Arc<Outbox>,
    queue: Queue,
}

/// What is to become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again, as often as at first.
    Requeue,
    /// It is barred from ever taking effect, and removed.
    Purge,
}

/// What a verdict came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters that were put back, or given up.
    pub done: u64,
    /// Letters that were removed because their deductions had been decided by other means.
    pub decided: u64,
    /// Letters that were left: they cannot be read, or are not there.
    pub left: u64,
    /// Whether there may be more, which have not been looked at.
    pub more: bool,
}

/// What became of one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Decided,
    Left,
}

impl DeadLetters {
    /// Those of an outbox.
    ///
    /// # Errors
    /// [`Error::QueueUnavailable`].
    pub fn of(ledger: &Arc<Ledger>, outbox: &Arc<Outbox>) -> Result<Self, Error> {
        let queue = outbox.queue().ok_or(Error::QueueUnavailable)?.clone();
        Ok(Self { ledger: Arc::clone(ledger), outbox: Arc::clone(outbox), queue })
    }

    /// The oldest letters, at most `most` and never more than [`MOST_HELD`], and how many there are in all.
    ///
    /// # Errors
    /// [`Error::BackendDown`].
    pub async fn list(&self, most: usize) -> Result<(Vec<DeadLetter>, u64), Error> {
        let letters = self.queue.dead_letters(most).await.map_err(broker_down)?;
        let total = self.queue.depths().await.map_err(broker_down)?.dead;
        // What is on its way back is not counted for a moment.
        let total = total.max(letters.len() as u64);
        Ok((letters, total))
    }

    /// The letter of a message, among the oldest [`MOST_HELD`].
    ///
    /// # Errors
    /// [`Error::DeadLetterNotFound`], [`Error::BackendDown`].
    pub async fn find(&self, id: &str) -> Result<DeadLetter, Error> {
        let letters = self.queue.dead_letters(MOST_HELD).await.map_err(broker_down)?;
        letters.into_iter().find(|letter| letter.id == id).ok_or_else(|| Error::DeadLetterNotFound(id.to_owned()))
    }

    /// Decides on the letters with these ids, or on the oldest [`MOST_HELD`] where none is given.
    ///
    /// # Errors
    /// [`Error::BackendDown`] and its like, for the first letter that could not be decided on; others may have been. To do it
    /// again does no harm.
    pub async fn decide(&self, ids: &[String], verdict: Verdict) -> Result<Tally, Error> {
        let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let is_each = wanted.is_empty();
        let mut held = self.queue.take_dead(&Which::All).await.map_err(broker_down)?;
        let letters = std::mem::take(&mut held.letters).into_iter();
        let mut meant = Vec::new();
        // The others are dropped, and go back with the channel.
        meant.extend(letters.filter(|held| is_each || wanted.contains(held.letter.id.as_str())));
        for letter in &meant {
            wanted.remove(letter.letter.id.as_str());
        }
        let missing = wanted.len() as u64;
        let outcomes = stream::iter(meant).map(|letter| self.decide_on(letter, verdict)).buffer_unordered(AT_A_TIME);
        let tally = outcomes
            .try_fold(Tally { left: missing, more: held.more, ..Tally::default() }, async |mut tally, outcome| {
                *(match outcome {
                    Outcome::Done => &mut tally.done,
                    Outcome::Decided => &mut tally.decided,
                    Outcome::Left => &mut tally.left,
                }) += 1;
                Ok(tally)
            })
            .await;
        if let Err(outage) = held.release().await {
            tracing::debug!("dead letters are back when the connection ends: {outage}");
        }
        tally
    }

    async fn decide_on(&self, held: HeldLetter, verdict: Verdict) -> Result<Outcome, Error> {
        let outcome = match (held.letter.raw.decode(), verdict) {
            (Ok(message), Verdict::Requeue) => self.requeue(message, &held.letter).await?,
            (Err(_), Verdict::Requeue) => Outcome::Left,
            (Ok(message), Verdict::Purge) => self.purge(&message).await?,
            // There is nothing that could take effect.
            (Err(_), Verdict::Purge) => Outcome::Done,
        };
        if outcome != Outcome::Left {
            held.remove().await.map_err(broker_down)?;
        }
        Ok(outcome)
    }

    /// Whatever its row says, it is put aside first: a letter that the broker itself laid aside has none that says so, and one
    /// whose requeueing was cut off has one that says it is on its way. At worst it is sent twice.
    async fn requeue(&self, message: Message, letter: &DeadLetter) -> Result<Outcome, Error> {
        let Message { user_id, request_id, amount, .. } = message;
        let key = Key { user_id, request_id };
        match self.ledger.fate(user_id, request_id, Resolve::Look).await {
            Ok(Fate::Journaled(_) | Fate::Voided | Fate::Failed(_)) => return Ok(Outcome::Decided),
            Ok(Fate::DeadLettered(_)) => {}
            Ok(Fate::Pending(_) | Fate::NotFound) | Err(Error::Refused(_)) => {
                let (reason, detail) = reason_of(letter);
                self.outbox.dead_letter(key, amount, reason, detail).await?;
            }
            Err(error) => return Err(error),
        }
        if self.outbox.requeue(key).await?.is_none() {
            return Ok(Outcome::Left);
        }
        let again = Message { again: true, attempts: 0, reason: None, ..message };
        match self.queue.publish(&again, Destination::Main).await {
            Published::Confirmed => {}
            // Its row is a promise by now, which the relay keeps; the letter stays until that is seen.
            Published::Full => return Err(broker_down("the queue is full".to_owned().into())),
            Published::NotSent(reason) | Published::Unknown(reason) => return Err(broker_down(reason.into())),
        }
        if let Err(error) = self.outbox.sent(key).await {
            tracing::warn!("a deduction that was put back will be sent once more: {error}");
        }
        Ok(Outcome::Done)
    }

    async fn purge(&self, message: &Message) -> Result<Outcome, Error> {
        let Message { user_id, request_id, amount, .. } = *message;
        let was_made = matches!(
            self.ledger.fate(user_id, request_id, Resolve::Look).await,
            Ok(Fate::Journaled(_) | Fate::Voided | Fate::Failed(_))
        );
        if was_made {
            return Ok(Outcome::Decided);
        }
        let key = Key { user_id, request_id };
        self.outbox.fail(key, amount, PURGED, "given up by an operator, as a dead letter").await?;
        Ok(Outcome::Done)
    }
}

/// The reason of a letter by its name, and the same in words.
pub(crate) fn reason_of(letter: &DeadLetter) -> (&str, &str) {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    match letter.reason.split_once(": ") {
        Some((name, words)) if is_name(name) => (name, words),
        // The broker's own, or somebody else's.
        _ => (crate::worker::REDELIVERED, &letter.reason),
    }
}

fn broker_down(Outage { reason }: Outage) -> Error {
    Error::BackendDown { backend: Backend::Broker, reason }
}
