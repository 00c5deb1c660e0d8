//! The watcher: a server's timeline as lines of text, one per span, in the order the spans began. Begins are put in
//! order within a tenth of a second; a span that took longer appears late, marked `<`. Owns what is printed and when to
//! stop; refuses to hide anything: lost connections, gaps and restarts are lines too.

mod board;
mod line;
mod order;

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::{signal, time::sleep};
use zbl_proto::v1::{StreamTimelineResponse, stream_timeline_response::Event};

use self::{
    board::Board,
    order::{Happening, Order},
};
use crate::{Error, Paint, Timeline, TimelineItem, paint::short};

/// How often a server that was never reached is tried, two to three seconds in all: long enough for one that is being
/// started beside the watcher.
const FIRST_TRIES: u32 = 6;

/// The silence after which what is held back for its order is shown: nothing earlier is likely to come.
const QUIET: Duration = Duration::from_millis(100);

/// How to show a timeline.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Whether in colour.
    pub paint: Paint,
    /// How many spans to show before ending; `None` for no end.
    pub limit: Option<u64>,
}

/// Why watching ended, other than by the user's wish.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The server never answered.
    #[error("no server at {address} after {FIRST_TRIES} tries ({error}); is zbl-server running, and --addr right?")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why the last try failed.
        error: Error,
    },
    /// The server refuses to stream.
    #[error("the server refuses: {0}")]
    Refused(#[from] Error),
    /// The lines cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Prints the timeline of the server at `address` until SIGINT, the limit, or an error.
///
/// # Errors
/// [`WatchError`]; a broken pipe among them, which usually only means that the reader has seen enough.
pub async fn watch(mut timeline: Timeline, address: &str, view: View, out: &mut impl Write) -> Result<(), WatchError> {
    let mut transcript = Transcript::new(view);
    let mut interrupt = std::pin::pin!(signal::ctrl_c());
    let (mut reached, mut tries) = (false, 0);
    while !transcript.is_complete() {
        let text = tokio::select! {
            item = timeline.next() => match item? {
                TimelineItem::Connected => {
                    let text = transcript.connected(address, timeline.position().map(|seen| seen.sequence));
                    reached = true;
                    text
                }
                TimelineItem::Disconnected { error, .. } if !reached => {
                    tries += 1;
                    if tries >= FIRST_TRIES {
                        return Err(WatchError::Unreachable { address: address.to_owned(), error });
                    }
                    String::new()
                }
                TimelineItem::Disconnected { error, retry_in } => transcript.disconnected(&error, retry_in),
                TimelineItem::Event(event) => transcript.event(event),
            },
            () = sleep(QUIET), if transcript.is_holding() => transcript.settle(),
            _ = &mut interrupt => {
                out.write_all(transcript.settle().as_bytes())?;
                return Ok(out.flush()?);
            }
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// What has been shown and what is held back: timeline items in, lines out.
struct Transcript {
    view: View,
    epoch: String,
    order: Order,
    board: Board,
    shown: u64,
    /// When the first happening shown of this epoch began; times are counted from it.
    origin_ns: Option<i64>,
    newest_ns: i64,
}

impl Transcript {
    fn new(view: View) -> Self {
        Self {
            view,
            epoch: String::new(),
            order: Order::default(),
            board: Board::default(),
            shown: 0,
            origin_ns: None,
            newest_ns: i64::MIN,
        }
    }

    fn is_complete(&self) -> bool {
        self.view.limit.is_some_and(|limit| self.shown >= limit)
    }

    fn is_holding(&self) -> bool {
        !self.order.is_empty()
    }

    fn connected(&mut self, address: &str, after: Option<i64>) -> String {
        match after {
            None => line::notice(&format!("connected to {address}"), self.view.paint) + &line::header(self.view.paint),
            Some(sequence) => {
                let text = format!("connected again; resuming epoch {} after event {sequence}", short(&self.epoch));
                line::notice(&text, self.view.paint)
            }
        }
    }

    fn disconnected(&mut self, error: &Error, retry_in: Duration) -> String {
        let text = format!("connection lost ({error}); trying again in {} ms", retry_in.as_millis());
        self.settle() + &line::notice(&text, self.view.paint)
    }

    fn event(&mut self, event: StreamTimelineResponse) -> String {
        let mut text = String::new();
        if event.epoch != self.epoch {
            text += &self.settle();
            text += &self.begin_epoch(&event);
        }
        let paint = self.view.paint;
        match &event.event {
            Some(Event::Gap(gap)) => return text + &self.settle() + &line::gap(gap, paint),
            Some(Event::Heartbeat(_)) => return text + &self.settle() + &line::heartbeat(&event, paint),
            _ => {}
        }
        match event.event {
            Some(Event::Span(span)) => self.order.hold(event.sequence, Happening::Span(span)),
            Some(Event::Race(race)) => self.order.hold(event.sequence, Happening::Race(race)),
            // A kind of event that is newer than this watcher.
            _ => {}
        }
        while let Some((begin_ns, happening)) = self.order.release() {
            text += &self.show(begin_ns, &happening);
        }
        text
    }

    /// Shows what is held back.
    fn settle(&mut self) -> String {
        let mut text = String::new();
        while let Some((begin_ns, happening)) = self.order.settle() {
            text += &self.show(begin_ns, &happening);
        }
        text
    }

    fn begin_epoch(&mut self, event: &StreamTimelineResponse) -> String {
        *self = Self { epoch: event.epoch.clone(), shown: self.shown, ..Self::new(self.view) };
        line::notice(&format!("epoch {} of {}", short(&event.epoch), event.instance), self.view.paint)
    }

    fn show(&mut self, begin_ns: i64, happening: &Happening) -> String {
        if self.is_complete() {
            return String::new();
        }
        let late = begin_ns < self.newest_ns;
        self.newest_ns = self.newest_ns.max(begin_ns);
        let at_ns = begin_ns.saturating_sub(*self.origin_ns.get_or_insert(begin_ns));
        match happening {
            Happening::Race(race) => line::race(race, at_ns, self.view.paint),
            Happening::Span(span) => {
                self.shown += 1;
                line::span(span, at_ns, late, self.board.enter(span), self.view.paint)
            }
        }
    }
}

#[cfg(test)]
mod tests;
