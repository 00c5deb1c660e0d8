//! `StreamTimeline`: each watcher reads the ring at its own pace, through its own position. Nothing is buffered for it;
//! when it is slower than the ring is long it gets a gap instead of what it missed.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;
use uuid::Uuid;
use zbl_proto::v1::{self, stream_timeline_response::Event as Body};

use super::{convert, status::status};
use crate::{
    error::{Error, Invalid, InvalidReason},
    limit::{Limits, Room},
    timeline::{Event, Timeline},
};

/// The stream of one watcher.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<v1::StreamTimelineResponse, Status>> + Send>>;

/// What serving the timeline needs.
#[derive(Clone)]
pub struct Watch {
    /// The ring.
    pub timeline: Arc<Timeline>,
    /// The instance's name, in every event.
    pub instance: String,
    /// How long a stream may be silent.
    pub heartbeat: Duration,
    /// How many may watch.
    pub limits: Arc<Limits>,
    /// Becomes true when the server is to stop; streams end then, or it would wait for them.
    pub stopping: watch::Receiver<bool>,
}

/// One watcher's position.
struct Reader {
    watch: Watch,
    _room: Room,
    user_id: i64,
    after: u64,
    ready: VecDeque<v1::StreamTimelineResponse>,
}

impl Watch {
    /// The stream that a request asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a negative account or position; [`Error::Overloaded`].
    pub fn stream(&self, request: &v1::StreamTimelineRequest) -> Result<EventStream, Error> {
        let user_id = convert::new_user_id(request.user_id)?;
        let after = u64::try_from(request.after_sequence).map_err(|_| Invalid {
            field: "after_sequence",
            reason: InvalidReason::Resume,
            description: "negative; give the sequence of the last event seen".to_owned(),
        })?;
        let room = self.limits.watch()?;
        let mut reader = Reader { watch: self.clone(), _room: room, user_id, after: 0, ready: VecDeque::new() };
        reader.position(request, after);
        Ok(Box::pin(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            let next = reader.next().await;
            // After an error the stream is over.
            let rest = next.is_ok().then_some(reader);
            Some((next, rest))
        })))
    }
}

impl Reader {
    fn position(&mut self, request: &v1::StreamTimelineRequest, after: u64) {
        let newest = self.watch.timeline.newest();
        if request.epoch.is_empty() {
            self.after = if request.include_retained { self.watch.timeline.first_held() } else { newest };
        } else if request.epoch == self.epoch() {
            self.after = after.min(newest);
        } else {
            self.after = self.watch.timeline.first_held();
            self.gap(v1::GapReason::EpochChanged, after);
        }
    }

    fn epoch(&self) -> String {
        Uuid::to_string(&self.watch.timeline.epoch())
    }

    fn response(&self, sequence: u64, body: Body) -> v1::StreamTimelineResponse {
        v1::StreamTimelineResponse {
            epoch: self.epoch(),
            sequence: sequence.try_into().unwrap_or(i64::MAX),
            instance: self.watch.instance.clone(),
            event: Some(body),
        }
    }

    fn gap(&mut self, reason: v1::GapReason, after: u64) {
        let gap = v1::Gap {
            reason: reason.into(),
            after_sequence: after.try_into().unwrap_or(i64::MAX),
            next_sequence: (self.after + 1).try_into().unwrap_or(i64::MAX),
        };
        self.ready.push_back(self.response(self.after, Body::Gap(gap)));
    }

    async fn next(&mut self) -> Result<v1::StreamTimelineResponse, Status> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            let batch = self.watch.timeline.after(self.after, self.user_id);
            if let Some(missed) = batch.missed {
                let after = std::mem::replace(&mut self.after, missed.before - 1);
                let reason = if missed.cleared { v1::GapReason::Cleared } else { v1::GapReason::SlowReader };
                self.gap(reason, after);
            }
            let moved = batch.up_to > self.after;
            self.after = batch.up_to;
            for (sequence, event) in &batch.events {
                let body = match event {
                    Event::Span(span) => Body::Span(convert::span(span)),
                    Event::Race(race) => Body::Race(convert::race(race)),
                };
                self.ready.push_back(self.response(*sequence, body));
            }
            if !self.ready.is_empty() || moved {
                continue;
            }
            let mut stopping = self.watch.stopping.clone();
            tokio::select! {
                () = self.watch.timeline.recorded_after(self.after) => {}
                () = tokio::time::sleep(self.watch.heartbeat) => {
                    return Ok(self.response(self.after, Body::Heartbeat(v1::Heartbeat {})));
                }
                _ = stopping.wait_for(|stopping| *stopping) => {
                    return Err(status(&Error::Stopping));
                }
            }
        }
    }
}
