//! The message broker, over AMQP 0-9-1: one queue of deductions with its delay queues and its dead letters. Everything
//! AMQP is here: the link, the topology, the form of a message, publishing, consuming, dead letters.
//!
//! Refuses to decide anything about a deduction: what is published when, what is acknowledged and what is tried again is
//! the caller's. What it promises is an honest answer: [`Published`] says whether a message is in the queue, is not, or
//! may be.

mod consume;
mod dead;
mod link;
mod message;
mod publish;
mod topology;

use std::{sync::Arc, time::Duration};

pub(crate) use self::link::Pause;
pub use self::{
    consume::{Consumed, Consumer, Delivery},
    dead::{DeadLetter, Held, HeldLetter, MOST_HELD, Which},
    link::LinkState,
    message::{BODY_MAX, HISTORY_MAX, LINE_MAX, Message, Raw, Undecodable},
    publish::{Destination, IN_FLIGHT, Published},
    topology::{DELAYS, Depths},
};
use self::{
    link::{Link, Target},
    publish::Publisher,
    topology::Topology,
};
use crate::config::AmqpUrl;

/// Where the queue is and how it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker.
    pub url: AmqpUrl,
    /// The queue; the others are named after it.
    pub name: String,
    /// How many messages the queue takes before it refuses more; those under way to a consumer do not count.
    pub limit: u32,
    /// How long a publish may take, waiting for its turn included.
    pub wait: Duration,
    /// This process, as the broker lists its connections.
    pub instance: String,
}

/// The broker did not do what was asked, so that nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Outage {
    /// Why, and what to do where that is known.
    pub reason: String,
}

impl From<String> for Outage {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

/// The queue of deductions. Clones share one connection; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    topology: Arc<Topology>,
    /// For publishing and for questions. A consumer has one of its own: the broker stops reading from connections that
    /// publish when it runs short of memory, and an acknowledgement must not wait behind that.
    link: Arc<Link>,
    publisher: Publisher,
}

impl Queue {
    /// Begins to connect, in the background, and goes on trying for as long as the queue lives. To be called within the
    /// runtime.
    ///
    /// # Errors
    /// The URL or the name is none that AMQP takes.
    pub fn open(settings: Settings) -> Result<Self, Outage> {
        let topology = Arc::new(Topology::new(&settings.name, settings.limit)?);
        let link = Arc::new(Link::open(target(&settings, "publisher")?, Arc::clone(&topology)));
        let publisher = Publisher::new(Arc::clone(&link), Arc::clone(&topology), settings.wait);
        Ok(Self(Arc::new(Inner { settings, topology, link, publisher })))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Whether messages can be published now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.0.link.state()
    }

    /// Waits until the first attempt to connect has come to an end.
    ///
    /// # Errors
    /// It failed; the attempts go on.
    pub async fn connected(&self) -> Result<(), Outage> {
        Ok(self.0.link.connection().await.map(drop)?)
    }

    /// Puts a message into a queue and waits, within [`Settings::wait`], for the broker to confirm that it is kept.
    pub async fn publish(&self, message: &Message, to: Destination) -> Published {
        self.0.publisher.publish(message.encode(), to).await
    }

    /// Moves what came in any form, readable or not, to the dead letters, with the reason in its headers. The original
    /// is still to be acknowledged, once this is confirmed.
    pub async fn bury(&self, raw: &Raw, reason: &str) -> Published {
        self.0.publisher.publish(raw.to_dead_letter(reason), Destination::Dead).await
    }

    /// Begins to consume, with at most `prefetch` deliveries unacknowledged at a time, over a connection of its own.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub fn consume(&self, prefetch: u16) -> Result<Consumer, Outage> {
        let link = Link::open(target(&self.0.settings, "consumer")?, Arc::clone(&self.0.topology));
        Ok(Consumer::new(link, Arc::clone(&self.0.topology), prefetch))
    }

    /// How many messages wait in the queues; those under way to a consumer do not count.
    ///
    /// # Errors
    /// The broker did not answer.
    pub async fn depths(&self) -> Result<Depths, Outage> {
        let connection = self.0.link.connection().await?;
        Ok(link::answered(self.0.topology.depths(&connection)).await?)
    }
}

fn target(settings: &Settings, role: &str) -> Result<Target, Outage> {
    Ok(Target::new(settings.url.expose(), &format!("zbl-server {} {role}", settings.instance))?)
}
