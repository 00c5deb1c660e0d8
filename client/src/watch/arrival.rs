//! What arrives at the watcher, from which server and when. The same type is what `-o ndjson` writes and what a
//! recording holds, one JSON object per line, so a replay is fed exactly what the live watcher was.
//!
//! ```json
//! {"arrived_us":1767225600000000,"source":0,"event":{"epoch":"…","sequence":5,"instance":"host-1","span":{…}}}
//! {"arrived_us":1767225600100000,"source":0,"disconnected":{"error":"…","retry_in_ms":93}}
//! ```
//!
//! Field names are the contract's. Integers of 64 bits are JSON numbers, not strings as in Protobuf's own JSON: `jq`
//! can then count with them. Amounts stay decimal strings. Fields that say nothing are left out.

use serde::{Deserialize, Serialize};
use zbl_proto::v1::stream_timeline_response::Event;
use zbl_proto::v1::{Span, StreamTimelineResponse};

mod json;

/// One thing that arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// When, by the watcher's wall clock: microseconds since 1970.
    pub arrived_us: i64,
    /// From which server: an index into the addresses watched, from 0.
    pub source: usize,
    /// What.
    #[serde(flatten)]
    pub news: News,
}

/// What can arrive.
#[expect(clippy::large_enum_variant, reason = "nearly all that arrives is an event")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// The stream is open.
    Connected {
        /// The sequence it resumes after; `None` when it begins.
        after: Option<i64>,
    },
    /// The stream was lost; it will be tried again.
    Disconnected {
        /// Why, for people.
        error: String,
        /// When it will be tried again, from now.
        retry_in_ms: u64,
    },
    /// The server said something.
    Event(#[serde(with = "json::Response")] StreamTimelineResponse),
}

impl Arrival {
    /// The account it is about; `None` for what is about the stream.
    pub(crate) fn user_id(&self) -> Option<i64> {
        match &self.news {
            News::Event(StreamTimelineResponse { event: Some(Event::Span(span)), .. }) => Some(span.user_id),
            News::Event(StreamTimelineResponse { event: Some(Event::Race(race)), .. }) => Some(race.user_id),
            _ => None,
        }
    }

    /// Whether it is a span: what limits count.
    pub(crate) fn is_span(&self) -> bool {
        matches!(&self.news, News::Event(StreamTimelineResponse { event: Some(Event::Span(_)), .. }))
    }

    /// Appends its line.
    pub(crate) fn write(&self, out: &mut String) {
        // Strings and whole numbers: there is nothing JSON could not hold.
        if let Ok(line) = serde_json::to_string(self) {
            out.push_str(&line);
            out.push('\n');
        }
    }
}

/// When a span ended, in nanoseconds of its server's clock.
pub(crate) fn end_ns(span: &Span) -> i64 {
    span.start_ns.saturating_add(span.duration_ns.max(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watch::sample;

    #[test]
    fn a_line_says_what_arrived_and_is_read_back() {
        // An event of a kind that is newer than this watcher has no body.
        let unknown = StreamTimelineResponse { event: None, ..sample::heartbeat() };
        for event in sample::lost_update().into_iter().chain([sample::gap(), sample::heartbeat(), unknown]) {
            let arrival = Arrival { arrived_us: 1_767_225_600_000_001, source: 1, news: News::Event(event) };
            let mut line = String::new();
            arrival.write(&mut line);
            assert_eq!(line.lines().count(), 1);
            assert_eq!(serde_json::from_str::<Arrival>(&line).unwrap(), arrival, "{line}");
        }
        for news in [
            News::Connected { after: None },
            News::Connected { after: Some(7) },
            News::Disconnected { error: "Unavailable: \"gone\"\n".to_owned(), retry_in_ms: 93 },
        ] {
            let arrival = Arrival { arrived_us: 5, source: 0, news };
            let mut line = String::new();
            arrival.write(&mut line);
            assert_eq!(serde_json::from_str::<Arrival>(&line).unwrap(), arrival, "{line}");
        }
    }

    #[test]
    fn the_form_is_stable() {
        let write = sample::lost_update().swap_remove(3);
        let arrival = Arrival { arrived_us: 5, source: 0, news: News::Event(write) };
        let expected = json!({
            "arrived_us": 5, "source": 0,
            "event": {
                "epoch": "0123456789abcdef", "sequence": 4, "instance": "host-1",
                "span": {
                    "user_id": 7, "request_id": sample::A, "lane": 1, "strategy": "none", "phase": "PHASE_WRITE",
                    "attempt": 1, "start_ns": 1_000_410_000, "duration_ns": 490_000,
                    "written": {"balance": "990.00", "version": 2},
                },
            },
        });
        assert_eq!(serde_json::to_value(&arrival).unwrap(), expected);
    }

    #[test]
    fn what_is_not_an_arrival_is_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"arrived_us":1,"source":0}"#,
            r#"{"arrived_us":1,"source":-1,"connected":{"after":null}}"#,
            r#"{"arrived_us":1.5,"source":0,"connected":{"after":null}}"#,
            r#"{"arrived_us":1,"source":0,"event":{"epoch":"a","sequence":1}}"#,
            r#"{"arrived_us":1,"source":0,"event":{"epoch":"a","sequence":1,"instance":"b","spam":{}}}"#,
            r#"{"arrived_us":1,"source":0,"event":{"epoch":"a","sequence":1,"instance":"b","span":{"user_id":"7"}}}"#,
            r#"{"arrived_us":1,"source":0,"event":{"epoch":"a","sequence":1,"instance":"b","span":{"phase":"REED"}}}"#,
        ] {
            assert!(serde_json::from_str::<Arrival>(line).is_err(), "{line}");
        }
    }
}
