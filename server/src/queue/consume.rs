//! Consuming: deliveries one by one, over a connection of their own that comes back by itself.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{sleep, timeout};

use super::{
    link::{Link, Pause, answered, said},
    message::{Message, Raw, Undecodable},
    topology::Topology,
};

/// How long a consumer that is stopped may take to say good-bye. What it does not give back by then the broker takes
/// back when the connection ends.
const STOP: Duration = Duration::from_secs(2);

/// What a consumer has to tell.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is a delivery, and is taken apart at once")]
pub enum Consumed {
    /// It consumes, for the first time or again.
    Connected,
    /// A message. It stays the broker's until it is acknowledged.
    Delivery(Delivery),
    /// It does not consume at the moment; it goes on trying. Told once. What is unacknowledged is delivered again.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Consumes the queue. Dropped, it takes no more; deliveries under way can be acknowledged still.
#[derive(Debug)]
pub struct Consumer {
    link: Link,
    topology: Arc<Topology>,
    prefetch: u16,
    subscription: Option<Subscription>,
    pause: Pause,
    is_told: bool,
}

#[derive(Debug)]
struct Subscription {
    channel: Channel,
    deliveries: lapin::Consumer,
}

impl Consumer {
    pub(super) fn new(link: Link, topology: Arc<Topology>, prefetch: u16) -> Self {
        // Zero would be no bound.
        let prefetch = prefetch.max(1);
        Self { link, topology, prefetch, subscription: None, pause: Pause::new(), is_told: false }
    }

    /// The next thing to tell. Dropped before it has come, nothing is lost by it.
    pub async fn next(&mut self) -> Consumed {
        let Some(subscription) = &mut self.subscription else {
            return self.subscribe().await;
        };
        let reason = match subscription.deliveries.next().await {
            Some(Ok(delivery)) => return Consumed::Delivery(Delivery::new(delivery, &subscription.channel)),
            Some(Err(error)) => said(&error),
            None => "the broker ended the consumption: the queue was deleted, or its leader has changed".to_owned(),
        };
        self.subscription = None;
        self.is_told = true;
        Consumed::Lost { reason }
    }

    async fn subscribe(&mut self) -> Consumed {
        loop {
            let subscribed = match self.connection().await {
                Ok(connection) => answered(self.subscribed(&connection)).await,
                Err(reason) => Err(reason),
            };
            match subscribed {
                Ok(subscription) => {
                    self.subscription = Some(subscription);
                    self.is_told = false;
                    self.pause = Pause::new();
                    return Consumed::Connected;
                }
                Err(reason) if !self.is_told => {
                    self.is_told = true;
                    return Consumed::Lost { reason };
                }
                Err(_) => sleep(self.pause.next()).await,
            }
        }
    }

    /// The connection; once it has been told that there is none, waited for.
    async fn connection(&self) -> Result<Arc<lapin::Connection>, String> {
        if self.is_told { Ok(self.link.up().await) } else { self.link.connection().await }
    }

    async fn subscribed(&self, connection: &lapin::Connection) -> Result<Subscription, String> {
        // The queue may have been deleted while the connection stood.
        self.topology.declare(connection).await?;
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.map_err(|error| said(&error))?;
        let (queue, options) = (self.topology.main.clone(), BasicConsumeOptions::default());
        let deliveries = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await;
        Ok(Subscription { deliveries: deliveries.map_err(|error| said(&error))?, channel })
    }

    /// Takes no more, and gives back what has been sent to this consumer and not been taken from it. Deliveries under way
    /// can be acknowledged still.
    pub async fn stop(mut self) {
        let Some(Subscription { channel, mut deliveries }) = self.subscription.take() else { return };
        let stopped = timeout(STOP, async {
            channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await?;
            while let Some(delivery) = deliveries.next().await {
                delivery?.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
            }
            Ok::<_, lapin::Error>(())
        });
        match stopped.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("stopping to consume: {error}"),
            Err(_) => tracing::debug!("stopping to consume: the broker did not answer within {STOP:?}"),
        }
    }
}

/// A message that was delivered. Dropped without an answer, it stays the broker's, and is delivered again when the
/// channel ends: give an answer.
#[derive(Debug)]
pub struct Delivery {
    /// As it came.
    pub raw: Raw,
    /// The deduction it is, or what is wrong with it.
    pub decoded: Result<Message, Undecodable>,
    /// It was delivered before, to this consumer or another.
    pub redelivered: bool,
    /// How often it was delivered before and not acknowledged.
    pub delivery_count: u32,
    acker: Acker,
    /// Keeps the channel, and with it the connection, until the answer is given.
    _channel: Channel,
}

impl Delivery {
    fn new(delivery: lapin::message::Delivery, channel: &Channel) -> Self {
        let raw = Raw::new(delivery.data, delivery.properties);
        Self {
            decoded: raw.decode(),
            delivery_count: raw.delivery_count(),
            raw,
            redelivered: delivery.redelivered,
            acker: delivery.acker,
            _channel: channel.clone(),
        }
    }

    /// It has been dealt with. When the connection is lost this is not heard, and the message is delivered again.
    pub async fn ack(self) {
        if let Err(error) = self.acker.ack(BasicAckOptions::default()).await {
            tracing::debug!("an acknowledgement was not heard: {}", said(&error));
        }
    }

    /// Gives it back, to be delivered again at once.
    pub async fn requeue(self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        if let Err(error) = self.acker.nack(options).await {
            tracing::debug!("a message was not given back: {}", said(&error));
        }
    }
}
