//! Dead letters: looked at without taking them, or held until each is decided on. Everything here is on a channel of its
//! own; what is not acknowledged when that is closed is back where it was, in the same order.

use std::future::Future;

use lapin::{
    Channel,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions},
};

use super::{
    Outage, Queue,
    link::{answered, said},
    message::Raw,
    topology::REPLY_SUCCESS,
};

/// How many dead letters are looked at, or held, at a time. They are in memory meanwhile, and nobody else sees them.
pub const MOST_HELD: usize = 1000;

/// A message that was given up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The message id, which for a deduction is its request id; "" when the broker itself gave up a message without one.
    pub id: String,
    /// As it is; decode it for the deduction.
    pub raw: Raw,
    /// Why it was given up.
    pub reason: String,
}

impl DeadLetter {
    fn new(raw: Raw) -> Self {
        let id = raw.message_id().unwrap_or_default().to_owned();
        let reason = raw.reason().unwrap_or_else(|| "delivered too often without an answer".to_owned());
        Self { id, raw, reason }
    }
}

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Each.
    All,
    /// Those with this message id.
    Id(String),
}

/// Dead letters that are held: nobody else sees them. Dropped, those without an answer go back.
#[derive(Debug)]
pub struct Held {
    /// The ones that were meant, the oldest first.
    pub letters: Vec<HeldLetter>,
    /// There may be more, which have not been looked at: [`MOST_HELD`] are the most at a time.
    pub more: bool,
    channel: Channel,
}

impl Held {
    /// Lets go of what has no answer, and waits until it is back.
    ///
    /// # Errors
    /// The broker did not answer; it is back when the connection ends.
    pub async fn release(self) -> Result<(), Outage> {
        Ok(closed(&self.channel).await?)
    }
}

/// A dead letter that is held.
#[derive(Debug)]
pub struct HeldLetter {
    /// What it is.
    pub letter: DeadLetter,
    message: BasicGetMessage,
}

impl HeldLetter {
    /// Removes it for good. Dropped instead, it goes back with the others.
    ///
    /// # Errors
    /// The broker did not hear it: the letter may still be there.
    pub async fn remove(self) -> Result<(), Outage> {
        let acknowledged = async {
            match self.message.acker.ack(BasicAckOptions::default()).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("the connection to the broker was lost: the letter may still be there".to_owned()),
                Err(error) => Err(said(&error)),
            }
        };
        Ok(answered(acknowledged).await?)
    }
}

impl Queue {
    /// The oldest dead letters, in order, at most `most` and never more than [`MOST_HELD`]. They stay where they are, unless
    /// there are more than [`MOST_HELD`]: then those may be behind the others afterwards. While they are looked at nobody
    /// else sees them, so two who look at once see some each.
    ///
    /// # Errors
    /// The broker did not answer.
    pub async fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, Outage> {
        let held = self.take_dead(&Which::All).await?;
        let letters = held.letters.iter().take(most).map(|held| held.letter.clone()).collect();
        held.release().await?;
        Ok(letters)
    }

    /// Holds dead letters, until each is removed or let go.
    ///
    /// All are taken for that, whichever are meant: the broker puts what comes back behind what was left, so that only
    /// all of them together keep their order. (RabbitMQ 3.10 does; others put it in front, where it was.)
    ///
    /// # Errors
    /// The broker did not answer.
    pub async fn take_dead(&self, which: &Which) -> Result<Held, Outage> {
        let connection = self.0.link.connection().await?;
        let channel = answered(saying(connection.create_channel())).await?;
        let mut letters = Vec::new();
        for _ in 0..MOST_HELD {
            let get = channel.basic_get(self.0.topology.dead.clone(), BasicGetOptions::default());
            let Some(mut message) = answered(saying(get)).await? else {
                return Ok(Held { letters, more: false, channel });
            };
            let (body, properties) = (std::mem::take(&mut message.data), std::mem::take(&mut message.properties));
            let letter = DeadLetter::new(Raw::new(body, properties));
            if matches!(which, Which::Id(id) if *id != letter.id) {
                continue;
            }
            letters.push(HeldLetter { letter, message });
        }
        Ok(Held { letters, more: true, channel })
    }
}

async fn closed(channel: &Channel) -> Result<(), String> {
    answered(saying(channel.close(REPLY_SUCCESS, "OK".into()))).await
}

async fn saying<T>(answer: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, String> {
    answer.await.map_err(|error| said(&error))
}
