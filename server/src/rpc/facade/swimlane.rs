//! The timeline's ring as JSON: what `GET /api/swimlane` answers. Spans and races as they are recorded, newest last.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    account::State,
    timeline::{Contender, Event, Race, Span, Timeline},
};

/// Events in an answer when nothing is said.
const LIMIT_DEFAULT: usize = 1000;

/// The most events in an answer: about 4 MB of JSON.
const LIMIT_MOST: usize = 10_000;

/// Which events.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Only this account's; every account's when absent.
    #[serde(default)]
    user_id: i64,
    /// Only those after this sequence.
    #[serde(default)]
    after: u64,
    /// At most so many, the newest.
    limit: Option<usize>,
}

/// An answer.
#[derive(Serialize)]
pub(super) struct Swimlane {
    epoch: String,
    newest_sequence: u64,
    events: Vec<Recorded>,
}

#[derive(Serialize)]
struct Recorded {
    sequence: u64,
    #[serde(flatten)]
    event: Shown,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Shown {
    Span(ShownSpan),
    Race(ShownRace),
}

#[derive(Serialize)]
struct ShownSpan {
    user_id: i64,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    lane: u32,
    strategy: &'static str,
    phase: &'static str,
    attempt: u32,
    start_ns: i64,
    duration_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<ShownState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<ShownState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
}

#[derive(Serialize)]
struct ShownRace {
    user_id: i64,
    overwriter: ShownContender,
    seen: ShownState,
    victims: Vec<ShownContender>,
    victims_omitted: u32,
    destroyed: String,
}

/// A balance at a version; the balance as a decimal string.
#[derive(Serialize)]
struct ShownState {
    balance: String,
    version: i64,
}

#[derive(Serialize)]
struct ShownContender {
    request_id: String,
    version: i64,
    delta: String,
    balance_after: String,
}

/// The events selected, the newest of them where there are more than fit.
pub(super) fn events(timeline: &Timeline, selection: &Selection) -> Swimlane {
    let limit = selection.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MOST);
    let mut events = VecDeque::new();
    for event in timeline.retained(selection.after, selection.user_id) {
        events.push_back(event);
        if events.len() > limit {
            events.pop_front();
        }
    }
    let events = events.iter().map(|(sequence, event)| Recorded { sequence: *sequence, event: shown(event) });
    Swimlane { epoch: timeline.epoch().to_string(), newest_sequence: timeline.newest(), events: events.collect() }
}

fn shown(event: &Event) -> Shown {
    match event {
        Event::Span(span) => Shown::Span(shown_span(span)),
        Event::Race(race) => Shown::Race(shown_race(race)),
    }
}

fn shown_span(span: &Span) -> ShownSpan {
    let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    ShownSpan {
        user_id: span.user_id,
        request_id: span.request_id.to_string(),
        trace_id: span.trace_id.map(|id| id.to_string()),
        lane: span.lane,
        strategy: span.strategy,
        phase: span.phase.name(),
        attempt: span.attempt,
        start_ns: span.start_ns,
        duration_ns: nanos(span.duration),
        seen: span.noted.seen.map(shown_state),
        written: span.noted.written.map(shown_state),
        failure: span.failure,
    }
}

fn shown_race(race: &Race) -> ShownRace {
    ShownRace {
        user_id: race.user_id,
        overwriter: shown_contender(&race.overwriter),
        seen: shown_state(race.seen),
        victims: race.victims.iter().map(shown_contender).collect(),
        victims_omitted: race.victims_omitted,
        destroyed: race.destroyed.to_string(),
    }
}

fn shown_state(state: State) -> ShownState {
    ShownState { balance: state.balance.to_string(), version: state.version }
}

fn shown_contender(contender: &Contender) -> ShownContender {
    ShownContender {
        request_id: contender.request_id.to_string(),
        version: contender.version,
        delta: contender.delta.to_string(),
        balance_after: contender.balance_after.to_string(),
    }
}
