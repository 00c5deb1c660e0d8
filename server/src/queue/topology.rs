//! Which queues there are, and what the broker is told of each. All are quorum queues: what they confirm has been written
//! to disk by a majority of the nodes that keep them.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind,
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::link::said;

/// How long a message that failed is put away before it is tried again: the first time for the first of these, and so on.
/// A queue for each, because a queue lets messages go from its head alone: one that waits for a minute would hold up one
/// that waits for a second.
pub const DELAYS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// How often a message is delivered again before the broker itself moves it to the dead letters. Above what the worker
/// allows (50), which is meant to decide; it catches what makes every worker die.
const DELIVERY_LIMIT: i64 = 100;

/// Dead letters are looked at again and again, and looking counts as a delivery; without a limit of its own RabbitMQ 4
/// drops a message at the twentieth.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// How many messages wait in the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// To be delivered.
    pub ready: u64,
    /// Put away, to be tried again later.
    pub retrying: u64,
    /// Given up.
    pub dead: u64,
}

/// The queues of one name.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) main: ShortString,
    /// One for each of [`DELAYS`].
    pub(super) retry: [ShortString; DELAYS.len()],
    pub(super) dead: ShortString,
    limit: u32,
}

impl Topology {
    /// # Errors
    /// The name is too long for AMQP, or empty.
    pub(super) fn new(name: &str, limit: u32) -> Result<Self, String> {
        // The empty name would let the broker choose another at each declaration.
        if name.is_empty() {
            return Err("--queue-name is empty: name the queue".to_owned());
        }
        let queue = |suffix: &str| {
            ShortString::try_new(format!("{name}{suffix}"))
                .map_err(|error| format!("--queue-name {name:?} is too long: {error}"))
        };
        let [a, b, c, d, e] = DELAYS.map(|delay| queue(&format!(".retry.{}", delay.as_millis())));
        Ok(Self { main: queue("")?, retry: [a?, b?, c?, d?, e?], dead: queue(".dead")?, limit })
    }

    /// Makes the queues that do not exist.
    ///
    /// # Errors
    /// What the broker said, and what to do about it.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<(), String> {
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        // The order counts. The broker (RabbitMQ 3.10) writes down which log is whose a second after the declaration, or
        // when another queue is declared; killed before that, it begins the queue anew, empty, though it had confirmed
        // messages. So the last is the one that gets its first message the latest: a minute's delay comes after others.
        self.make(&channel, &self.dead, &[("x-delivery-limit", DEAD_DELIVERY_LIMIT.into())]).await?;
        let limits = [("x-max-length", i64::from(self.limit).into()), ("x-delivery-limit", DELIVERY_LIMIT.into())];
        self.make(&channel, &self.main, &[&forwarding_to(&self.dead)[..], &limits[..]].concat()).await?;
        for (queue, delay) in self.retry.iter().zip(DELAYS) {
            // No limit of their own: with it, a full queue, full delay queues and full hands would wait for each other for ever.
            let life = [("x-message-ttl", millis(delay).into())];
            self.make(&channel, queue, &[&forwarding_to(&self.main)[..], &life[..]].concat()).await?;
        }
        channel.close(REPLY_SUCCESS, "OK".into()).await.map_err(|error| said(&error))
    }

    async fn make(
        &self,
        channel: &Channel,
        queue: &ShortString,
        arguments: &[(&'static str, AMQPValue)],
    ) -> Result<(), String> {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), long("quorum"));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), table).await;
        declared.map(drop).map_err(|error| match error.kind() {
            ErrorKind::ProtocolError(refusal)
                if *refusal.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) =>
            {
                format!(
                    "the queue {queue} exists with other settings ({}): give the --queue-limit it was made with, give \
                     another --queue-name, or delete the queue once it is empty",
                    refusal.get_message()
                )
            }
            _ => format!("declaring the queue {queue}: {}", said(&error)),
        })
    }

    /// Counts.
    ///
    /// # Errors
    /// What the broker said.
    pub(super) async fn depths(&self, connection: &Connection) -> Result<Depths, String> {
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        let ready = count(&channel, &self.main).await?;
        let mut retrying = 0;
        for queue in &self.retry {
            retrying += count(&channel, queue).await?;
        }
        let dead = count(&channel, &self.dead).await?;
        channel.close(REPLY_SUCCESS, "OK".into()).await.map_err(|error| said(&error))?;
        Ok(Depths { ready, retrying, dead })
    }
}

/// How AMQP says that all is well when a channel is closed.
pub(super) const REPLY_SUCCESS: u16 = 200;

async fn count(channel: &Channel, queue: &ShortString) -> Result<u64, String> {
    let looked_up = QueueDeclareOptions::default().passive();
    let found = channel.queue_declare(queue.clone(), looked_up, FieldTable::default()).await;
    found.map(|queue| u64::from(queue.message_count())).map_err(|error| said(&error))
}

/// Has a queue pass on what leaves it without an acknowledgement, and keep it until it has arrived there. That needs a
/// queue which refuses what it has no room for, rather than dropping its oldest.
fn forwarding_to(queue: &ShortString) -> [(&'static str, AMQPValue); 4] {
    [
        ("x-dead-letter-exchange", long("")),
        ("x-dead-letter-routing-key", long(queue.as_str())),
        ("x-dead-letter-strategy", long("at-least-once")),
        ("x-overflow", long("reject-publish")),
    ]
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A delay as AMQP counts.
pub(super) fn millis(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}
