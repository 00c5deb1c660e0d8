//! Publishing, with an answer that can be relied on: in the queue, not in the queue, or not known.

use std::{
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use lapin::{
    Channel, Confirmation, Connection, Error,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    link::{Link, answered, half_to_whole, said},
    message::Raw,
    topology::{DELAYS, Topology, millis},
};

/// How many messages may be under way to the broker at a time, each on a channel of its own. With a confirmation in a
/// millisecond or a few that is more than ten thousand messages a second, and a broker allows 2047 channels a connection.
///
/// A channel carries one at a time, because a message that the broker returns is told apart from those it keeps only by
/// what is confirmed next: where several are confirmed together, the driver says so of any of them.
pub const IN_FLIGHT: usize = 64;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To be delivered.
    Main,
    /// Put away, and to be delivered later.
    Retry {
        /// Which of [`DELAYS`]; beyond the last, the last.
        tier: usize,
        /// For how long; at most as long as the tier is, by the queue's own clock.
        delay: Duration,
    },
    /// Among the dead letters.
    Dead,
}

impl Destination {
    /// Put away after so many attempts before this one (0 is the first tier), for half to the whole of the tier's delay,
    /// so that messages which failed together do not come back together.
    #[must_use]
    pub fn retry(attempts: u32) -> Self {
        let tier = usize::try_from(attempts).map_or(DELAYS.len() - 1, |tier| tier.min(DELAYS.len() - 1));
        Self::Retry { tier, delay: half_to_whole(DELAYS[tier]) }
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// It is in the queue, on disk.
    Confirmed,
    /// The queue has no room: it is not there.
    Full,
    /// It is not in the queue, for this reason.
    NotSent(String),
    /// It may be in the queue: it was sent, and no confirmation came.
    Unknown(String),
}

/// Publishes over one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Arc<Link>,
    topology: Arc<Topology>,
    wait: Duration,
    slots: Semaphore,
    idle: Mutex<Idle>,
}

/// Channels with nothing under way, all of one connection.
#[derive(Debug, Default)]
struct Idle {
    connection: Weak<Connection>,
    channels: Vec<Channel>,
}

impl Idle {
    /// One of this connection. Those of one before are forgotten: that they are dead does not always show.
    fn take(&mut self, connection: &Arc<Connection>) -> Option<Channel> {
        if !ptr::eq(self.connection.as_ptr(), Arc::as_ptr(connection)) {
            *self = Self { connection: Arc::downgrade(connection), channels: Vec::new() };
        }
        while let Some(channel) = self.channels.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }

    /// Keeps one of this connection for the next.
    fn keep(&mut self, connection: &Arc<Connection>, channel: Channel) {
        if ptr::eq(self.connection.as_ptr(), Arc::as_ptr(connection)) {
            self.channels.push(channel);
        }
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>, wait: Duration) -> Self {
        Self { link, topology, wait, slots: Semaphore::new(IN_FLIGHT), idle: Mutex::default() }
    }

    /// Publishes within the time.
    pub(super) async fn publish(&self, raw: Raw, to: Destination) -> Published {
        let deadline = Instant::now() + self.wait;
        let prepared = timeout_at(deadline, async {
            // Asked before a slot is waited for: while the broker is known to be gone nobody waits.
            self.link.connection().await?;
            let slot = self.slots.acquire().await.map_err(|error| error.to_string())?;
            let connection = self.link.connection().await?;
            let channel = self.channel(&connection).await?;
            Ok::<_, String>((slot, connection, channel))
        });
        let (_slot, connection, channel) = match prepared.await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(reason)) => return Published::NotSent(reason),
            Err(_) => return Published::NotSent(format!("the broker was busy for {:?}", self.wait)),
        };
        let (queue, raw) = match to {
            Destination::Main => (&self.topology.main, raw),
            Destination::Retry { tier, delay } => {
                let tier = tier.min(DELAYS.len() - 1);
                (&self.topology.retry[tier], raw.expiring(millis(delay)))
            }
            Destination::Dead => (&self.topology.dead, raw),
        };
        // From here on it may be in the queue, whatever happens.
        let confirmation = match timeout_at(deadline, send(&channel, queue, &raw)).await {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(error)) => return Published::Unknown(said(&error)),
            // The channel is not used again: what is confirmed on it next would be this.
            Err(_) => return Published::Unknown(format!("no confirmation within {:?}", self.wait)),
        };
        self.idle().keep(&connection, channel);
        match confirmation {
            Confirmation::Ack(None) => Published::Confirmed,
            Confirmation::Nack(_) => Published::Full,
            Confirmation::Ack(Some(_)) => Published::NotSent(self.make_again(queue).await),
            Confirmation::NotRequested => Published::Unknown("the channel does not confirm".to_owned()),
        }
    }

    /// Makes a queue again that somebody has deleted, and says so.
    async fn make_again(&self, queue: &ShortString) -> String {
        let declared = async { self.topology.declare(&*self.link.connection().await?).await };
        match answered(declared).await {
            Ok(()) => format!("the queue {queue} was gone, with all that was in it; it has been made again: try again"),
            Err(reason) => {
                format!("the queue {queue} is gone, with all that was in it, and was not made again: {reason}")
            }
        }
    }

    /// A channel with nothing under way.
    async fn channel(&self, connection: &Arc<Connection>) -> Result<Channel, String> {
        if let Some(channel) = self.take_idle(connection) {
            return Ok(channel);
        }
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| said(&error))?;
        Ok(channel)
    }

    fn take_idle(&self, connection: &Arc<Connection>) -> Option<Channel> {
        self.idle().take(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(channel: &Channel, queue: &ShortString, raw: &Raw) -> Result<Confirmation, Error> {
    // The default exchange, which knows every queue by its name; mandatory, or one that is gone would go unnoticed.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("".into(), queue.clone(), options, raw.body(), raw.properties().clone());
    sent.await?.await
}
