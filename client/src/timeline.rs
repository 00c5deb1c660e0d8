//! The timeline across reconnections. It owns where the watcher is: epoch and sequence of the last event seen, from
//! which every reconnection resumes, so that no event is delivered twice and none is skipped without a gap saying so.

use std::time::Duration;

use tonic::Request;

use zbl_proto::v1::stream_timeline_response::Event;
use zbl_proto::v1::{StreamTimelineRequest, StreamTimelineResponse};

use crate::link::{Link, Linked};
use crate::{Client, Error};

/// A place in the timeline of one run of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The run.
    pub epoch: String,
    /// The sequence of the last event seen in it.
    pub sequence: i64,
}

/// Where to begin.
#[derive(Clone, Debug)]
pub enum Start {
    /// With what happens next.
    Now,
    /// With the oldest event the server still holds.
    Retained,
    /// After an event seen before.
    After(Position),
}

/// What a [`Timeline`] yields.
#[derive(Clone, Debug)]
pub enum TimelineItem {
    /// The stream is open, for the first time or again.
    Connected,
    /// The stream was lost or could not be opened; it will be tried again.
    Disconnected {
        /// Why.
        error: Error,
        /// When it will be tried again, from now.
        retry_in: Duration,
    },
    /// An event, a gap or a heartbeat.
    Event(StreamTimelineResponse),
}

/// A timeline that survives its connection. Ask [`Timeline::next`] for one item after the other.
#[derive(Debug)]
pub struct Timeline {
    client: Client,
    user_id: Option<i64>,
    start: Start,
    link: Link<StreamTimelineResponse>,
}

impl Timeline {
    pub(crate) fn new(client: Client, user_id: Option<i64>, start: Start) -> Self {
        Self { client, user_id, start, link: Link::new() }
    }

    /// The next item; waits for it as long as it takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// An [`Error`] that no reconnection would cure, such as a server that does not know the call; the timeline has
    /// ended then.
    pub async fn next(&mut self) -> Result<TimelineItem, Error> {
        loop {
            return match self.link.next().await {
                Linked::Open => match self.open().await {
                    Ok(()) => Ok(TimelineItem::Connected),
                    Err(error) => self.lose(error),
                },
                Linked::Message(event) if self.is_new(&event) => Ok(TimelineItem::Event(event)),
                Linked::Message(_) => continue,
                Linked::Lost(error) => self.lose(error),
            };
        }
    }

    /// The position after the last event seen; `None` before the first.
    pub fn position(&self) -> Option<&Position> {
        match &self.start {
            Start::After(position) => Some(position),
            Start::Now | Start::Retained => None,
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let (epoch, after_sequence) =
            self.position().map_or_else(Default::default, |seen| (seen.epoch.clone(), seen.sequence));
        let request = Request::new(StreamTimelineRequest {
            user_id: self.user_id.unwrap_or(0),
            epoch,
            after_sequence,
            include_retained: matches!(self.start, Start::Retained),
        });
        let mut stub = self.client.stubs().account;
        self.link.open(self.client.deadline(), stub.stream_timeline(request)).await
    }

    fn lose(&mut self, error: Error) -> Result<TimelineItem, Error> {
        self.link.lose(error).map(|(error, retry_in)| TimelineItem::Disconnected { error, retry_in })
    }

    /// Moves the position on to `event`; false for an event that was delivered before. Heartbeats and gaps repeat the
    /// position and are always new.
    fn is_new(&mut self, event: &StreamTimelineResponse) -> bool {
        let marker = matches!(event.event, Some(Event::Heartbeat(_) | Event::Gap(_)));
        match &mut self.start {
            Start::After(seen) if seen.epoch == event.epoch => {
                let advances = event.sequence > seen.sequence;
                seen.sequence = seen.sequence.max(event.sequence);
                advances || marker
            }
            _ => {
                self.start = Start::After(Position { epoch: event.epoch.clone(), sequence: event.sequence });
                true
            }
        }
    }
}
