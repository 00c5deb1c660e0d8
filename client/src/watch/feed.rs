//! Where arrivals come from: servers, each followed by a task of its own, or a recording. A bounded channel joins them,
//! so that a slow reader slows the streams down and is told by the server what it missed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use zbl_proto::v1::StreamTimelineResponse;

use super::{
    WatchError,
    arrival::{Arrival, News},
    recording::{Reader, Recording, RecordingError},
    since::{Catching, Since},
};
use crate::{Client, Start, Timeline, TimelineItem};

/// How often a server that was never reached is tried, two to three seconds in all: long enough for one that is being
/// started beside the watcher.
pub(super) const FIRST_TRIES: u32 = 6;

/// Arrivals under way to the reader, at most two megabytes of them: a bunch each time the reader looks, which on a
/// terminal is twenty times a second, and then eighty thousand events a second.
const CHANNEL: usize = 4096;

/// The silence that ends the catching up with what a server retained.
const QUIET: Duration = Duration::from_millis(100);

/// Where a live feed begins.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// With what happens next.
    Now,
    /// With all that the servers still hold.
    Retained,
    /// With the part of it that is young or late enough.
    Since(Since),
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded; positive and finite.
    Times(f64),
    /// Without any pause.
    Unpaced,
}

/// A source of arrivals.
#[derive(Debug)]
pub struct Feed {
    addresses: Vec<String>,
    arrivals: Receiver<Arrival>,
    /// Those who send them; they end when the feed is dropped.
    tasks: JoinSet<Result<(), WatchError>>,
    /// Why one of them has ended, to be told behind what had arrived by then.
    failure: Option<WatchError>,
}

impl Feed {
    /// Follows servers, on one account or on all. Inside a Tokio runtime only.
    pub fn live(clients: &[Client], user_id: Option<i64>, beginning: &Beginning) -> Self {
        let (sender, arrivals) = mpsc::channel(CHANNEL);
        let mut tasks = JoinSet::new();
        for (source, client) in clients.iter().enumerate() {
            let (start, since) = match beginning {
                Beginning::Now => (Start::Now, None),
                Beginning::Retained => (Start::Retained, None),
                Beginning::Since(Since::Position(position)) => (Start::After(position.clone()), None),
                Beginning::Since(since) => (Start::Retained, Some(since)),
            };
            let address = client.address().to_owned();
            let timeline = client.timeline(user_id, start);
            let follower = Follower { source, address, catching: since.map(Catching::new), to: sender.clone() };
            tasks.spawn(follower.follow(timeline));
        }
        let addresses = clients.iter().map(|client| client.address().to_owned()).collect();
        Self { addresses, arrivals, tasks, failure: None }
    }

    /// Replays a recording, one account's part of it or all. Inside a Tokio runtime only.
    ///
    /// # Errors
    /// [`RecordingError`] when the file has changed since it was opened.
    pub fn replay(recording: &Recording, user_id: Option<i64>, speed: Speed) -> Result<Self, RecordingError> {
        let (sender, arrivals) = mpsc::channel(CHANNEL);
        let mut tasks = JoinSet::new();
        tasks.spawn(replay(recording.arrivals()?, user_id, speed, sender));
        Ok(Self { addresses: recording.addresses().to_vec(), arrivals, tasks, failure: None })
    }

    /// Ends those who send, and waits until they have: their calls are over then.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// The servers; an arrival's `source` points into them.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Waits for arrivals and appends them to `batch`, as many as there are at once and at most as the channel holds.
    /// Appends none when no more will come. Dropping the future loses nothing.
    pub(super) async fn next_batch(&mut self, batch: &mut Vec<Arrival>) -> Result<(), WatchError> {
        loop {
            tokio::select! {
                biased;
                received = self.arrivals.recv_many(batch, CHANNEL) => {
                    return if received > 0 { Ok(()) } else { self.end().await };
                }
                Some(ended) = self.tasks.join_next() => self.note(ended),
            }
        }
    }

    /// What is left to tell when the channel is closed and empty.
    async fn end(&mut self) -> Result<(), WatchError> {
        while self.failure.is_none()
            && let Some(ended) = self.tasks.join_next().await
        {
            self.note(ended);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// After a failure nothing new is let in.
    fn note(&mut self, ended: Result<Result<(), WatchError>, JoinError>) {
        // A task that panicked has told so itself.
        if let Ok(Err(error)) = ended {
            self.failure = Some(error);
            self.arrivals.close();
        }
    }
}

/// Follows one server.
struct Follower {
    source: usize,
    address: String,
    /// While what the server retained is being sifted.
    catching: Option<Catching>,
    to: Sender<Arrival>,
}

impl Follower {
    /// Follows the server until the reader has gone.
    async fn follow(mut self, mut timeline: Timeline) -> Result<(), WatchError> {
        let (mut reached, mut tries) = (false, 0);
        while !self.to.is_closed() {
            let item = tokio::select! {
                item = timeline.next() => item,
                () = sleep(QUIET), if reached && self.catching.is_some() => {
                    self.catch_up().await;
                    continue;
                }
            };
            // A stream that was lost resumes behind what is held.
            if reached && !matches!(item, Ok(TimelineItem::Event(_))) {
                self.catch_up().await;
            }
            match item? {
                TimelineItem::Connected => {
                    reached = true;
                    self.send(News::Connected { after: timeline.position().map(|seen| seen.sequence) }).await;
                }
                TimelineItem::Disconnected { error, .. } if !reached => {
                    tries += 1;
                    if tries >= FIRST_TRIES {
                        return Err(match error.reason() {
                            Some(_) => WatchError::Refused(error),
                            None => WatchError::Unreachable { address: self.address, error },
                        });
                    }
                }
                TimelineItem::Disconnected { error, retry_in } => {
                    let retry_in_ms = retry_in.as_millis().try_into().unwrap_or(u64::MAX);
                    self.send(News::Disconnected { error: error.to_string(), retry_in_ms }).await;
                }
                TimelineItem::Event(event) => self.event(event).await,
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: StreamTimelineResponse) {
        let Some(catching) = &mut self.catching else { return self.send(News::Event(event)).await };
        catching.hold(event);
        if catching.is_done() {
            self.catch_up().await;
        }
    }

    /// Lets go what was held back, and holds nothing back from now on.
    async fn catch_up(&mut self) {
        for event in self.catching.take().into_iter().flat_map(Catching::into_events) {
            self.send(News::Event(event)).await;
        }
    }

    async fn send(&self, news: News) {
        let arrived_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let arrived_us = i64::try_from(arrived_us).unwrap_or(i64::MAX);
        // Whether the reader has gone is looked at before the next item.
        let _ = self.to.send(Arrival { arrived_us, source: self.source, news }).await;
    }
}

/// Sends what a recording holds, at its own pace or another.
async fn replay(reader: Reader, user_id: Option<i64>, speed: Speed, to: Sender<Arrival>) -> Result<(), WatchError> {
    let began = Instant::now();
    let mut first_us = None;
    for arrival in reader {
        let arrival = arrival?;
        if let Speed::Times(speed) = speed {
            let recorded_us = arrival.arrived_us.saturating_sub(*first_us.get_or_insert(arrival.arrived_us));
            let recorded = Duration::from_micros(recorded_us.try_into().unwrap_or(0));
            // Beyond what a duration holds, and what nobody waits for.
            let due = Duration::try_from_secs_f64(recorded.as_secs_f64() / speed).unwrap_or(Duration::MAX);
            let Some(due) = began.checked_add(due) else { return Ok(()) };
            sleep_until(due).await;
        }
        let elsewhere = user_id.is_some() && arrival.user_id().is_some() && arrival.user_id() != user_id;
        if !elsewhere && to.send(arrival).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
