//! A small timeline for tests, as the server tells it.

use zbl_proto::v1::stream_timeline_response::Event;
use zbl_proto::v1::{Contender, Gap, GapReason, Heartbeat, Phase, Race, Span, State, StreamTimelineResponse};

pub(crate) const A: &str = "5be0d113-0000-4000-8000-000000000001";
pub(crate) const B: &str = "a91c4f02-0000-4000-8000-000000000002";

pub(crate) fn event(sequence: i64, event: Event) -> StreamTimelineResponse {
    StreamTimelineResponse {
        epoch: "0123456789abcdef".to_owned(),
        sequence,
        instance: "host-1".to_owned(),
        event: Some(event),
    }
}

pub(crate) fn span(lane: i32, phase: Phase, start_us: i64, end_us: i64) -> Span {
    Span {
        user_id: 7,
        request_id: if lane == 1 { A } else { B }.to_owned(),
        lane,
        strategy: "none".to_owned(),
        phase: phase.into(),
        attempt: 1,
        start_ns: 1_000_000_000 + start_us * 1000,
        duration_ns: (end_us - start_us) * 1000,
        ..Default::default()
    }
}

pub(crate) fn state(balance: &str, version: i64) -> Option<State> {
    Some(State { balance: balance.to_owned(), version })
}

pub(crate) fn contender(request_id: &str, version: i64) -> Contender {
    Contender {
        request_id: request_id.to_owned(),
        version,
        delta: "-10.00".to_owned(),
        balance_after: "990.00".to_owned(),
    }
}

/// A lost update as the server tells it: in the order the phases ended.
pub(crate) fn lost_update() -> Vec<StreamTimelineResponse> {
    let race = Race {
        user_id: 7,
        overwriter: Some(contender(B, 3)),
        seen: state("1000.00", 1),
        victims: vec![contender(A, 2)],
        victims_omitted: 0,
        destroyed: "10.00".to_owned(),
    };
    [
        Event::Span(Span { seen: state("1000.00", 1), ..span(2, Phase::Read, 150, 390) }),
        Event::Span(Span { seen: state("1000.00", 1), ..span(1, Phase::Read, 0, 400) }),
        Event::Span(span(1, Phase::Compute, 400, 410)),
        Event::Span(Span { written: state("990.00", 2), ..span(1, Phase::Write, 410, 900) }),
        Event::Span(Span { written: state("990.00", 2), ..span(1, Phase::Commit, 900, 2000) }),
        Event::Span(span(2, Phase::Compute, 390, 2100)),
        Event::Span(Span { written: state("990.00", 3), ..span(2, Phase::Write, 2100, 2500) }),
        Event::Span(Span {
            written: state("990.00", 3),
            destroyed: "10.00".to_owned(),
            ..span(2, Phase::Commit, 2500, 3600)
        }),
        Event::Race(race),
    ]
    .into_iter()
    .zip(1..)
    .map(|(kind, sequence)| event(sequence, kind))
    .collect()
}

/// The same on account 7, and the same spans under the same request ids but without a race on account 8.
pub(crate) fn lost_update_beside_its_twin() -> Vec<StreamTimelineResponse> {
    let twins = lost_update().into_iter().filter_map(|mut told| match &mut told.event {
        Some(Event::Span(span)) => {
            span.user_id = 8;
            Some(told)
        }
        _ => None,
    });
    // The race comes last, when all spans of either account are known.
    twins.chain(lost_update()).zip(1..).map(|(told, sequence)| StreamTimelineResponse { sequence, ..told }).collect()
}

/// The server was restarted.
pub(crate) fn gap() -> StreamTimelineResponse {
    let gap = Gap { reason: GapReason::EpochChanged.into(), after_sequence: 4099, next_sequence: 1 };
    StreamTimelineResponse { epoch: "fedcba98".to_owned(), ..event(0, Event::Gap(gap)) }
}

/// The server has nothing new.
pub(crate) fn heartbeat() -> StreamTimelineResponse {
    event(120, Event::Heartbeat(Heartbeat {}))
}
