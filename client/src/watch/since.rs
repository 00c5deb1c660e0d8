//! `--since`: which of the events that a server still holds are wanted. A server's clock means nothing to the watcher,
//! so an event's age is counted back from the newest event held.

use std::{
    collections::VecDeque,
    str::FromStr,
    time::{Duration, Instant},
};

use zbl_proto::v1::{StreamTimelineResponse, stream_timeline_response::Event};

use super::arrival::end_ns;
use crate::Position;

/// The most events held back while catching up, the default size of a server's ring some times over. Beyond it they
/// are shown although they may be too old: better too many than a silent loss.
const MOST_HELD: usize = 1 << 18;

/// The longest time events are held back: a ring of any size has come in by then, also while new events keep coming.
const LONGEST: Duration = Duration::from_secs(2);

/// From when on events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Those that ended within this before the newest one held.
    Age(Duration),
    /// Those behind this sequence, of whatever run the server is in.
    Sequence(i64),
    /// Those behind this one; the server says what is missing.
    Position(Position),
}

/// `30s`, `1200` (a sequence) or `EPOCH:1200`.
impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sequence = |text: &str| text.parse::<i64>().ok().filter(|sequence| *sequence >= 0);
        if let Some(sequence) = sequence(text) {
            return Ok(Self::Sequence(sequence));
        }
        if let Some((epoch, after)) = text.rsplit_once(':')
            && let Some(sequence) = sequence(after)
            && !epoch.is_empty()
        {
            return Ok(Self::Position(Position { epoch: epoch.to_owned(), sequence }));
        }
        let age = humantime::parse_duration(text);
        age.map(Self::Age).map_err(|_| "give an age such as 30s, a sequence, or EPOCH:SEQUENCE".to_owned())
    }
}

/// What a server retained, while it comes in.
#[derive(Debug)]
pub(super) struct Catching {
    since: Since,
    began: Instant,
    held: VecDeque<StreamTimelineResponse>,
    newest_end_ns: i64,
}

impl Catching {
    pub(super) fn new(since: &Since) -> Self {
        Self { since: since.clone(), began: Instant::now(), held: VecDeque::new(), newest_end_ns: i64::MIN }
    }

    /// Takes an event in and forgets what is no longer wanted.
    pub(super) fn hold(&mut self, event: StreamTimelineResponse) {
        if let Some(ended_ns) = ended_ns(&event) {
            self.newest_end_ns = self.newest_end_ns.max(ended_ns);
        }
        self.held.push_back(event);
        // What has no age of its own, a race or a gap, goes with the event behind it.
        while let Some((index, false)) =
            self.held.iter().enumerate().find_map(|(index, event)| Some((index, self.is_wanted(event)?)))
        {
            self.held.drain(..=index);
        }
    }

    /// `None` for an event without an age.
    fn is_wanted(&self, event: &StreamTimelineResponse) -> Option<bool> {
        match &self.since {
            Since::Age(age) => {
                let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                Some(ended_ns(event)? >= self.newest_end_ns.saturating_sub(age_ns))
            }
            Since::Sequence(after) => Some(event.sequence > *after),
            Since::Position(_) => Some(true),
        }
    }

    /// Whether nothing older can follow, or it has taken too long to wait for that.
    pub(super) fn is_done(&self) -> bool {
        let nothing_new = self.held.back().is_some_and(|last| matches!(last.event, Some(Event::Heartbeat(_))));
        let age_unknown = matches!(self.since, Since::Age(_));
        let first_is_here = !age_unknown && !self.held.is_empty();
        nothing_new || first_is_here || self.held.len() >= MOST_HELD || self.began.elapsed() > LONGEST
    }

    /// What is wanted, in order.
    pub(super) fn into_events(self) -> VecDeque<StreamTimelineResponse> {
        self.held
    }
}

fn ended_ns(event: &StreamTimelineResponse) -> Option<i64> {
    match &event.event {
        Some(Event::Span(span)) => Some(end_ns(span)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use zbl_proto::v1::{Phase, Race};

    use super::*;
    use crate::watch::sample;

    /// The sequences held after a span per given end, in milliseconds, in sequence from 1; a 0 is a race.
    fn held(since: &str, ends_ms: &[i64]) -> Vec<i64> {
        let mut catching = Catching::new(&since.parse().unwrap());
        for (sequence, end_ms) in (1..).zip(ends_ms) {
            let span = sample::span(1, Phase::Read, 0, end_ms * 1000);
            let event = if *end_ms == 0 { Event::Race(Race::default()) } else { Event::Span(span) };
            catching.hold(sample::event(sequence, event));
        }
        catching.into_events().iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn an_age_counts_back_from_the_newest() {
        assert_eq!(held("50ms", &[10, 20, 0, 60, 65, 0, 75]), [3, 4, 5, 6, 7]);
        assert_eq!(held("1h", &[10, 20, 0]), [1, 2, 3]);
    }

    #[test]
    fn a_sequence_is_where_it_was_left() {
        assert_eq!(held("2", &[10, 20, 0, 60]), [3, 4]);
        assert_eq!(held("9", &[10, 20]), [] as [i64; 0]);
    }

    #[test]
    fn texts_are_told_apart() {
        assert_eq!("1200".parse(), Ok(Since::Sequence(1200)));
        assert_eq!("2m 30s".parse(), Ok(Since::Age(Duration::from_secs(150))));
        let position = Position { epoch: "0b1e-22".to_owned(), sequence: 7 };
        assert_eq!("0b1e-22:7".parse(), Ok(Since::Position(position)));
        for text in ["", "-1", ":7", "x:-1", "soon", "7.5"] {
            assert!(text.parse::<Since>().is_err(), "{text:?}");
        }
    }
}
